"""Runs a detector over perturbed copies of its test sets: resumable cells, one table, one plot."""

import csv
import functools
import itertools
import json
import pathlib
import warnings
import zlib
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from absl import logging
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from msddf_jax import checkpoint, sharding
from msddf_jax.data import pipeline
from msddf_jax.data.source import Source, keep_records
from msddf_jax.evaluators import detection, perturb, recompress
from msddf_jax.statistics import metrics

GRIDS = ("deeperforensics", "gend", "jpeg", "h264", "resize", "screenshot", "attack")
METRIC = "video_auc"
_CLEAN = perturb.Perturbation("clean", (0,), lambda x, level: x, "as stored", "")
_NO_CHANGE = "*"


class Scorer(NamedTuple):
    """What scores images, and where.

    predict_fn(weights, {"image": uint8 [B, H, W, 3]}) -> {"score": [B]}; weights: its first argument, on the mesh.
    mesh: device mesh. batch_size, image_size, num_threads: of `pipeline.eval_batches`. seed: of everything drawn.
    aggregate: of the frames of a video, as `scores.group_videos`.
    """

    predict_fn: Any
    weights: Any
    mesh: Any
    batch_size: int
    image_size: int
    num_threads: int = 4
    seed: int = 0
    aggregate: str = "mean"


def grid_rows(grid, eval_set, attacks=()) -> list[perturb.Perturbation]:
    """The perturbations of a grid, as far as they can be made of a data set.

    Args:
      grid: of `GRIDS`. eval_set: source.Source; H.264 in place of VC~ where its frames form clips.
      attacks: rows of the grid "attack", from `attack.attacks`.

    Returns:
      list of perturb.Perturbation.

    Raises:
      ValueError: unknown grid, or "attack" without rows.
    """
    if grid == "attack" and not attacks:
        raise ValueError("the grid 'attack' needs the gradient of a detector: give attack.attacks(...)")
    tables = {
        "deeperforensics": (
            *perturb.DEEPERFORENSICS,
            recompress.VC if recompress.forms_clips(eval_set) else perturb.VC_FRAMES,
        ),
        "gend": (recompress.GEND_JPEG, *perturb.GEND),
        "jpeg": recompress.JPEG,
        "h264": recompress.H264,
        "resize": perturb.RESIZE,
        "screenshot": perturb.SCREENSHOT,
        "attack": attacks,
    }
    if grid not in tables:
        raise ValueError(f"unknown grid {grid!r}, allowed: {', '.join(GRIDS)}")
    return list(tables[grid])


def limit_videos(source, number) -> Source:
    """The source with at most `number` videos, reals and fakes alike, each evenly spread over those there are.

    Raises:
      ValueError: number < 2.
    """
    if number < 2:
        raise ValueError(f"max_videos is {number}, expected at least 2: one real and one fake")
    labels = source.videos["label"]
    keep = np.zeros(len(labels), bool)
    for label, most in (("real", number // 2), ("fake", number - number // 2)):
        there = np.flatnonzero((labels == label) & (source.count > 0))
        if len(there):
            keep[there[np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).astype(int))]] = True
    return keep_records(source, keep[source.video])


def score_level(scorer, eval_set, perturbation, level, desc) -> dict[str, np.ndarray]:
    """Every example of a set, perturbed at one level and scored.

    What is drawn depends on the seed, the perturbation's name, the batch and the row in it, not on the level: a
    stronger level scales the same noise.

    Args:
      scorer: Scorer. eval_set: source.Source. perturbation: of `grid_rows`. level: one of its levels. desc: of the
        progress bar.

    Returns:
      as `detection.collect_scores`.
    """
    if perturbation.kind in ("image", "clip"):
        change = lambda images: perturbation.fn(images, level)
        eval_set = recompress.RecompressedSource(eval_set, change, by_clip=perturbation.kind == "clip")
    batches = pipeline.eval_batches(
        eval_set, batch_size=scorer.batch_size, image_size=scorer.image_size, num_threads=scorer.num_threads
    )
    key = jax.random.fold_in(jax.random.key(scorer.seed), zlib.crc32(perturbation.name.encode()))
    counter = itertools.count()

    def predict(weights, batch):
        image = batch["image"]
        if perturbation.kind in ("device", "random", "attack"):
            image = _perturb(perturbation, jax.random.fold_in(key, next(counter)), batch, level)
        return scorer.predict_fn(weights, {"image": image})

    put = lambda batch: sharding.put_batch({"image": batch["image"], "label": batch["label"]}, scorer.mesh)
    return detection.collect_scores(predict, scorer.weights, batches, put, desc=desc)


