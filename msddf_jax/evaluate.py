"""Evaluate a trained workdir: `python -m msddf_jax.evaluate --workdir DIR`; two of them: `--workdir A --against B`.

Sets that its config does not name: `--workdir DIR --sets folder/other:test,celebdf/v2`.
"""

import functools
import pathlib

import jax
import numpy as np
from absl import app, flags

from msddf_jax import asked_sets, checkpoint, command, compare, sharding
from msddf_jax.data import overlap, pipeline, schema, source
from msddf_jax.evaluators import detection, features, forgeries, lead, localization
from msddf_jax.inference import load_for_inference
from msddf_jax.show import words
from msddf_jax.statistics import calibration as calibrate
from msddf_jax.statistics import intervals, novelty, tables, verdict
from msddf_jax.statistics.scores import AGGREGATES, check_aggregate
from msddf_jax.statistics.tables import format_table

__all__ = ["evaluate_set", "evaluate_workdir", "format_table", "score_set", "validation_eval"]


def validation_eval(config) -> tuple[str | None, str]:
    """(name of the eval whose scores may give threshold and slope, "") or (None, why there is none)."""
    if config.select is None:
        return None, "config.select names no eval"
    name = config.select.eval
    if name not in config.evals:
        return None, f"config.select.eval is {name!r}; config.evals has {sorted(config.evals)}"
    try:
        for _, split in overlap.split_names(config.evals[name].name, config.evals[name].split):
            calibrate.check_split(name, split)
    except ValueError as error:
        return None, str(error)
    return name, ""


def score_set(
    config, predict_fn, weights, name, eval_set, mesh, *, any_size=False, on_maps=None, on_features=None
) -> dict[str, jax.typing.ArrayLike]:
    """Score every example of one set once: what `detection.collect_scores` returns.

    Args:
      config, predict_fn, weights: a model. name: of the eval. eval_set: opened source. mesh: device mesh.
      any_size: whether the stored crops may have another side than the config's; the model resizes what it gets.
      on_maps, on_features: as `collect_scores`.
    """
    batches = pipeline.eval_batches(
        eval_set,
        batch_size=config.data.eval_batch_size,
        image_size=None if any_size else config.data.image_size,
        clip_length=config.data.get("clip_length", 0),
        num_threads=config.data.num_threads,
    )
    put = lambda batch: sharding.put_batch({"image": schema.device_batch(batch)["image"]}, mesh)
    takers = {"on_maps": on_maps, "on_features": on_features}
    return detection.collect_scores(predict_fn, weights, batches, put, desc=f"evaluate {name}", **takers)


def evaluate_set(config, predict_fn, weights, name, eval_set, mesh, scores_path=None) -> dict[str, float]:
    """Score every example of one set once and compute its metrics, without intervals, calibration or maps.

    Args:
      config, predict_fn, weights: a model. name: of the eval. eval_set: opened source. mesh: device mesh.
      scores_path: where to write one line a frame (CSV), or None.

    Returns:
      {"<name>/<level>_<metric>": float}, NaN where undefined; see `detection.set_metrics`.
    """
    scores = score_set(config, predict_fn, weights, name, eval_set, mesh)
    if scores_path is not None and jax.process_index() == 0:
        detection.write_scores(scores_path, scores)
    return detection.set_metrics(name, scores, aggregate=config.get("aggregate", "mean"))


