import pathlib
import pickle
import struct
import wave
import zlib

import av
import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
from tiny_ffpp import write_clip

from msddf_jax.faces import extract, image_file, video
from msddf_jax.opencv import cv2


def _frames(n=12, height=48, width=64):
    """Frame i has grey level 20 i, so that a frame names itself, with a bright corner."""
    out = np.zeros((n, height, width, 3), np.uint8)
    for i in range(n):
        out[i] = 20 * i
        out[i, :16, :16] = (255, 0, 0)
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    video.write_video(path, _frames(), fps=10, crf=5)
    return path


@hypothesis.given(st.integers(1, 5000), st.integers(1, 64))
def test_sample_indices_are_truncated_linspace(n, k):
    expected = sorted({int(v) for v in np.linspace(0, n - 1, k)})
    assert video.sample_indices(n, k).tolist() == expected


def test_sample_indices_by_hand():
    assert video.sample_indices(300, 4).tolist() == [0, 99, 199, 299]
    assert video.sample_indices(3, 32).tolist() == [0, 1, 2]
    assert video.sample_indices(10, 1).tolist() == [0]
    assert video.sample_indices(0, 4).tolist() == []
    with pytest.raises(ValueError, match="k=0"):
        video.sample_indices(10, 0)


def test_probe(clip):
    assert video.probe(clip) == video.VideoInfo(12, 64, 48, 10.0)


def test_round_trip(clip):
    read = video.read_frames(clip, [0, 5, 11])
    assert list(read.frames) == [0, 5, 11]
    assert (read.num_decoded, read.truncated) == (12, "")
    for index, image in read.frames.items():
        assert (image.dtype, image.shape) == (np.uint8, (48, 64, 3))
        assert abs(int(np.median(image[24:, 24:])) - 20 * index) <= 2
        assert image[4, 4, 0] > 200 and image[4, 4, 2] < 60  # red is first


def test_read_a_number_of_frames(clip):
    assert list(video.read_frames(clip, 4).frames) == [0, 3, 7, 11]


def test_only_what_is_needed_is_decoded(clip):
    assert video.read_frames(clip, [2]).num_decoded == 3


def test_pixels_are_opencvs(clip):
    capture = cv2.VideoCapture(str(clip))
    for image in video.read_frames(clip, 12).frames.values():
        np.testing.assert_array_equal(image[..., ::-1], capture.read()[1])


@pytest.mark.parametrize("turn", ["0 1 -1 0", "0 -1 1 0", "-1 0 0 -1"])
def test_rotation_in_the_container_is_undone_as_opencv_does(clip, tmp_path, turn):
    data = bytearray(clip.read_bytes())
    # The matrix of the track header: a b u, c d v, x y w, of which a b c d are 16.16 fixed point.
    start = data.index(b"tkhd") + 4 + 40
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert bytes(data[start : start + 36]) == identity
    a, b, c, d = (int(v) << 16 for v in turn.split())
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    expected = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    np.testing.assert_array_equal(video.read_frames(path, [0]).frames[0], expected)


def test_container_without_a_frame_count(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in _frames(7):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    assert video.probe(path).num_frames == 7


def test_truncated_video_keeps_what_decodes(tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    video.write_video(whole, noise, fps=10)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    read = video.read_frames(cut, 20)
    assert 5 < read.num_decoded <= read.info.num_frames < 20
    assert read.info.cut_short == f"the header promises 20 frames, {read.info.num_frames} are there"
    assert list(read.frames) == list(range(read.num_decoded))
    assert read.truncated.startswith(f"{read.num_decoded} of {read.info.num_frames} frames decode")
    reference = video.read_frames(whole, 20).frames
    np.testing.assert_array_equal(read.frames[3], reference[3])


def test_video_of_which_no_frame_is_left(clip, tmp_path):
    data = clip.read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(video.VideoError, match="no frame decodes") as caught:
        video.read_frames(path, 4)
    assert caught.value.code == "zero_frames"


def _text(path):
    path.write_text("this is no video")


def _header_only(path):
    video.write_video(path, _frames(3))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") + 200])


def _sound(path):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0" * 800)


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "no such file"),
        (_text, "cannot be opened"),
        (_header_only, "cannot be opened|no video stream"),
        (_sound, "no video stream"),
    ],
)
def test_unreadable_video(tmp_path, write, message):
    path = tmp_path / "a.mp4"
    write(path)
    with pytest.raises(video.VideoError, match=message) as caught:
        video.probe(path)
    assert caught.value.code == "unreadable_video"
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_errors_cross_a_process_boundary():
    error = pickle.loads(pickle.dumps(image_file.ImageError("corrupt_image", pathlib.Path("a.png"), "not an image")))
    assert (type(error), error.code, error.path) == (image_file.ImageError, "corrupt_image", "a.png")
    assert str(error) == "a.png: not an image [corrupt_image]"


