"""Real codecs on the host: JPEG (libjpeg through Pillow) and H.264 (x264 through PyAV), for images, clips and files.

Encoding the *crops* of a video again is not encoding the *video* again: the crop has another size, lies on another
block grid and has no background to share bits with, and sampled frames are further apart than a codec expects, so
that less is predicted from one to the next. It is what can be measured on a built data set. Whoever has the source
videos runs `recompress_video` over them and prepares and builds the data set from the result.
"""

import collections
import concurrent.futures
import fractions
import io
import os
import pathlib
import threading

import av
import numpy as np
import PIL.Image

from msddf_jax.evaluators.perturb import Perturbation
from msddf_jax.faces import video
from msddf_jax.opencv import cv2

# x264's scale.
CRF_RANGE = (0, 51)
# Clips kept encoded while some of their frames are still to be asked for. Each reader is at one or two; the rest are
# those of which another process asks for the other frames.
_CLIPS_KEPT = 64


def recompress_jpeg(image, quality) -> np.ndarray:
    """JPEG (4:2:0) and back.

    Args:
      image: uint8 RGB [H, W, 3]. quality: whole number 1 to 100, libjpeg's scale.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      ValueError: another quality.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality is {quality}, allowed: 1 to 100")
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(PIL.Image.open(buffer, formats=("JPEG",)))


def recompress_clip(frames, crf, fps=25) -> np.ndarray:
    """H.264 (x264, preset medium, yuv420p) and back, in memory.

    Args:
      frames: uint8 RGB [T, H, W, 3], consecutive; an odd side is grown by repeating its edge and cut again.
      crf: x264's quality, 0 to 51, larger is worse. fps: frames a second, which the rate control looks at.

    Returns:
      uint8 RGB [T, H, W, 3].

    Raises:
      ValueError: no frames, another shape or dtype, a crf out of range. RuntimeError: no x264 in PyAV's FFmpeg, or
      it gives back another number of frames.
    """
    check_x264()
    _check_crf(crf)
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"expected frames uint8 [T, H, W, 3], T >= 1, got {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # One thread: readers run several clips at once, and the bits do not depend on the machine.
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(image), format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(decoded) != len(frames):
        raise RuntimeError(f"{len(frames)} frames went into x264, {len(decoded)} came back")
    return np.stack(decoded)[:, :height, :width]


def recompress_video(path_in, path_out, crf) -> None:
    """Writes a whole video again as H.264 mp4 of quality `crf`: every frame, upright, square pixels, no sound.

    Args:
      path_in: any video that FFmpeg reads. path_out: file to write, only whole; its folder exists.
      crf: x264's quality, 0 to 51. A variable frame rate becomes the mean one.

    Raises:
      faces.video.VideoError: it cannot be opened, or breaks on the way. ValueError: crf out of range, or path_out is
      path_in. RuntimeError: no x264 in PyAV's FFmpeg.
    """
    check_x264()
    _check_crf(crf)
    path_in, path_out = pathlib.Path(path_in), pathlib.Path(path_out)
    if path_out.exists() and path_out.samefile(path_in):
        raise ValueError(f"{path_out} is the video itself; write it elsewhere")
    rate = fractions.Fraction(video.probe(path_in).fps or 25).limit_denominator(1001)
    temporary = path_out.with_name(f".{path_out.name}.{os.getpid()}.tmp")
    try:
        video.write_video(temporary, _upright_frames(path_in), fps=rate, crf=crf)
        os.replace(temporary, path_out)
    finally:
        temporary.unlink(missing_ok=True)


def check_x264() -> None:
    """Raises RuntimeError, naming the H.264 encoders there are, where PyAV's FFmpeg has no x264."""
    if "libx264" in av.codecs_available:
        return
    others = sorted(name for name in av.codecs_available if "264" in name)
    raise RuntimeError(
        f"the FFmpeg inside PyAV {av.__version__} has no libx264 (H.264 codecs there: {others or 'none'}); "
        "install the wheel from PyPI: pip install --force-reinstall av"
    )


