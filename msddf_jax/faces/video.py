"""Frames out of videos and images, and into videos. Pixels are uint8 RGB; errors carry a code."""

import dataclasses
import pathlib
import struct
import zlib

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import simplejpeg

MAX_IMAGE_PIXELS = 100_000_000
MIN_IMAGE_SIDE = 16
# Of a video: an hour, and a frame of 8192 x 4320. What a header claims is checked before anything is decoded.
MAX_VIDEO_SECONDS = 3600.0
MAX_FRAME_PIXELS = 8192 * 4320
_ASSUMED_FPS = 25.0
_PNG = b"\x89PNG\r\n\x1a\n"


class MediaError(ValueError):
    """A file that cannot be used.

    Attributes:
      code: one word for reports, such as "unreadable_video".
      path: the file.
      detail: what is wrong with it, one line.
    """

    def __init__(self, code, path, detail):
        super().__init__(f"{path}: {detail} [{code}]")
        self.code, self.path, self.detail = code, str(path), detail

    def __reduce__(self):  # crosses a process boundary with its fields
        return type(self), (self.code, self.path, self.detail)


class VideoError(MediaError):
    """A video: `unreadable_video` (cannot be opened, no picture in it), `zero_frames` (none decodes),
    `video_too_long` or `video_too_large`."""


class ImageError(MediaError):
    """An image: `corrupt_image` (does not decode), `image_too_large` or `image_too_small`."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What the container says of its first video stream; `num_frames` can exceed what decodes."""

    num_frames: int
    width: int
    height: int
    fps: float


@dataclasses.dataclass(frozen=True)
class DecodedFrames:
    """Frames of one sequential decode.

    Attributes:
      frames: frame number -> uint8 RGB [H, W, 3], in order.
      num_decoded: how many frames were decoded on the way.
      truncated: "" or, where the video ended before the last frame asked for, what happened.
      info: `VideoInfo`.
      corrupt: numbers of all decoded frames that the decoder calls damaged; they are not in `frames`.
    """

    frames: dict
    num_decoded: int
    truncated: str
    info: VideoInfo
    corrupt: tuple = ()


def sample_indices(num_frames, k) -> np.ndarray:
    """Up to k frame numbers, evenly spread over a video, first and last included (DeepfakeBench).

    Args:
      num_frames: frames in the video, >= 0.
      k: how many are wanted, >= 1.

    Returns:
      int64 [<= k], increasing: linspace(0, num_frames - 1, k) cut to integers, duplicates collapsed.

    Raises:
      ValueError: k < 1 or num_frames < 0.
    """
    if k < 1 or num_frames < 0:
        raise ValueError(f"expected num_frames >= 0 and k >= 1, got {num_frames=} and {k=}")
    if num_frames == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, num_frames - 1, k).astype(np.int64))