def _perturb(perturbation, key, batch, level):
    """The perturbed images as a file would hold them: uint8. An attack stays in its ball, whose bounds are levels."""
    if perturbation.kind == "attack":
        return perturb.to_uint8(perturbation.fn(key, _unit(batch["image"]), batch["label"], float(level)))
    apply = _compiled(perturbation)
    return apply(key, batch["image"], level if perturbation.static else np.asarray(level, np.float32))


@functools.lru_cache(maxsize=64)
def _compiled(perturbation):
    """(key, uint8 images, level) -> uint8 images: one compilation for all levels that are no shapes."""

    def apply(key, image, level):
        image = _unit(image)
        changed = perturbation.fn(key, image, level) if perturbation.kind == "random" else perturbation.fn(image, level)
        return perturb.to_uint8(changed)

    return jax.jit(apply, static_argnums=2 if perturbation.static else ())


def _unit(image):
    return image.astype(np.float32) / 255.0


def stress_set(folder, name, eval_set, grids, scorer, *, about, attacks=()) -> list[dict]:
    """Every cell of the grids over one set. A cell that is there, made with the same settings, is not run again.

    Args:
      folder: where the cells are written: <folder>/<name>/<grid>/<perturbation>_<column>.json.
      name: of the eval. eval_set: source.Source. grids: names of `GRIDS`. scorer: Scorer.
      about: {"step": ..., ...}, JSON values: what the weights are; a cell of others is run again.
      attacks: see `grid_rows`.

    Returns:
      list of row dicts for `format_table` and `draw_plot`: eval, grid, perturbation, about, unit, levels (text),
      values (video AUC or None), changed (bool a level), clean, mean and drop (None where no level changes anything).
    """
    size = eval_set.image_size
    settings = {
        **about, "eval": name, "source": eval_set.name, "records": pipeline.fingerprint(eval_set),
        "num_records": len(eval_set), "seed": scorer.seed, "batch_size": scorer.batch_size,
        "aggregate": scorer.aggregate,
    }  # fmt: skip
    table = [(grid, row) for grid in grids for row in grid_rows(grid, eval_set, attacks)]
    cells = [(g, row, i) for g, row in table for i in range(len(row.levels)) if row.changes(row.levels[i], size)]
    cells.insert(0, ("clean", _CLEAN, 0))
    folder, found = pathlib.Path(folder) / name, {}
    for grid, row, i in tqdm(cells, desc=f"stress {name}", unit="cell", disable=jax.process_index() != 0):
        path = folder / grid / f"{row.name.replace(' ', '_')}_{i + 1}.json"
        wanted = settings | {"perturbation": row.name, "about": row.about, "level": _text(row.levels[i])}
        values = _read_cell(path, wanted)
        if values is None:
            scores = score_level(scorer, eval_set, row, row.levels[i], f"{name} {row.name} {_text(row.levels[i])}")
            values = metrics.detection_metrics(
                scores["score"],
                scores["label"],
                scores["video_key"],
                name=f"{name}/{row.name}",
                aggregate=scorer.aggregate,
            )
            values = {key: float(value) if np.isfinite(value) else None for key, value in values.items()}
            if jax.process_index() == 0:
                checkpoint.write_json(path, {"settings": wanted, "metrics": values})
        found[grid, row.name, i] = values[METRIC]
    clean = found["clean", "clean", 0]
    return [_summarize(name, grid, row, size, clean, found) for grid, row in table]


def _read_cell(path, wanted):
    """The metrics of a finished cell, or None. Every process goes by what the first one finds."""
    values = None
    if jax.process_index() == 0 and path.exists():
        cell = json.loads(path.read_text())
        if cell.get("settings") == wanted:
            values = cell["metrics"]
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # NaN stands for a metric that is undefined, infinity for a cell that is not there.
        value = np.float32(np.inf if values is None else np.nan if values[METRIC] is None else values[METRIC])
        value = float(multihost_utils.broadcast_one_to_all(value))
        values = None if np.isinf(value) else {METRIC: None if np.isnan(value) else value}
    return values


