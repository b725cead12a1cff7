"""WildDeepfake by hand. Traps: plain tar archives named .tar.gz; folders spelt with a blank; numbers beyond 999."""

import io
import tarfile

import hypothesis
import PIL.Image
import pytest
import tiny_images
from hypothesis import strategies as st

from data_prep import build
from data_prep.catalog import DownloadError, Options
from data_prep.wilddeepfake import downloads
from msddf_jax.data.source import open_source


def _tar(path, names, mode="w"):
    """An archive of tiny images; the first pixel's red is the frame number modulo 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name in names:
            data = io.BytesIO()
            image = PIL.Image.new("RGB", (16, 16))
            image.putpixel((0, 0), (downloads.frame_number(name.rsplit("/", 1)[-1]) % 256, 0, 0))
            image.save(data, "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))


def _write(root, spelling="{}_{}"):
    folder = lambda label, split: root / "deepfake_in_the_wild" / spelling.format(label, split)
    _tar(folder("real", "train") / "0.tar.gz", ["0/998.png", "0/999.png", "0/1000.png", "1/5.png"])
    _tar(folder("fake", "train") / "2.tar.gz", ["2/10/3.png", "2/11/4.png"], "w:gz")
    _tar(folder("fake", "train") / "10.tar.gz", ["10/1/7.png"])
    _tar(folder("real", "test") / "0.tar.gz", ["0/12.png"])
    _tar(folder("fake", "test") / "0.tar.gz", ["0/12.png"])
    return root


def _find(root, **options):
    return downloads.find(root, "default", Options(**options))


@pytest.mark.parametrize("spelling", ["{}_{}", "{} {}"])
def test_by_hand(tmp_path, spelling):
    entries, problems = _find(_write(tmp_path, spelling))
    assert problems == []
    assert [(e.split, e.fields["video_id"], e.fields["group_id"]) for e in entries] == [
        ("train", "real_train/0/0", "real_train/0"),
        ("train", "real_train/0/1", "real_train/0"),
        ("train", "fake_train/10/1", "fake_train/10"),
        ("train", "fake_train/2/10", "fake_train/2"),
        ("train", "fake_train/2/11", "fake_train/2"),
        ("test", "real_test/0/0", "real_test/0"),
        ("test", "fake_test/0/0", "fake_test/0"),
    ]
    assert [number for number, _ in entries[0].images] == [998, 999, 1000]
    assert entries[3].fields["method"] == "unknown" and entries[3].fields["target_identity"] == ""
    again, _ = _find(tmp_path)
    assert again == entries
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deepfake_in_the_wild", "deepfake_in_the_wild-unpacked"]


def test_built(tmp_path):
    tiny_images.prepare_crops(_write(tmp_path / "root"), tmp_path / "prepared", "wilddeepfake", "default")
    build.build("wilddeepfake", "default", tmp_path / "prepared", tmp_path / "built")
    train = open_source("wilddeepfake/default", "train", tmp_path / "built")
    assert train.frame_index.tolist() == [998, 999, 1000, 5, 7, 3, 4]
    assert [train[i]["image"][0, 0, 0] for i in range(4)] == [230, 231, 232, 5]
    assert train.videos["label"].tolist() == ["real"] * 2 + ["fake"] * 3


def test_both_spellings_of_a_folder_are_refused(tmp_path):
    _write(tmp_path)
    (tmp_path / "deepfake_in_the_wild" / "fake train").mkdir()
    with pytest.raises(DownloadError, match="fake_train and fake train"):
        _find(tmp_path)


def test_archives_that_lead_out_or_are_cut_short(tmp_path):
    root = _write(tmp_path) / "deepfake_in_the_wild"
    _tar(root / "fake_test" / "3.tar.gz", ["../../../9.png"])
    with pytest.raises(DownloadError, match=r"outside the target.*bad_archive"):
        _find(tmp_path)
    data = (root / "fake_test" / "0.tar.gz").read_bytes()
    (root / "fake_test" / "4.tar.gz").write_bytes(data[:900])
    entries, problems = _find(tmp_path, allow_missing=True)
    assert [(p.code, p.path) for p in problems] == [("bad_archive", f"fake_test/{n}.tar.gz") for n in (3, 4)]
    assert len(entries) == 7 and not (tmp_path / "9.png").exists()


def test_unpacked_folders_and_odd_names(tmp_path):
    root = _write(tmp_path) / "deepfake_in_the_wild"
    tiny_images.write_pngs(root, ["real_test/8/0/1.png", "real_test/8/0/cover.png", "real_test/8/1/frame_0002.jpg"])
    (root / "real_test/8/empty").mkdir()
    (root / "real_test/notes.doc").write_text("x")
    entries, problems = _find(root)
    assert [e.fields["video_id"] for e in entries if "/8/" in e.unit + "/"] == ["real_test/8/0", "real_test/8/1"]
    assert sorted((p.code, p.path) for p in problems) == [
        ("name_unparsed", "real_test/8/0/cover.png"),
        ("name_unparsed", "real_test/notes.doc"),
        ("zero_frames", "real_test/8/empty"),
    ]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    _tar(tmp_path / "deepfake_in_the_wild" / "real_test" / "0.tar.gz", ["0/1.png"])
    entries, problems = _find(tmp_path)
    assert len(entries) == 1
    assert {p.path for p in problems} == {"real_train", "fake_train", "fake_test"}
    with pytest.raises(DownloadError, match="missing_root"):
        _find(tmp_path / "deepfake_in_the_wild" / "real_test")


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from(["", "frame_", "img-"]))
def test_frame_numbers(number, digits, prefix):
    assert downloads.frame_number(f"{prefix}{number:0{digits}d}.png") == number
    assert downloads.frame_number(f"{prefix}x.png") is None
