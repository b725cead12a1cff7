"""Damaged files through preparation and build: no crash, no hang, none taken for sound without a word.

A damaged input must be in the report with a code, or give, bit for bit, the frames, landmarks and masks of the sound
one (a byte that nothing reads was hit). A damaged file of a prepared set must stop the build with its name, or build
to the same records. H.264 and float32 have no checksums: a single flipped bit in them can make another valid file,
which no reader can tell; so flips here come as what failing disks and lines make, 64 bytes.
"""

import contextlib
import json
import pathlib
import shutil
import signal
import tarfile

import numpy as np
import PIL.Image
import pytest
from tiny_ffpp import draw, face_points, similarity, write_clip, write_mask
from tiny_sets import entry, make_layout

from data_prep import archives, catalog, crops, features, layout, prepare
from data_prep.faceforensics import downloads
from data_prep.layout import PreparedDataError
from msddf_jax.faces import align
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.faces.scene import sidecar_path

DAMAGES = ("flip", "cut", "type", "empty")
FRAMES = 6


def damage(data, kind, rng):
    """The bytes of a file after something happened to it."""
    if kind == "empty":
        return b""
    if kind == "cut":
        return data[: int(rng.integers(1, len(data)))]
    if kind == "type":
        others = [
            b"<html>404</html>",
            b"\x1f\x8b" + rng.bytes(300),
            b"RIFF\0\0\0\0WAVE",
            b"PK\x03\x04" + rng.bytes(60),
            b"{}",
        ]
        return others[int(rng.integers(len(others)))]
    out = bytearray(data)
    at = int(rng.integers(0, max(len(out) - 64, 1)))
    for i in range(at, min(at + 64, len(out))):
        out[i] ^= int(rng.integers(1, 256))
    return bytes(out)


@contextlib.contextmanager
def no_hang(seconds):
    """Ends what hangs: an error where the main thread still runs Python, else the process."""

    def stop(number, frame):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_sound(root):
    """Sound inputs: a video with mask and sidecar, three image scenes and three crops (PNG, JPEG)."""
    tracks = write_clip(root / "v/a.mp4", FRAMES, 96, 96)
    tracks = np.stack([align.transform_points(face_points(), similarity(0.3, 2 * i, 48, 44)) for i in range(FRAMES)])
    np.save(root / "v/a.landmarks.npy", to_dlib_order(tracks).astype(np.float32))
    write_mask(root / "v/a_mask.mp4", tracks, 96, 96)
    rng = np.random.default_rng(0)
    for i in range(3):
        image = draw(tracks[i], 96, 96)
        image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        mask = np.zeros((96, 96), np.uint8)
        mask[30:60, 30:60] = 255
        PIL.Image.fromarray(image).save(root / f"{i}.png")
        PIL.Image.fromarray(image).save(root / f"{i}.jpg", quality=92)
        PIL.Image.fromarray(mask).save(root / f"{i}_mask.png")
        np.save(root / f"{i}.landmarks.npy", to_dlib_order(tracks[i][None]).astype(np.float32))


# What is damaged -> the kind of entry, and the file of it.
TARGETS = {
    "video": ("video", "a.mp4"),
    "mask video": ("video", "a_mask.mp4"),
    "sidecar": ("video", "a.landmarks.npy"),
    "png": ("frames", "1.png"),
    "jpg": ("frames", "1.jpg"),
    "mask png": ("frames", "1_mask.png"),
    "image sidecar": ("frames", "1.landmarks.npy"),
    "crop png": ("crops", "1.png"),
    "crop jpg": ("crops", "1.jpg"),
}


