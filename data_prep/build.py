"""Builds a prepared data set into array_record files that training reads.

    python -m data_prep.build faceforensics --config toy --manual_dir PREPARED --data_dir DIR
    python -m data_prep.build folder --name mine --manual_dir PREPARED --data_dir DIR
    python -m data_prep.build celebdf --config v2 --manual_dir PREPARED --to_dfb OUT   # for DeepfakeBench

What `tfds build` does, with its flag names. TFDS's own command line builds the same records, but cannot start without
TensorFlow, Apache Beam and mlcroissant, which 4.9.10 reads while it is imported, so this one calls the builder itself.
"""

import argparse
import difflib
import importlib
import pathlib
import sys
import tempfile

import tensorflow_datasets as tfds
from absl import logging

from data_prep import beam, contents, prepared
from data_prep.dfb import write
from data_prep.folder import duplicates
from data_prep.layout import PreparedDataError
from msddf_jax import paths

_HERE = pathlib.Path(__file__).parent
# The data set whose configs are names that users give.
_OWN = "folder"
# Names in a message; the data sets are fewer, some have hundreds of configs.
_SHOWN = 40


class UnknownNameError(ValueError):
    """No data set or config of that name."""


def builder_names():
    """Names of the data sets that can be built: the folders here with a `<name>_dataset_builder.py`."""
    return [path.parent.name for path in contents.matching(_HERE, "*/*_dataset_builder.py")]


def make_builder(name, config, data_dir):
    """The TFDS builder of a data set.

    Args:
      name: one of `builder_names`. config: name of one of its configs; of "folder" the name that prepare was given.
      data_dir: where built data sets are, None for $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UnknownNameError: no such data set or config; the nearest valid names are given. PreparedDataError: a name that
        cannot be one.
    """
    if name not in builder_names():
        raise UnknownNameError(f"no data set {name!r} to build{_nearest(name, builder_names())}")
    module = importlib.import_module(f"data_prep.{name}.{name}_dataset_builder")
    cls = module.Builder
    if name == _OWN:
        return cls(config=module.make_config(config), data_dir=data_dir)
    if config not in cls.builder_configs:
        raise UnknownNameError(f"{name} has no config {config!r}{_nearest(config, sorted(cls.builder_configs))}")
    return cls(config=config, data_dir=data_dir)


def build(
    name,
    config,
    manual_dir,
    data_dir=None,
    *,
    overwrite=False,
    max_examples_per_split=None,
    on_beam=None,
    allow_duplicates=False,
):
    """Build one config of a data set, unless it is built already.

    Args:
      name, config, data_dir: as `make_builder`. manual_dir: prepared data. overwrite: build again what is built.
      max_examples_per_split: None for all. on_beam: (runner, flags) of Beam, for data sets with a catalog.
      allow_duplicates: of "folder", go on where one image stands in two splits or classes.

    Returns:
      Path of the built data set.

    Raises:
      UnknownNameError: of data set or config. PreparedDataError: prepared data is not as it should be, or holds
        duplicates that are not allowed.
      FileNotFoundError: no manual_dir. OSError: the built set cannot be written.
    """
    builder = make_builder(name, config, data_dir)
    folder = pathlib.Path(builder.data_dir)
    if (folder / "dataset_info.json").exists() and not overwrite:
        print(f"{name}/{config} is built already: {folder} (--overwrite builds it again)")
        _print_next(name, config, data_dir)
        return folder
    manual_dir = pathlib.Path(manual_dir).expanduser().resolve()
    if not manual_dir.is_dir() or not contents.children(manual_dir):
        raise FileNotFoundError(
            f"--manual_dir {manual_dir} is no folder, or an empty one. {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    root = pathlib.Path(builder.data_dir_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make {root} ({error}): name a folder for built sets by --data_dir") from error
    # TFDS deletes the old set before it makes the new one, and leaves folders behind where it fails. Building
    # beside it and renaming at the end, a failure costs nothing that was there.
    with tempfile.TemporaryDirectory(prefix=f".build-{name}-", dir=root) as scratch:
        new = make_builder(name, config, scratch)
        if on_beam is not None:
            if not isinstance(new, prepared.PreparedBuilder) or max_examples_per_split is not None:
                raise UnknownNameError(
                    f"--runner is for data sets that prepare wrote a catalog of, whole; not for {name}"
                )
            new.on_beam = on_beam
        new.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, max_examples_per_split=max_examples_per_split
            )
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        if name == _OWN:
            duplicates.check(new.data_dir, folder.parent / "duplicates.json", allow_duplicates)
        if folder.exists():
            folder.rename(pathlib.Path(scratch) / "old")
        pathlib.Path(new.data_dir).rename(folder)
    for split, info in new.info.splits.items():
        print(f"{name}/{config} {split}: {info.num_examples} frames, {info.num_bytes / 2**20:.1f} MiB")
    print(f"built {folder}")
    _print_next(name, config, data_dir)
    return folder


