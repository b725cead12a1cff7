"""What may be uploaded to the app: limits, types told by content, and a process of its own that decodes.

A file from a stranger is opened in a child process with a limit on memory and on time: where a decoder crashes, hangs
or asks for too much, the child ends and the app answers. Names of files are never looked at.
"""

import contextlib
import dataclasses
import multiprocessing
import pathlib
import re
import secrets
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import av
import PIL.Image
from absl import logging

from msddf_jax.faces import detect, extract, image_file, video
from msddf_jax.faces import landmarks as face_landmarks

IMAGE_TYPES = ("JPEG", "PNG", "WEBP")
# Type -> the name of FFmpeg's demuxer, which must be the one that opens the file: others follow references to files.
DEMUXERS = {"MP4": "mov,mp4,m4a,3gp,3g2,mj2", "MATROSKA": "matroska,webm", "AVI": "avi"}
ALLOWED = "JPEG, PNG and WebP images, and MP4, MOV, MKV, WebM and AVI videos"
# Brands of the MP4 family that are photos.
_PHOTO_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
# Pixels of all sampled frames together, which are held at once: 32 frames of 1080p, 16 of 4K; 450 MB.
_HELD_PIXELS = 150_000_000
_START_SECONDS = 120
# Uploads that wait or are being written, all users together; how long one waits to be asked about, and in the queue.
MAX_WAITING = 32
UPLOAD_SECONDS, QUEUE_SECONDS = 600, 3600


