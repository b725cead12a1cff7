"""Real codecs: against OpenCV's JPEG, and by what a codec must do."""

import threading
import types

import av
import cv2
import numpy as np
import pytest

from msddf_jax.evaluators import recompress
from msddf_jax.faces import video


def clip(frames=6, height=64, width=80, seed=0):
    """A textured picture that drifts by a pixel a frame, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.random((9, 12, 3)), (width + 40, height + 40), interpolation=cv2.INTER_CUBIC)
    large = np.clip(large + 0.04 * rng.standard_normal((*large.shape[:2], 1)), 0, 1)
    large = np.round(255 * large).astype(np.uint8)
    return np.stack([large[t : t + height, t : t + width] for t in range(frames)])


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
def test_jpeg_is_opencvs_to_one_grey_level(quality):
    image = clip(1)[0]
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    ours = recompress.recompress_jpeg(image, quality)
    assert ours.dtype == np.uint8 and np.abs(ours.astype(int) - expected).max() <= 1


def test_jpeg_refuses_another_quality():
    with pytest.raises(ValueError, match="quality is 0, allowed: 1 to 100"):
        recompress.recompress_jpeg(clip(1)[0], 0)


def test_h264_gets_worse_with_crf_and_keeps_colours_and_order():
    frames = clip(8)
    quality = []
    for crf in (0, 23, 30, 40):
        out = recompress.recompress_clip(frames, crf)
        assert out.shape == frames.shape and out.dtype == np.uint8
        quality.append(psnr(frames, out))
        # Each frame is nearest to itself: none is lost, doubled or moved.
        if crf == 0:
            for t in range(8):
                assert np.argmin([np.abs(out[t].astype(int) - f).mean() for f in frames]) == t
    assert quality == sorted(quality, reverse=True) and quality[0] > quality[-1] + 4
    # Saturated colours survive at a good quality: matrix and range are the same both ways.
    flat = np.broadcast_to(np.array([200, 40, 90], np.uint8), (3, 32, 32, 3))
    assert np.abs(recompress.recompress_clip(flat, 10).astype(int) - flat).max() <= 4


def test_h264_is_the_same_every_time_and_takes_odd_sides_and_one_frame():
    frames = clip(4, 33, 47)
    once = recompress.recompress_clip(frames, 32)
    np.testing.assert_array_equal(once, recompress.recompress_clip(frames, 32))
    assert once.shape == frames.shape and psnr(frames, once) > 20
    assert recompress.recompress_clip(frames[:1], 23).shape == (1, 33, 47, 3)


def test_frames_are_predicted_from_each_other():
    """A clip differs from its frames alone: what is encoded is a video."""
    frames = clip(6)
    together = recompress.recompress_clip(frames, 38)
    alone = np.concatenate([recompress.recompress_clip(frames[t : t + 1], 38) for t in range(6)])
    assert (together != alone).any(axis=(1, 2, 3))[1:].all()


@pytest.mark.parametrize(
    ("frames", "crf", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 23, "T >= 1"),
        (np.zeros((2, 8, 8, 3), np.float32), 23, "float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), 60, "crf is 60, allowed: 0 to 51"),
    ],
)
def test_h264_refuses(frames, crf, message):
    with pytest.raises(ValueError, match=message):
        recompress.recompress_clip(frames, crf)


def test_without_x264_it_says_what_there_is(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"h264", "libopenh264", "png"})
    with pytest.raises(RuntimeError, match=r"no libx264 .*\['h264', 'libopenh264'\]"):
        recompress.check_x264()


def test_a_whole_video(tmp_path):
    frames = clip(12)
    video.write_video(tmp_path / "in.mp4", frames, fps=30, crf=5)
    recompress.recompress_video(tmp_path / "in.mp4", tmp_path / "out.mp4", 35)
    before, after = (video.read_frames(tmp_path / name, range(12)) for name in ("in.mp4", "out.mp4"))
    assert len(after.frames) == 12 and not after.truncated and after.info.fps == 30
    assert (after.info.width, after.info.height) == (80, 64)
    assert (
        psnr(frames, np.stack(list(before.frames.values()))) > psnr(frames, np.stack(list(after.frames.values()))) + 3
    )
    assert (tmp_path / "out.mp4").stat().st_size < (tmp_path / "in.mp4").stat().st_size
    with pytest.raises(ValueError, match="is the video itself"):
        recompress.recompress_video(tmp_path / "in.mp4", tmp_path / "in.mp4", 35)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_broken_video_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"no video at all")
    with pytest.raises(video.VideoError, match="cannot be opened"):
        recompress.recompress_video(tmp_path / "in.mp4", tmp_path / "out.mp4", 35)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


class ListSource:
    """As much of a Source as recompression reads: videos of 3, 1 and 4 frames of a rising grey."""

    name, image_size, clip_length = "toy", (8, 8), 0
    count = np.array([3, 1, 4])
    first = np.array([0, 3, 4])
    video = np.repeat(np.arange(3), count)
    frame_index = np.array([0, 1, 2, 0, 5, 6, 7, 8])

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"image": np.full((8, 8, 3), index, np.uint8), "label": index}


def test_a_source_gives_each_frame_its_own_clip():
    seen, lock = [], threading.Lock()

    def reverse(frames):
        with lock:
            seen.append(frames[:, 0, 0, 0].tolist())
        return frames[::-1]

    opened = recompress.RecompressedSource(ListSource(), reverse, by_clip=True)
    assert len(opened) == 8 and opened.image_size == (8, 8)
    out = {}
    read = lambda part: out.update({i: opened[i] for i in part})
    threads = [threading.Thread(target=read, args=(range(start, 8, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [out[i]["image"][0, 0, 0] for i in range(8)] == [2, 1, 0, 3, 7, 6, 5, 4]
    assert [out[i]["label"] for i in range(8)] == list(range(8))
    assert sorted(seen) == [[0, 1, 2], [3], [4, 5, 6, 7]]
    assert not opened._clips  # each is let go with its last frame


def test_a_source_frame_by_frame_and_an_error_in_a_clip():
    double = recompress.RecompressedSource(ListSource(), lambda image: 2 * image, by_clip=False)
    assert [double[i]["image"][0, 0, 0] for i in range(8)] == [0, 2, 4, 6, 8, 10, 12, 14]

    def fail(frames):
        raise RuntimeError("codec")

    broken = recompress.RecompressedSource(ListSource(), fail, by_clip=True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="codec"):
            broken[5]


def test_what_forms_a_clip():
    make = lambda count, frames: types.SimpleNamespace(
        count=np.array(count), video=np.repeat(np.arange(len(count)), count), frame_index=np.array(frames)
    )
    assert recompress.forms_clips(make([3, 2], [0, 1, 2, 7, 8]))
    assert not recompress.forms_clips(make([3, 2], [0, 1, 3, 7, 8]))
    assert not recompress.forms_clips(make([3, 1], [0, 1, 2, 7]))


def test_published_levels():
    assert recompress.VC.levels == (30, 32, 35, 38, 40)
    assert recompress.GEND_JPEG.levels == (100, 80, 60, 40, 20, 10)
    assert {70, 75, 80, 90} <= set(recompress.JPEG[0].levels)
    assert min(recompress.H264[0].levels) == 23 and max(recompress.H264[0].levels) == 40