def make_entry(sound, root, number, kind, suffix):
    """A folder with copies of the sound files, and the entry for it."""
    folder = f"{kind}/{number:03d}"
    (root / folder).mkdir(parents=True)
    if kind == "video":
        for name in ("a.mp4", "a_mask.mp4", "a.landmarks.npy"):
            shutil.copy(sound / "v" / name, root / folder)
        mask = str(root / folder / "a_mask.mp4")
        return entry(root, "video", f"{folder}/a.mp4", stem=f"{number:03d}", method="unknown", mask=mask)
    for path in sound.glob("?*.*"):
        beside = kind == "frames" and (path.suffix == ".npy" or "_mask" in path.name)
        if beside or (path.suffix == suffix and "_mask" not in path.name):
            shutil.copy(path, root / folder)
    images = tuple((i, f"{folder}/{i}{suffix}") for i in range(3))
    masks = tuple((i, str(root / folder / f"{i}_mask.png")) for i in range(3)) if kind == "frames" else None
    return entry(
        root, kind, folder, stem=f"{number:03d}", method="unknown", images=images, mask=masks, publishes_masks=True
    )


def files_of(unit, stem):
    """What was made of an entry: {folder/file: bytes}."""
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in ("frames", "landmarks", "masks")
        for path in sorted((unit / folder / stem).glob("*"))
    }


def test_damaged_inputs(tmp_path, monkeypatch):
    """144 of them, each beside sound ones, in one job; then every record is encoded as the build does."""
    sound, root = tmp_path / "sound", tmp_path / "in"
    write_sound(sound)
    rng = np.random.default_rng(5)
    entries, expected, clean = [], {}, {}
    number = 0
    for target, (kind, name) in TARGETS.items():
        suffix = pathlib.Path(name).suffix if kind != "video" else ""
        suffix = ".png" if "mask" in name or "landmarks" in name else suffix
        clean[target] = number
        entries.append(make_entry(sound, root, number, kind, suffix))
        for i in range(16):
            number += 1
            entries.append(make_entry(sound, root, number, kind, suffix))
            path = root / entries[-1].path
            path = (path.parent if kind == "video" else path) / name
            path.write_bytes(damage(path.read_bytes(), DAMAGES[i % 4], rng))
            expected[f"{number:03d}"] = target
        number += 1
    assert len(expected) == 144
    make_layout(monkeypatch, entries)
    out = tmp_path / "out"
    flags = ["--landmarks=sidecar", "--num_frames=6", "--size=48", "--workers=1", "--max_bad_fraction=1"]
    with no_hang(120):
        assert prepare.main(["--layout=madeup", f"--root={root}", f"--out={out}", *flags]) == 0
    report = json.loads((out / "report.json").read_text())
    coded = {}
    for item in report["items"]:
        parts = pathlib.PurePosixPath(item["path"]).parts
        coded.setdefault(parts[1], set()).add(item["code"])
    lines = {line["stem"]: line for line in catalog.read_catalog(catalog.catalog_path(out, "madeup", "default"))}
    assert len(lines) == len(entries)
    silent, same = [], 0
    for stem, target in expected.items():
        reference = files_of(out / "fake", f"{clean[target]:03d}")
        if coded.get(stem, set()) - {"no_landmarks_kept"}:
            continue
        if files_of(out / "fake", stem) == reference:
            same += 1
        else:
            silent.append((stem, target))
    assert silent == [] and same < 20, (silent, same)
    for stem in clean.values():  # a sound one beside them is as ever
        assert coded.get(f"{stem:03d}", set()) <= {"no_landmarks_kept"}
        assert lines[f"{stem:03d}"]["outcome"] == catalog.PREPARED
    with no_hang(60):
        built = encode_all(out, lines.values())
    kept = sum(report_line["outcome"] == catalog.PREPARED for report_line in lines.values())
    assert kept == report["videos"]["prepared"] and built == report["frames"]["kept"]


def encode_all(root, lines):
    """Every record, as the builders encode it; returns their number."""
    count = 0
    for line in lines:
        video = layout.read_video(root / line["unit"], line["stem"])
        for files in video.frames if video else ():
            fields = line["fields"]
            record = features.encode_frame(files, video, root=root, publishes_masks=True, fields=fields)
            assert set(record) == set(features.record_features())
            count += 1
    return count


