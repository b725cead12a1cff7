"""Write the embedded data set in the official FF++ layout; what `python -m data_prep.toy` runs."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import pathlib

import numpy as np
import threadpoolctl
import tqdm

from data_prep.toy import identity as idt
from data_prep.toy import manipulate, render
from msddf_jax.faces.extract import sidecar_path
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.faces.video import write_video
from msddf_jax.opencv import cv2

FPS = 25
# FF++ names its compressions after the constant rate factor of H.264.
COMPRESSIONS = {"c23": 23, "c40": 40}
SPLITS = (("train", 0.7), ("val", 0.1), ("test", 0.2))
MIN_SIZE = 64
VERSION = 1  # of the drawings: raise it when the same seed gives other pixels


def split_pairs(num_identities, seed):
    """Pairs of identities per split, all identities once.

    Args:
      num_identities: even, at least 6.
      seed: of the shuffle.

    Returns:
      {"train" | "val" | "test": list of (id, id)}, ids as three-digit strings (more digits past 1000). Within a
      split people of like skin are paired, as forgers choose them.

    Raises:
      ValueError: an odd or too small number of identities.
    """
    if num_identities % 2 or num_identities < 6:
        raise ValueError(f"identities must be even and at least 6 (one pair a split), got {num_identities}")
    pairs = num_identities // 2
    counts = {name: max(1, round(share * pairs)) for name, share in SPLITS}
    counts["train"] = pairs - counts["val"] - counts["test"]
    order = idt.stream(seed, "splits").permutation(num_identities)
    out, at = {}, 0
    for name, _ in SPLITS:
        members = order[at : at + 2 * counts[name]].tolist()
        members.sort(key=lambda i: sum(idt.sample_identity(seed, i).skin))
        out[name] = [(f"{a:03d}", f"{b:03d}") for a, b in zip(members[::2], members[1::2])]
        at += 2 * counts[name]
    return out


# One BLAS thread: the small systems here only lose by more, and the bits do not depend on the number of cores.
@threadpoolctl.threadpool_limits.wrap(limits=1)
def draw_pair(seed, first, second, num_frames, size):
    """Two people and their forgeries in both directions, before encoding.

    Args:
      first, second: ids of the pair.

    Returns:
      {(folder, stem): manipulate.Forged}, folder "youtube" with empty masks, or a method; a function of the
      arguments alone.
    """
    actors = {
        name: manipulate.Actor(*render.render_video(seed, int(name), num_frames, size)) for name in (first, second)
    }
    out = {}
    for name, actor in actors.items():
        nothing = np.zeros(actor.video.frames.shape[:3], np.uint8)
        out["youtube", name] = manipulate.Forged(actor.video.frames, nothing, actor.video.landmarks)
    for target, source in ((first, second), (second, first)):
        for method in manipulate.METHODS:
            rng = idt.stream(seed, method, int(target), int(source))
            out[method, f"{target}_{source}"] = manipulate.forge(method, actors[target], actors[source], rng)
    return out


def video_path(root, folder, stem, compression="c23"):
    """Where a video lies: `folder` "youtube" for originals, else a method; `compression` of `COMPRESSIONS`."""
    unit = "original_sequences" if folder == "youtube" else "manipulated_sequences"
    return pathlib.Path(root) / unit / folder / compression / "videos" / f"{stem}.mp4"


def mask_path(root, method, stem):
    """Where the mask video of a forgery lies."""
    return pathlib.Path(root) / "manipulated_sequences" / method / "masks" / "videos" / f"{stem}.mp4"


def pair_files(root, first, second, compressions=("c23",)):
    """Every file that belongs to a pair: {(folder, stem): {path: compression | "landmarks" | "mask"}}."""
    keys = [("youtube", first), ("youtube", second)]
    keys += [(m, f"{a}_{b}") for a, b in ((first, second), (second, first)) for m in manipulate.METHODS]
    out = {}
    for folder, stem in keys:
        files = {}
        for compression in compressions:
            video = video_path(root, folder, stem, compression)
            files |= {video: compression, sidecar_path(video): "landmarks"}
        if folder != "youtube":
            files[mask_path(root, folder, stem)] = "mask"
        out[folder, stem] = files
    return out


def write_pair(root, seed, first, second, num_frames, size, compressions=("c23",)):
    """Draw and write what is missing of a pair; each file appears whole or not at all.

    Returns:
      how many files were written.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    files = pair_files(root, first, second, compressions)
    missing = {key: [p for p in paths if not p.exists()] for key, paths in files.items()}
    if not any(missing.values()):
        return 0
    drawn = draw_pair(seed, first, second, num_frames, size)
    for key, kinds in files.items():
        for path in missing[key]:
            part = path.with_name(f".{path.name}.part")
            try:
                _write_part(part, drawn[key], kinds[path])
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    return sum(len(paths) for paths in missing.values())


