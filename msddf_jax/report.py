"""One page about trained workdirs: `python -m msddf_jax.report --workdir A [--workdir B] --out report.html`.

The first screen answers in sentences: how good, where worst, what not to conclude. Below stand the tables with
intervals, curves, calibration, robustness, the worst mistakes, embeddings, the config and the versions. The page holds
everything itself (no network, no script). Beside it, `<page>_tables/` has every table as CSV and LaTeX. Metrics come
from `results.json` and `scores/*.csv` (msddf_jax.evaluate), `stress/` (msddf_jax.stress) and images in `embedding/` and
`faithfulness/`, as far as they are there; what is not is named with the command that makes it.
"""

import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags

from msddf_jax import command
from msddf_jax.data import schema, source
from msddf_jax.inference import load_for_inference
from msddf_jax.show import answer, curves, page, plots, words
from msddf_jax.statistics import intervals, metrics, tables, verdict
from msddf_jax.statistics.scores import group_videos

# Columns of the table of one workdir: title, metric, higher is better.
COLUMNS = (
    ("AUC", "video_auc"),
    ("EER", "video_eer"),
    ("AP", "video_ap"),
    ("balanced accuracy", "video_balanced_accuracy"),
    ("TNR at TPR 95 %", "video_tnr95"),
    ("ECE", "video_ece"),
    ("Cllr, bits", "video_cllr_calibrated"),
    ("frame AUC", "frame_auc"),
)
# Of the table of what a detector says of held-out forgeries: title, figure of `results.json`, digits, factor.
FORGERY = (
    ("type, accuracy %", "forgery_type_accuracy", 1, 100),
    ("regions, F1 %", "forgery_region_f1", 1, 100),
    ("strength, mean absolute error", "forgery_strength_mae", 3, 1),
)


class Run(NamedTuple):
    """name: of the workdir, unique on the page. folder: Path. tested: `answer.Tested`. stress: rows of stress.json.
    The other fields are those of `tested`."""

    name: str
    folder: pathlib.Path
    results: dict
    scores: dict
    config: dict
    versions: dict
    aggregate: str
    fitted: dict | None
    why_none: str
    stress: list
    tested: answer.Tested


def write_report(workdirs, out, *, mistakes=6, data_dir=None) -> pathlib.Path:
    """Write the page, and its tables beside it.

    Args:
      workdirs: evaluated workdirs; with several, the page compares them with the first. out: path of the .html file.
      mistakes: how many of the worst mistakes to draw for each test set of the first workdir; needs its weights and
        its built data sets; 0 for none. data_dir: where these are, if not where the config says.

    Returns:
      Path of the page.

    Raises:
      FileNotFoundError: a workdir has not been evaluated, or (for the mistakes) a data set is not built.
      ValueError: two workdirs without an eval in common, files that do not fit each other.
    """
    runs = [_load_run(path, name) for path, name in zip(workdirs, _short_names(workdirs), strict=True)]
    evals = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    if not evals:
        raise ValueError(f"no eval is in all of {', '.join(str(run.folder) for run in runs)}")
    out = pathlib.Path(out)
    made = (_main_table, _confusion_table, _forgery_table)
    shown = [table for run in runs for table in (make(run) for make in made) if table.rows]
    if len(runs) > 1:
        shown.insert(0, _comparison(runs, evals))
    drawn = _draw_mistakes(runs[0], evals, mistakes, data_dir) if mistakes else {}
    sections = [
        *_answer(runs),
        page.section("Results", _reading(runs), *map(page.table, shown)),
        page.section("Curves", *(_curves(runs, name) for name in evals)),
        page.section("Robustness", *_robustness(runs)),
        page.section("Worst mistakes", *_mistakes(drawn, mistakes)),
        page.section("Embeddings and training", *_pictures(runs)),
        page.section("Configuration and versions", *map(_about, runs)),
    ]
    title = "Deepfake detection: " + ", ".join(run.name for run in runs)
    page.write(out, title, sections)
    page.write_tables(out.with_name(f"{out.stem}_tables"), shown)
    return out


