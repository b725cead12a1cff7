"""Prepares a downloaded data set: aligned face crops, 81 landmarks and masks, in DeepfakeBench's folder layout.

    python -m data_prep.prepare --layout=celebdf --config=v2 --root Celeb-DF-v2 --out prepared

`--layout` is a folder of data_prep with a downloads.py. Under `--out` (default: the root) every `<unit>`, for example
original_sequences/youtube/c23, gets

    frames/<video>/<frame>.png      uint8 RGB crop, frame number with at least three digits
    landmarks/<video>/<frame>.npy   float32 [81, 2], crop pixels, order of the 81-point dlib predictor
    masks/<video>/<frame>.png       uint8 {0, 255}, for fakes with a mask
    meta/<video>.json               settings, boxes, matrices, dropped frames; written last: the video is done

and the whole job catalog/<layout>-<config>.jsonl, what became of every video, which the builder reads, and report.json:
counts by code and a coded reason for everything dropped. The same command again goes on where a stopped run was. A
video is redone when its file changed; settings other than before are an error, unless `--overwrite` is given.
`--runner=DirectRunner` (DataflowRunner, FlinkRunner, SparkRunner) runs the same on Apache Beam; what stands after `--`
are Beam's options.
Exit code 0: done; 1: the job failed (nothing prepared, too many bad videos, disk full); 2: usage.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

import tqdm

from data_prep import beam, catalog, contents, crops
from data_prep.report import first_drop, make_report, print_summary
from msddf_jax import paths
from msddf_jax.data import methods
from msddf_jax.faces import align, detect, extract, fetch, video

_HERE = pathlib.Path(__file__).parent
_worker = {}  # what `_start_worker` built, one set per process


class PrepareError(RuntimeError):
    """The job cannot start or go on; the message is for the user."""


def layouts():
    """Names of the data sets that can be prepared: the folders here with a downloads.py."""
    return [path.parent.name for path in contents.matching(_HERE, "*/downloads.py")]


def find_layout(layout, config=None):
    """The `downloads` module of a data set, and the config to prepare.

    Args:
      layout: name of `layouts`. config: name of the module's CONFIGS; None for its DEFAULT_CONFIG, or the only one.

    Raises:
      catalog.DownloadError: an unknown name (the nearest is named), or no config given where there are several.
    """
    if layout not in layouts():
        raise catalog.DownloadError(f"unknown layout {layout!r}{catalog.nearest(layout, layouts())} [unknown_config]")
    module = importlib.import_module(f"data_prep.{layout}.downloads")
    if config is None:
        config = getattr(module, "DEFAULT_CONFIG", module.CONFIGS[0] if len(module.CONFIGS) == 1 else None)
    if config is None:
        raise catalog.DownloadError(f"--layout={layout} needs --config, one of {', '.join(module.CONFIGS)}")
    if config not in module.CONFIGS:
        raise catalog.DownloadError(
            f"unknown config {config!r} of {layout}{catalog.nearest(config, module.CONFIGS)} [unknown_config]"
        )
    return module, config


def run(
    root,
    *,
    layout,
    config=None,
    out=None,
    options=None,
    settings=None,
    limits=None,
    detector_file=None,
    landmark_file=None,
    workers=1,
    overwrite=False,
    strict=False,
    runner=None,
    beam_args=(),
):
    """Prepares a data set; the arguments are the flags of the command.

    Args:
      root: folder of the download. layout, config: as in `find_layout`. out: output root, None for `root`.
      options: `catalog.Options`. settings: of `crops.make_settings`. limits: arguments of `video.check_limits`.
      runner: name of a Beam runner, None for processes here. beam_args: Beam's own flags.

    Returns:
      the report of `make_report`, also written to `<out>/report.json`.

    Raises:
      catalog.DownloadError, crops.SettingsError, PrepareError, fetch.ModelFileError, ImportError: the job cannot start,
        something was dropped and `strict` is set, or a worker died.
      OSError: a file cannot be written (disk full); finished videos stay.
    """
    module, config = find_layout(layout, config)
    options = _name_set(module, layout, out, options or catalog.Options())
    out = str(root if out is None else out)
    settings = dict(settings or crops.make_settings())
    for name, file in (("detector_sha256", detector_file), ("landmark_sha256", landmark_file)):
        if file and pathlib.Path(file).is_file():  # where it is not, making the model says so
            settings[name] = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()[:16]
    job = crops.Job(out, settings, overwrite, limits or {}, detector_file, landmark_file)
    entries, problems = module.find(pathlib.Path(root), config, options)
    if not entries:
        raise catalog.DownloadError(f"{root} holds nothing that --layout={layout} --config={config} prepares")
    catalog.check_unique(entries)
    if strict:
        _stop_at_drop([dataclasses.asdict(problem) for problem in problems])
    results = [result for entry in entries if (result := crops.done_result(entry, job)) is not None]
    done = {result["key"] for result in results}
    todo = [entry for entry in entries if f"{entry.unit}/{entry.stem}" not in done]
    if todo:  # also where other processes do the work: a missing model stops here, before anything is written
        _start_worker(job)
    crops.open_out(out).mkdir(parents=True, exist_ok=True)
    _copy_lists(module, root, options.lists, out)
    if results:
        print(f"{len(results)} of {len(entries)} videos were done before")
    for result in results if strict else ():
        _stop_at_drop(result["items"])
    results += _prepare(todo, job, workers, strict, runner, beam_args)
    if hasattr(module, "settle"):
        entries, more = module.settle(entries, results, out, options)
        problems += more
    path = catalog.catalog_path(crops.open_out(out), layout, options.name or config)
    _write_catalog(path, *crops.catalog_entries(entries, results), options)
    report = make_report(entries, results, problems, {"layout": layout, "config": config, **settings})
    _write_bytes(crops.open_out(out) / "report.json", json.dumps(report, indent=1).encode())
    return report


def _name_set(module, layout, out, options):
    """The options with the name of the set, where it is of the user's own files. Raises catalog.DownloadError."""
    default = getattr(module, "DEFAULT_NAME", None)
    if default is None and (options.name or options.allow_duplicates):
        raise catalog.DownloadError(f"--name and --allow_duplicates are for your own files; --layout={layout} has none")
    if default is not None and out is None:
        raise catalog.DownloadError(f"--layout={layout} needs --out: crops do not go among your own files")
    return dataclasses.replace(options, name=options.name or default)