def sample_clips(num_frames, clip_length, num_clips) -> np.ndarray:
    """Frame numbers of runs of consecutive frames, evenly placed over a video, the first at its start.

    Args:
      num_frames: frames in the video, >= 0. clip_length: frames of a run, >= 1.
      num_clips: how many runs are wanted, >= 1; fewer where they would overlap.

    Returns:
      int64, increasing: `clip_length` numbers a run; all numbers where the video is shorter than one run.

    Raises:
      ValueError: a number below its minimum.
    """
    if num_frames < 0 or clip_length < 1 or num_clips < 1:
        raise ValueError(f"expected {num_frames=} >= 0, {clip_length=} >= 1 and {num_clips=} >= 1")
    count = min(num_clips, num_frames // clip_length)
    if count == 0:
        return np.arange(num_frames)
    starts = np.linspace(0, num_frames - clip_length, count).astype(np.int64)
    return (starts[:, None] + np.arange(clip_length)).ravel()


def check_limits(info, path, *, max_seconds=MAX_VIDEO_SECONDS, max_pixels=MAX_FRAME_PIXELS) -> None:
    """Refuse a video by what its container says, before anything is decoded.

    Args:
      info: `VideoInfo`. path: for the message. max_seconds: of frames over frame rate (25 a second where the container
        names none). max_pixels: of a frame.

    Raises:
      VideoError: `video_too_long`, `video_too_large`.
    """
    seconds = info.num_frames / (info.fps if info.fps > 0 else _ASSUMED_FPS)
    if seconds > max_seconds:
        raise VideoError("video_too_long", path, f"{seconds:.0f} seconds, more than the limit of {max_seconds:g}")
    if info.width * info.height > max_pixels:
        detail = f"{info.width}x{info.height} pixels a frame, more than the limit of {max_pixels}"
        raise VideoError("video_too_large", path, detail)


def _open(path):
    if not pathlib.Path(path).is_file():
        raise VideoError("unreadable_video", path, "no such file")
    try:
        # What the file says of its encoder need not be UTF-8.
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise VideoError("unreadable_video", path, f"cannot be opened as a video ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise VideoError("unreadable_video", path, "has no video stream")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise VideoError("unreadable_video", path, "is in a format that no decoder here knows")
    return container


def _info(container, path):
    stream = container.streams.video[0]
    num_frames = stream.frames
    if num_frames == 0:  # some containers (Matroska, MPEG-TS) do not say: count packets, which decodes nothing
        with _open(path) as counted:
            num_frames = sum(packet.size > 0 for packet in counted.demux(counted.streams.video[0]))
    return VideoInfo(num_frames, stream.width, stream.height, float(stream.average_rate or 0))


def probe(path) -> VideoInfo:
    """`VideoInfo` of a video file. Raises VideoError (unreadable_video)."""
    with _open(path) as container:
        return _info(container, path)


def _to_rgb(frame):
    image = frame.to_ndarray(format="rgb24")
    # Phones store portrait video lying down, with a rotation in the container.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def read_frames(path, indices, *, max_pixels=MAX_FRAME_PIXELS) -> DecodedFrames:
    """The frames asked for, in one sequential decode (seeking each costs ten times as much).

    Args:
      path: a video file.
      indices: increasing frame numbers >= 0, or an int: that many, by `sample_indices` of the container's
        count.
      max_pixels: of a frame.

    Returns:
      `DecodedFrames`. Where the video ends or breaks early, what decoded is there and `truncated` says so.

    Raises:
      VideoError: `unreadable_video`, `zero_frames` where not one frame decodes, or `video_too_large`.
    """
    with _open(path) as container:
        info = _info(container, path)
        wanted = sample_indices(info.num_frames, indices) if isinstance(indices, int) else np.asarray(indices)
        last = int(wanted[-1]) if len(wanted) else -1
        wanted = set(wanted.tolist())
        stream = container.streams.video[0]
        frames, corrupt, decoded, problem = {}, [], 0, ""
        try:
            for frame in container.decode(stream):
                if frame.width * frame.height > max_pixels:  # a stream may change its size half-way
                    detail = f"frame {decoded} has {frame.width}x{frame.height} pixels, more than {max_pixels}"
                    raise VideoError("video_too_large", path, detail)
                if frame.is_corrupt:
                    corrupt.append(decoded)
                elif decoded in wanted:
                    frames[decoded] = _to_rgb(frame)
                decoded += 1
                if decoded > last:
                    break
        except av.error.FFmpegError as error:
            problem = f" ({error.strerror})"
    if decoded == 0:
        raise VideoError("zero_frames", path, f"no frame decodes{problem}")
    truncated = ""
    if decoded <= last:
        truncated = f"{decoded} of {info.num_frames} frames decode{problem}"
    return DecodedFrames(frames, decoded, truncated, info, tuple(corrupt))


def write_video(path, frames, fps=25, crf=18) -> None:
    """Writes H.264 mp4 (yuv420p, index at the front).

    Args:
      path: file to write; its folder exists.
      frames: iterable of uint8 RGB [H, W, 3], at least one, all of one even height and width.
      fps: frames a second.
      crf: x264's quality, 0 (lossless but for the colour sampling) to 51.

    Raises:
      ValueError: no frames, an odd side, another dtype or shape than the first frame's.
    """
    stream, shape = None, None
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        for image in frames:
            image = np.asarray(image)
            if stream is None:
                shape = image.shape
                if image.ndim != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
                    raise ValueError(f"{path}: frames must be [H, W, 3] with even sides, got {shape}")
                # One thread: callers run a process a core.
                options = {"crf": str(crf), "threads": "1"}
                stream = container.add_stream("libx264", rate=fps, options=options)
                stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
            if image.shape != shape or image.dtype != np.uint8:
                raise ValueError(f"{path}: frames must be uint8 {shape}, got {image.dtype} {image.shape}")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if stream is None:
            raise ValueError(f"{path}: no frames to write")
        container.mux(stream.encode())


def read_image(path) -> np.ndarray:
    """Decodes an image file, upright by its EXIF orientation.

    Args:
      path: any format that Pillow reads.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      ImageError: `corrupt_image` (missing, not an image, cut off), `image_too_large` (over 100 megapixels,
        found before decoding), `image_too_small` (a side under 16 pixels holds no face).
    """
    if not pathlib.Path(path).is_file():
        raise ImageError("corrupt_image", path, "no such file")
    damage = png_damage(pathlib.Path(path).read_bytes())
    if damage:
        raise ImageError("corrupt_image", path, f"does not decode ({damage})")
    try:
        with PIL.Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                detail = f"{width}x{height} pixels, more than {MAX_IMAGE_PIXELS // 10**6} megapixels"
                raise ImageError("image_too_large", path, detail)
            if min(width, height) < MIN_IMAGE_SIDE:
                detail = f"{width}x{height} pixels; a face needs at least {MIN_IMAGE_SIDE} on each side"
                raise ImageError("image_too_small", path, detail)
            image.load()
            image = PIL.ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
                grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except PIL.Image.DecompressionBombError as error:
        detail = f"more than {MAX_IMAGE_PIXELS // 10**6} megapixels"
        raise ImageError("image_too_large", path, detail) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError("corrupt_image", path, "not an image") from error
    except ImageError:
        raise
    except (OSError, SyntaxError, EOFError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        # Pillow raises SyntaxError for broken PNG chunks, the others where a damaged header leads it astray.
        raise ImageError("corrupt_image", path, f"does not decode ({error})") from error


def png_damage(data) -> str:
    """What is wrong with a PNG file by its own checksums, which Pillow does not compare for pixels.

    Args:
      data: bytes of a file.

    Returns:
      one line, "" for a sound file and for other formats.
    """
    if not data.startswith(_PNG):
        return ""
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big") or end + 4 > len(data):
            return f"checksum of the PNG chunk at byte {at} is wrong"
        if kind == b"IEND":
            return ""
        at = end + 4
    return "PNG file is cut short"


def jpeg_complaint(path) -> str:
    """What the JPEG decoder complains of though it gives a picture: damage that Pillow keeps to itself.

    Args:
      path: an image file that `read_image` reads.

    Returns:
      one line, "" for a sound file and for other formats, which have checksums or fail.
    """
    data = pathlib.Path(path).read_bytes()
    if not data.startswith(b"\xff\xd8"):
        return ""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except ValueError as error:
        return str(error)
    return ""
