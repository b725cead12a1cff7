"""How far a map tells what the score depends on: `python -m msddf_jax.faithfulness --workdir DIR --eval NAME`.

Deletion: pixels are replaced by those of a blurred copy, the most salient first, and the image is scored after each
step; the area under that curve is low where the map is right. Insertion: pixels of the image come back into the blurred
copy in the same order; high is good. Both ask about the score, not about the forgery; pointing accuracy asks whether
the map's peak lies in the manipulated region. Beside the maps stand "random" (a number drawn for each cell of the same
grid, so that what is replaced is as coherent) and, where there are masks, "mask", the true region as a map.

The seams between blurred and sharp pixels are themselves what a detector of blending looks for: its score may stay
high, or rise, while the evidence goes. "random" has such seams too: what counts is the difference from it.

Differs from the source: deletion, too, replaces by blur, where RISE replaces by grey, which no face has. Source:
Petsiuk et al., RISE, BMVC 2018 (deletion, insertion); Zhang et al., Top-down neural attention by excitation backprop,
IJCV 2018 (pointing).

Writes <workdir>/faithfulness/<eval>.json and <eval>.png.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from absl import app, flags
from scipy import ndimage
from tqdm import tqdm

from msddf_jax import checkpoint, command, saliency
from msddf_jax.data import sample, source
from msddf_jax.evaluators import attack
from msddf_jax.inference import load_for_inference
from msddf_jax.show import plots
from msddf_jax.synth import degrade

STEPS = 20
# Standard deviation of the blur, as a share of the image's side: what is left of a face is its rough shading.
SIGMA = 0.05
# A peak this near the mask counts, as a share of the image's side; a peak cannot be finer than the map's cells.
TOLERANCE = 0.05
RESAMPLES = 2000


@jax.jit
def rank_pixels(heat, ties) -> jax.Array:
    """The place of each pixel by falling saliency.

    Args:
      heat: float [B, H, W]. ties: float [B, H, W], which of equally salient pixels comes first (the larger); a smooth
        map, so that the zeros of a map are not replaced as salt and pepper, which is a change of its own.

    Returns:
      int32 [B, H, W], 0 for the most salient.
    """
    flat = lambda x: x.reshape(len(x), -1)
    order = jnp.lexsort((-flat(ties), -flat(heat)), axis=-1)
    return jnp.argsort(order, axis=-1).astype(jnp.int32).reshape(heat.shape)


def replacement_curves(score_fn, weights, image, blurred, ranks, *, steps=STEPS) -> dict[str, np.ndarray]:
    """Scores while pixels are replaced in the order of their ranks, in equal shares.

    Args:
      score_fn: (weights, image) -> [B]; the same object from call to call, or it is compiled again.
      weights: its first argument. image, blurred: float32 [B, H, W, 3] in [0, 1]. ranks: of `rank_pixels`.

    Returns:
      {"deletion": NumPy float32 [steps + 1, B], "insertion": the same}: from image to blurred, and the other way.
    """
    count = ranks.shape[1] * ranks.shape[2]
    # A loop of calls: within a compiled loop, XLA runs on one core of a CPU.
    scores = [
        _score_replaced(score_fn, weights, image, blurred, ranks, number)
        for number in np.rint(np.linspace(0, count, steps + 1)).astype(np.int32)
    ]
    return {what: np.stack([score[what] for score in scores]) for what in ("deletion", "insertion")}


@functools.partial(jax.jit, static_argnums=0)
def _score_replaced(score_fn, weights, image, blurred, ranks, number):
    chosen = (ranks < number)[..., None]
    deleted, inserted = jnp.where(chosen, blurred, image), jnp.where(chosen, image, blurred)
    return {"deletion": score_fn(weights, deleted), "insertion": score_fn(weights, inserted)}


def area_under(curve) -> np.ndarray | np.float64:
    """Area under curves [steps + 1, ...] over shares from 0 to 1, by trapezoids: float [...]."""
    return np.trapezoid(curve, dx=1.0 / (len(curve) - 1), axis=0)


def point_hits(heat, mask, tolerance) -> np.ndarray:
    """Whether the peak of each map lies in the mask or at most `tolerance` pixels from it.

    Args:
      heat: float [N, H, W]. mask: bool [N, H, W]. tolerance: pixels, >= 0.

    Returns:
      float64 [N] in [0, 1]: where several pixels share the peak, the share of them that hits, so that a constant map
      gets what chance gets; NaN where the mask is empty.
    """
    hits = np.full(len(heat), np.nan)
    for i, (values, inside) in enumerate(zip(heat, mask, strict=True)):
        if inside.any():
            near = ndimage.distance_transform_edt(~inside) <= tolerance
            hits[i] = near[values >= values.max() - 1e-6].mean()
    return hits


def mean_interval(values, videos, *, resamples=RESAMPLES, seed=0) -> tuple[float, float, float]:
    """Mean over the images that are not NaN, with a 95 % percentile bootstrap interval over videos.

    Args:
      values: float [N]. videos: str [N], the video of each.

    Returns:
      (mean, low, high); NaN where there are no values, and low, high NaN with a single video.
    """
    keep = np.isfinite(values)
    if not keep.any():
        return (float("nan"),) * 3
    _, video = np.unique(np.asarray(videos)[keep], return_inverse=True)
    total, count = np.bincount(video, values[keep]), np.bincount(video)
    mean = float(total.sum() / count.sum())
    if len(total) < 2:
        return mean, float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(total), (resamples, len(total)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    return mean, *(float(q) for q in np.percentile(means, (2.5, 97.5)))


def measure(
    score_fn, explain_fn, weights, batches, *, steps=STEPS, sigma=SIGMA, tolerance=TOLERANCE, seed=0, total=None
) -> dict[str, dict[str, np.ndarray] | np.ndarray]:
    """Curves and hits of every map on a set of fakes.

    Args:
      score_fn: (weights, image float32 [B, H, W, 3]) -> P(fake) [B]. explain_fn: (weights, {"image": uint8}) -> maps,
        of `saliency.make_explain_fn`. weights: for both.
      batches: iterable of (host batch, rows that count), of `data.sample`. total: how many, for the progress bar.
      steps: of the curves. sigma, tolerance: shares of the image's side. seed: of the random map, which
        decides ties too.

    Returns:
      {method: {"deletion": [steps + 1, N], "insertion": [steps + 1, N], "pointing": [N]}}, among the methods "random"
      and, where images have a mask, "mask" (NaN for those that have none); and "video": str [N].
    """
    found, videos = {}, []
    for number, (batch, rows) in enumerate(tqdm(batches, total=total, desc="faithfulness", unit="batch")):
        size = batch["image"].shape[1]
        key = jax.random.fold_in(jax.random.key(seed), number)
        maps = dict(explain_fn(weights, {"image": batch["image"]}))
        del maps["score"]
        grid = max(heat.shape[1] for heat in maps.values())
        maps["random"] = jax.random.uniform(key, (len(batch["image"]), grid, grid))
        image = jnp.asarray(batch["image"], jnp.float32) / 255.0
        pixels = max(sigma * size, 1e-3)
        taps = min(2 * int(np.ceil(3 * pixels)) + 1, 2 * size - 1)
        blurred = degrade.gaussian_blur(image, taps, pixels)
        mask = (batch["mask"][..., 0] >= 128) & batch["has_mask"][:, None, None]
        large = {name: saliency.upsample(heat, size) for name, heat in maps.items()}
        large["mask"] = jnp.asarray(mask, jnp.float32)
        for name in ("random", *(name for name in saliency.METHODS if name in large), "mask"):
            heat = large[name]
            curves = replacement_curves(
                score_fn, weights, image, blurred, rank_pixels(heat, large["random"]), steps=steps
            )
            values = {what: np.asarray(curve, np.float64)[:, :rows] for what, curve in curves.items()}
            values["pointing"] = point_hits(np.asarray(heat)[:rows], mask[:rows], tolerance * size)
            if name == "mask":
                empty = ~mask[:rows].any((1, 2))
                values["deletion"][:, empty] = values["insertion"][:, empty] = np.nan
            found.setdefault(name, []).append(values)
        videos += ["/".join(parts) for parts in zip(batch["dataset"], batch["compression"], batch["video_id"])][:rows]
    joined = {
        name: {what: np.concatenate([part[what] for part in parts], axis=-1) for what in parts[0]}
        for name, parts in found.items()
    }
    if not np.isfinite(joined["mask"]["pointing"]).any():
        del joined["mask"]
    return joined | {"video": np.array(videos)}


def summarize(measured, seed=0) -> list[dict[str, str | int | tuple[float, float, float]]]:
    """The table of what `measure` found.

    Returns:
      list of dicts, one a method: method, n (images), n_masks; deletion, insertion, pointing, and the differences
      deletion_minus_random, insertion_minus_random (paired), each [mean, low, high], a 95 % interval over videos, NaN
      where undefined.
    """
    videos, rows = measured["video"], []
    areas = {
        name: {what: area_under(values[what]) for what in ("deletion", "insertion")}
        for name, values in measured.items()
        if name != "video"
    }
    for name, area in areas.items():
        hits = measured[name]["pointing"]
        row = {"method": name, "n": int(np.isfinite(area["deletion"]).sum()), "n_masks": int(np.isfinite(hits).sum())}
        for what in ("deletion", "insertion"):
            row[what] = mean_interval(area[what], videos, seed=seed)
            if name != "random":
                row[f"{what}_minus_random"] = mean_interval(area[what] - areas["random"][what], videos, seed=seed)
        row["pointing"] = mean_interval(hits, videos, seed=seed)
        rows.append(row)
    return rows


def format_table(rows) -> str:
    """The rows of `summarize` as text: mean [low, high], "-" where undefined."""

    def cell(values):
        mean, low, high = values
        if np.isnan(mean):
            return "-"
        return f"{mean:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")

    lines = [f"{'method':10}{'deletion (low)':>24}{'insertion (high)':>24}{'pointing (high)':>24}{'n':>6}"]
    for row in rows:
        cells = "".join(f"{cell(row[what]):>24}" for what in ("deletion", "insertion", "pointing"))
        lines.append(f"{row['method']:10}{cells}{row['n']:>6}")
    return "\n".join(lines)


def measure_workdir(
    workdir, name, *, methods=None, max_images=64, steps=STEPS, sigma=SIGMA, tolerance=TOLERANCE, batch_size=16,
    data_dir=None, seed=0,
) -> dict[str, dict | list]:  # fmt: skip
    """Measure the maps of a trained detector on fakes of one eval; print the table, write it and the plot.

    Args:
      workdir: of a training run. name: of an eval of its config. methods: of `saliency.METHODS`, None for all it has.
      max_images: fakes at most, evenly spread over those there are; None for all. data_dir: where built data sets are,
        if not where the config says. Others: as `measure`.

    Returns:
      what is written as JSON: {"about", "rows": of `summarize`, "curves": {method: {"deletion": [steps + 1], ...}}}.

    Raises:
      ValueError: unknown eval or method, or no fakes. FileNotFoundError: no run or data.
    """
    model = load_for_inference(workdir)
    config = model.config
    if name not in config.evals:
        raise ValueError(f"unknown eval {name!r}, allowed: {', '.join(config.evals)}")
    eval_set = source.open_configured(config, config.evals[name], data_dir)
    fakes = sample.spread(np.flatnonzero(eval_set.column("label") == "fake"), max_images)
    if not len(fakes):
        raise ValueError(f"eval {name!r} ({eval_set.name}) has no fakes, and there is evidence for fake only in those")
    logit_fn = attack.make_logit_fn(config)
    measured = measure(
        lambda weights, image: jax.nn.sigmoid(logit_fn(weights, image)),
        saliency.make_explain_fn(config, methods),
        model.params,
        sample.batches(eval_set, fakes, batch_size),
        steps=steps, sigma=sigma, tolerance=tolerance, seed=seed, total=-(-len(fakes) // batch_size),
    )  # fmt: skip
    rows = summarize(measured, seed)
    curves = {
        method: {what: np.nanmean(values[what], axis=1).tolist() for what in ("deletion", "insertion")}
        for method, values in measured.items()
        if method != "video"
    }
    about = {"eval": name, "detector": config.detector, "step": model.step, "weights": model.origin, "steps": steps}
    about |= {"sigma": sigma, "tolerance": tolerance, "unit": "sigma and tolerance: share of the side", "seed": seed}
    about |= {"score_image": curves["random"]["deletion"][0], "score_blurred": curves["random"]["deletion"][-1]}
    result = {"about": about, "rows": rows, "curves": curves}
    folder = pathlib.Path(workdir) / "faithfulness"
    checkpoint.write_json(folder / f"{name}.json", _without_nan(result))
    picture = plots.draw_faithfulness(curves, f"{name}: {rows[0]['n']} fakes")
    PIL.Image.fromarray(picture).save(folder / f"{name}.png")
    print(format_table(rows))
    print(
        f"P(fake) {about['score_image']:.3f} of the images, {about['score_blurred']:.3f} of their blurred copies; "
        f"95 % intervals over videos\nresults: {folder / f'{name}.json'}"
    )
    return result


def _without_nan(value):
    """The same tree with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def main(argv) -> None:
    """Measure one workdir. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv):
        measure_workdir(
            values.workdir,
            values.eval,
            methods=values.methods,
            max_images=values.max_images,
            steps=values.steps,
            sigma=values.sigma,
            tolerance=values.tolerance,
            batch_size=values.batch_size,
            data_dir=values.data_dir,
            seed=values.seed,
        )


if __name__ == "__main__":
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    flags.DEFINE_string("eval", None, "Which of the config's evals.", required=True)
    flags.DEFINE_list("methods", None, f"Which of {', '.join(saliency.METHODS)}; all that the detector has by default.")
    flags.DEFINE_integer("max_images", 64, "Fakes, evenly spread over those of the eval.", lower_bound=1)
    flags.DEFINE_integer("steps", STEPS, "Of the curves.", lower_bound=1)
    flags.DEFINE_float("sigma", SIGMA, "Of the blur, as a share of the image's side.", lower_bound=0.0)
    flags.DEFINE_float("tolerance", TOLERANCE, "Of pointing, as a share of the image's side.", lower_bound=0.0)
    flags.DEFINE_integer("batch_size", 16, "Images at once.", lower_bound=1)
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    flags.DEFINE_integer("seed", 0, "Of the random map, which decides ties too.", lower_bound=0)
    app.run(main)
