"""What may be uploaded: types by content, limits before decoding, a process that may crash, and files that go."""

import io
import os
import struct
import time
import zlib

import av
import numpy as np
import PIL.Image
import pytest
from face_points import face_points
from hypothesis import given
from hypothesis import strategies as st

from msddf_jax.faces import video
from msddf_jax.faces.detect import Face
from msddf_jax.show import uploads

LIMITS = uploads.Limits(
    max_bytes=2**20, max_image_pixels=10**6, max_video_pixels=128 * 128, max_video_frames=50, max_video_seconds=3.0
)


def encode(form, shape=(64, 64, 3), level=None, **options):
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = noise if level is None else np.full(shape, level, np.uint8)
    PIL.Image.fromarray(pixels).save(data, form, **options)
    return data.getvalue()


def png_header(width, height):
    """A PNG that says how large it is, and holds next to nothing."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def write_video(path, frames=4, size=64, fps=10):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    video.write_video(path, [image] * frames, fps=fps)
    return path


def refusal(path, limits=LIMITS):
    with pytest.raises(uploads.UploadError) as error:
        uploads.check_upload(path, limits)
    message = error.value.message
    assert message and "\n" not in message and str(path) not in message
    return error.value.code


@pytest.mark.parametrize("form", uploads.IMAGE_TYPES)
def test_images_are_told_by_content(form, tmp_path):
    path = tmp_path / "named.mp4"
    path.write_bytes(encode(form))
    assert uploads.check_upload(path, LIMITS) == (form, None)


@pytest.mark.parametrize("suffix, kind", [(".mp4", "MP4"), (".mov", "MP4"), (".mkv", "MATROSKA"), (".avi", "AVI")])
def test_videos_are_told_by_content(suffix, kind, tmp_path):
    with av.open(str(tmp_path / f"clip{suffix}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode())
    path = (tmp_path / f"clip{suffix}").rename(tmp_path / "named.png")
    found, info = uploads.check_upload(path, LIMITS)
    assert found == kind and (info.width, info.height, info.num_frames) == (64, 64, 3)


@pytest.mark.parametrize(
    "data, code",
    [
        (b"", "empty_file"),
        (b"\x89", "unsupported_type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "unsupported_type"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "unsupported_type"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "unsupported_type"),
        (encode("GIF"), "unsupported_type"),
        (encode("TIFF"), "unsupported_type"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "unsupported_type"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "unreadable_video"),
        (b"RIFF\xff\xff\xff\x7fAVI LIST", "unreadable_video"),
        (bytes(2**20 + 1), "file_too_large"),
        (png_header(60_000, 60_000), "image_too_large"),
        (png_header(1001, 1000), "image_too_large"),
        (png_header(8, 800), "image_too_small"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "corrupt_image"),
    ],
)
def test_what_is_refused_before_decoding(data, code, tmp_path):
    path = tmp_path / "face.png"
    path.write_bytes(data)
    assert refusal(path) == code


def test_videos_over_a_limit(tmp_path):
    assert refusal(write_video(tmp_path / "a", size=130)) == "video_too_large"
    assert refusal(write_video(tmp_path / "b", frames=31)) == "video_too_long"  # 3.1 seconds
    assert refusal(write_video(tmp_path / "c", frames=51, fps=100)) == "video_too_long"  # 51 frames
    kind, info = uploads.check_upload(write_video(tmp_path / "d", frames=30), LIMITS)
    assert (kind, info.num_frames) == ("MP4", 30)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "there.png").write_bytes(encode("PNG"))
    (tmp_path / "link").symlink_to(tmp_path / "there.png")
    assert refusal(tmp_path / "link") == refusal(tmp_path / "nothing") == refusal(tmp_path) == "upload_missing"


@given(st.binary(max_size=64))
def test_any_first_bytes_have_a_type_or_none(head):
    kind = uploads.sniff_type(head)
    assert kind is None or kind == "PHOTO" or kind in uploads.IMAGE_TYPES or kind in uploads.DEMUXERS


def make_store(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return uploads.Store(root)


def test_the_store_gives_random_paths_and_keeps_nothing(tmp_path):
    store = make_store(tmp_path)
    first, second = store.reserve(), store.reserve()
    for token in (first, second):
        store.write(token, io.BytesIO(b"data"))
    assert first != second and store.token(str(store.path(first))) == first
    (store.root / "left over").write_bytes(b"")
    store.remove(first)
    assert [p.name for p in store.root.iterdir()] == [second] and store.token(str(store.path(first))) is None
    assert store.path(second).read_bytes() == b"data"
    store.remove(second)
    assert not list(store.root.iterdir())


def test_uploads_that_nobody_asks_about_go(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    old, asked = store.reserve(), store.reserve()
    for token in (old, asked):
        store.write(token, io.BytesIO(b"data"))
    assert store.keep(asked) and not store.keep(asked) and not store.keep(None)
    later = time.monotonic() + uploads.UPLOAD_SECONDS + 1
    monkeypatch.setattr(uploads.time, "monotonic", lambda: later)
    store.sweep()
    assert [p.name for p in store.root.iterdir()] == [asked]


def test_the_store_is_bounded(tmp_path):
    store = make_store(tmp_path)
    for _ in range(uploads.MAX_WAITING):
        store.reserve()
    with pytest.raises(uploads.UploadError, match="try again"):
        store.reserve()


@given(st.text(max_size=80))
def test_other_paths_have_no_token(text):
    store = uploads.Store("/store")
    token = "0123456789abcdef" * 2
    store._waiting[token] = float("inf")
    assert store.token(f"/store/{token}/upload") == token
    for path in (
        text,
        f"/store/{text}",
        f"/store/{token}/{text}",
        f"/store/{token}/upload{text}",
        f"{text}/{token}/upload",
    ):
        assert store.token(path) is None or path == f"/store/{token}/upload"


def models_that_fail():
    """A detector that ends its process at white, hangs at black, asks for too much at dark grey."""

    def detect(image):
        level = int(image.mean())
        if level == 255:
            os._exit(11)
        if level == 0:
            time.sleep(60)
        if level == 50:
            return np.zeros(2**34, np.uint8)
        if level == 100:
            raise RuntimeError(f"no {level}")
        if level == 200:
            return []
        return [Face(np.array([0, 0, 64, 64], np.float32), 0.9, np.zeros((5, 2), np.float32))]

    return detect, lambda image, box: None if int(image.mean()) == 150 else face_points(64)[0]


def models_that_are_missing():
    raise FileNotFoundError("no model file")


def test_the_reader_outlives_what_it_reads(tmp_path):
    limits = uploads.Limits(max_work_seconds=3.0, max_memory=2**31)
    reader = uploads.Reader(limits, models_that_fail, size=32, preset="dfb", num_frames=4)
    path = tmp_path / "upload"

    def read(level):
        path.write_bytes(encode("PNG", level=level))
        try:
            return reader.read(path)
        except uploads.UploadError as error:
            assert str(path) not in error.message
            return error.code

    try:
        assert read(255) == "decoder_failed"
        found = read(None)
        assert [face.image.shape for face in found.frames] == [(32, 32, 3)] and found.info is None
        assert [read(level) for level in (50, 100, 200, 150)] == [
            "out_of_memory",
            "unreadable_file",
            "no_face",
            "no_landmarks",
        ]
        write_video(path)
        assert [face.frame_index for face in reader.read(path).frames] == [0, 1, 2, 3]
        assert read(0) == "took_too_long"
        assert len(read(None).frames) == 1
    finally:
        reader.close()


def test_a_reader_without_models_says_so():
    with pytest.raises(FileNotFoundError, match="no model file"):
        uploads.Reader(LIMITS, models_that_are_missing, size=32, preset="dfb", num_frames=4)