def forms_clips(source) -> bool:
    """Whether the stored frames of every video are consecutive ones, and several: a clip, and not samples of one."""
    if source.count.min() < 2:
        return False
    inside = np.diff(source.video) == 0
    return bool(np.all(np.diff(source.frame_index)[inside] == 1))


class RecompressedSource:
    """A source whose images went through a codec; for `pipeline.eval_batches`, which may read it in threads.

    Args:
      source: data.source.Source. fn: uint8 [H, W, 3] -> the same, or with by_clip uint8 [T, H, W, 3] -> the same,
        called once a video with its frames in order.
    """

    def __init__(self, source, fn, by_clip):
        self._source, self._fn, self._by_clip = source, fn, by_clip
        # {row of a video: [its examples to come, frames that nobody has asked for yet]}.
        self._lock, self._clips = threading.Lock(), collections.OrderedDict()
        self.name, self.image_size, self.clip_length = source.name, source.image_size, source.clip_length

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        """As the source's own, with the image recompressed."""
        if self._by_clip:
            row = int(self._source.video[index])
            return dict(self._clip(row)[index - int(self._source.first[row])])
        example = self._source[index]
        return dict(example, image=self._fn(example["image"]))

    def _clip(self, row):
        """The examples of a video, to take one from. One thread makes them, others that come meanwhile wait."""
        with self._lock:
            mine = row not in self._clips
            if mine:
                self._clips[row] = [concurrent.futures.Future(), int(self._source.count[row])]
            clip = self._clips[row]
            clip[1] -= 1
            if clip[1] <= 0:
                del self._clips[row]
            while len(self._clips) > _CLIPS_KEPT:
                self._clips.popitem(last=False)
        future = clip[0]
        if mine:
            try:
                future.set_result(self._make_clip(row))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def _make_clip(self, row):
        first, count = int(self._source.first[row]), int(self._source.count[row])
        examples = [self._source[i] for i in range(first, first + count)]
        images = self._fn(np.stack([example["image"] for example in examples]))
        return [dict(example, image=image) for example, image in zip(examples, images, strict=True)]


def _upright_frames(path):
    """Yields every frame of a video, uint8 RGB with the even sides of the first. Memory: one frame."""
    decoded, first = 0, None
    container, stream = video.open_video(path)
    try:
        with container:
            for frame in container.decode(stream):
                image = _even(video.to_rgb(frame, stream.sample_aspect_ratio))
                first = image.shape if first is None else first
                # Where the size changes on the way, players keep their window's.
                yield image if image.shape == first else cv2.resize(image, first[1::-1], interpolation=cv2.INTER_CUBIC)
                decoded += 1
    except av.error.FFmpegError as error:
        raise video.VideoError("unreadable_video", path, f"breaks after {decoded} frames ({error.strerror})") from error
    if decoded == 0:
        raise video.VideoError("zero_frames", path, "no frame decodes")


def _even(image):
    """The image with even sides, the last row and column repeated where it had odd ones."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)


def _check_crf(crf):
    if not CRF_RANGE[0] <= crf <= CRF_RANGE[1]:
        raise ValueError(f"crf is {crf}, allowed: {CRF_RANGE[0]} to {CRF_RANGE[1]}")


# DeeperForensics-1.0 compresses the whole video.
VC = Perturbation("VC", (30, 32, 35, 38, 40), recompress_clip, "H.264 of the crops as a clip", "CRF", "clip")
GEND_JPEG = Perturbation("jpeg", (100, 80, 60, 40, 20, 10), recompress_jpeg, "JPEG, real encoder", "quality", "image")
# 90, 80, 75 and 70 are what SJEDD trains on.
JPEG = (GEND_JPEG._replace(levels=(95, 90, 80, 75, 70, 60, 50, 30)),)
H264 = (VC._replace(name="h264", levels=(23, 26, 28, 30, 32, 35, 38, 40)),)
