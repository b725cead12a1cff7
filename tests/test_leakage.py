import json
import pathlib
import re
import shutil
import subprocess
import sys

import built_index
import numpy as np
import prepared_tree
import pytest
from built_index import row
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import build, leakage, phash
from data_prep.layout import PreparedDataError
from msddf_jax.opencv import cv2

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ffpp_indexes(tmp_path_factory):
    """Indexes of FaceForensics++ c23 and c40 with the structure of the real lists, without records."""
    root = tmp_path_factory.mktemp("ffpp")
    built_index.write_ffpp_lists(root / "lists")
    for compression in ("c23", "c40"):
        rows = built_index.ffpp_rows(root / "lists", compression)
        built_index.write_set(root / "built", f"faceforensics/{compression}", rows)
    return root / "built"


def _picture(seed, size=64):
    """A smooth picture, as different from that of another seed as two scenes are."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def _jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _write_pictures(root, change=lambda picture: picture):
    """A prepared tree of the toy set whose frame i of a video is a picture of its own."""
    prepared_tree.write_tree(root)
    for path in sorted(root.glob("*/*/c23/frames/*/*.png")):
        kind, number = path.parts[-5], int(path.parent.name[:3]) * 100 + int(path.stem)
        seed = [number, 0 if kind == "youtube" else 1 + prepared_tree.TOY.index(kind)]
        cv2.imwrite(str(path), change(_picture(seed)))
    for path in root.glob("*/*/c23/masks/*/*.png"):
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two built toy sets of the same pictures: as they are, and as JPEG leaves them."""
    root = tmp_path_factory.mktemp("pictures")
    sets = {}
    for name, change in (("plain", lambda p: p), ("jpeg", lambda p: _jpeg(p, 60))):
        sets[name] = build.build("faceforensics", "toy", _write_pictures(root / name, change), root / f"built_{name}")
    return sets


def _renamed(folder, out, columns):
    """A copy of a built set in which no name meets the original's: what only pictures can tell."""
    shutil.copytree(folder, out)
    for path in out.glob("index-*.csv"):
        text = path.read_text().splitlines()
        header = text[0].split(",")
        rows = [dict(zip(header, line.split(","), strict=True)) for line in text[1:]]
        for r in rows:
            for column in columns:
                r[column] = f"other-{r[column]}" if r[column] else ""
            r["source_identity"] = r["target_identity"] = ""
        path.write_text("\n".join([text[0], *(",".join(r[c] for c in header) for r in rows)]) + "\n")
    return out


def _run(tmp_path, *arguments, data_dir=None):
    """(exit code, the JSON written)."""
    out = tmp_path / "leakage.json"
    where = ["--data_dir", str(data_dir)] if data_dir else []
    code = leakage.main([*map(str, arguments), *where, "--out", str(out)])
    return code, json.loads(out.read_text())


def test_official_faceforensics_has_the_seven_straddlers_and_passes(ffpp_indexes, tmp_path, capsys):
    code, report = _run(tmp_path, "faceforensics/c23", "--names_only", data_dir=ffpp_indexes)
    assert (code, report["verdict"]) == (0, "report")
    found = {x for pair in report["pairs"] for x in pair["examples"]}
    assert found == {"605/606", "639/640", "755/756", "837/838", "875/876", "954/955", "982/983"}
    assert sum(pair["count"] for pair in report["pairs"]) == 7
    assert report["counts"] == {"ok": 1, "report": 2, "error": 0}
    assert [(s["name"], s["role"], s["videos"]) for s in report["sets"]] == [
        ("faceforensics/c23:test", "test", 280),
        ("faceforensics/c23:train", "train", 1440),
        ("faceforensics/c23:validation", "validation", 280),
    ]
    out = capsys.readouterr().out
    assert "known straddlers" in out and "755/756, 954/955" in out
    assert "validation comes from faceforensics/c23:validation" in out
    code, report = _run(tmp_path, "faceforensics/c23", "--names_only", "--strict", data_dir=ffpp_indexes)
    assert (code, report["counts"]["error"]) == (1, 2)