@pytest.mark.parametrize(
    "frames, message",
    [
        ([], "no frames"),
        ([np.zeros((47, 64, 3), np.uint8)], "even"),
        ([np.zeros((48, 64), np.uint8)], "even"),
        ([np.zeros((48, 64, 3), np.float32)], "float32"),
        ([np.zeros((48, 64, 3), np.uint8), np.zeros((64, 48, 3), np.uint8)], r"\(64, 48, 3\)"),
    ],
)
def test_write_video_refuses(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        video.write_video(tmp_path / "a.mp4", frames)


def test_same_frames_same_video(tmp_path):
    """Not the same bytes: on a busy machine libx264 gave other ones in 2 of 450 runs, with one thread and one input."""
    shown = []
    for name in ("a.mp4", "b.mp4"):
        video.write_video(tmp_path / name, _frames())
        with av.open(str(tmp_path / name)) as container:
            shown.append([frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)])
    assert len(shown[0]) == len(shown[1]) == 12
    assert np.abs(np.array(shown[0]) - np.array(shown[1])).mean() < 1.0


def _png(width, height):
    """A PNG whose header claims a size that its data does not have."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_read_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_file.read_image(tmp_path / "a.png"), image)


def test_read_image_modes(tmp_path):
    grey = np.arange(400, dtype=np.uint8).reshape(20, 20)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    PIL.Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    PIL.Image.fromarray(np.dstack([grey] * 4)).save(tmp_path / "alpha.png")
    for name in ("grey", "grey16", "alpha"):
        np.testing.assert_array_equal(image_file.read_image(tmp_path / f"{name}.png"), np.dstack([grey] * 3))


def test_read_image_is_upright(tmp_path):
    image = PIL.Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # lies on its side
    image.save(tmp_path / "a.jpg", exif=exif)
    assert image_file.read_image(tmp_path / "a.jpg").shape == (40, 20, 3)


def _cut_png(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    "write, code, message",
    [
        (lambda path: None, "corrupt_image", "no such file"),
        (_text, "corrupt_image", "not an image"),
        (lambda path: path.write_bytes(b""), "corrupt_image", "not an image"),
        (_cut_png, "corrupt_image", "does not decode"),
        (lambda path: PIL.Image.new("RGB", (1, 1)).save(path), "image_too_small", "1x1 pixels"),
        (lambda path: path.write_bytes(_png(30000, 30000)), "image_too_large", "100 megapixels"),
        (lambda path: path.write_bytes(_png(10001, 10001)), "image_too_large", "10001x10001"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_read_image_refuses(tmp_path, write, code, message):
    path = tmp_path / "a.png"
    write(path)
    with pytest.raises(image_file.ImageError, match=message) as caught:
        image_file.read_image(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_sample_clips_by_hand():
    assert video.sample_clips(23, 5, 3).tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 18, 19, 20, 21, 22]
    assert video.sample_clips(11, 5, 3).tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]  # three would overlap
    assert video.sample_clips(9, 5, 3).tolist() == [0, 1, 2, 3, 4]
    assert video.sample_clips(4, 5, 3).tolist() == [0, 1, 2, 3]
    assert video.sample_clips(0, 5, 3).tolist() == []
    with pytest.raises(ValueError, match="clip_length=0"):
        video.sample_clips(9, 0, 1)


@hypothesis.given(st.integers(0, 3000), st.integers(1, 40), st.integers(1, 12))
def test_clips_do_not_overlap_and_stay_inside(n, length, count):
    numbers = video.sample_clips(n, length, count)
    assert len(numbers) == (min(count, n // length) * length or n)
    assert (np.diff(numbers) > 0).all() and (n == 0 or (numbers[0] == 0 and numbers[-1] < n))


def test_limits_by_hand():
    info = video.VideoInfo(251, 64, 48, 25.0)
    video.check_limits(info, "a.mp4", max_seconds=10.1, max_pixels=64 * 48)
    with pytest.raises(video.VideoError, match="limit of 10 ") as caught:
        video.check_limits(info, "a.mp4", max_seconds=10)
    assert caught.value.code == "video_too_long"
    with pytest.raises(video.VideoError, match="64x48 pixels") as caught:
        video.check_limits(info, "a.mp4", max_pixels=64 * 48 - 1)
    assert caught.value.code == "video_too_large"
    with pytest.raises(video.VideoError, match="10 seconds"):  # no frame rate: 25 a second
        video.check_limits(video.VideoInfo(251, 4, 4, 0.0), "a", max_seconds=10)
    with pytest.raises(video.VideoError, match="limit of 3600"):
        video.check_limits(video.VideoInfo(10**9, 64, 48, 25.0), "a.mp4")


def test_a_stream_that_grows_is_refused(clip):
    with pytest.raises(video.VideoError, match="frame 0 has 64x48") as caught:
        video.read_frames(clip, [2], max_pixels=64 * 48 - 1)
    assert caught.value.code == "video_too_large"


def test_frames_that_the_decoder_calls_damaged_are_left_out(tmp_path):
    """Eight bytes at twelve places of a smooth picture; in noise nearly all bits are valid ones, and nothing tells."""
    path, told = tmp_path / "a.mp4", 0
    write_clip(path, 10)
    sound = path.read_bytes()
    start = sound.index(b"mdat") + 4
    for at in np.linspace(start + 40, len(sound) - 40, 12).astype(int):
        path.write_bytes(sound[:at] + bytes(v ^ 0x5A for v in sound[at : at + 8]) + sound[at + 8 :])
        read = video.read_frames(path, 10)
        assert not set(read.corrupt) & set(read.frames)
        if not read.corrupt or read.truncated:
            continue
        told += 1
        out = extract.extract_faces(path, num_frames=10, size=32, landmarks="sidecar")
        assert [face.frame_index for face in out.frames] == list(read.frames)
        codes = [(drop.frame_index, drop.code) for drop in out.drops]
        assert codes == [(-1, "decode_errors"), *((index, "corrupt_frame") for index in read.corrupt)]
    assert told >= 3


def test_what_a_file_says_of_its_encoder_need_not_be_text(clip, tmp_path):
    data = clip.read_bytes()
    assert b"Lavf" in data
    path = tmp_path / "a.mp4"
    path.write_bytes(data.replace(b"Lavf", b"L\xff\xfef"))
    assert video.probe(path).num_frames == 12 and len(video.read_frames(path, 3).frames) == 3


@pytest.mark.parametrize("at", [20, 60, -20, -6])
def test_checksums_of_png(tmp_path, at):
    path = tmp_path / "a.png"
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    PIL.Image.fromarray(image).save(path)
    data = bytearray(path.read_bytes())
    assert image_file.png_damage(bytes(data)) == "" and image_file.png_damage(bytes(data) + b"more") == ""
    assert image_file.png_damage(bytes(data[:-14])) != "" and image_file.png_damage(b"GIF89a") == ""
    data[at] ^= 1
    assert "checksum" in image_file.png_damage(bytes(data)) or "cut short" in image_file.png_damage(bytes(data))
    path.write_bytes(data)
    with pytest.raises(image_file.ImageError, match="does not decode"):
        image_file.read_image(path)


def test_complaints_about_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path, quality=90)
    assert image_file.jpeg_complaint(path) == ""
    data = bytearray(path.read_bytes())
    data[1000:1064] = bytes(64)
    path.write_bytes(data)
    assert image_file.read_image(path).shape == (64, 64, 3)  # Pillow gives a picture
    assert image_file.jpeg_complaint(path) != ""
    PIL.Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path, format="PNG")
    assert image_file.jpeg_complaint(path) == ""
