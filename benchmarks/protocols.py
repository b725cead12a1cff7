"""Protocols that data sets were published with: what trains, what tests, and the table of each.

    python -m benchmarks.protocols --protocol=gf --data_dir=data/tfds --out=runs/protocols [--configs=...] [--seeds=3]
    python -m benchmarks.protocols --protocol=df40_4 --out=runs/protocols --trained=df40_simswap --table

`launch/reproduce.sh DATA_DIR OUT --protocol=gf` runs it. Resumable, as `cross_dataset`, which does the work: a folder
of OUT for each training set, in it one for each config and seed, and <protocol>.csv, .md and .tex. Protocols that train
alike share their runs: each is scored on all that is built for any of them. What is not built is said before anything
trains.

- gf, gfq, gfd (Celeb-DF++): 22 methods; three kinds of methods in several qualities; 22 methods after training on
  another data set. Its owners' page says no more. Here gf and gfq train on Celeb-DF's own method, so that 21 are
  unseen, gfd on FaceForensics++ c23; qualities are `--qualities`, x264's 23 and 40 as FaceForensics++ has them.
- df40_1, df40_2, df40_3 (DF40): trained on all face swaps, all reenactments or all whole faces of FaceForensics++'s
  people; tested on all three there, on all three of Celeb-DF's people, and on nine further methods. df40_4: trained on
  one method, tested on each. DF40 has no validation split and its owners choose checkpoints on a test set: here the
  last one is taken.
"""

import argparse
import functools
import pathlib
import sys
from typing import NamedTuple

from benchmarks import cross_dataset
from configs.common import eval_set
from data_prep.celebdf import downloads as celebdf
from data_prep.df40 import names as df40
from msddf_jax import experiments, paths
from msddf_jax.data import source

CELEB = "celebdf/pp_derivedval"
# Folders of DATA_DIR in which the same sets are built from the source videos encoded again: H.264 of that quality.
QUALITIES = ("crf23", "crf40")


class Training(NamedTuple):
    """A built data set whose split "train" trains; methods: None for all. chosen: whether "validation" chooses."""

    set: str
    methods: tuple | None = None
    chosen: bool = True


class Test(NamedTuple):
    """The split "test" of a built data set; methods: None for all. quality: folder of `QUALITIES`, "" for none."""

    set: str
    methods: tuple | None = None
    quality: str = ""


class Protocol(NamedTuple):
    """trainings: {name: Training}, a run of each config for each of them. tests: {column: Test}.

    within: {name of a training: columns of what it trained on}.
    """

    trainings: dict
    tests: dict
    within: dict


def protocols(qualities=QUALITIES) -> dict[str, Protocol]:
    """{name: Protocol}, in the order of the module's docstring. qualities: of gfq, "crf<0 to 51>" each."""
    own, other = {"celebdf": Training(CELEB, ("celebdf",))}, {"faceforensics": Training("faceforensics/c23")}
    by_method = {m: Test(CELEB, (m,)) for methods in celebdf.METHODS.values() for m in methods.values()}
    by_kind = {
        f"{kind.lower()}_{quality}" if quality else kind.lower(): Test(CELEB, tuple(methods.values()), quality)
        for quality in ("", *qualities)
        for kind, methods in celebdf.METHODS.items()
    }
    kinds = {f"df40_{kind}": Training(f"df40/{kind}_ff", None, False) for kind in df40.GROUPS}
    single, each = {}, {}
    for kind, methods in df40.GROUPS.items():
        single |= {f"df40_{m}": Training(f"df40/{kind}_ff", (m,), False) for m in methods}
        each |= {f"{m}_{domain}": Test(f"df40/{kind}_{domain}", (m,)) for m in methods for domain in ("ff", "cdf")}
    whole = lambda domain: {f"{kind}_{domain}": Test(f"df40/{kind}_{domain}") for kind in df40.GROUPS}
    unknown = {m: Test(f"df40/unknown_{m}") for m in df40.UNKNOWN}
    same = lambda names: {name: (f"{name.removeprefix('df40_')}_ff",) for name in names}
    return {
        "gf": Protocol(own, by_method, {"celebdf": ("celebdf",)}),
        "gfq": Protocol(own, by_kind, {}),
        "gfd": Protocol(other, by_method, {}),
        "df40_1": Protocol(kinds, whole("ff"), same(kinds)),
        "df40_2": Protocol(kinds, whole("cdf"), {}),
        "df40_3": Protocol(kinds, unknown, {}),
        "df40_4": Protocol(single, each | unknown, same(single)),
    }


def pick(name, trained=None, qualities=QUALITIES) -> tuple[Protocol, dict[str, Test]]:
    """(protocol, tests of all protocols that share its trainings); trained: names of its trainings, None for all.

    Raises ValueError for a protocol, training or quality that there is not, with those that there are.
    """
    for quality in qualities:
        if not (quality.startswith("crf") and quality[3:].isdigit() and int(quality[3:]) <= 51):
            raise ValueError(f"--qualities has {quality!r}, expected crf0 to crf51, as {','.join(QUALITIES)}")
    known = protocols(qualities)
    if name not in known:
        raise ValueError(f"unknown protocol {name!r}, there are: {', '.join(known)}; reproduce.sh also has logo")
    found = known[name]
    unknown = sorted(set(trained or ()) - set(found.trainings))
    if unknown:
        raise ValueError(f"--trained names {unknown}; {name} trains on: {', '.join(found.trainings)}")
    alike = [p for p in known.values() if p.trainings == found.trainings]
    trainings = {key: value for key, value in found.trainings.items() if trained is None or key in trained}
    return found._replace(trainings=trainings), {key: test for p in alike for key, test in p.tests.items()}


