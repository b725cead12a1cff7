"""Fit likelihood ratios of a trained workdir: `python -m msddf_jax.calibrate --workdir DIR [--eval NAME | --set SET]`.

Scores a calibration set and writes `<workdir>/calibration.json`: slope and offset, the bounds that follow from the
number of videos, and the zone in which no answer is given (`statistics.likelihood`). `evaluate` does the same with the
eval that chose the checkpoint; here other people, and manipulations that training has not had, can be taken, and these
decide whether a likelihood ratio holds for manipulations to come. `evaluate`, `predict`, `app` and the others then use
this calibration; delete the file to go back. Refused is a set that shares videos or people with training, or with what
the workdir is tested on.
"""

import json
import pathlib

import jax
from absl import app, flags
from ml_collections import ConfigDict

from msddf_jax import asked_sets, checkpoint, command, compare, config_sets, evaluate, sharding
from msddf_jax.data import methods as known_methods
from msddf_jax.data import overlap, source
from msddf_jax.inference import load_for_inference
from msddf_jax.show import words
from msddf_jax.statistics import calibration as calibrations
from msddf_jax.statistics import likelihood, verdict
from msddf_jax.statistics.scores import check_aggregate


def calibrate_workdir(
    workdir, *, eval_name=None, set_text=None, methods=None, data_dir=None, aggregate=None, share=likelihood.ABSTAIN
) -> dict:
    """Fit likelihood ratios on one set, and write them into the workdir.

    Args:
      workdir: of a training run. eval_name: of the config's evals, one of a validation split; None for the one that
        chose the checkpoint. set_text: in its place any built set, "<data set>/<config>[:split]", by default its split
        "validation". methods: manipulations of the set to keep, None for all.
      data_dir: where built data sets are, if not where the config says. aggregate: of the frames of a video, as
        `scores.group_videos`; None for the config's. share: of the videos that are to get no answer.

    Returns:
      what calibration.json holds: of `calibration.fit_calibration`, with step, weights and set ({name, split, methods,
      data_dir}).

    Raises:
      ValueError: a set that shares videos or people with training or with a test set, one of the test splits of the
        config, too few videos or people, one class. FileNotFoundError: a set that is not built.
    """
    workdir = pathlib.Path(workdir)
    model = load_for_inference(workdir)
    config = model.config
    aggregate = aggregate or config.get("aggregate", "mean")
    check_aggregate(aggregate)
    name, settings = _choose(config, eval_name, set_text, methods)
    calibration_set = source.open_configured(config, settings, data_dir)
    _refuse_leakage(workdir, config, name, calibration_set, data_dir)
    mesh = sharding.make_mesh(config.mesh.to_dict())
    with jax.set_mesh(mesh):
        weights = sharding.put_whole(model.params, mesh)
        scores = evaluate.score_set(
            config, model.predict_fn, weights, name, calibration_set, mesh, any_size=set_text is not None
        )
    fitted = calibrations.fit_calibration(
        scores["score"], scores["label"], scores["video_key"], fitted_on=name, split=settings.split,
        aggregate=aggregate, groups=evaluate.persons_of(calibration_set, scores["video_key"]), share=share,
    )  # fmt: skip
    if fitted is None or fitted["lr"] is None:
        why = "it has one class only" if fitted is None else fitted["no_lr"]
        raise ValueError(f"{calibration_set.name} gives no likelihood ratio: {why}")
    kept = {key: settings[key] for key in ("name", "split", "methods", "data_dir")}
    kept["methods"] = None if kept["methods"] is None else list(kept["methods"])
    kept["data_dir"] = kept["data_dir"] or data_dir
    fitted = compare.none_for_nan(fitted | {"step": model.step, "weights": model.origin, "set": kept})
    if jax.process_index() == 0:
        checkpoint.write_json(workdir / verdict.FILE, fitted)
        print("\n".join([*words.describe_fit(fitted), f"written: {workdir / verdict.FILE}"]))
        if (workdir / "results.json").exists():
            print(f"results.json is by the earlier one; anew: python -m msddf_jax.evaluate --workdir {workdir}")
    return fitted