def _prepare(todo, job, workers, strict, runner, beam_args):
    """Results of the entries, as they finish."""
    results, begun, frames = [], time.monotonic(), 0
    if not todo:
        return results
    with tqdm.tqdm(total=len(todo), unit="video") as bar:
        for result in beam.run_entries(todo, job, runner, beam_args) if runner else _run_all(todo, job, workers):
            results.append(result)
            frames += result["kept"]
            bar.update()
            bar.set_postfix_str(f"{frames / (time.monotonic() - begun):.1f} faces/s")
            if strict:
                _stop_at_drop(result["items"])
    return results


def _stop_at_drop(items):
    item = first_drop(items)
    if item is not None:
        raise PrepareError(f"--strict: {item['path']}: {item['detail']} [{item['code']}]; finished videos stay")


def _start_worker(job):
    _worker.clear()
    _worker.update(job=job, **crops.load_models(job))


def _start_process(job):
    # Ctrl-C reaches the whole group: the parent decides, and this process finishes its video.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _start_worker(job)


def _exit_with_parent():
    # A parent that was killed cannot tell its pool, whose processes would wait for work for ever.
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_one(entry):
    try:
        return crops.prepare_entry(entry, **_worker)
    except Exception as error:
        error.add_note(f"while preparing {pathlib.Path(entry.root) / entry.path}")
        raise