def to_dfb(name, config, manual_dir, out, *, lmdb=False, overwrite=False):
    """Write one config of a data set as DeepfakeBench reads it, as `dfb.write.write` does.

    Raises:
      UnknownNameError: of data set or config, or a data set that prepare writes no catalog of.
    """
    builder = make_builder(name, config, None)
    if not isinstance(builder, prepared.PreparedBuilder):
        raise UnknownNameError(f"--to_dfb is for data sets that prepare wrote a catalog of; not for {name}")
    return write.write(builder, manual_dir, out, lmdb=lmdb, overwrite=overwrite)


def _print_next(name, config, data_dir):
    """Print the command that trains on a user's own set."""
    if name == _OWN:
        where = f" --config.data.data_dir={data_dir}" if data_dir else ""
        print(
            f"train on it: python -m msddf_jax.main --config configs/detectors/efficientnet_lite0.py:{name}/{config} "
            f"--workdir WORKDIR{where}"
        )


def main(argv=None):
    """Command line. Returns 0, or 1 after one line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.build", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help=f"one of {', '.join(builder_names())}")
    config = parser.add_mutually_exclusive_group(required=True)
    config.add_argument("--config", help="a config of the data set, such as c23 or toy")
    config.add_argument("--name", help="of your own set, as prepare was given it")
    parser.add_argument(
        "--manual_dir", type=paths.expand, required=True, help="folder with the prepared crops and the split lists"
    )
    parser.add_argument(
        "--data_dir", type=paths.expand, help="where built sets go; $TFDS_DATA_DIR or ~/tensorflow_datasets by default"
    )
    parser.add_argument("--overwrite", action="store_true", help="build again what is built already")
    parser.add_argument(
        "--allow_duplicates",
        action="store_true",
        help="of your own files: go on where one image stands in two splits or classes",
    )
    parser.add_argument(
        "--to_dfb",
        type=paths.expand,
        help="build nothing, and write a JSON and frames for DeepfakeBench into this folder",
    )
    parser.add_argument("--lmdb", action="store_true", help="of --to_dfb: an LMDB environment in place of folders")
    parser.add_argument("--max_examples_per_split", type=int, help="stop each split after so many frames")
    parser.add_argument(
        "--runner", choices=beam.RUNNERS, help="build on Apache Beam; what stands after `--` goes to it"
    )
    argv = sys.argv[1:] if argv is None else list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    args, beam_args = parser.parse_args(argv[:at]), argv[at + 1 :]
    if beam_args and not args.runner:
        parser.error("what stands after `--` is for Beam, which needs --runner")
    if (args.dataset == _OWN) != (args.name is not None) or (args.allow_duplicates and args.dataset != _OWN):
        parser.error(f"--name and --allow_duplicates are for the data set {_OWN}, which takes no --config")
    if args.lmdb and not args.to_dfb:
        parser.error("--lmdb is of --to_dfb; what DeepfakeBench has in LMDB is read by build dfb --config <name>_lmdb")
    if args.to_dfb and (args.runner or args.data_dir or args.max_examples_per_split is not None):
        parser.error("--to_dfb builds nothing: it takes no --data_dir, --max_examples_per_split or --runner")
    logging.set_verbosity(logging.ERROR)  # TFDS warns that what is to be built is not there yet
    try:
        if args.to_dfb:
            where = (args.dataset, args.name or args.config, args.manual_dir, args.to_dfb)
            to_dfb(*where, lmdb=args.lmdb, overwrite=args.overwrite)
            return 0
        build(
            args.dataset,
            args.name or args.config,
            args.manual_dir,
            args.data_dir,
            overwrite=args.overwrite,
            max_examples_per_split=args.max_examples_per_split,
            on_beam=(args.runner, beam_args) if args.runner else None,
            allow_duplicates=args.allow_duplicates,
        )
    except (UnknownNameError, PreparedDataError, OSError, ImportError) as error:
        print(f"data_prep.build: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("data_prep.build: stopped; the unfinished set is removed", file=sys.stderr)
        return 130
    return 0


def _nearest(name, valid):
    near = difflib.get_close_matches(name, valid, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    more = f" and {len(valid) - _SHOWN} more" if len(valid) > _SHOWN else ""
    return f"{hint} There are: {', '.join(valid[:_SHOWN])}{more}"


if __name__ == "__main__":
    sys.exit(main())