class UploadError(ValueError):
    """An upload that gives no verdict: `code` is one word, `message` one line for the person who uploaded it."""

    def __init__(self, code, message):
        super().__init__(f"{message} [{code}]")
        self.code, self.message = code, message

    def __reduce__(self):  # crosses a process boundary with its fields
        return type(self), (self.code, self.message)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one upload: bytes; pixels of an image and of a video's frame; frames and seconds of a video; and, for the
    work on it, seconds and the bytes of memory of the process that decodes."""

    max_bytes: int = 100 * 2**20
    max_image_pixels: int = 40_000_000
    max_video_pixels: int = 4096 * 2304
    max_video_frames: int = 20_000
    max_video_seconds: float = 300.0
    max_work_seconds: float = 120.0
    max_memory: int = 4 * 2**30


def sniff_type(head) -> str | None:
    """The type of a file by its first bytes.

    Args:
      head: bytes, the first 16 or more of the file.

    Returns:
      one of `IMAGE_TYPES`, a key of `DEMUXERS`, or "PHOTO" (HEIC, AVIF); None for anything else.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "WEBP", b"AVI ": "AVI"}.get(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "MATROSKA"
    if head[4:8] == b"ftyp":
        return "PHOTO" if head[8:12] in _PHOTO_BRANDS else "MP4"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime before it had brands
        return "MP4"
    return None


def check_upload(path, limits) -> tuple[str, video.VideoInfo | None]:
    """Refuses what is too much before it is decoded.

    Args:
      path: the uploaded file. limits: `Limits`.

    Returns:
      (type as `sniff_type`, VideoInfo or None).

    Raises:
      UploadError: upload_missing, empty_file, file_too_large, unsupported_type, corrupt_image, image_too_large,
      image_too_small, unreadable_video, video_too_large, video_too_long.
    """
    path = pathlib.Path(path)
    if path.is_symlink() or not path.is_file():
        raise UploadError("upload_missing", "The upload is no longer there: please upload the file again.")
    size = path.stat().st_size
    if size == 0:
        raise UploadError("empty_file", "This file is empty.")
    if size > limits.max_bytes:
        raise too_many_bytes(limits)
    with open(path, "rb") as file:
        kind = sniff_type(file.read(64))
    if kind == "PHOTO":
        raise UploadError("unsupported_type", "HEIC and AVIF photos cannot be read here: save the photo as JPEG first.")
    if kind is None:
        raise UploadError("unsupported_type", f"This is no file that can be checked. What can: {ALLOWED}.")
    if kind in IMAGE_TYPES:
        _check_image(path, kind, limits)
        return kind, None
    return kind, _check_video(path, kind, limits)


def too_many_bytes(limits) -> UploadError:
    """The UploadError of a file that is too large."""
    return UploadError("file_too_large", f"This file is too large: at most {limits.max_bytes / 2**20:g} MB.")


def _check_image(path, kind, limits):
    too_large = f"at most {limits.max_image_pixels / 1e6:g} megapixels can be checked"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the limit here is the lower one
            with PIL.Image.open(path, formats=[kind]) as image:  # reads the header only
                width, height = image.size
    except PIL.Image.DecompressionBombError as error:
        raise UploadError("image_too_large", f"This image has too many pixels: {too_large}.") from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise UploadError("corrupt_image", "This image is damaged and cannot be opened.") from error
    if width * height > limits.max_image_pixels:
        raise UploadError("image_too_large", f"This image has {width}x{height} pixels: {too_large}.")
    if min(width, height) < image_file.MIN_IMAGE_SIDE:
        raise UploadError("image_too_small", f"This image has only {width}x{height} pixels: too few for a face.")


def _check_video(path, kind, limits):
    try:
        container, _ = video.open_video(path)
        with container:
            demuxer, duration = container.format.name, container.duration
        if demuxer != DEMUXERS[kind]:
            raise UploadError("unreadable_video", f"This file begins as {kind} and goes on as {demuxer}.")
        info = video.probe(path)
    except av.error.FFmpegError as error:
        raise UploadError("unreadable_video", "This video is damaged and cannot be opened.") from error
    except video.VideoError as error:
        raise UploadError(error.code, f"This video cannot be used: {error.detail}.") from error
    if info.width < 1 or info.height < 1:
        raise UploadError("unreadable_video", "This video does not say how large its pictures are.")
    if info.width * info.height > limits.max_video_pixels:
        detail = f"at most {limits.max_video_pixels / 1e6:.3g} megapixels a frame can be checked"
        raise UploadError("video_too_large", f"This video has {info.width}x{info.height} pixels: {detail}.")
    # Containers lie, so the longer of the two counts; what is decoded is at most the number of frames.
    seconds = max((duration or 0) / av.time_base, info.num_frames / info.fps if info.fps > 0 else 0.0)
    if seconds > limits.max_video_seconds:
        detail = f"at most {limits.max_video_seconds:g} seconds can be checked; cut out the part that matters"
        raise UploadError("video_too_long", f"This video lasts {seconds:.0f} seconds: {detail}.")
    if info.num_frames > limits.max_video_frames:
        detail = f"at most {limits.max_video_frames} can be checked; cut out the part that matters"
        raise UploadError("video_too_long", f"This video has {info.num_frames} frames: {detail}.")
    return info


def read_upload(path, limits, detector, landmarker, *, size, preset, num_frames) -> extract.Extraction:
    """The faces of an upload, after `check_upload`.

    Args:
      path, limits: as `check_upload`. detector, landmarker, size, preset, num_frames: as `extract.extract_faces`.

    Returns:
      `extract.Extraction` with at least one frame; `info` is None for an image.

    Raises:
      UploadError: as `check_upload`, or zero_frames, no_face, no_landmarks, truncated.
    """
    _, info = check_upload(path, limits)
    settings = {"size": size, "preset": preset, "detector": detector, "landmarker": landmarker}
    try:
        if info is None:
            found = extract.extract_faces_image(image_file.read_image(path), **settings)
        else:
            num_frames = max(1, min(num_frames, _HELD_PIXELS // (info.width * info.height)))
            found = extract.extract_faces(path, num_frames=num_frames, faces="people", **settings)
    except video.MediaError as error:
        what = "image" if info is None else "video"
        raise UploadError(error.code, f"This {what} cannot be used: {error.detail}.") from error
    if found.frames:
        return found
    code = found.drops[0].code if found.drops else "no_face"
    where = "this image" if info is None else f"the {len(found.drops)} frames that were looked at"
    message = {
        "no_face": f"No face was found in {where}: a face should be upright, in the light and not too small.",
        "no_landmarks": f"A face was found in {where}, but not its eyes, nose and mouth.",
    }.get(code, f"No frame of this video could be used: {found.drops[0].detail if found.drops else 'none'}.")
    raise UploadError(code, message)


def make_face_models() -> tuple[Callable, Callable]:
    """(detector, landmarker) of the app. Raises as `detect.make_detector` and `landmarks.make_landmarker`."""
    return detect.make_detector(), face_landmarks.make_landmarker()


class Store:
    """Uploads on the disk: a folder that holds `<token>/upload` of those that wait, and nothing else for long."""

    def __init__(self, root):
        """root: the folder, a real path."""
        self.root, self._waiting, self._asked = pathlib.Path(root), {}, set()
        self._lock = threading.Lock()

    def reserve(self) -> str:
        """A new token. Raises UploadError: busy."""
        self.sweep()
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                raise UploadError("busy", "Too many uploads are waiting: please try again in a minute.")
            token = secrets.token_hex(16)
            self._waiting[token] = time.monotonic() + UPLOAD_SECONDS
            return token

    def path(self, token) -> pathlib.Path:
        """Where the upload of a token lies."""
        return self.root / token / "upload"

    def write(self, token, source) -> None:
        """Copies an open binary file to `path(token)`."""
        self.path(token).parent.mkdir(mode=0o700)
        with open(self.path(token), "xb") as target:
            shutil.copyfileobj(source, target, 2**20)

    def token(self, path) -> str | None:
        """The token of a path that `path` gave and that still waits, or None; any string is allowed."""
        match = re.fullmatch(re.escape(str(self.root)) + r"/([0-9a-f]{32})/upload", str(path))
        return match[1] if match and match[1] in self._waiting else None

    def keep(self, token) -> bool:
        """Lets an upload that is asked about wait in the queue; False where it was asked about before, or is gone."""
        with self._lock:
            if token not in self._waiting or token in self._asked:
                return False
            self._asked.add(token)
            self._waiting[token] = time.monotonic() + QUEUE_SECONDS
            return True

    def remove(self, token) -> None:
        """Forgets an upload and removes it, and whatever else is left over."""
        with self._lock:
            self._waiting.pop(token, None)
        self.sweep()

    def sweep(self) -> None:
        """Removes all that no waiting upload owns, and uploads that waited too long."""
        with self._lock:
            now = time.monotonic()
            self._waiting = {token: until for token, until in self._waiting.items() if until > now}
            self._asked &= set(self._waiting)
            for path in self.root.iterdir():
                if path.name not in self._waiting:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


class Reader:
    """Runs `read_upload` in a child process, one upload at a time; started anew where it broke or took too long."""

    def __init__(self, limits, make_models=make_face_models, **settings):
        """Starts the child, which loads the face models.

        Args:
          limits: `Limits`. make_models: () -> (detector, landmarker), a function that a child process can import.
          settings: size, preset, num_frames of `read_upload`.

        Raises:
          what `make_models` raises; RuntimeError where the child does not start.
        """
        self._limits, self._arguments = limits, (limits, make_models, settings)
        self._lock, self._process, self._pipe = threading.Lock(), None, None
        self._start()

    def read(self, path) -> extract.Extraction:
        """`read_upload(path)`. Raises UploadError: as there, or took_too_long, decoder_failed, out_of_memory."""
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                self._pipe.send(str(path))
                if not self._pipe.poll(self._limits.max_work_seconds):
                    self._stop()
                    seconds = f"{self._limits.max_work_seconds:g} seconds"
                    raise UploadError("took_too_long", f"Reading this file took more than {seconds} and was stopped.")
                answer = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._process.join(timeout=1)
                code = self._process.exitcode
                self._stop()
                logging.warning("the process that decodes ended (exit code %s) and is started anew", code)
                message = "This file makes the decoder fail, so it was not checked."
                raise UploadError("decoder_failed", message) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the child."""
        with self._lock:
            self._stop()

    def _start(self):
        self._stop()
        # Not fork: the parent has threads, and an accelerator.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            ready = self._pipe.recv() if self._pipe.poll(_START_SECONDS) else None
        except EOFError:
            ready = None
        if ready != "ready":
            self._stop()
            raise ready or RuntimeError("the process that finds faces did not start")

    def _stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = self._pipe = None


def _serve(pipe, limits, make_models, settings):
    """The child: answers each path with an Extraction or an UploadError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the parent, which ends this one
    try:
        models: Any = make_models()
    except Exception as error:
        pipe.send(error)
        return
    _limit_memory(limits.max_memory)
    pipe.send("ready")
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        try:
            answer = read_upload(path, limits, *models, **settings)
        except UploadError as error:
            answer = error
        except MemoryError:
            answer = UploadError("out_of_memory", "This file needs more memory than an upload may have.")
        except Exception as error:
            logging.exception("an upload could not be read")
            answer = UploadError("unreadable_file", f"This file cannot be read ({type(error).__name__}).")
        pipe.send(answer)


def _limit_memory(num_bytes):
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