def _summarize(name, grid, row, size, clean, found):
    """One row of the table. Levels that change nothing have the clean figure and stay out of the mean."""
    changed = [bool(row.changes(level, size)) for level in row.levels]
    values = [found[grid, row.name, i] if c else clean for i, c in enumerate(changed)]
    if not any(changed):
        logging.log_first_n(
            logging.WARNING, "%s: %s leaves images of %dx%d as they are, by its definition (%s)", 1, grid, row.name,
            size[1], size[0], f"{row.about}, {row.unit}",
        )  # fmt: skip
    counted = [value for value, c in zip(values, changed) if c]
    mean = float(np.mean(counted)) if counted and None not in counted else None
    drop = (clean - mean) / clean if mean is not None and clean else None
    levels = [_text(level) for level in row.levels]
    return {
        "eval": name, "grid": grid, "perturbation": row.name, "about": row.about, "unit": row.unit, "levels": levels,
        "values": values, "changed": changed, "clean": clean, "mean": mean, "drop": drop,
    }  # fmt: skip


def grid_means(rows) -> list[dict[str, str | float | None]]:
    """{"eval", "grid", "num_rows", "mean", "drop"} of each grid of several rows: the mean of the rows that have one.

    drop: None where a row has none, which is where the clean figure is 0 or unknown.
    """
    out = []
    groups = itertools.groupby(rows, key=lambda row: (row["eval"], row["grid"]))
    for (name, grid), group in groups:
        group = list(group)
        counted = [row for row in group if row["mean"] is not None]
        # Attacks on the own gradient and on another are two questions: no mean over both.
        if grid != "attack" and len(group) > 1 and counted:
            mean = float(np.mean([row["mean"] for row in counted]))
            drops = [row["drop"] for row in counted]
            drop = None if None in drops else float(np.mean(drops))
            out.append({"eval": name, "grid": grid, "num_rows": len(counted), "mean": mean, "drop": drop})
    return out