def folder_of(test, data_dir) -> str:
    """Where the set of a test is built."""
    return str(pathlib.Path(data_dir, test.quality))


def look(trainings, tests, data_dir) -> dict[str, str]:
    """{column of a test, "<name> (<split>)" of a training: why it cannot be read}; every set is opened."""
    wanted = {f"{key} (train)": (t.set, "train", data_dir, t.methods) for key, t in trainings.items()}
    wanted |= {
        f"{key} (validation)": (t.set, "validation", data_dir, t.methods) for key, t in trainings.items() if t.chosen
    }
    wanted |= {key: (t.set, "test", folder_of(t, data_dir), t.methods) for key, t in tests.items()}
    problems = {}
    for key, arguments in wanted.items():
        try:
            source.open_source(*arguments)
        except (FileNotFoundError, ValueError) as error:
            problems[key] = str(error)
    return problems


def load_config(training, tests, name, args, seed, _):
    """The config of one run. training: Training. tests: {eval: Test}, all that is built. The rest: `cross_dataset`."""
    config = experiments.load(name).unlock()
    config.data.data_dir, config.seed = args.data_dir, seed
    if config.data.group.fake:
        config.data.train.methods = training.methods
        if training.set != config.data.train.name:
            # Reals of these sets need not have a fake of their own.
            config.data.group.match = "class"
    config.data.train.update({"name": training.set, "split": "train"})
    config.evals = {}
    if training.chosen and config.select is not None:
        config.evals[config.select.eval] = eval_set(training.set, "validation", training.methods)
    else:
        config.select = None
    for key, test in tests.items():
        config.evals[key] = eval_set(test.set, "test", test.methods)
        if test.quality:
            config.evals[key].data_dir = folder_of(test, args.data_dir)
    if args.steps:
        cross_dataset.shorten(config, args.steps)
    return config.lock()


def run(protocol, shared, args) -> None:
    """Train and test what is missing of a protocol. shared: {column: Test} of all that train alike.

    Raises FileNotFoundError where anything of the protocol is not built; with `args.partial` only where no training or
    no test is left.
    """
    problems = look(protocol.trainings, protocol.tests, args.data_dir)
    lines = [
        f"  - {', '.join(k for k in problems if problems[k] == text)}: {text}"
        for text in dict.fromkeys(problems.values())
    ]
    if any(protocol.tests[key].quality for key in problems if key in protocol.tests):
        lines.append(
            "  - folders crf<quality> hold the same sets, prepared and built from the source videos after "
            "msddf_jax.evaluators.recompress.recompress_video(path_in, path_out, crf)"
        )
    ready = {k: t for k, t in protocol.trainings.items() if not {f"{k} (train)", f"{k} (validation)"} & set(problems)}
    tests = [key for key in protocol.tests if key not in problems]
    if problems and not (args.partial and ready and tests):
        more = "" if args.partial else "\nBuild these, or pass --partial to go without."
        raise FileNotFoundError("this protocol cannot start:\n" + "\n".join(lines) + more)
    for line in lines:
        print(f"left out: {line.removeprefix('  - ')}")
    there = {key: test for key, test in shared.items() if key in tests or not look({}, {key: test}, args.data_dir)}
    for name, training in ready.items():
        own = argparse.Namespace(**{**vars(args), "out": pathlib.Path(args.out, name)})
        cross_dataset.run_all(own, tests, functools.partial(load_config, training, there))


def main(argv=None) -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", required=True, help=", ".join(protocols()))
    parser.add_argument("--trained", help="names of its trainings, comma-separated, in place of all")
    parser.add_argument("--qualities", default=",".join(QUALITIES), help="of gfq: folders of data_dir")
    parser.add_argument("--out", type=paths.expand, default="runs/protocols", help="folder of the runs")
    parser.add_argument("--data_dir", type=paths.expand, default="data/tfds", help="built data sets")
    parser.add_argument("--configs", default=",".join(cross_dataset.CONFIGS), help="path.py or path.py:argument")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="train for so many steps, to try the command; not for a result")
    parser.add_argument("--partial", action="store_true", help="go without what is not built")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--metric", choices=cross_dataset.METRICS, default=cross_dataset.METRICS[0], help="of table.md")
    args = parser.parse_args(argv)
    try:
        trained = args.trained.split(",") if args.trained else None
        protocol, shared = pick(args.protocol, trained, tuple(args.qualities.split(",")))
        if not args.table:
            run(protocol, shared, args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    there = [name for name in protocol.trainings if cross_dataset.figures(pathlib.Path(args.out, name), protocol.tests)]
    if not there:
        sys.exit(f"no finished run of {args.protocol} in {args.out}")
    for name in there:
        print(f"\n{args.protocol}, trained on {name}:")
        within = protocol.within.get(name, ())
        settings = {"name": args.protocol, "sets": tuple(protocol.tests), "within": within}
        cross_dataset.write_tables(pathlib.Path(args.out, name), args.metric, **settings)


if __name__ == "__main__":
    main()