def test_training_clips_at_another_compression_exit_with_1(ffpp_indexes, tmp_path, capsys):
    arguments = ["faceforensics/c23:train", "faceforensics/c40:train", "--train", "faceforensics/c23:train"]
    code, report = _run(tmp_path, *arguments, "--names_only", data_dir=ffpp_indexes)
    assert (code, report["verdict"]) == (1, "error")
    shared = next(pair for pair in report["pairs"] if pair["check"] == "videos in both")
    assert (shared["count"], len(shared["examples"])) == (1440, 10)
    assert shared["examples"][0] == "000 (c23, c40)"
    assert "1440" in capsys.readouterr().out


def test_celebdf_reports_what_its_list_makes_inevitable(tmp_path):
    real = lambda clip: row(clip, source_identity=f"cdf:{clip[:3]}", target_identity=f"cdf:{clip[:3]}")
    built_index.write_set(tmp_path, "celebdf/v2", {"train": [real("id0_0000")], "test": [real("id0_0001")]})
    code, report = _run(tmp_path, "celebdf/v2", "--names_only", data_dir=tmp_path)
    assert code == 0
    assert [(p["check"], p["count"], p["verdict"]) for p in report["pairs"]] == [("identities in both", 1, "report")]


def test_the_folder_of_a_built_set_is_an_argument_too(ffpp_indexes, tmp_path):
    folder = shutil.copytree(ffpp_indexes / "faceforensics/c23/1.0.0", tmp_path / "moved")
    code, report = _run(tmp_path, f"{folder}:train", f"{folder}:test", "--names_only")
    assert code == 0 and report["sets"][0]["name"] == "faceforensics/c23:train"
    assert {x for p in report["pairs"] for x in p["examples"]} == {"755/756", "954/955"}


def test_the_newest_version_counts(tmp_path):
    for version, video in (("1.9.0", "old"), ("1.10.0", "new")):
        folder = built_index.write_set(tmp_path / version, "celebdf/v2", {"test": [row(video)], "train": [row("a")]})
        shutil.copytree(folder, tmp_path / "celebdf/v2" / version)
    built = leakage.open_splits(["celebdf/v2:test"], tmp_path)
    assert [b.videos for b in built] == [["new"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["faceforensics/c32:train"], "no built data set, neither .*c32 nor the folder .*faceforensics/c23"),
        (["faceforensics/c23:tset"], "no index of a split 'tset'; it has test, train, validation"),
        (["faceforensics/c23:test", "faceforensics/c40:test"], r"nothing to compare in .*say --train"),
        (["faceforensics/c23:train", "--train", "faceforensics/c40"], "--train faceforensics/c40: not among"),
        (["faceforensics/c23", "faceforensics/c23:test", "--train", "faceforensics/c23:test"], "stands twice"),
    ],
)
def test_arguments_that_name_nothing_exit_with_2(ffpp_indexes, capsys, arguments, message):
    code = leakage.main([*arguments, "--names_only", "--data_dir", str(ffpp_indexes)])
    err = capsys.readouterr().err
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err


def test_wrong_flags_exit_with_2():
    for arguments in ([], ["a", "--names_only", "--phash"]):
        with pytest.raises(SystemExit) as stop:
            leakage.main(arguments)
        assert stop.value.code == 2


def test_a_damaged_index_is_named(ffpp_indexes, tmp_path, capsys):
    folder = shutil.copytree(ffpp_indexes / "faceforensics/c23/1.0.0", tmp_path / "moved")
    (folder / "index-train.csv").write_bytes(b"\xff\xfe")
    assert leakage.main([str(folder), "--names_only"]) == 2
    assert "index-train.csv is no index" in capsys.readouterr().err


