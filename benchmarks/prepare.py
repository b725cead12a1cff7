"""Preparation: faces a second of `data_prep.prepare` on a 1080p clip, whole and by stage, beside dlib's detector alone.

    python -m benchmarks.prepare [--video=FILE] [--runs=5] [--videos=8] [--dlib_frames=2] [--out=FILE]

Without --video the clip is drawn: a face of the embedded set in 1920x1080, 120 frames. Stages run in this process on
one core, one after the other on the same 32 sampled frames; "whole" is one video from file to files. "processes" is
the command on --videos copies, without the start of its processes, with one and with two. dlib's HOG detector looks
at the same frames, once doubled as DeepfakeBench does; it is optional (`pip install dlib-bin`). Model files come from
$MSDDF_MODELS or are downloaded.
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import time

import numpy as np

from benchmarks.timing import medians, report
from data_prep import catalog, crops, prepare
from data_prep.toy import render
from msddf_jax import paths
from msddf_jax.faces import detect, extract, landmarks, scene, video
from msddf_jax.opencv import cv2

WIDTH, HEIGHT, FRAMES, FACE = 1920, 1080, 120, 640
_DRAWN = 6  # faces drawn; the clip repeats them, moving


def draw_clip(path, seed=0):
    """Writes the clip: a drawn face of about 300 pixels that wanders before a smooth background."""
    *_, faces = render.render_video(seed, 1, _DRAWN, FACE // 2)
    rng = np.random.default_rng(seed)
    background = cv2.resize(
        rng.integers(40, 200, (18, 32, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    large = [cv2.resize(image, (FACE, FACE), interpolation=cv2.INTER_CUBIC) for image in faces.frames]

    def frames():
        for i in range(FRAMES):
            image = background.copy()
            x = round(640 + 300 * np.sin(2 * np.pi * i / FRAMES))
            image[200 : 200 + FACE, x : x + FACE] = large[i // 2 % _DRAWN]
            yield image

    video.write_video(path, frames(), fps=30)


def make_entry(path, stem="clip"):
    """The clip as a data set of one video."""
    fields = catalog.make_fields("faceforensics", "real", stem)
    return catalog.Entry(
        kind="video", path=path.name, unit="clip", stem=stem, split="train", fields=fields, root=str(path.parent)
    )


def stages(path, out, job, models):
    """{stage: function of no arguments} over the frames that are sampled of one video, and their number."""
    sample = lambda n: video.sample_indices(n, job.settings["num_frames"])
    found = scene.read_video_scene(path, sample)
    boxes = {index: models["detector"](image)[0].box for index, image in found.frames.items()}
    points = {index: models["landmarker"](found.frames[index], box) for index, box in boxes.items()}
    known = scene.Scene(found.frames, None, points, [], found.info, found.num_decoded)
    (extraction,) = extract.extract_scene(known)
    entry = make_entry(path)
    return {
        "decode": lambda: scene.read_video_scene(path, sample),
        "detect": lambda: [models["detector"](image) for image in found.frames.values()],
        "landmarks": lambda: [models["landmarker"](found.frames[i], box) for i, box in boxes.items()],
        "align": lambda: extract.extract_scene(known),
        "encode, write": lambda: crops._write_entry(out, entry, job.settings, [extraction]),
        "whole": lambda: crops.prepare_entry(entry, job, **models),
    }, list(found.frames.values())


def time_processes(path, folder, count, workers):
    """Seconds from the first finished video to the last of `count`, of the command's processes, per video."""
    root = folder / f"copies{workers}"
    root.mkdir()
    entries = []
    for i in range(count):
        shutil.copy(path, root / f"{i}.mp4")
        entries.append(make_entry(root / f"{i}.mp4", str(i)))
    job = crops.Job(str(root / "out"), crops.make_settings(), overwrite=True)
    if workers == 1:
        prepare._start_worker(job)
    ends = []
    for _ in prepare._run_all(entries, job, workers):
        ends.append(time.perf_counter())
    # The first of each process carries its start.
    return (ends[-1] - ends[workers - 1]) / (count - workers)


def dlib_row(images, count):
    """Seconds a frame of dlib's detector alone, or None where there is no dlib."""
    try:
        find = detect.make_detector("dlib")
    except ImportError as error:
        print(f"no comparison: {error}")
        return None
    some = [images[i] for i in video.sample_indices(len(images), count)]
    found = sum(bool(find(image)) for image in some)
    print(f"dlib found a face in {found} of {len(some)} frames")
    return medians({"dlib": lambda: [find(image) for image in some]}, runs=2, warmup=0)["dlib"] / len(some)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=paths.expand, help="a clip of a face, in place of the drawn one")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--videos", type=int, default=8, help="copies for the comparison of processes; 0 leaves it out")
    parser.add_argument("--dlib_frames", type=int, default=2)
    parser.add_argument("--out", type=paths.expand)
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = pathlib.Path(args.video or folder / "clip.mp4")
        if args.video is None:
            draw_clip(path)
        job = crops.Job(str(folder / "out"), crops.make_settings(), overwrite=True)
        os.sched_setaffinity(0, {min(cores)})  # before the models are made: their threads are then one core's too
        models = {"detector": detect.make_detector(), "landmarker": landmarks.make_landmarker()}
        cv2.setNumThreads(1)
        functions, images = stages(path, folder / "stages", job, models)
        seconds = medians(functions, runs=args.runs)
        alone = dlib_row(images, args.dlib_frames)
        os.sched_setaffinity(0, cores)
        count = len(images)
        each = lambda total: (f"{1000 * total / count:.1f}", f"{count / total:.1f}")
        rows = [[stage, *each(total), f"{total / seconds['whole']:.0%}"] for stage, total in seconds.items()]
        if args.videos:
            for workers in (1, 2):
                total = time_processes(path, folder, args.videos, workers)
                rows.append([f"{workers} processes", *each(total), ""])
        if alone is not None:
            rows.append(["dlib HOG alone", f"{1000 * alone:.1f}", f"{1 / alone:.2f}", ""])
            rows.append(["whole / dlib HOG", "", f"{alone * count / seconds['whole']:.1f} x", ""])
    height, width = images[0].shape[:2]
    title = f"Preparation, {count} sampled frames of {width}x{height}, YuNet and MediaPipe, one core"
    report(title, ["stage", "ms a face", "faces/s", "of whole"], rows, args.out)


if __name__ == "__main__":
    main()
