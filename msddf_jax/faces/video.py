"""Frames out of videos, and into videos. Pixels are uint8 RGB, square and upright; errors carry a code."""

import dataclasses
import pathlib

import av
import numpy as np

# Of a video: an hour, and a frame of 8192 x 4320. What a header claims is checked before anything is decoded.
MAX_VIDEO_SECONDS = 3600.0
MAX_FRAME_PIXELS = 8192 * 4320
_ASSUMED_FPS = 25.0
# A pixel that is more than so many times as wide as high, or as high as wide, is damage and not a format.
_MAX_PIXEL_ASPECT = 4.0


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
    """A video: `unreadable_video` (cannot be opened, no image in it), `zero_frames` (none decodes),
    `video_too_long` or `video_too_large`."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """The first video stream of a file.

    Attributes:
      num_frames: that are there to be shown: its packets, counted, without those that an edit list cuts out.
      width, height: of the image as it is shown, in square pixels, before it is turned upright.
      fps: mean frame rate, 0 where the container names none.
      cut_short: "" or how many frames the header promises that are not there.
      odd: "" or what else the header has wrong; nothing is lost by it.
    """

    num_frames: int
    width: int
    height: int
    fps: float
    cut_short: str = ""
    odd: str = ""


@dataclasses.dataclass(frozen=True)
class DecodedFrames:
    """Frames of one sequential decode.

    Attributes:
      frames: frame number -> uint8 RGB [H, W, 3], in order.
      num_decoded: how many frames were decoded on the way.
      truncated: "" or, where the video ended before the last frame asked for, what happened.
      ended: whether it came to its end without an error.
      info: `VideoInfo`.
      corrupt: numbers of all decoded frames that the decoder calls damaged; they are not in `frames`.
    """

    frames: dict
    num_decoded: int
    truncated: str
    info: VideoInfo
    corrupt: tuple = ()
    ended: bool = False


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


def open_video(path, **options) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """(PyAV's container, to be closed by the caller; its first stream of moving images).

    Args:
      path: a file. options: of FFmpeg's demuxer.

    Raises:
      VideoError: unreadable_video. A sound file's cover is no video.
    """
    if not pathlib.Path(path).is_file():
        raise VideoError("unreadable_video", path, "no such file")
    try:
        # Titles and encoders' names need not be UTF-8.
        container = av.open(str(path), metadata_errors="replace", options=options)
    except av.error.FFmpegError as error:
        raise VideoError("unreadable_video", path, f"cannot be opened as a video ({error.strerror})") from error
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    problem = ""
    if not streams:
        covers = "; the image in it is a cover" if container.streams.video else ""
        problem = f"has no video stream{covers}"
    elif streams[0].codec_context is None:
        problem = "is in a format that no decoder here knows"
    if problem:
        container.close()
        raise VideoError("unreadable_video", path, problem)
    return container, streams[0]


def _count(path, **options):
    """Packets with an image that is shown; nothing is decoded. An edit list's other packets only help to decode."""
    container, stream = open_video(path, **options)
    with container:
        try:
            return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        except av.error.FFmpegError as error:
            raise VideoError("unreadable_video", path, f"cannot be read ({error.strerror})") from error


def probe(path) -> VideoInfo:
    """`VideoInfo` of a video file, which is read to its end and not decoded. Raises VideoError (unreadable_video)."""
    container, stream = open_video(path)
    with container:
        promised, rate = stream.frames, float(stream.average_rate or 0)
        width, height = _shown_size(stream.width, stream.height, stream.sample_aspect_ratio)
        aspect = stream.sample_aspect_ratio
    found, cut_short, odd = _count(path), "", []
    # An edit list leaves frames out on purpose: what it does not show is there all the same.
    if found < promised and (there := _count(path, ignore_editlist="1")) < promised:
        cut_short = f"the header promises {promised} frames, {there} are there"
    if 0 < promised < found:
        odd.append(f"the header says {promised} frames, {found} are there")
    if aspect and _pixel_aspect(aspect) != aspect:
        odd.append(f"pixels {aspect.numerator}:{aspect.denominator} are no format; taken as square")
    return VideoInfo(found, width, height, rate, cut_short, "; ".join(odd))


def _pixel_aspect(ratio):
    """Width over height of a pixel; 1 where the file names none, or one that cannot be."""
    return ratio if ratio and 1 / _MAX_PIXEL_ASPECT <= ratio <= _MAX_PIXEL_ASPECT else 1


def _shown_size(width, height, ratio):
    """(width, height) in square pixels. The shorter side of a pixel grows, so that no detail is lost."""
    ratio = _pixel_aspect(ratio)
    return (round(width * ratio), height) if ratio >= 1 else (width, round(height / ratio))


def to_rgb(frame, ratio) -> np.ndarray:
    """A decoded frame as it is to be looked at.

    Args:
      frame: av.VideoFrame. ratio: width over height of its pixels (the stream's sample_aspect_ratio), None for square.

    Returns:
      uint8 RGB [H, W, 3], square pixels, upright by the container's rotation (phones store portrait lying down).
    """
    width, height = _shown_size(frame.width, frame.height, ratio)
    if (width, height) != (frame.width, frame.height):
        frame = frame.reformat(width, height, "rgb24", interpolation="BICUBIC")
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def read_frames(path, indices, *, info=None, max_pixels=MAX_FRAME_PIXELS) -> DecodedFrames:
    """The frames asked for, in one sequential decode (seeking each costs ten times as much).

    Args:
      path: a video file.
      indices: increasing numbers >= 0 of the frames that are shown, or an int: that many, by `sample_indices` of how
        many there are.
      info: of `probe`, where the caller has it. max_pixels: of a frame.

    Returns:
      `DecodedFrames`. Where the video ends or breaks early, what decoded is there and `truncated` says so.

    Raises:
      VideoError: `unreadable_video`, `zero_frames` where not one frame decodes, or `video_too_large`.
    """
    info = probe(path) if info is None else info
    wanted = sample_indices(info.num_frames, indices) if isinstance(indices, int) else np.asarray(indices)
    last = int(wanted[-1]) if len(wanted) else -1
    wanted = set(wanted.tolist())
    frames, corrupt, decoded, problem, ended = {}, [], 0, "", False
    container, stream = open_video(path)
    with container:
        ratio = stream.sample_aspect_ratio
        try:
            for frame in container.decode(stream):
                width, height = _shown_size(frame.width, frame.height, ratio)
                if width * height > max_pixels:  # a stream may change its size half-way
                    detail = f"frame {decoded} has {width}x{height} pixels, more than {max_pixels}"
                    raise VideoError("video_too_large", path, detail)
                if frame.is_corrupt:
                    corrupt.append(decoded)
                elif decoded in wanted:
                    frames[decoded] = to_rgb(frame, ratio)
                decoded += 1
                if decoded > last:
                    break
            else:
                ended = True
        except av.error.FFmpegError as error:
            problem = f" ({error.strerror})"
    if decoded == 0:
        raise VideoError("zero_frames", path, f"no frame decodes{problem}")
    truncated = f"{decoded} of {info.num_frames} frames decode{problem}" if decoded <= last else ""
    return DecodedFrames(frames, decoded, truncated, info, tuple(corrupt), ended)


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
