"""From files of any kind to faces, here or in processes beside this one, which a file may end."""

import multiprocessing
import pathlib
import signal
import time
from collections.abc import Iterator

import numpy as np

from msddf_jax.faces import detect, extract, find, image_file, video
from msddf_jax.faces import landmarks as face_landmarks


def extract_all(found, settings) -> Iterator[tuple[pathlib.Path, extract.Extraction]]:
    """Yields (path, Extraction); of a file that cannot be used, one without frames and with the reason."""
    for path, error in found:
        try:
            if error is not None:
                raise error
            yield path, _extract(path, **settings)
        except (find.InputError, video.MediaError, extract.LandmarkFileError) as problem:
            yield path, extract.Extraction([], [extract.Drop(-1, problem.code, problem.detail)], None, 0)


def _extract(path, *, num_frames, landmarks, faces="largest", **settings):
    if find.is_video(path):
        return extract.extract_faces(path, num_frames=num_frames, landmarks=landmarks, faces=faces, **settings)
    image, points = image_file.read_image(path), None
    if landmarks == "sidecar":
        sidecar = extract.sidecar_path(path)
        points = extract.read_sidecar(sidecar)
        if len(points) != 1:
            detail = f"{sidecar.name} has {len(points)} frames, an image has one"
            raise extract.LandmarkFileError("landmarks_invalid", sidecar, detail)
        points = points[0]
        if not np.isfinite(points).all():
            raise find.InputError("no_face", path, f"{sidecar.name} has no face")
    found = extract.extract_faces_image(image, points=points, **settings)
    if (count := image_file.count_frames(path)) > 1:
        detail = f"an animation of {count} images, of which the first is scored"
        found.drops.append(extract.Drop(-1, "animation", detail))
    return found


class Reader:
    """A process that reads one file at a time, and is started anew when a file has killed it."""

    def __init__(self, settings):
        self._settings, self.task, self._timeout, self._deadline = settings, None, None, None
        self._start()

    def _start(self):
        self._ready = False
        context = multiprocessing.get_context("spawn")  # a fork would copy the device's threads
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_read_files, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, task, path, timeout) -> None:
        """Read a file; `receive` gives what came of it. task: anything, kept until then."""
        self.task, self._timeout = task, timeout
        self._deadline = time.monotonic() + timeout if self._ready else None
        try:
            self.pipe.send(str(path))
        except OSError:
            self.receive()  # ended while it had nothing to do: another reads
            self._deadline = None
            self.pipe.send(str(path))

    def receive(self) -> tuple[extract.Extraction | None, dict | None] | None:
        """(what was read, None), or (None, error {code, message}) where the file ended the process.

        None where the process has only started; what it was sent is being read from now on. Raises OSError where it
        could not start.
        """
        try:
            found = self.pipe.recv()
            if self._ready:
                return found, None
            self._ready = True
            self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
            return None
        except (EOFError, ConnectionError, OSError):
            self._process.join()
            code = self._process.exitcode
            if not self._ready:
                raise OSError(f"a process that reads files could not start (exit code {code})") from None
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            self._start()
            return None, {"code": "crashed", "message": f"the process that read this file ended with {how}"}

    def is_late(self) -> bool:
        """Whether its file has taken too long; the process is then stopped, and started anew."""
        if self.task is None or self._deadline is None or time.monotonic() < self._deadline:
            return False
        self.close()
        self._start()
        return True

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _read_files(pipe, settings):
    """Runs in the process of a `Reader`."""
    # Ctrl-C is for the process that scores.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = dict(settings, detector=None, landmarker=None)
    if settings["landmarks"] == "mediapipe":
        settings |= {"detector": detect.make_detector(), "landmarker": face_landmarks.make_landmarker()}
    pipe.send("ready")
    while True:
        try:
            path = pathlib.Path(pipe.recv())
        except EOFError:
            return
        try:
            if path.is_dir():
                raise IsADirectoryError("a folder, expected a file")
            named, _ = find.find_files([path])
            _, found = next(extract_all(named, settings))
        except Exception as error:  # a file may be wrong in ways that nobody has met
            found = extract.Extraction(
                [], [extract.Drop(-1, "unreadable", f"{type(error).__name__}: {error}")], None, 0
            )
        pipe.send(found)
