"""People's own files from folder to open source: names, look-alikes, duplicates, what is left out."""

import json
import os

import numpy as np
import pytest
import tiny_downloads
from test_folder import NAMES

from data_prep import build, phash, prepare
from msddf_jax.data import overlap, source
from msddf_jax.opencv import cv2

SIZE = 64


def picture(seed):
    """A smooth picture, as different from that of another seed as two scenes are."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def jpeg(image, quality=70):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def write(root, pictures):
    """PNG files, whatever their suffix. pictures: {path: uint8 image}. Returns root."""
    for name, image in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return root


def prepared(root, *flags, name="mine", config="crops", code=0):
    """Prepares into a folder beside the root, and returns it."""
    out = root.with_name(f"{root.name}-out")
    arguments = [f"--root={root}", f"--out={out}", f"--name={name}", f"--config={config}", f"--size={SIZE}"]
    assert prepare.main(["--layout=folder", "--landmarks=sidecar", "--workers=1", *arguments, *flags]) == code
    return out


def built(out, *flags, name="mine", code=0):
    data = out.with_name("data")
    assert build.main(["folder", f"--name={name}", f"--manual_dir={out}", f"--data_dir={data}", *flags]) == code
    return data


def opened(data, name="mine"):
    """{video_id: (split, label, method, group_id, pair_id)} of a built set."""
    found = {}
    for split in source.split_names(f"folder/{name}", data):
        videos = source.open_source(f"folder/{name}", split, data).videos
        columns = [videos[column].tolist() for column in ("video_id", "label", "method", "group_id", "pair_id")]
        found |= {row[0]: (split, *row[1:]) for row in zip(*columns, strict=True)}
    return found


def test_names_that_are_hard_to_write(tmp_path, capsys):
    names = [name for name in NAMES[:6] if "x" * 9 not in name] + ["x" * 251 + ".png"]
    pictures = {f"{c}/{n}": picture([i, k]) for k, c in enumerate(("real", "fake")) for i, n in enumerate(names)}
    out = prepared(write(tmp_path / "photos", pictures))
    data = built(out)
    wanted = {f"mine/{os.fsencode(path).decode(errors='backslashreplace')}" for path in pictures}
    found = opened(data)
    assert set(found) == wanted and {row[3].split(":")[0] for row in found.values()} == {"mine/file"}
    for split in ("train", "validation", "test"):
        opened_set = source.open_source("folder/mine", split, data)
        assert opened_set[0]["video_id"] in wanted and opened_set[0]["source_path"].isascii()
        folder = data / "folder/mine/1.0.0"
        assert set(overlap.read_index(folder / f"index-{split}.csv")["video_id"]) <= wanted
    said = capsys.readouterr().out
    assert "train on it: python -m msddf_jax.main --config configs/detectors/efficientnet_lite0.py:folder/mine" in said
    assert f"--config.data.data_dir={data}" in said
    assert json.loads((data / "folder/mine/duplicates.json").read_text())["verdict"] == "ok"


def test_sets_lie_side_by_side(tmp_path):
    for number, name in enumerate(("one", "two")):
        root = tmp_path / name
        write(root, {f"{c}/{i}.png": picture([number, i, k]) for k, c in enumerate(("real", "fake")) for i in range(3)})
        data = built(prepared(root, name=name), name=name)
    assert {p.name for p in (data / "folder").iterdir()} == {"one", "two"}
    both = source.mix_sources([source.open_source(f"folder/{name}", "train", data) for name in ("one", "two")])
    assert {video.split("/")[0] for video in both.videos["video_id"].tolist()} == {"one", "two"}
    a, b = (
        overlap.from_sources([source.open_source(f"folder/{n}", "train", data)], r)
        for n, r in (("one", "train"), ("two", "test"))
    )
    # Names have nothing in common; what the pictures show, they do not tell.
    assert [finding.verdict for finding in overlap.compare(*a, *b)] == ["report"]
    with pytest.raises(FileNotFoundError, match=r"build folder --name three --manual_dir"):
        source.open_source("folder/three", "train", data)


def test_bad_files_are_left_out(tmp_path, capsys):
    """An empty file and one of text: told, and a fifth of all may be bad."""
    root = write(
        tmp_path / "a", {f"{c}/{i}.png": picture([i, k]) for k, c in enumerate(("real", "fake")) for i in range(5)}
    )
    (root / "real/empty.jpg").write_bytes(b"")
    (root / "fake/text.png").write_text("not an image")
    out = prepared(root)
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["corrupt_image"] == 2 and report["videos"] == {"found": 12, "prepared": 10, "bad": 2}
    assert len(opened(built(out))) == 10
    for i in range(3):
        (root / f"real/empty{i}.jpg").write_bytes(b"")
    prepared(root, code=1)
    assert "5 of 15 videos are bad, more than --max_bad_fraction=0.2 allows" in capsys.readouterr().err


def test_videos_and_clips(tmp_path):
    """Faces are looked for; sixteen frames in a row are a clip."""
    names = [f"{c}/{i}.mp4" for c in ("real", "fake/simswap") for i in range(3)]
    root = tiny_downloads.write_videos(tmp_path / "v", *names)
    for number, name in enumerate(names):  # bytes behind the end are nothing to a decoder
        with open(root / name, "ab") as file:
            file.write(bytes([number]) * 8)
    out = prepared(root, "--allow_duplicates", config="scenes")
    data = built(out, "--allow_duplicates")
    found = opened(data)
    assert found["mine/fake/simswap/1.mp4"][2::2] == ("simswap", "mine/real/1.mp4")
    assert {row[0] for row in found.values()} == {"train", "validation", "test"}
    built(out, name="mine_clip16", code=1)  # there are three frames


def test_look_alikes_are_in_one_split(tmp_path, capsys):
    """The same photo at another quality, under another name: found when the crops are there."""
    pictures = {f"{c}/{c}{i}.png": picture([i, k]) for k, c in enumerate(("real", "fake")) for i in range(20)}
    copies = {f"real/copy of {i}.png": jpeg(picture([i, 0])) for i in range(20)}
    root = write(tmp_path / "a", pictures | copies)
    found = opened(built(prepared(root)))
    assert "look_alike: 20" in capsys.readouterr().out
    for i in range(20):
        assert found[f"mine/real/copy of {i}.png"][0::3] == found[f"mine/real/real{i}.png"][0::3]
    counts = {
        split: sum(row[:2] == (split, "real") for row in found.values()) for split in ("train", "validation", "test")
    }
    assert counts == {"train": 28, "validation": 6, "test": 6}
    # Under another name the same splits.
    again = opened(built(prepared(root, name="other"), name="other"), "other")
    assert {key.split("/", 1)[1]: row[0] for key, row in again.items()} == {
        key.split("/", 1)[1]: row[0] for key, row in found.items()
    }


def test_faces_of_one_picture_stay_together(tmp_path):
    """With every face a record of its own, those of a video and its look-alikes are in one split."""
    names = [f"{c}/{i}.mp4" for c in ("real", "fake") for i in range(3)]
    root = tiny_downloads.write_videos(tmp_path / "v", *names)
    for number, name in enumerate(names):
        with open(root / name, "ab") as file:
            file.write(bytes([number]) * 8)
    out = prepared(root, "--faces=all", "--allow_duplicates", config="scenes")
    found = opened(built(out, "--allow_duplicates"))
    assert set(found) == {f"mine/{name}#1" for name in names}
    assert all(found[f"mine/real/{i}.mp4#1"][0] == found[f"mine/fake/{i}.mp4#1"][0] for i in range(3))
    # One clip in six files: without leave they are one group, which is too few.
    prepared(root, "--faces=all", config="scenes", code=1)


def test_a_damaged_crop_is_named(tmp_path, capsys):
    root = write(
        tmp_path / "a", {f"{c}/{i}.png": picture([i, k]) for k, c in enumerate(("real", "fake")) for i in range(3)}
    )
    out = prepared(root)
    crop = out / "folder_crops/mine/real/frames/1.png/000.png"
    crop.write_bytes(crop.read_bytes()[:40])
    prepared(root, code=1)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and str(crop) in error and "does not decode" in error


def _given(tmp_path, **more):
    names = [f"{s}/{c}/{s}{c}{i}.png" for s in ("train", "val", "test") for c in ("real", "fake") for i in range(2)]
    pictures = {name: picture([i]) for i, name in enumerate(names)}
    return write(tmp_path / "given", pictures | more), pictures


def test_look_alikes_in_given_splits_stop_the_build(tmp_path, capsys):
    root, pictures = _given(tmp_path)
    write(root, {"train/fake/again.png": jpeg(pictures["test/fake/testfake0.png"])})
    out = prepared(root)
    data = built(out, code=1)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    pair = "train:mine/train/fake/again.png and test:mine/test/fake/testfake0.png (looks the same)"
    assert error.startswith("data_prep.build: 1 times something stands in two splits") and pair in error
    assert not (data / "folder/mine/1.0.0").exists()
    report = json.loads((data / "folder/mine/duplicates.json").read_text())
    assert report["verdict"] == "error" and [d["what"] for d in report["duplicates"]] == ["looks the same"]
    built(out, "--allow_duplicates")
    assert "allowed: 1 times" in capsys.readouterr().out and len(opened(data)) == 13


def test_one_picture_in_both_classes(tmp_path):
    """Other bytes, the same pixels: prepare cannot tell, the build does."""
    root, pictures = _given(tmp_path)
    (root / "train/fake/x.bmp").write_bytes(cv2.imencode(".bmp", pictures["train/real/trainreal0.png"])[1].tobytes())
    out = prepared(root)
    data = built(out, code=1)
    report = json.loads((data / "folder/mine/duplicates.json").read_text())
    assert report["duplicates"] == [
        {
            "first": "train:mine/train/real/trainreal0.png",
            "second": "train:mine/train/fake/x.bmp",
            "what": "real and fake",
        }
    ]


def test_prepare_refuses_in_one_line(tmp_path, capsys):
    root, pictures = _given(tmp_path)
    write(root, {"train/fake/again.png": pictures["test/fake/testfake0.png"]})
    out = prepared(root, code=1)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "holds the same bytes as train/fake/again.png in train" in error
    prepared(root, "--allow_duplicates")
    capsys.readouterr()
    assert not (out / "catalog/folder-other.jsonl").exists() and (out / "catalog/folder-mine.jsonl").exists()
    for arguments, match in (
        ([f"--root={root}"], "needs --out"),
        ([f"--root={root}", f"--out={out}", "--name=No"], "expected 1 to 40 of a-z"),
    ):
        assert prepare.main(["--layout=folder", "--landmarks=sidecar", *arguments]) == 1
        assert match in capsys.readouterr().err
    assert prepare.main(["--layout=uadfv", f"--root={root}", "--name=x", "--landmarks=sidecar"]) == 1
    assert "are for your own files" in capsys.readouterr().err


def test_flags_of_the_build(tmp_path, capsys):
    folder = [f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'data'}"]
    for flags in (
        ["folder", "--config=mine"],
        ["uadfv", "--name=mine"],
        ["uadfv", "--config=default", "--allow_duplicates"],
    ):
        with pytest.raises(SystemExit):
            build.main([*flags, *folder])
        assert "are for the data set folder" in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    for name, match in (("No", "expected 1 to 40 of a-z"), ("none", "no catalog")):
        assert build.main(["folder", f"--name={name}", *folder]) == 1
        assert match in capsys.readouterr().err


def test_confirm_tells_people_apart():
    """A pair that rests on one hash is looked at again; one of two frames is not."""
    a, b = picture(0), picture(1)
    show = lambda image: lambda row: [image]
    one = {(0, 0)}
    assert phash.confirm(one, [1], [1], show(a), show(jpeg(a, 40))) == one
    half = cv2.resize(cv2.resize(a, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA), (SIZE, SIZE))
    assert phash.confirm(one, [1], [5], show(a), show(half)) == one
    assert phash.confirm(one, [1], [1], show(a), show(b)) == set()
    assert phash.confirm(one, [1], [1], show(a), show(np.zeros_like(a))) == set()
    assert phash.confirm(one, [2], [2], show(a), show(b)) == one


def test_look_alikes_of_videos(tmp_path):
    """Files sampled as records are: the same pairs, against all pairs of pictures."""
    videos = []
    for number, seeds in enumerate([(0, 1, 2), (3, 4), (2, 1, 9), (5,), (5,), ()]):
        frames = [picture(seed) if number < 2 else jpeg(picture(seed), 80) for seed in seeds]
        write(tmp_path, {f"{number}/{i}.png": frame for i, frame in enumerate(frames)})
        videos.append([tmp_path / f"{number}/{i}.png" for i in range(len(seeds))])
    assert phash.look_alikes(videos) == {(0, 2), (3, 4)}