def write_results(folder, rows, about) -> str:
    """Writes table.txt, table.csv, table.tex, stress.json and stress.png into `folder`. Returns the text table."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = format_table(rows)
    (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "table.tex").write_text(format_latex(rows), encoding="utf-8")
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_csv_lines(rows))
    checkpoint.write_json(folder / "stress.json", {"about": about, "rows": rows, "grid_means": grid_means(rows)})
    matplotlib.image.imsave(folder / "stress.png", draw_plot(rows))
    return text


def format_table(rows) -> str:
    """The table as text: video AUC in percent, a row a perturbation, a column a level, then mean and relative drop."""
    columns = max(len(row["levels"]) for row in rows)
    head = ["eval", "grid", "perturbation", *map(str, range(1, columns + 1)), "mean", "drop %"]
    lines = _body(rows, columns)
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    align = lambda line: "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
    return "\n".join([align(line).rstrip() for line in [head, *lines]] + ["", *_notes(rows)])


def _body(rows, columns):
    """The cells of the table by line: of each eval clean, its grids, and the mean after a grid of several rows."""
    lines, means = [], {(mean["eval"], mean["grid"]): mean for mean in grid_means(rows)}
    for name, of_eval in itertools.groupby(rows, key=lambda row: row["eval"]):
        of_eval = list(of_eval)
        lines.append([name, "clean", "", _percent(of_eval[0]["clean"])] + [""] * (columns + 1))
        for grid, of_grid in itertools.groupby(of_eval, key=lambda row: row["grid"]):
            lines += [_cells(row, columns) for row in of_grid]
            if (name, grid) in means:
                mean = means[name, grid]
                figures = [_percent(mean["mean"]), _percent(mean["drop"])]
                lines.append([name, grid, f"mean of {mean['num_rows']}", *[""] * columns, *figures])
    return lines


def _cells(row, columns):
    values = [_percent(v) + ("" if c else _NO_CHANGE) for v, c in zip(row["values"], row["changed"])]
    values += [""] * (columns - len(values))
    return [row["eval"], row["grid"], row["perturbation"], *values, _percent(row["mean"]), _percent(row["drop"])]


def _notes(rows):
    notes = [
        "video AUC in percent; mean over the levels that change the image; drop = (clean - mean) / clean",
        *_definitions(rows),
    ]
    if not all(all(row["changed"]) for row in rows):
        notes.insert(1, f"{_NO_CHANGE} by its definition this level leaves images of this size as they are: clean")
    return notes


def _definitions(rows):
    lines = [
        f"{row['grid']} {row['perturbation']}: {row['about']}; {row['unit']}: {' | '.join(row['levels'])}"
        for row in rows
    ]
    return list(dict.fromkeys(lines))


def _csv_lines(rows):
    columns = max(len(row["levels"]) for row in rows)
    numbers = range(1, columns + 1)
    yield [
        "eval", "grid", "perturbation", "about", "unit",
        *(f"level_{i}" for i in numbers), *(f"{METRIC}_{i}" for i in numbers),
        "levels_without_effect", "clean", "mean", "relative_drop",
    ]  # fmt: skip
    for row in rows:
        fill = [""] * (columns - len(row["levels"]))
        without = " ".join(str(i + 1) for i, c in enumerate(row["changed"]) if not c)
        yield [
            row["eval"], row["grid"], row["perturbation"], row["about"], row["unit"],
            *row["levels"], *fill, *row["values"], *fill,
            without, row["clean"], row["mean"], row["drop"],
        ]  # fmt: skip


def format_latex(rows) -> str:
    """The table for LaTeX (needs booktabs), with the definitions as comments."""
    columns = max(len(row["levels"]) for row in rows)
    lines = [f"% {line}" for line in _notes(rows)]
    lines += [r"\begin{tabular}{lll" + "r" * (columns + 2) + "}", r"\toprule"]
    lines.append(" & ".join(["Set", "Grid", "Perturbation", *map(str, range(1, columns + 1)), "Mean", r"Drop (\%)"]))
    lines[-1] += r" \\"
    for cells in _body(rows, columns):
        lines += ([r"\midrule"] if cells[1] == "clean" else []) + [_latex(cells)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(cells):
    escape = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "~": r"\textasciitilde{}"}
    text = ["".join(escape.get(c, c) for c in cell).replace(_NO_CHANGE, "$^{*}$") for cell in cells]
    return " & ".join(text) + r" \\"


def draw_plot(rows, columns=5) -> np.ndarray:
    """A panel for each perturbation, a line for each eval: video AUC over the level, the clean figure dashed.

    Args:
      rows: of `stress_set`, of one or several evals. columns: panels beside each other.

    Returns:
      uint8 RGB [H, W, 3].
    """
    panels = list(dict.fromkeys((row["grid"], row["perturbation"]) for row in rows))
    names = list(dict.fromkeys(row["eval"] for row in rows))
    colors = dict(zip(names, itertools.cycle(matplotlib.colormaps["tab10"].colors)))
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(max(2.7 * columns, 4.5), 2.3 * lines + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    every = [v for row in rows for v in (row["clean"], *row["values"]) if v is not None]
    bottom = min([0.5, *every]) - 0.05
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, ax in zip(panels, axes):
        for row in (row for row in rows if (row["grid"], row["perturbation"]) == panel):
            _draw_line(ax, row, colors[row["eval"]])
        ax.axhline(0.5, color="#999999", lw=0.8, ls=":", zorder=1)
        ax.set_ylim(bottom, 1.03)
        ax.set_title(panel[1], loc="left", fontsize=9)
        if panel[0] not in (panel[1], "attack"):
            ax.set_title(panel[0], loc="right", fontsize=7, color="#888888")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[::columns]:
        ax.set_ylabel("video AUC", fontsize=8)
    handles = [matplotlib.lines.Line2D([], [], color=colors[name], marker="o", ms=4, label=name) for name in names]
    style = {"color": "#444444", "lw": 1}
    handles.append(matplotlib.lines.Line2D([], [], ls="--", label="clean", **style))
    if not all(all(row["changed"]) for row in rows):
        handles.append(
            matplotlib.lines.Line2D([], [], ls="", marker="o", ms=4, mfc="white", mec="#444444", label="no effect")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=8, frameon=False)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def _draw_line(ax, row, color):
    x = np.arange(1, len(row["levels"]) + 1)
    y = np.array([np.nan if value is None else value for value in row["values"]])
    changed = np.array(row["changed"])
    if row["clean"] is not None:
        ax.axhline(row["clean"], color=color, lw=1, ls="--", alpha=0.7, zorder=2)
    ax.plot(x, y, color=color, lw=1.3, zorder=3)
    ax.scatter(x[changed], y[changed], s=16, color=color, zorder=4, clip_on=False)
    ax.scatter(x[~changed], y[~changed], s=16, facecolor="white", edgecolor=color, zorder=4, clip_on=False)
    labels = [level.replace(",", "\n") for level in row["levels"]]
    ax.set_xticks(x, labels, fontsize=7)
    ax.set_xlabel(row["unit"], fontsize=7, color="#444444")
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlim(0.6, len(x) + 0.4)


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def _text(level):
    """A level as text: 0.4, or 7,1 where it has several parts."""
    parts = level if isinstance(level, tuple) else (level,)
    return ",".join(f"{part:g}" for part in parts)