def evaluate_workdir(
    workdir,
    eval_sets=None,
    data_dir=None,
    *,
    sets=None,
    allow_leakage=False,
    aggregate=None,
    dfb_compat=False,
    resamples=intervals.RESAMPLES,
) -> dict[str, float | dict | None]:
    """Evaluate the workdir's chosen weights on every set of its config, or on others.

    Writes `results.json`, `results.csv`, `results.tex`, `scores/<eval>.csv`, and, where `config.select` names a
    validation set, `calibration.json` and `novelty.npz`: that set is scored first; its threshold and slope hold for
    all, and what lies far from its features is out of range (`statistics.novelty`). A calibration of these weights by
    `msddf_jax.calibrate` is kept and used.

    Args:
      workdir: of a training run. eval_sets: {name: opened source}, or None to open them. data_dir: where built
        data sets are, if not where the config says. sets, allow_leakage: as `asked_sets.open_asked` takes them; these
        alone are scored then, and stand beside the results of the same weights that are there.
      aggregate: of the frames of a video, as `scores.group_videos`; None for config.aggregate, else the mean.
      dfb_compat: also DeepfakeBench's figures, as "<eval>/dfb_compat/...". resamples: of the bootstrap.

    Returns:
      what results.json holds: {"<eval>/<level>_<metric>": float}, None where undefined; "_intervals": {key: [low,
      high]}; "_about" with the step, the choice, the calibration and the versions.

    Raises:
      ValueError: an unknown aggregate; what scoring raises. A `config.select` that names no validation split is no
        error here: nothing is calibrated then, and the output says so.
    """
    workdir = pathlib.Path(workdir)
    model = load_for_inference(workdir)
    config = model.config
    aggregate = aggregate or config.get("aggregate", "mean")
    check_aggregate(aggregate)
    chosen, why_none = validation_eval(config)
    kept = {} if sets is None else asked_sets.earlier_results(workdir, model, aggregate, dfb_compat)
    asked = {"sets": {}, "leakage": []}
    if sets is not None:
        eval_sets, asked = asked_sets.open_asked(workdir, config, sets, data_dir, allow_leakage)
    elif eval_sets is None:
        eval_sets = {name: source.open_configured(config, s, data_dir) for name, s in config.evals.items()}
    calibration = verdict.chosen_calibration(workdir, step=model.step, weights=model.origin, aggregate=aggregate)
    if calibration is None and chosen is not None and chosen not in eval_sets:
        calibration, why_none = verdict.calibration_of(
            workdir, step=model.step, weights=model.origin, aggregate=aggregate
        )
        why_none = f"{chosen} was not evaluated, and {why_none}"
    elif chosen is not None:
        why_none = f"{chosen} has one class only"
    settings = {"aggregate": aggregate, "dfb_compat": dfb_compat, "resamples": resamples}
    scored = _score_all(workdir, model, eval_sets, chosen, calibration, settings, any_size=asked["sets"])
    results, ends, calibration, in_range = scored
    results["_intervals"] = ends
    results["_about"] = {
        **_about_model(model),
        "aggregate": aggregate,
        "dfb_compat": dfb_compat,
        "calibration": calibration,
        "no_calibration": why_none if calibration is None else None,
        "range": in_range,
        **asked,
        "intervals": {"method": intervals.METHOD, "level": intervals.LEVEL, "resamples": resamples},
    }
    results = asked_sets.join_results(kept, compare.none_for_nan(results))
    if jax.process_index() == 0:
        ways = {"aggregate": aggregate, "calibration": calibration, "resamples": resamples}
        results |= compare.none_for_nan(_lead(workdir, results, chosen, ways))
        _report(workdir, results)
    return results


def _score_all(workdir, model, eval_sets, chosen, calibration, settings, any_size):
    """(figures, intervals, calibration, range) of every set, the one that fits the last two first; writes scores."""
    config, results, ends, in_range = model.config, {}, {}, None
    aggregate, mesh = settings["aggregate"], sharding.make_mesh(model.config.mesh.to_dict())
    with jax.set_mesh(mesh):
        weights = sharding.put_whole(model.params, mesh)
        for name in sorted(eval_sets, key=lambda name: name != chosen):
            sums, found = localization.init_sums(), features.init_features(len(eval_sets[name]))
            scores = score_set(
                config, model.predict_fn, weights, name, eval_sets[name], mesh, any_size=name in any_size,
                on_maps=functools.partial(localization.add_batch, sums),
                on_features=functools.partial(features.add_batch, found) if name == chosen else None,
            )  # fmt: skip
            if jax.process_index() == 0:
                detection.write_scores(workdir / "scores" / f"{name}.csv", scores)
            if name == chosen:
                calibration = calibration or _calibrate(workdir, model, eval_sets[name], scores, aggregate)
                in_range = _fit_range(workdir, model, found)
                if forgeries.can_forge(config):
                    results |= forgeries.forgery_metrics(config, weights, name, eval_sets[name])
            ways = {"aggregate": aggregate, "calibration": calibration}
            results |= detection.set_metrics(name, scores, dfb_compat=settings["dfb_compat"], **ways)
            results |= localization.localization_metrics(name, localization.gather_sums(sums))
            ends |= detection.set_intervals(name, scores, resamples=settings["resamples"], **ways)
    return results, ends, calibration, in_range


def _lead(workdir, results, chosen, settings):
    """ "_worst" and, of several test sets, "_pooled": of all that the results have but the one that chose."""
    tested = [name for name in tables.eval_names(results) if name != chosen]
    out = {"_worst": lead.worst(results, tested)}
    if len(tested) > 1:
        scores = [detection.read_scores(workdir / "scores" / f"{name}.csv") for name in tested]
        out["_pooled"] = lead.pooled_figures(tested, scores, **settings)
    return out


def _about_model(model):
    """Of `results["_about"]`: which weights, chosen how, scored by what."""
    select = model.config.select
    chosen = None if select is None else select.to_dict()
    return {"step": model.step, "weights": model.origin, "select": chosen, "versions": checkpoint.versions()}


def _calibrate(workdir, model, eval_set, scores, aggregate):
    """Fits and writes the calibration of the validation set; None, and no file, where it has one class only."""
    name = model.config.select.eval
    calibration = calibrate.fit_calibration(
        scores["score"],
        scores["label"],
        scores["video_key"],
        fitted_on=name,
        split=model.config.evals[name].split,
        aggregate=aggregate,
        groups=persons_of(eval_set, scores["video_key"]),
    )
    if calibration is not None:
        calibration = compare.none_for_nan(calibration | {"step": model.step, "weights": model.origin})
    if jax.process_index() == 0:
        if calibration is not None:
            checkpoint.write_json(workdir / verdict.FILE, calibration)
        else:
            # That of earlier weights does not fit these.
            (workdir / verdict.FILE).unlink(missing_ok=True)
    return calibration