def test_command_line_as_a_process(ffpp_indexes, tmp_path):
    command = [sys.executable, "-m", "data_prep.leakage", "faceforensics/c23:train", "faceforensics/c23:test"]
    done = subprocess.run(
        [*command, "--names_only", "--data_dir", str(ffpp_indexes)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("verdict: report\n")


def test_frames_are_found_by_their_bytes_where_no_name_tells(pictures, tmp_path):
    other = _renamed(pictures["plain"], tmp_path / "other", ("video_id", "pair_id", "group_id"))
    code, report = _run(
        tmp_path, f"{pictures['plain']}:train", f"{other}:train", "--train", f"{pictures['plain']}:train"
    )
    assert code == 1
    # 4 reals and 16 fakes of three frames.
    assert [(p["check"], p["count"], p["verdict"]) for p in report["pairs"]] == [
        ("stored frames in both, byte for byte", 60, "error")
    ]
    assert "000 (other-000)" in report["pairs"][0]["examples"]


def test_frames_are_found_by_what_they_look_like_after_jpeg(pictures, tmp_path):
    other = _renamed(pictures["jpeg"], tmp_path / "other", ("video_id", "pair_id", "group_id"))
    arguments = [f"{pictures['plain']}:train", f"{other}:train", "--train", f"{pictures['plain']}:train"]
    code, report = _run(tmp_path, *arguments)
    assert (code, report["verdict"]) == (0, "ok")
    code, report = _run(tmp_path, *arguments, "--phash")
    assert code == 1
    assert [(p["check"], p["count"], p["verdict"]) for p in report["pairs"]] == [
        ("pairs of videos that look the same", 20, "error")
    ]
    # The splits of one set hold other pictures.
    code, report = _run(tmp_path, pictures["plain"], "--phash")
    assert (code, report["verdict"]) == (0, "ok")


def test_one_frame_alike_is_reported_two_are_the_same_video():
    split = lambda *hashes: phash.Frames(*[np.zeros(0)] * 2, np.zeros(len(hashes), int), np.array(hashes, np.uint64))
    first = split(0, 2**40 - 1, 2**63 - 1, 0b1010101 << 50)
    assert phash.similar_videos(first, split(0b1111, 2**20 - 1, 2**50 - 1, 7 << 61)) == (set(), {(0, 0)})
    assert phash.similar_videos(first, split(0b1111, (2**40 - 1) ^ 1, 2**50 - 1, 7 << 61)) == ({(0, 0)}, set())
    # One frame of one, matched by one: all there is.
    assert phash.similar_videos(split(1), split(2)) == ({(0, 0)}, set())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 2**32), st.sampled_from([1, 2, 8]), st.integers(0, 60), st.integers(0, 60))
def test_near_pairs_are_those_of_all_pairs(distance, seed, clusters, n, m):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, clusters, np.uint64)

    def draw(number):
        # Up to eight flipped bits around few centres: pairs on both sides of the limit.
        flips = [np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, k).astype(np.uint64), initial=0)
                 for k in rng.integers(0, 5, number)]  # fmt: skip
        return rng.choice(centres, number) ^ np.array(flips, np.uint64)

    first, second = draw(n), draw(m)
    i, j = phash.near_pairs(first, second, distance)
    expected = np.argwhere(np.bitwise_count(first[:, None] ^ second[None]) <= distance)
    np.testing.assert_array_equal(np.stack([i, j], -1), expected.reshape(-1, 2))


def test_near_pairs_in_small_pieces_and_beyond_the_limit(monkeypatch):
    hashes = np.zeros(50, np.uint64)
    monkeypatch.setattr(phash, "_MAX_CANDIDATES", 7)
    assert len(phash.near_pairs(hashes, hashes)[0]) == 2500
    with pytest.raises(ValueError, match="distance 6: the lookup finds pairs of at most 5"):
        phash.near_pairs(hashes, hashes, 6)


def test_records_that_are_not_those_of_the_index_are_an_error(pictures, tmp_path, capsys):
    folder = shutil.copytree(pictures["plain"], tmp_path / "short")
    path = folder / "index-test.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert leakage.main([f"{folder}:train", f"{folder}:test"]) == 1
    assert "index-test.csv lists 27 records, the split has 30" in capsys.readouterr().err


def test_hashes_are_of_stored_bytes_and_of_four_frames(pictures):
    counts = [3] * 20
    frames = phash.read_frames(pictures["plain"], "train", counts)
    assert frames.video.tolist() == np.repeat(np.arange(20), 3).tolist()
    assert len(set(frames.digest.tolist())) == 60
    # Videos of three frames give three.
    assert frames.sampled_video.tolist() == frames.video.tolist()
    expected = cv2.img_hash.pHash(_picture([0, 0])).tobytes()
    assert int(frames.hash[0]) == int.from_bytes(expected, "little")
    without = phash.read_frames(pictures["plain"], "train", counts, perceptual=False)
    assert len(without.hash) == 0
    with pytest.raises(PreparedDataError, match="no image"):
        phash._images(b"", "record 0")