def _short_names(workdirs):
    """The last parts of the paths, as many as tell them apart."""
    parts = [pathlib.Path(path).resolve().parts for path in workdirs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same workdir twice: {', '.join(map(str, workdirs))}")


def _load_run(folder, name):
    tested = answer.load(folder)
    stress = tested.folder / "stress" / "stress.json"
    rows = json.loads(stress.read_text())["rows"] if stress.exists() else []
    about = tested.results["_about"]
    return Run(name, tested.folder, tested.results, tested.scores, tested.config.to_dict(), about["versions"],
               tested.aggregate, tested.fitted, tested.why_none, rows, tested)  # fmt: skip


def _videos(run, name):
    """(scores, labels, keys) of the videos of an eval."""
    columns = run.scores[name]
    return group_videos(columns["score"], columns["label"], columns["video_key"], run.aggregate)


def _judge(run, scores):
    """The verdicts on videos of these scores [V]."""
    return [verdict.judge([score], run.fitted, run.aggregate) for score in scores]


def _main_table(run):
    there = [(title, metric) for title, metric in COLUMNS if any(f"{e}/{metric}" in run.results for e in run.scores)]
    bounds = run.results.get("_intervals", {})
    rows = []
    for name in run.scores:
        _, labels, _ = _videos(run, name)
        cells = [name, f"{np.sum(labels == 0)} + {np.sum(labels == 1)}"]
        rows.append(cells + [_figure(run.results.get(f"{name}/{m}"), bounds.get(f"{name}/{m}"), m) for _, m in there])
    header = ["test set", "videos, real + fake", *(title for title, _ in there)]
    note = "Percent where no unit is named; in brackets 95 % intervals by bootstrap over videos, none where all agree."
    return page.Table(run.name, header, rows, note)


def _confusion_table(run):
    header, rows = answer.confusion(run.tested)
    note = "Each video once, at the threshold; in brackets Clopper and Pearson's 95 % interval, for independent videos."
    return page.Table(f"{run.name}: what the videos are called", header, rows, note)


def _forgery_table(run):
    """What is said of type, regions and strength of held-out forgeries; without rows where nothing is."""
    there = [row for row in FORGERY if any(f"{name}/{row[1]}" in run.results for name in run.scores)]
    rows = []
    for name in run.scores:
        values = [run.results.get(f"{name}/{figure}") for _, figure, _, _ in there]
        if any(value is not None for value in values):
            cells = zip(values, there, strict=True)
            rows.append([name, *("-" if v is None else f"{factor * v:.{n}f}" for v, (_, _, n, factor) in cells)])
    note = "Of forgeries made as in training, of videos that were not in training."
    return page.Table(f"{run.name}: type, regions and strength", ["test set", *(row[0] for row in there)], rows, note)


def _comparison(runs, evals):
    first = runs[0]
    header = ["test set", *(run.name for run in runs), *(f"p, {run.name} against {first.name}" for run in runs[1:])]
    rows = []
    for name in evals:
        cells = [name]
        for run in runs:
            bounds = run.results.get("_intervals", {}).get(f"{name}/video_auc")
            cells.append(_figure(run.results.get(f"{name}/video_auc"), bounds))
        for run in runs[1:]:
            a, b = _videos(first, name), _videos(run, name)
            if not np.array_equal(a[2], b[2]):
                raise ValueError(f"{first.folder} and {run.folder} scored other videos of {name}: no paired test")
            both = len(set(a[1].tolist())) == 2
            cells.append(f"{intervals.delong_test(b[0], a[0], a[1]).p_value:.3f}" if both else "-")
        rows.append(cells)
    note = (
        "Video AUC in percent with 95 % intervals; p: DeLong's paired test on the same videos, two-sided, uncorrected."
    )
    last, more = _ranks(runs, evals)
    return page.Table("Comparison", header, rows + last, note + more)


def _ranks(runs, evals):
    """(rows Avg and Top3 below the comparison, what its note says of them); none with fewer than two test sets."""
    chosen = {run.results["_about"]["select"]["eval"] for run in runs if run.results["_about"].get("select")}
    tested = [name for name in evals if name not in chosen]
    if len(tested) < 2:
        return [], ""
    figures = [[run.results.get(f"{name}/video_auc") for name in tested] for run in runs]
    rows = [["Avg", *(tables.percent(tables.average(values)) for values in figures)]]
    note = f" {tables.AVERAGE_NOTE}"
    # Of three, every one is among the best three.
    if len(runs) > 3:
        rows.append(["Top3", *map(str, tables.count_top(figures))])
        note += f" {tables.TOP_NOTE}"
    blank = ["-"] * (len(runs) - 1)
    if left := sorted(chosen & set(evals)):
        note += f" Without {', '.join(left)}, where checkpoints were chosen."
    return [row + blank for row in rows], note


def _figure(value, bounds, metric="video_auc"):
    """Percent, or bits with two decimals."""
    if value is None or value != value:
        return "-"
    factor, digits = (1, 2) if metric.partition("_")[2] in metrics.IN_BITS else (100, 1)
    text = f"{factor * value:.{digits}f}"
    if bounds is None or None in bounds:
        return text
    return f"{text} [{factor * bounds[0]:.{digits}f}, {factor * bounds[1]:.{digits}f}]"


def _answer(runs):
    """The first screen: how good each run is and where it is worst, then what not to conclude."""
    several = len(runs) > 1
    limits = {}
    for run in runs:
        if several:
            yield page.points(run.name, [*answer.how_good(run.tested)[:1], *answer.where_worst(run.tested)[:1]])
        else:
            first, *more = answer.how_good(run.tested)
            yield page.headline(first) + page.paragraphs(" ".join([*more, "In brackets: 95 % intervals."]))
            yield page.points("Where it is worst", answer.where_worst(run.tested))
        for line in answer.not_to_conclude(run.tested):
            limits.setdefault(line, []).append(run.name)
    # What holds for some of the runs alone is said of these.
    of = lambda names: f"{', '.join(names)}: " if len(names) < len(runs) else ""
    yield page.points("What not to conclude", [f"{of(names)}{line}" for line, names in limits.items()])


def _reading(runs):
    """What the reader has to know to believe the table."""
    lines = []
    for run in runs:
        about = run.results["_about"]
        select = about.get("select")
        how = f"chosen on {select['eval']} ({select['metric']})" if select else "not chosen on a validation set"
        fitted = run.fitted
        threshold = f"not calibrated ({run.why_none})"
        if fitted is not None:
            threshold = (
                f"threshold {fitted['threshold']:.3f} and slope {fitted['slope']:.2f} fitted on "
                f"{fitted['fitted_on']} ({fitted['num_videos']} videos)"
            )
        lines.append(f"{run.name}: weights of step {about['step']} ({about['weights']}), {how}; {threshold}.")
        lines += [] if fitted is None else [f"{run.name}: {line}." for line in words.describe_fit(fitted)[1:]]
    return page.paragraphs(*lines)


def _curves(runs, name):
    series = [(run.name, *_videos(run, name)[:2]) for run in runs]
    figures = [
        (curves.draw_roc(series), f"ROC curves on {name}"),
        (curves.draw_precision_recall(series), f"precision over recall on {name}"),
    ]
    for run in runs:
        scores, labels, _ = _videos(run, name)
        whose = f", {run.name}" if len(runs) > 1 else ""
        figures.append(
            (curves.draw_histogram(scores, labels, _judge(run, scores)[0].threshold), f"scores on {name}{whose}")
        )
        fitted = None if run.fitted is None else verdict.apply_calibration(scores, run.fitted)
        figures.append((curves.draw_calibration(scores, labels, fitted), f"calibration on {name}{whose}"))
    return page.details(name, page.figures(figures), opened=name == next(iter(runs[0].scores)))


def _robustness(runs):
    lacking = [run for run in runs if not run.stress]
    for run in lacking:
        yield page.paragraphs(f"{run.name} has not been stressed: python -m msddf_jax.stress --workdir {run.folder}")
    cells = {}
    for run in runs:
        for row in run.stress:
            cells.setdefault((row["eval"], row["grid"], row["perturbation"]), []).append((run, row))
    figures = []
    for (name, grid, perturbation), group in cells.items():
        levels = max((row["levels"] for _, row in group), key=len)
        series = []
        for run, row in group:
            values = [np.nan if value is None else value for value in row["values"]]
            series.append((run.name, values + [np.nan] * (len(levels) - len(values)), row["clean"]))
        title = f"{name}: {perturbation} ({grid})"
        figures.append((curves.draw_robustness(title, levels, series), title))
    if figures:
        yield page.figures(figures)


def _draw_mistakes(run, evals, number, data_dir):
    """{eval: [(caption, uint8 RGB picture)]}: the videos that the first workdir scored worst, most wrong first."""
    model = load_for_inference(run.folder)
    drawn = {}
    for name in evals:
        if name not in model.config.evals:
            continue
        eval_set = source.open_configured(model.config, model.config.evals[name], data_dir)
        scores, labels, keys = _videos(run, name)
        judged = _judge(run, scores)
        wrong = [i for i in range(len(scores)) if judged[i].label != schema.LABELS[labels[i]]]
        worst = sorted(wrong, key=lambda i: -abs(judged[i].probability - labels[i]))[:number]
        drawn[name] = [_draw_mistake(model, eval_set, run.scores[name], keys[i], judged[i], labels[i]) for i in worst]
    return drawn


def _draw_mistake(model, eval_set, columns, key, judged, label):
    """The frame of a video whose score is the most wrong, with the manipulation map where the detector has one."""
    own = columns["video_key"] == key
    frames, frame_scores = columns["frame_index"][own], columns["score"][own]
    frame = int(frames[np.argmax(np.abs(frame_scores - label))])
    dataset, compression, _, video = key.split("/", 3)
    where = (eval_set.column("dataset") == dataset) & (eval_set.column("compression") == compression)
    where &= (eval_set.column("video_id") == video) & (eval_set.frame_index == frame)
    found = np.flatnonzero(where)
    if found.size != 1:
        raise ValueError(f"{key} frame {frame} of the scores is not in {eval_set.name}; evaluate the workdir again")
    image = eval_set[found[0]]["image"]
    size = model.config.data.image_size
    if image.shape[:2] != (size, size):
        raise ValueError(f"{eval_set.name} has crops of {image.shape[1]}x{image.shape[0]}, the model wants {size}")
    out = jax.device_get(model.predict_fn(model.params, {"image": image[None]}))
    if "map" in out:
        image = plots.draw_overlay(image, np.asarray(out["map"][0], np.float32), video, score=float(out["score"][0]))
    what = f"{schema.LABELS[label]}, called {judged.label}, P(fake) {judged.probability:.2f}"
    return f"{key}: {what}, frame {frame}", image


def _mistakes(drawn, number):
    if not number:
        yield page.paragraphs("Not drawn (--mistakes=0).")
    for name, pictures in drawn.items():
        if not pictures:
            yield page.paragraphs(f"{name}: every video is called what it is.")
        else:
            yield page.details(name, page.pictures(pictures), opened=False)


def _pictures(runs):
    for run in runs:
        folders = [run.folder / name for name in ("embedding", "faithfulness")]
        found = [path for folder in folders for path in sorted(folder.glob("[!.]*.png"))]
        pictures = [(f"{run.name}: {path.stem.replace('_', ' ')}", path.read_bytes()) for path in found]
        if pictures:
            yield page.pictures(pictures)
        else:
            yield page.paragraphs(
                f"{run.name} has no embeddings yet: python -m msddf_jax.embedding --workdir {run.folder} "
                f"--out {run.folder / 'embedding'}"
            )


def _about(run):
    versions = page.Table("versions", ["name", "value"], [[k, str(v)] for k, v in run.versions.items()], "")
    config = json.dumps(run.config, indent=1, sort_keys=True, default=str)
    return page.details(run.name, page.table(versions), page.code(config), opened=False)


def main(argv) -> None:
    """Write the page. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv):
        listed = [path for path in values.workdir if "," in path and not pathlib.Path(path).exists()]
        if listed:
            raise FileNotFoundError(f"no folder {listed[0]}; several workdirs are --workdir A --workdir B")
        out = write_report(values.workdir, values.out, mistakes=values.mistakes, data_dir=values.data_dir)
    print(f"report: {out}")


if __name__ == "__main__":
    command.define_paths(
        "workdir",
        None,
        "An evaluated workdir; given again, others, compared with the first.",
        workdir=True,
        required=True,
    )
    command.define_path("out", "report.html", "The page.")
    flags.DEFINE_integer("mistakes", 6, "Worst mistakes drawn for each test set; 0 for none.", lower_bound=0)
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    app.run(main)