def _choose(config, eval_name, set_text, methods):
    """(name, settings) of the calibration set."""
    if set_text is None:
        if eval_name is None:
            eval_name, why = evaluate.validation_eval(config)
            if eval_name is None:
                raise ValueError(f"{why}; name one: --eval NAME, or a set: --set <data set>/<config>:<split>")
        if eval_name not in config.evals:
            raise ValueError(f"--eval is {eval_name!r}; config.evals has {sorted(config.evals)}")
        settings = ConfigDict(config.evals[eval_name].to_dict())
        for _, split in overlap.split_names(settings.name, settings.split):
            calibrations.check_split(eval_name, split, "--eval")
        name = eval_name
    elif eval_name is not None:
        raise ValueError("give --eval or --set, not both")
    else:
        text = set_text if ":" in set_text else f"{set_text}:validation"
        name, settings = config_sets.eval_name(text), ConfigDict(config_sets.eval_settings(text))
        # Not the fields of a config of the same name: evaluate tells the two apart by it.
        if name in config.evals:
            raise ValueError(f"--set {set_text}: {name} is an eval of the config; name it: --eval {name}")
    if methods:
        unknown = sorted(set(methods) - set(known_methods.METHODS))
        if unknown:
            raise ValueError(f"--methods has {unknown}; known are {', '.join(known_methods.METHODS)}")
        settings.methods = tuple(methods)
    return name, settings


def _refuse_leakage(workdir, config, name, calibration_set, data_dir):
    """Raises ValueError where a calibration set meets training, or a test set of the config or of results.json."""
    path = workdir / "results.json"
    asked = json.loads(path.read_text(encoding="utf-8"))["_about"].get("sets", {}) if path.exists() else {}
    chosen = None if config.select is None else config.select.eval
    tests = [settings for key, settings in config.evals.items() if key not in (chosen, name)]
    # A validation split is not tested on, also where the config has it as an eval.
    tests = [one for one in tests if overlap.role_of(one.split, one.name) == "test"]
    tests += [ConfigDict({"methods": None, "max_frames": None, "data_dir": None} | one) for one in asked.values()]
    before, lines = asked_sets.open_roles(workdir, config, {"train": [config.data.train], "test": tests}, data_dir)
    own = overlap.from_sources([calibration_set], "validation")
    found = [
        finding
        for role, sources in before.items()
        for other in overlap.from_sources(sources, role)
        for mine in own
        for finding in overlap.compare(other, mine)
    ]
    errors = [overlap.describe(finding) for finding in found if finding.verdict == "error"]
    if errors:
        raise ValueError(
            f"{calibration_set.name} shares videos or people with what the detector was trained or is tested on:\n"
            + "\n".join(f"  - {line}" for line in dict.fromkeys(errors))
            + "\nLikelihood ratios from these would be too large; take other people."
        )
    lines += [("reported", overlap.describe(finding)) for finding in found if finding.verdict == "report"]
    for kind, line in dict.fromkeys(lines):
        print(f"leakage, {kind}: {line}")


def main(argv) -> None:
    """Calibrate one workdir. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv):
        calibrate_workdir(
            values.workdir,
            eval_name=values.eval,
            set_text=values.set,
            methods=values.methods,
            data_dir=values.data_dir,
            aggregate=values.aggregate,
            share=values.abstain,
        )


if __name__ == "__main__":
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    flags.DEFINE_string("eval", None, "Eval of the config, of a validation split; the one of config.select by default.")
    flags.DEFINE_string("set", None, "Any built set, <set>/<config>[:split]; validation where none is named.")
    flags.DEFINE_list("methods", None, "Manipulations of the set to keep; all by default.")
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    flags.DEFINE_string("aggregate", None, "Score of a video from its frames'; the config's by default.")
    what = "Share of the videos that are to get no answer: the least sure ones."
    flags.DEFINE_float("abstain", likelihood.ABSTAIN, what, lower_bound=0.0, upper_bound=0.9)
    app.run(main)
