"""Evaluate a trained workdir again: `python -m msddf_jax.evaluate --workdir DIR`."""

import csv
import pathlib
import sys

import jax
from absl import app, flags, logging

from msddf_jax import checkpoint, sharding
from msddf_jax.data import pipeline, schema, source
from msddf_jax.evaluators import detection
from msddf_jax.inference import load_for_inference

_TABLE = ("video_auc", "video_eer", "video_ap", "video_accuracy", "frame_auc", "frame_eer")


def evaluate_set(config, predict_fn, weights, name, eval_set, mesh, scores_path=None):
    """Score every example of one set once and compute its metrics.

    Args:
      config, predict_fn, weights: a model. name: of the eval. eval_set: opened source. mesh: device mesh.
      scores_path: where to write one line a frame (CSV), or None.

    Returns:
      {"<name>/<level>_<metric>": float}.
    """
    batches = pipeline.eval_batches(
        eval_set,
        batch_size=config.data.eval_batch_size,
        image_size=config.data.image_size,
        num_threads=config.data.num_threads,
    )
    put = lambda batch: sharding.put_batch({"image": schema.device_batch(batch)["image"]}, mesh)
    scores = detection.collect_scores(predict_fn, weights, batches, put, desc=f"evaluate {name}")
    if scores_path is not None and jax.process_index() == 0:
        _write_scores(scores_path, scores)
    return detection.set_metrics(name, scores)


def evaluate_workdir(workdir, eval_sets=None, data_dir=None):
    """Evaluate the workdir's chosen weights on every set of its config; write `results.json` and `scores/*.csv`.

    Args:
      workdir: of a training run. eval_sets: {name: opened source}, or None to open them. data_dir: where built
        data sets are, if not where the config says.

    Returns:
      the results: {"<eval>/<level>_<metric>": float}, plus "_about" with the step, the choice and the versions.
    """
    workdir = pathlib.Path(workdir)
    model = load_for_inference(workdir)
    config = model.config
    if eval_sets is None:
        eval_sets = {
            name: source.open_source(data_dir=data_dir or config.data.data_dir, **settings.to_dict())
            for name, settings in config.evals.items()
        }
    mesh = sharding.make_mesh(config.mesh.to_dict())
    results = {}
    with jax.set_mesh(mesh):
        weights = jax.device_put(model.params, sharding.replicated(mesh))
        for name, eval_set in eval_sets.items():
            path = workdir / "scores" / f"{name}.csv"
            results.update(evaluate_set(config, model.predict_fn, weights, name, eval_set, mesh, path))
    about = {"step": model.step, "weights": model.origin, "select": config.select, "versions": checkpoint.versions()}
    about["select"] = config.select.to_dict() if config.select is not None else None
    results["_about"] = about
    if jax.process_index() == 0:
        checkpoint.write_json(workdir / "results.json", results)
        print(format_table(results))
        print(f"results: {workdir / 'results.json'}")
    return results


def format_table(results):
    """The results as a text table, one row an eval, figures in percent; "-" where a metric is undefined."""
    names = list(dict.fromkeys(key.split("/")[0] for key in results if key != "_about"))
    width = max([len("eval"), *map(len, names)])
    lines = ["  ".join(["eval".ljust(width), *(f"{m:>14}" for m in _TABLE)])]
    for name in names:
        cells = []
        for metric in _TABLE:
            value = results.get(f"{name}/{metric}")
            cells.append(f"{'-' if value is None or value != value else f'{100 * value:.1f}':>14}")
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


def _write_scores(path, scores):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [name for name in ("video_key", "method", "frame_index", "label", "score") if name in scores]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(scores[name] for name in columns), strict=True))


def main(argv):
    """Evaluate one workdir. Exit code 1 with one line where it cannot."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        evaluate_workdir(flags.FLAGS.workdir, data_dir=flags.FLAGS.data_dir)
    except (FileNotFoundError, ValueError, OSError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_string("data_dir", None, "Where built data sets are, if not where the config says.")
    app.run(main)