def persons_of(eval_set, keys) -> np.ndarray:
    """[N] texts: for each video key of `detection.collect_scores` who is seen, as far as the set's index says."""
    columns = eval_set.videos
    fields = (columns[name].tolist() for name in ("dataset", "compression", "method", "video_id"))
    who = dict(zip(map("/".join, zip(*fields, strict=True)), overlap.persons(columns), strict=True))
    return np.array([who[key] for key in np.asarray(keys).tolist()])


def _fit_range(workdir, model, found):
    """Fits and writes which features are in range; returns it without its arrays, or None, and no file then."""
    rows = features.gather_features(found)
    fitted = None if rows is None else novelty.fit(rows["feature"], rows["video"], rows["label"], rows["group"])
    if fitted is None:
        if jax.process_index() == 0:
            # That of earlier weights does not fit these.
            (workdir / novelty.FILE).unlink(missing_ok=True)
        return None
    name = model.config.select.eval
    fitted |= {"fitted_on": name, "split": model.config.evals[name].split, "step": model.step, "weights": model.origin}
    if jax.process_index() == 0:
        checkpoint.write_bytes(workdir / novelty.FILE, novelty.to_bytes(fitted))
    return {key: value for key, value in fitted.items() if key not in novelty.ARRAYS}


def _report(workdir, results):
    """Writes the tables and prints the main one."""
    checkpoint.write_json(workdir / "results.json", results)
    for name, text in {"results.csv": tables.to_csv(results), "results.tex": tables.to_latex(results)}.items():
        (workdir / name).write_text(text, encoding="utf-8")
    about = results["_about"]
    print("\n".join([*lead.lines(results), format_table(results)]))
    print(f"percent; [95 % interval, {intervals.METHOD}]; a video's score is the {about['aggregate']} of its frames'")
    calibration = about["calibration"]
    if calibration is not None:
        print("\n".join(words.describe_fit(calibration)))
    else:
        print(f"no calibration: {about['no_calibration']}")
    if about["range"] is not None:
        part = about["range"]
        print(
            f"out of range: videos whose features are further than {part['threshold']:.3g} from those of "
            f"{part['fitted_on']} ({part['num_videos']} videos in {part['num_groups']} groups); set to call "
            f"{part['false_alarms']:.0%} of videos like these so"
        )
    if about["dfb_compat"]:
        print("dfb_compat: results.json and .csv also hold DeepfakeBench's own figures, under <eval>/dfb_compat/")
    print(f"results: {workdir / 'results.json'}")


def compare_workdirs(workdir, against, **settings) -> dict[str, dict]:
    """Evaluate those of two workdirs that have no results.json yet, compare them, print the table.

    Args: workdir, against: folders. settings: as `evaluate_workdir`. Returns: as `compare.compare_workdirs`.
    """
    for folder in (workdir, against):
        if not (pathlib.Path(folder) / "results.json").exists():
            evaluate_workdir(folder, **settings)
    passed = {name: value for name, value in settings.items() if name in ("aggregate", "resamples")}
    result = compare.compare_workdirs(workdir, against, **passed)
    print(compare.format_comparison(result))
    print(f"percent; a - b with its 95 % interval by DeLong; comparison: {pathlib.Path(workdir) / 'compare.json'}")
    return result


def main(argv) -> None:
    """Evaluate one workdir, or compare two. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    settings = {name: values[name].value for name in ("data_dir", "aggregate", "dfb_compat", "resamples")}
    asked = {name: values[name].value for name in ("sets", "allow_leakage")}
    with command.errors_in_one_line(argv):
        if values.against and (values.sets or values.allow_leakage):
            raise ValueError("--against compares what two workdirs hold: score --sets in each of them first")
        if values.against:
            compare_workdirs(values.workdir, values.against, **settings)
        else:
            evaluate_workdir(values.workdir, **settings, **asked)


if __name__ == "__main__":
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    flags.DEFINE_list("sets", None, "Sets in place of the config's, <set>/<config>[:split]; test where none is named.")
    flags.DEFINE_bool("allow_leakage", False, "Score --sets that training or selection met; results.json says so.")
    flags.DEFINE_string("aggregate", None, f"Score of a video from its frames': {', '.join(AGGREGATES)} (top3).")
    flags.DEFINE_bool("dfb_compat", False, "Also DeepfakeBench's figures, its defects included, for comparison.")
    flags.DEFINE_integer("resamples", intervals.RESAMPLES, "Draws of the bootstrap.", lower_bound=1)
    command.define_path("against", None, "Another workdir: compare --workdir with it on the same videos.", workdir=True)
    app.run(main)
