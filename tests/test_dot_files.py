"""Dot files are nobody's data: what macOS lays beside a user's files changes no catalog, list or build."""

import ast
import importlib
import json
import pathlib
import shutil
import zipfile

import numpy as np
import prepared_tree
import pytest
import tiny_images
from test_dfb import FAKE, _ffpp
from test_dfdc import PREVIEW
from test_ffsc import IMAGES
from test_sladd_sjedd import _sjedd_root, _write_sladd
from test_wilddeepfake import _tar
from test_wilddeepfake import _write as _write_wild

import data_prep
from data_prep import archives, build, catalog, contents, layout, leakage, listing, prepare
from data_prep.catalog import DownloadError, Options
from data_prep.dfb import index, stores

JUNK = bytes(range(256))  # neither text nor a picture


def write(root, *names, **texts):
    """Files that nothing decodes, and texts. Returns root."""
    for name, text in {**dict.fromkeys(names, "x"), **texts}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def litter(root):
    """Beside every file and folder its `._` companion; in every folder a .DS_Store and a dot folder with files."""
    for path in sorted(root.rglob("*")):
        path.with_name(f"._{path.name}").write_bytes(JUNK)
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        (folder / ".DS_Store").write_bytes(JUNK)
        for place in (".Trashes", "__MACOSX"):
            write(folder / place, "0.png", "._a.mp4", "000.mp4", "train.txt", "frames/000/000.png")


def _faceforensics(root):
    lists = {f"{split}.json": "[]" for split in ("val", "test")}
    reals = [f"original_sequences/youtube/c23/videos/{i}.mp4" for i in ("000", "001", "900")]
    fakes = [f"manipulated_sequences/{m}/c23/videos/000_001.mp4" for m in ("Deepfakes", "Other")]
    write(root, *reals, *fakes, "manipulated_sequences/Deepfakes/masks/videos/000_001.mp4")
    return write(root, "manipulated_sequences/Deepfakes/c23/videos/001_000.mp4", **lists, **{"train.json": PAIR})