def _run_all(todo, job, workers):
    """Yields a result per entry, as they finish; in this process, `_start_worker` has been called."""
    workers = min(workers, len(todo))
    if workers <= 1:
        yield from map(_run_one, todo)
        return
    # Spawned, not forked: the models' threads do not survive a fork.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_process, (job,))
    try:
        for future in concurrent.futures.as_completed([pool.submit(_run_one, entry) for entry in todo]):
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise PrepareError(
            "a worker process died, perhaps for lack of memory: finished videos stay; "
            "run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _copy_lists(module, root, lists, out):
    """The lists that a builder reads go with the crops, so that the output can be built without the download."""
    source, target = pathlib.Path(lists or root), crops.open_out(out)
    for name in getattr(module, "LISTS", ()):
        if (source / name).is_file() and (crops.is_remote(out) or source.resolve() != target.resolve()):
            _write_bytes(target / name, (source / name).read_bytes())


def _write_bytes(path, data):
    """Whole or not at all; object stores write so anyway."""
    if not isinstance(path, pathlib.PosixPath):
        path.write_bytes(data)
        return
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _write_catalog(path, entries, outcomes, options):
    """Writes the catalog; where only some splits or methods were asked for, what it held of the others stays."""
    if (options.splits or options.methods) and path.exists():
        entries = list(entries)
        known = {f"{entry.unit}/{entry.stem}" for entry in entries}
        known |= {f"{entry.unit}/{entry.stem.rsplit('_face', 1)[0]}" for entry in entries}
        for line in catalog.read_catalog(path):
            key = f"{line['unit']}/{line['stem']}"
            if not known & {key, key.rsplit("_face", 1)[0]}:
                fields = {name: line[name] for name in ("unit", "stem", "split", "path", "fields", "publishes_masks")}
                entries.append(catalog.Entry(kind="video", **fields))
                outcomes[key] = line["outcome"]
        splits = list(dict.fromkeys(entry.split for entry in entries))
        # Stable: within a method, names stay in the order in which they were found.
        entries.sort(key=lambda e: (splits.index(e.split), methods.METHODS.index(e.fields["method"])))
    with contextlib.ExitStack() as stack:
        local = path
        if not isinstance(path, pathlib.PosixPath):
            local = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        catalog.write_catalog(local, entries, outcomes)
        if local is not path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(local.read_bytes())


def _parse(argv):
    argv = list(sys.argv[1:] if argv is None else argv)
    at = argv.index("--") if "--" in argv else len(argv)
    names = lambda text: tuple(name for name in text.split(",") if name)
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.prepare",
        description=__doc__.splitlines()[0],
        epilog="What stands after `--` goes to Beam's runner.",
        allow_abbrev=False,
    )
    parser.add_argument("--layout", required=True, help=f"data set: {', '.join(layouts())}")
    parser.add_argument("--config", "--compression", dest="config", help="which of the data set's; see its README")
    parser.add_argument("--root", type=paths.expand, required=True, help="folder of the download")
    parser.add_argument(
        "--out", type=paths.expand, help="where crops go, local or such as gs://bucket/prepared (default: the root)"
    )
    parser.add_argument("--methods", type=names, help="comma-separated (default: all there are)")
    parser.add_argument("--splits", type=names, help="comma-separated (default: all)")
    _add_face_flags(parser)
    parser.add_argument("--mask_root", type=paths.expand, help="where masks are (default: the root)")
    parser.add_argument(
        "--reals_root", type=paths.expand, help="FaceForensics++, for data sets whose reals are its videos"
    )
    parser.add_argument(
        "--lists",
        type=paths.expand,
        help="folder of the lists, where they are not in the root; of --layout=folder a table",
    )
    parser.add_argument("--name", help="of the set that your own images and videos make (default: mine)")
    parser.add_argument(
        "--allow_duplicates",
        action="store_true",
        help="with --layout=folder: go on where one image is in two splits or classes, or one person in two splits",
    )
    parser.add_argument("--max_video_seconds", type=float, default=video.MAX_VIDEO_SECONDS, help="longer is refused")
    parser.add_argument("--max_video_pixels", type=_positive, default=video.MAX_FRAME_PIXELS, help="of a frame")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), help="processes")
    parser.add_argument("--runner", choices=beam.RUNNERS, help="run on Apache Beam instead of --workers processes")
    parser.add_argument("--allow_missing", action="store_true", help="go on where listed videos are absent")
    parser.add_argument("--overwrite", action="store_true", help="redo everything, also what other tools made")
    parser.add_argument("--strict", action="store_true", help="fail at the first thing dropped")
    parser.add_argument(
        "--max_bad_fraction",
        type=float,
        help="share of videos that may give nothing (default: 0.01; 0.2 of your own files)",
    )
    flags = parser.parse_args(argv[:at])
    if argv[at + 1 :] and not flags.runner:
        parser.error("what stands after `--` is for Beam, which needs --runner")
    return flags, argv[at + 1 :]