def write_prepared(root):
    """One prepared video with its catalog."""
    write_clip(root / "in/v/a.mp4", FRAMES, 96, 96)
    found = entry(root / "in", "video", "v/a.mp4", method="unknown")
    job = crops.Job(str(root / "out"), crops.make_settings(num_frames=2, size=48, landmarks="sidecar"))
    result = crops.prepare_entry(found, job)
    path = catalog.catalog_path(root / "out", "madeup", "default")
    catalog.write_catalog(path, *crops.catalog_entries([found], [result]))
    return path


def read_prepared(root, path):
    lines = catalog.read_catalog(path)
    encode = lambda line, video: [
        features.encode_frame(files, video, root=root, publishes_masks=True, fields=line["fields"])
        for files in video.frames
    ]
    out = []
    for line in lines:
        video = layout.read_video(root / line["unit"], line["stem"])
        if video is None:
            raise PreparedDataError(f"{line['unit']}/{line['stem']} is not there")
        out += encode(line, video)
    return [{name: np.asarray(value).tobytes() for name, value in record.items()} for record in out]


@pytest.mark.parametrize("name", ["frames/a/000.png", "landmarks/a/005.npy", "meta/a.json"])
def test_damaged_prepared_files_stop_the_build(tmp_path, name):
    """8 of each of 3: an error that names the file, or the same records."""
    path = write_prepared(tmp_path)
    root = tmp_path / "out"
    reference, rng = read_prepared(root, path), np.random.default_rng(6)
    file = root / "fake" / name
    data, refused = file.read_bytes(), 0
    for i in range(8):
        file.write_bytes(damage(data, DAMAGES[i % 4], rng))
        with no_hang(20):
            try:
                assert read_prepared(root, path) == reference
            except PreparedDataError as error:
                assert "a" in str(error) and (name in str(error) or "meta/a.json" in str(error))
                refused += 1
    assert refused >= 7


WRONG_JSON = (
    "",
    "{",
    "[]",
    "null",
    "3",
    '{"train": 1}',
    '[["000"]]',
    "[[0, 1]]",
    '[["000", "001", "002"]]',
    "[" * 20000,
)


@pytest.mark.parametrize("name", ["train.json", "conversion_dict.json"])
def test_wrong_json_lists_stop_before_work(tmp_path, name):
    """10 of each of 2: an error that names the list, never a guess."""
    (tmp_path / "original_sequences/youtube/c23/videos").mkdir(parents=True)
    write_clip(tmp_path / "original_sequences/youtube/c23/videos/000.mp4", 1)
    (tmp_path / "manipulated_sequences").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_text('[["000", "001"]]' if split == "train" else "[]")
    options = catalog.Options(allow_missing=True)
    assert len(downloads.find(tmp_path, "c23", options)[0]) == 1
    for text in WRONG_JSON:
        (tmp_path / name).write_text(text)
        if name == "train.json" and text == "[]":
            message = "no video of the lists"
        else:
            message = name
        with no_hang(20), pytest.raises(catalog.DownloadError, match=message):
            downloads.find(tmp_path, "c23", options)


def test_damaged_archives(tmp_path):
    """12 of them: an error with a code and nothing left behind, or the same files."""
    write_sound(tmp_path / "sound")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "sound", "s")
    data, rng, refused = (tmp_path / "a.tar.gz").read_bytes(), np.random.default_rng(7), 0
    reference = {p.name: p.read_bytes() for p in (tmp_path / "sound").rglob("*") if p.is_file()}
    for i in range(12):
        path, target = tmp_path / f"{i}.tar.gz", tmp_path / f"out{i}"
        path.write_bytes(damage(data, DAMAGES[i % 4], rng))
        with no_hang(20):
            try:
                archives.unpack(path, target)
                assert {p.name: p.read_bytes() for p in target.rglob("*") if p.is_file()} == reference
            except archives.ArchiveError as error:
                assert error.code == "bad_archive" and not target.exists()
                refused += 1
    assert refused >= 11


def test_sidecar_path_is_what_the_fixture_writes():
    assert sidecar_path("v/a.mp4").name == "a.landmarks.npy"