def _celebdf(root):
    fakes = [f"Celeb-synthesis/{name}/id0_id1_0000.mp4" for name in ("FaceSwap/GHOST", "FaceReenact/LIA", "Odd/Odd")]
    text = "1 Celeb-real/id0_0000.mp4\n"
    names = ("Celeb-real/id0_0000.mp4", "Youtube-real/00000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    return write(root / "Celeb-DF++", *names, *fakes, **{"List_of_testing_videos.txt": text})


def _dfdc(root):
    part = "train/dfdc_train_part_{}/{}"
    names = [part.format(0, "aaaaaaaaaa.mp4"), part.format(12, "bbbbbbbbbb.mp4"), "test/zzzzzzzzzz.mp4"]
    texts = {part.format(0, "metadata.json"): '{"aaaaaaaaaa.mp4": {"label": "REAL"}}'}
    fake = {"bbbbbbbbbb.mp4": {"label": "FAKE", "original": "aaaaaaaaaa.mp4"}}
    texts |= {
        part.format(12, "metadata.json"): json.dumps(fake),
        "test/labels.csv": "filename,label\nzzzzzzzzzz.mp4,0\n",
    }
    return write(root / "DFDC", *names, **texts)


def _deeperforensics(root):
    write(root, "FaceForensics++/original_sequences/youtube/c23/videos/000.mp4")
    base = root / "DeeperForensics-1.0"
    lists = {f"lists/splits/{name}.txt": "" for name in ("val", "test")} | {"lists/splits/train.txt": "000_M101.mp4\n"}
    meta = {"lists/manipulated_videos_distortions_meta/meta.txt": "end_to_end_level_3/000_M101.mp4 CS:3\n"}
    names = [f"manipulated_videos/end_to_end_level_3/{name}.mp4" for name in ("000_M101", "001_M101")]
    return write(base, *names, "source_videos/M101/down/take.mp4", **lists, **meta)


def _ffiw(root):
    places = ("source/{}", "target/{}", "target_mask/{}")
    for split, release in (("train", "FFIW10K-v1-release"), ("test", "FFIW10K-v1-release-test")):
        name = f"{split}_00000007"
        files = [f"{place.format(split)}/{name}{'_mask' * (place[-9:-3] == 't_mask')}.mp4" for place in places]
        write(root / release, *files)
    return root


def _deepspeak(root):
    names = ("a/b/87-0.mp4", "real/11-4897.mp4", "facefusion--87-11--4100-4897--0.mp4")
    splits = {"csv/annotations-split-def.csv": "identity,split\n87,test\n11,train\n"}
    return write(root / "DeepSpeak-v1_1", *names, **splits)


def _df40(root):
    names = ["DF40/inswap/ff/frames/002_003/998.png", "DF40_train/inswap/ff/frames/000_001/000.png"]
    names += [f"FaceForensics++/original_sequences/youtube/c23/frames_all/{i}/0.png" for i in ("000", "001", "002")]
    names += ["FaceForensics++/original_sequences/youtube/c23/frames_all/003/0.png", "DF40/inswap/ff/single.png"]
    (root / "DF40/inswap/ff/frames/003_002").mkdir(parents=True)
    lists = {f"FaceForensics++/{split}.json": pair for split, pair in (("train", PAIR), ("test", '[["002", "003"]]'))}
    return write(root, *names, **lists)


def _own(root):
    """Someone's own files, pictures and numbered frames."""
    names = [
        f"{label}/{i}{name}"
        for label in ("real", "fake/mygan")
        for i in range(3)
        for name in (".jpg", "/1.png", "/2.png")
    ]
    return write(root / "photos", **{name: name for name in names})  # one text would be one picture


def _own_table(root):
    names = [f"{i}.jpg" for i in range(6)]
    rows = "".join(f"{name},{i % 2}\n" for i, name in enumerate([*names, "clip"]))
    texts = {name: name for name in (*names, "clip/1.png", "clip/2.png")}
    return write(root / "photos", **texts, **{"list.csv": f"path,label\n{rows}"})


def _listed(folder):
    lists = {"train.txt": "Real/1.png 0\nDCFace/x/1 a.png 1\n", "test.txt": "Real/2.png 0\n"}
    return lambda root: write(root / folder, "Real/1.png", "Real/2.png", "DCFace/x/1 a.png", **lists)


def _sladd(root):
    return _write_sladd(root) / "data"


def _sjedd_lists(root):
    text = "FF++/FaceSwap/000_001/0000.png 1000000000"
    lists = {"train.txt": "FF++/faces/000/0000.png 0\n", "test.txt": text.replace(" 1000000000", " 1\n")}
    return write(root, "FF++/faces/000/0000.png", "FF++/FaceSwap/000_001/0000.png", **lists)


PAIR = '[["000", "001"]]'
DFD = "01_02__exit_phone_room__YVGY8LOK"
# Layout -> [(config, how its download is written)]; every glance at a folder that the layout has is in one of them.
SETS = {
    "celebdf": [("pp", _celebdf)],
    "deeperforensics": [("end_to_end_level_3", _deeperforensics), ("end_to_end_level_3_sourcereal", _deeperforensics)],
    "deepspeak": [("v1_1", _deepspeak)],
    "df40": [("inswapper_ff", _df40)],
    "dfd": [
        (
            "c23",
            lambda root: write(
                root,
                "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
                *(f"manipulated_sequences/DeepFakeDetection/{place}/videos/{DFD}.mp4" for place in ("c23", "masks")),
            ),
        )
    ],
    "dfdc": [("full", _dfdc)],
    "dfdcp": [("default", lambda root: write(root, *PREVIEW, **{"dataset.json": json.dumps(PREVIEW)}))],
    "diff": [("list", _listed("DiFF"))],
    "diffusionface": [("list", _listed("DiffusionFace"))],
    "faceforensics": [("c23", _faceforensics)],
    "ffiw": [("default", _ffiw)],
    "ffsc": [
        ("default", lambda root: write(root / "FFSC", *IMAGES)),
        ("default", lambda root: write(root / "FFSC", *IMAGES, **{"a.txt": f"{IMAGES[0]} 000000000000\n"})),
    ],
    "folder": [("scenes", _own), ("crops", _own_table)],
    "sjedd": [("list", _sjedd_lists), *((config, _sjedd_root) for config in ("cdf", "fsh", "df1", "dfdc"))],
    "sladd": [("ff", _sladd)],
    "uadfv": [("default", lambda root: write(root, "real/0000.mp4", "fake/0000_fake.mp4", "fake/odd.mp4"))],
    "wilddeepfake": [("default", _write_wild)],
}


CASES = [pytest.param(name, *case, id=f"{name}-{case[0]}") for name, cases in SETS.items() for case in cases]


@pytest.mark.parametrize(("name", "config", "make"), CASES)
def test_a_littered_download_has_the_same_catalog(tmp_path, name, config, make):
    find = importlib.import_module(f"data_prep.{name}.downloads").find
    root, options = make(tmp_path / "root"), Options(allow_missing=True)
    found = find(root, config, options)
    assert found[0]
    litter(tmp_path)
    assert find(root, config, options) == found


def test_every_layout_is_tried():
    assert sorted(SETS) == prepare.layouts()


def test_archives_are_unpacked_without_companions(tmp_path):
    """The tar files of a littered folder, some of whose members are companions."""
    root = _write_wild(tmp_path)
    found = importlib.import_module("data_prep.wilddeepfake.downloads").find(root, "default", Options())
    unpacked = tmp_path / "deepfake_in_the_wild-unpacked"
    shutil.rmtree(unpacked)
    litter(root)
    members = ["0/998.png", "0/999.png", "0/1000.png", "1/5.png", "0/._999.png", "__MACOSX/0/._5.png", "._0/1.png"]
    _tar(root / "deepfake_in_the_wild/real_train/0.tar.gz", [*members, ".Trashes/2.png"])
    assert importlib.import_module("data_prep.wilddeepfake.downloads").find(root, "default", Options()) == found
    assert not [path for path in unpacked.rglob("*") if path.name.startswith(".") or path.name == "__MACOSX"]


def test_a_zip_file_of_macos(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("a/b.mp4", "__MACOSX/a/._b.mp4", "a/.DS_Store", "__MACOSX/._a"):
            file.writestr(name, JUNK)
    archives.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in sorted((tmp_path / "out").rglob("*"))] == [
        "a", "a/b.mp4",
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../._b.mp4", JUNK)
    with pytest.raises(archives.ArchiveError, match="outside the target"):
        archives.unpack(tmp_path / "bad.zip", tmp_path / "other")


def test_lists_that_a_tool_wrote_of_a_littered_folder(tmp_path):
    path = (
        write(tmp_path, list="1 Celeb-real/._a.mp4\n\n._b.png 1\n1 /Volumes/.x/c.mp4\n./d.png 0\nx/.DS_Store 0\n")
        / "list"
    )
    assert listing.read_lines(path) == [(4, "1 /Volumes/.x/c.mp4"), (5, "./d.png 0")]
    path.write_text(json.dumps({"a.mp4": {}, "._a.mp4": {}, "x/._b.mp4": {}, "__MACOSX": {}}))
    assert listing.read_object(path) == {"a.mp4": {}}
    path.write_text("filename,label\n._a.mp4,1\na.mp4,1\n")
    assert listing.read_table(path, ("filename", "label")) == [{"filename": "a.mp4", "label": "1"}]


def test_deepfakebench(tmp_path):
    """Folders, and a JSON that its writer made of littered ones."""
    root = _ffpp(tmp_path)
    path = index.find_json(root, "FF-DF", "c23")
    read = lambda: (index.find_json(root, "FF-DF", "c23"), index.read_json(path, "FF-DF", "c23"))
    store = stores.open_rgb(root, ["FaceForensics++"])
    before = read(), store.list_videos(FAKE)
    write(root / "rgb" / FAKE / "frames", "000_001/._000.png")
    tiny_images.write_lmdb(root / "FaceForensics++_lmdb", root / "rgb", "FaceForensics++", key=lambda name: name)
    tree = json.loads(path.read_text())
    litter(tmp_path)
    for splits in tree["FF-DF"].values():
        for levels in splits.values():
            for videos in levels.values():
                for video in videos.values():
                    video["frames"] += [name.replace("000.png", "._000.png") for name in video["frames"]][:1]
                videos[".DS_Store"] = {"label": "FF-DF", "frames": []}
                videos["._000"] = "no entry"
    path.write_text(json.dumps(tree))
    assert (read(), store.list_videos(FAKE)) == before
    opened = stores.open_lmdb(root, ["FaceForensics++"], [f"{FAKE}/frames/000_001/000.png"])
    assert opened.list_videos(FAKE) == before[1]


def test_prepared_and_built_folders(tmp_path):
    """What was copied to another disk after it was prepared, or built."""
    prepared_tree.write_lists(tmp_path)
    unit = prepared_tree.real_unit(tmp_path)
    prepared_tree.write_video(unit, "000")
    before = layout.read_video(unit, "000")
    built = tmp_path / "tfds/uadfv/default/1.0.0"
    write(built, "dataset_info.json", "index-all.csv")
    litter(tmp_path)
    after = layout.read_video(unit, "000")
    assert after.frames == before.frames and after.num_frames == before.num_frames
    np.testing.assert_equal(after.geometry, before.geometry)
    assert leakage._locate("uadfv/default", tmp_path / "tfds") == (built, None)
    with pytest.raises(leakage.UsageError, match=r"there are: uadfv/default;"):
        leakage._locate("uadfv/other", tmp_path / "tfds")
    empty = tmp_path / "empty"
    write(empty, ".DS_Store", "__MACOSX/._a")
    with pytest.raises(FileNotFoundError, match="an empty one"):
        build.build("uadfv", "default", empty, tmp_path / "out")
    write(empty, "catalog/._uadfv-default.jsonl")
    with pytest.raises(DownloadError, match="there are none"):
        catalog.read_catalog(catalog.catalog_path(empty, "uadfv", "default"))


@pytest.mark.parametrize(
    ("name", "data", "listed"),
    [
        ("a/b.png", True, True),
        ("./a", True, True),
        ("../a", True, True),
        ("a.b/..c..", False, False),
        ("._a", False, False),
        (".cache/a", False, True),
        ("a\\._b", False, False),
        ("__MACOSX/a", False, True),
        ("_a", True, True),
    ],
)
def test_names(name, data, listed):
    assert (contents.is_data(name), contents.is_listed(name)) == (data, listed)


LOOKS = ("glob", "rglob", "iterdir", "walk", "listdir", "scandir")


def test_every_look_into_a_folder_goes_through_contents():
    """No exception is needed so far; one would be named here with its reason."""
    here = pathlib.Path(data_prep.__file__).parent
    bare = {
        f"{path.relative_to(here)}:{node.lineno}"
        for path in here.rglob("*.py")
        if path.name != "contents.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in LOOKS
        and not (isinstance(node.value, ast.Name) and node.value.id in ("contents", "ast"))
    }
    assert bare == set()


def test_a_companion_is_no_frame_of_a_deepfakebench_list():
    """One name that is no number, and all frames of the video would be counted off."""
    paths = [f"{FAKE}/frames/000_001/{name}" for name in ("005.png", "._005.png")]
    assert index._frames(paths, "FF-DF", "here") == ((5, paths[0]),)
