"""Containers that say something else than what is in them; each is read as its plain twin is, or refused by name."""

import fractions

import av
import numpy as np
import pytest

from benchmarks import odd_files
from msddf_jax.evaluators import recompress
from msddf_jax.faces import extract, image_file, scene, video
from msddf_jax.opencv import cv2


def _frames(count, height, width):
    """Frame i is 6 i grey, with a white stripe on the left."""
    for i in range(count):
        image = np.full((height, width, 3), 6 * i, np.uint8)
        image[:, :8] = 255
        yield image


def _write(path, count=40, size=(48, 64), codec="libx264", ratio=None, form=None, **options):
    settings = {"g": "10", "bf": "0", "crf": "4", "threads": "1"} if codec == "libx264" else {}
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=25, options=settings)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        if ratio:
            stream.codec_context.sample_aspect_ratio = fractions.Fraction(*ratio)
        for image in _frames(count, *size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _grey(image):
    return int(image[image.shape[0] // 2, image.shape[1] // 2, 0])


def _header_count(path):
    with av.open(str(path), metadata_errors="replace") as container:
        return container.streams.video[0].frames


def test_all_fragments_are_sampled(tmp_path):
    path = _write(tmp_path / "a.mp4", movflags="frag_keyframe")
    assert _header_count(path) == 10  # of the first fragment
    read = video.read_frames(path, 5)
    assert (read.info.num_frames, list(read.frames)) == (40, [0, 9, 19, 29, 39])
    assert [_grey(image) for image in read.frames.values()] == pytest.approx([0, 54, 114, 174, 234], abs=2)
    assert read.info.odd == "the header says 10 frames, 40 are there" and not read.info.cut_short
    drops = scene.read_video_scene(path, lambda count: video.sample_indices(count, 5)).drops
    assert drops == [extract.Drop(-1, "odd_header", read.info.odd)]
    with pytest.raises(video.VideoError, match="2 seconds"):
        video.check_limits(read.info, path, max_seconds=1)


def test_frames_are_numbered_as_they_are_shown(tmp_path):
    """Trimmed without a new encode: 13 frames before the first that is shown are kept for the decoder alone."""
    whole, trimmed = _write(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4"
    odd_files.trim(whole, trimmed, 13)
    assert _header_count(trimmed) == 40
    read = video.read_frames(trimmed, 3)
    assert (read.info.num_frames, read.info.cut_short, read.info.odd, read.truncated) == (27, "", "", "")
    assert [_grey(image) for image in read.frames.values()] == pytest.approx([6 * 13, 6 * 26, 6 * 39], abs=2)


@pytest.mark.parametrize("ratio, size", [((64, 45), (48, 91)), ((8, 9), (54, 64)), ((1, 1), (48, 64))])
def test_pixels_are_made_square(tmp_path, ratio, size):
    """The side that a pixel lacks grows; the stripe of 8 of 64 columns keeps its share of the width."""
    path = _write(tmp_path / "a.mp4", count=2, ratio=ratio)
    info = video.probe(path)
    assert (info.height, info.width) == size
    image = video.read_frames(path, [0]).frames[0]
    assert image.shape == (*size, 3)
    assert (image[20, :, 0] > 127).sum() == pytest.approx(size[1] / 8, abs=1)
    recompress.recompress_video(path, tmp_path / "b.mp4", 18)
    after = video.probe(tmp_path / "b.mp4")
    assert (after.height, after.width) == (size[0], size[1] + size[1] % 2)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)


def test_pixels_of_no_format_are_square_and_said(tmp_path):
    info = video.probe(_write(tmp_path / "a.mp4", count=2, ratio=(10, 1)))
    assert (info.width, info.height, info.odd) == (64, 48, "pixels 10:1 are no format; taken as square")


def test_a_size_that_changes_keeps_the_face(tmp_path):
    parts = [_write(tmp_path / f"{s[0]}.mpg", 20, s, "mpeg1video", form="mpeg1video") for s in ((48, 64), (96, 128))]
    path = tmp_path / "both.mpg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = scene.read_video_scene(path, lambda count: video.sample_indices(count, 8))
    shapes = {image.shape for image in found.frames.values()}
    # The decoder may lose the frame at the seam, which is said.
    assert shapes == {(48, 64, 3), (96, 128, 3)} and {drop.code for drop in found.drops} <= {"odd_header"}
    # A face in the middle third of every frame, a small one that a track in other pixels would take for it.
    points = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(81, 2)

    def detector(image):
        height, width = image.shape[:2]
        box = np.array([width / 3, height / 3, 2 * width / 3, 2 * height / 3])
        return [type("Face", (), {"box": box, "score": 1.0})]

    landmarker = lambda image, box: (box[:2] + points * (box[2:] - box[:2])).astype(np.float32)
    [out] = extract.extract_scene(found, size=32, preset="dfb", detector=detector, landmarker=landmarker)
    assert len(out.frames) == len(found.frames) and not [d for d in out.drops if d.code == "other_face"]
    recompress.recompress_video(path, tmp_path / "one.mp4", 18)
    assert video.probe(tmp_path / "one.mp4").num_frames == found.num_decoded


def test_a_title_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.mp4"
    _write(path, count=3)
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        target.metadata["title"] = "caf_"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "b.mp4").read_bytes()
    assert b"caf_" in data
    path.write_bytes(data.replace(b"caf_", b"caf\xe9"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert len(video.read_frames(path, 3).frames) == 3
    recompress.recompress_video(path, tmp_path / "c.mp4", 18)
    assert video.probe(tmp_path / "c.mp4").num_frames == 3


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound, cover = container.add_stream("aac", rate=16000), container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = next(_frames(1, 48, 64))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")))
        container.mux(cover.encode())
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(video.VideoError, match="the image in it is a cover"):
        video.probe(path)


def _grey_picture():
    return np.add.outer(np.arange(0, 128, 2), np.arange(0, 128, 2)).astype(np.uint8)


def test_pixels_of_more_than_eight_bits(tmp_path):
    """0..1 in floating point and 16 bits that use their range are read; what could be anything is refused."""
    grey = _grey_picture()
    plain = np.repeat(grey[..., None], 3, -1)
    cv2.imwrite(str(tmp_path / "float.tif"), grey.astype(np.float32) / 255)
    cv2.imwrite(str(tmp_path / "grey16.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "colour16.png"), plain.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "grey16.tif"), grey.astype(np.uint16) * 257)
    for name in ("float.tif", "grey16.png", "colour16.png", "grey16.tif"):
        np.testing.assert_array_equal(image_file.read_image(tmp_path / name), plain, err_msg=name)
    cv2.imwrite(str(tmp_path / "grey12.png"), grey.astype(np.uint16) * 16)
    cv2.imwrite(str(tmp_path / "colour12.png"), plain.astype(np.uint16) * 16)
    cv2.imwrite(str(tmp_path / "colour12.tif"), plain.astype(np.uint16) * 16)
    cv2.imwrite(str(tmp_path / "float255.tif"), grey.astype(np.float32))
    cv2.imwrite(str(tmp_path / "int32.tif"), grey.astype(np.int32))
    problems = {
        "grey12.png": "16-bit pixels that end at 4032: 12 bits in 16",
        "colour12.png": "12 bits in 16",
        "colour12.tif": "12 bits in 16",
        "float255.tif": "floating-point pixels from 0 to 252, expected 0 to 1",
        "int32.tif": "32-bit integer pixels",
    }
    for name, problem in problems.items():
        with pytest.raises(image_file.ImageError, match=problem) as caught:
            image_file.read_image(tmp_path / name)
        assert caught.value.code == "image_depth"
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((32, 32), np.uint16))
    assert image_file.read_image(tmp_path / "black.png").max() == 0


def test_a_heic_photo_names_what_reads_it(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(image_file.ImageError, match=r"pillow-heif|does not decode"):
        image_file.read_image(tmp_path / "a.heic")