def _add_face_flags(parser):
    parser.add_argument("--sampling", default="even", choices=crops.SAMPLINGS, help="even, or runs of frames")
    parser.add_argument("--num_frames", type=_positive, default=32, help="frames sampled evenly from a video")
    parser.add_argument("--clip_length", type=_positive, default=16, help="consecutive frames of a run")
    parser.add_argument("--num_clips", type=_positive, default=4, help="runs a video")
    parser.add_argument("--size", type=_positive, default=256, help="side of the crop in pixels")
    parser.add_argument("--preset", default="dfb", choices=align.NAMES, help="alignment")
    parser.add_argument(
        "--faces",
        default="largest",
        choices=extract.FACES,
        help="largest: one a video, where there is a mask the one that it covers; mask: the same, without frames in "
        "which the mask does not touch it; all: each on its own",
    )
    parser.add_argument("--detector", choices=detect.DETECTORS, help="default: yunet, dlib with --landmarks=dlib")
    parser.add_argument("--detector_file", type=paths.expand, help="det_10g.onnx, for --detector=scrfd")
    parser.add_argument(
        "--landmarks",
        default="mediapipe",
        choices=crops.LANDMARK_SOURCES,
        help="sidecar: <video>.landmarks.npy beside each video or image, no model files needed",
    )
    parser.add_argument(
        "--landmark_file", type=paths.expand, help="shape_predictor_81_face_landmarks.dat, for --landmarks=dlib"
    )


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _run_flags(flags, beam_args):
    """`run` with the command's flags."""
    take = lambda *names: {name: getattr(flags, name) for name in names}
    settings = crops.make_settings(
        detector=flags.detector or ("dlib" if flags.landmarks == "dlib" else "yunet"),
        **take("sampling", "num_frames", "clip_length", "num_clips", "size", "preset", "faces", "landmarks"),
    )
    options = catalog.Options(
        **take("splits", "methods", "allow_missing", "mask_root", "reals_root", "lists", "name", "allow_duplicates")
    )
    return run(
        flags.root,
        options=options,
        settings=settings,
        limits={"max_seconds": flags.max_video_seconds, "max_pixels": flags.max_video_pixels},
        beam_args=beam_args,
        **take("layout", "config", "out", "detector_file", "landmark_file", "workers", "overwrite", "strict", "runner"),
    )


def main(argv=None):
    """The command; returns its exit code."""
    flags, beam_args = _parse(argv)
    out = crops.open_out(flags.out or flags.root)
    try:
        report = _run_flags(flags, beam_args)
    except (catalog.DownloadError, crops.SettingsError, PrepareError, fetch.ModelFileError, ImportError) as error:
        return _fail(error)
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename or out})"
        return _fail(f"cannot write: {reason}; finished videos stay, run the same command to go on")
    except KeyboardInterrupt:
        return _fail("stopped; finished videos stay, run the same command to go on", 130)
    print_summary(report, out / "report.json")
    if report["videos"]["prepared"] == 0:
        return _fail(f"not one video could be prepared; {out / 'report.json'} says why")
    most = flags.max_bad_fraction
    if most is None:
        most = getattr(find_layout(flags.layout, flags.config)[0], "MAX_BAD_FRACTION", 0.01)
    if report["bad_fraction"] > most:
        bad, found = report["videos"]["bad"], report["videos"]["found"]
        return _fail(
            f"{bad} of {found} videos are bad, more than --max_bad_fraction={most:g} allows; "
            f"{out / 'report.json'} says why"
        )
    return 0


def _fail(message, code=1):
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