def _write_part(path, forged, kind):
    if kind == "landmarks":
        with open(path, "wb") as file:
            np.save(file, to_dlib_order(forged.landmarks.astype(np.float32)))
    elif kind == "mask":  # crf 0 keeps black at 0 and white at 255, so any threshold between holds
        write_video(path, np.repeat(forged.masks[..., None], 3, axis=-1), FPS, crf=0)
    else:
        write_video(path, forged.frames, FPS, crf=COMPRESSIONS[kind])


def digest(drawn):
    """SHA-256 over the pixels, masks and landmarks of `draw_pair`, hexadecimal."""
    total = hashlib.sha256()
    for key in sorted(drawn):
        for part in drawn[key]:
            total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def _claim(root, settings):
    """Note in `toy.json` what the folder holds; refuse a folder that holds another set."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "toy.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != settings:
            raise ValueError(f"{path} says that the folder holds the set {found}, asked for was {settings}; "
                             "choose another --out or remove the folder")  # fmt: skip
        return
    _write_json(path, settings)


def _write_json(path, value):
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def generate(out, num_identities=120, num_frames=8, size=128, seed=0, workers=2, compressions=("c23",)):
    """Write the set, or what is missing of it.

    Args:
      out: folder, made if it is not there.
      num_identities: even, at least 6.
      num_frames: of each video, at least 1.
      size: side of a frame in pixels, even, at least MIN_SIZE.
      seed: of the whole set.
      workers: processes.
      compressions: names from `COMPRESSIONS`; each video is written once for each. More can be added later.

    Returns:
      how many files were written; 0 where the set was complete.

    Raises:
      ValueError: an argument out of range, or a folder that holds another set.
    """
    if size % 2 or size < MIN_SIZE:
        raise ValueError(f"size must be even and at least {MIN_SIZE}, got {size}")
    if num_frames < 1 or workers < 1 or seed < 0:
        raise ValueError(f"expected frames >= 1, workers >= 1 and seed >= 0, got {num_frames}, {workers}, {seed}")
    unknown = sorted(set(compressions) - set(COMPRESSIONS))
    if unknown or not compressions:
        raise ValueError(f"compressions are {tuple(compressions)}, allowed are names from {tuple(COMPRESSIONS)}")
    splits = split_pairs(num_identities, seed)
    root = pathlib.Path(out)
    _claim(root, dict(version=VERSION, identities=num_identities, frames=num_frames, size=size, seed=seed))
    pairs = [pair for name, _ in SPLITS for pair in splits[name]]
    for paths in pair_files(root, *pairs[0], compressions).values():
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    written = 0
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(write_pair, root, seed, a, b, num_frames, size, compressions) for a, b in pairs]
        try:
            for job in tqdm.tqdm(concurrent.futures.as_completed(jobs), "pairs", len(jobs), unit="pair"):
                written += job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name, _ in SPLITS:  # last: a folder with split lists is complete
        _write_json(root / f"{name}.json", [list(pair) for pair in splits[name]])
    return written
