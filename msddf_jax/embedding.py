"""What a detector's features and the images' spectra look like: `python -m msddf_jax.embedding --workdir W --out O`.

Writes into --out: tsne_set.png, tsne_method.png and tsne_label.png (t-SNE of the features, the same points coloured
three ways), embedding.csv (the points), frequency.png and frequency.csv (the spectrum of real against fake crops), and,
where the detector was trained against an adversary, policy.png (what the adversary chose over training).

t-SNE keeps neighbours; distances between clusters and their sizes mean nothing.
"""

import csv
import functools
import pathlib

import jax
import numpy as np
import PIL.Image
from absl import app, flags, logging
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from msddf_jax import command, detector, logs
from msddf_jax.data import methods, sample, schema, source
from msddf_jax.inference import load_for_inference
from msddf_jax.models import policy
from msddf_jax.show import plots

PERPLEXITY = 30.0
# Rec. 601 luma.
_LUMA = np.array([0.299, 0.587, 0.114])
_COLUMNS = ("set", "method", "label", "video", "frame_index", "score")


def make_feature_fn(config) -> jax.stages.Wrapped:
    """features(weights, {"image": uint8 [B, H, W, 3]}) -> {"feature": [B, d] unit length, "score": [B]}, jitted."""
    apply = detector.make_apply(config)

    @jax.jit
    def features(weights, batch):
        out = apply(weights, detector.to_device_images({"image": batch["image"]}))
        if "feature" not in out:
            raise ValueError(f"detector {config.detector!r} gives no `feature` to embed, only {sorted(out)}")
        return {"feature": out["feature"].astype(np.float32), "score": jax.nn.sigmoid(out["logit"].astype(np.float32))}

    return features


def collect(feature_fn, weights, sets, *, max_images=200, batch_size=32) -> dict[str, np.ndarray]:
    """Features and spectra of some images of several sets.

    Args:
      feature_fn: of `make_feature_fn`. weights: for it. sets: {name: source.Source}.
      max_images: of each set, half of them real, evenly spread over its records; None for all.
      batch_size: images at once.

    Returns:
      dict of arrays [N, ...]: feature float32 [N, d], profile float64 [N, F] (`radial_profile`), score; set, method,
      label ("real", "fake"), video: str; frame_index. An image that several sets share, as the evals of one data set
      share their reals, stands once, under the first.

    Raises:
      ValueError: no images at all.
    """
    found, seen = {name: [] for name in ("feature", "profile", *_COLUMNS)}, set()
    for name, opened in sets.items():
        indices = _unseen(opened, seen)
        labels = opened.column("label")[indices]
        half = None if max_images is None else max_images // 2
        picked = [sample.spread(indices[labels == label], half) for label in schema.LABELS if (labels == label).any()]
        indices = np.concatenate(picked) if picked else indices
        seen |= set(_keys(opened, indices))
        batches = tqdm(
            sample.batches(opened, indices, batch_size), total=-(-len(indices) // batch_size), desc=f"embed {name}"
        )
        for batch, rows in batches:
            out = feature_fn(weights, {"image": batch["image"]})
            found["feature"] += list(np.asarray(out["feature"])[:rows])
            found["score"] += np.asarray(out["score"])[:rows].tolist()
            found["profile"] += list(radial_profile(batch["image"][:rows])[1])
            found["set"] += [name] * rows
            found["method"] += [methods.METHODS[i] for i in batch["method"][:rows]]
            found["label"] += [schema.LABELS[i] for i in batch["label"][:rows]]
            found["frame_index"] += batch["frame_index"][:rows].tolist()
        found["video"] += ["/".join(map(str, key[:-1])) for key in _keys(opened, indices)]
    if not found["score"]:
        raise ValueError(f"the sets {list(sets)} have no images")
    return {name: np.array(values) for name, values in found.items()}


def _keys(opened, indices):
    """(data set, compression, method, video, frame) of records: the same record in two sets has the same."""
    columns = [opened.column(name)[indices] for name in ("dataset", "compression", "method", "video_id", "frame_index")]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _unseen(opened, seen):
    every = np.arange(len(opened))
    return every[[key not in seen for key in _keys(opened, every)]]


def tsne(features, *, perplexity=PERPLEXITY, seed=0) -> np.ndarray:
    """t-SNE in the plane, started from the first two principal components: the same numbers for the same seed.

    Args:
      features: float [N, d], N >= 4. perplexity: about how many neighbours count; at most (N - 1) / 3 is used, and the
        log says so. seed: of what is random in it.

    Returns:
      float32 [N, 2].

    Raises:
      ValueError: fewer than 4 points. Source: van der Maaten and Hinton, JMLR 2008; scikit-learn.
    """
    features = np.asarray(features, np.float32)
    if len(features) < 4:
        raise ValueError(f"t-SNE needs at least 4 images, got {len(features)}")
    largest = (len(features) - 1) / 3
    if perplexity > largest:
        logging.warning("perplexity %g is too large for %d images: %.1f is used", perplexity, len(features), largest)
    method = TSNE(2, perplexity=min(perplexity, largest), init="pca", random_state=seed, learning_rate="auto")
    # One thread: its many short parallel loops wait for each other on a busy machine, a hundred times the work.
    with threadpool_limits(1):
        return method.fit_transform(features)


@functools.cache
def _rings(height, width):
    """(ring of each frequency [H, W // 2 + 1], how many coefficients of the whole spectrum each stands for)."""
    rows, columns = np.fft.fftfreq(height) * height, np.fft.rfftfreq(width) * width
    scale = min(height, width)
    radius = np.hypot(rows[:, None] / height, columns[None, :] / width) * scale
    # Half of the columns stand for their mirror image too.
    twice = np.where((columns > 0) & (columns * 2 != width), 2.0, 1.0)
    return np.rint(radius).astype(int), np.broadcast_to(twice, radius.shape)


def radial_profile(images) -> tuple[np.ndarray, np.ndarray]:
    """Azimuthal mean of the log power spectrum of grey images, as a function of the spatial frequency.

    The mean grey level is taken off and a Hann window laid over, so that the image's edges, which a spectrum joins,
    do not stand for detail.

    Args:
      images: uint8 RGB [N, H, W, 3].

    Returns:
      (frequency [F] in cycles a pixel, rings of one cycle an image from 1 to its half side; float64 [N, F] in dB, of
      grey levels from 0 to 1).

    Source: Durall et al., CVPR 2020 (azimuthal integration), here of the logarithm and with a window.
    """
    grey = np.asarray(images, np.float64) @ (_LUMA / 255.0)
    _, height, width = grey.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    grey = (grey - grey.mean((1, 2), keepdims=True)) * window
    power = np.abs(np.fft.rfft2(grey)) ** 2 / (window**2).sum()
    decibel = 10 * np.log10(power + 1e-12)
    rings, counts = _rings(height, width)
    last = min(height, width) // 2
    flat, weights = rings.ravel(), counts.ravel()
    total = np.bincount(flat, weights, last + 1)[1 : last + 1]
    sums = np.stack([np.bincount(flat, weights * row.ravel(), last + 1)[1 : last + 1] for row in decibel])
    return np.arange(1, last + 1) / min(height, width), sums / total


def policy_history(workdir) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """What training logged of the adversary.

    Args:
      workdir: of a training run.

    Returns:
      (steps int [S], {head: {action: share [S]}}, {head: entropy [S], as a share of a uniform choice's}); in the
      pathwise mode the second holds {"value": {name: mean [S]}} and the third is empty. All empty without an adversary.
    """
    lines = [line for line in logs.read_metrics(workdir) if any(name.startswith("policy/") for name in line)]
    steps = np.array([line["step"] for line in lines])
    names = sorted({name for line in lines for name in line if name.startswith("policy/")})
    series = {name: np.array([np.nan if line.get(name) is None else line[name] for line in lines]) for name in names}
    order = {"region": schema.REGIONS, "type": schema.BLENDS}
    shares, entropy = {}, {}
    for head, count in policy.HEADS.items():
        there = {name.split("/")[2]: values for name, values in series.items() if name.startswith(f"policy/{head}/")}
        if there:
            label = "strength bin" if head == "magnitude" else head
            actions = order.get(head) or sorted(there, key=int)
            shares[label] = {action: there[action] for action in actions if action in there}
            entropy[label] = series[f"policy/entropy_{head}"] / np.log(count)
    if not shares and series:
        shares = {"value": {name.removeprefix("policy/"): v for name, v in series.items() if name.count("/") == 1}}
    return steps, shares, entropy


def embed_workdir(
    workdir, out, *, evals=None, max_images=200, perplexity=PERPLEXITY, seed=0, data_dir=None, batch_size=32
) -> list[pathlib.Path]:
    """Draw a trained detector's features, the images' spectra and the adversary's choices into a folder.

    Args:
      workdir: of a training run. out: folder. evals: names of the config's, None for all. max_images: of each eval.
      perplexity, seed: of `tsne`. data_dir: where built data sets are, if not where the config says.
      batch_size: images at once.

    Returns:
      list of the paths written.

    Raises:
      ValueError: unknown eval, too few images. FileNotFoundError: no run or data.
    """
    model = load_for_inference(workdir)
    config = model.config
    evals = list(config.evals) if evals is None else list(evals)
    unknown = sorted(set(evals) - set(config.evals))
    if unknown or not evals:
        raise ValueError(f"unknown eval {unknown}, allowed: {', '.join(config.evals)}")
    sets = {name: source.open_configured(config, config.evals[name], data_dir) for name in evals}
    found = collect(make_feature_fn(config), model.params, sets, max_images=max_images, batch_size=batch_size)
    points = tsne(found["feature"], perplexity=perplexity, seed=seed)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "embedding.csv"]
    with open(written[0], "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("x", "y", *_COLUMNS))
        writer.writerows(zip(*points.T.tolist(), *(found[name].tolist() for name in _COLUMNS), strict=True))
    for column in ("set", "method", "label"):
        title = f"t-SNE of {len(points)} faces, by {column}"
        written.append(_save(out / f"tsne_{column}.png", plots.draw_embedding(points, found[column], title)))
    written += _write_profiles(out, found)
    steps, shares, entropy = policy_history(workdir)
    if shares:
        title = "What the adversary chose over training"
        written.append(_save(out / "policy.png", plots.draw_policy(steps, shares, entropy, title)))
    else:
        logging.warning("no policy.png: %s was trained without an adversary (config.policy.mode)", workdir)
    return written


def _write_profiles(out, found):
    """frequency.png and frequency.csv of what `collect` found; returns their paths."""
    count = found["profile"].shape[1]
    # One frequency a ring, the last at half a cycle a pixel where the side is even.
    frequency = np.arange(1, count + 1) / (2 * count)
    groups = {label: found["profile"][found["label"] == label] for label in schema.LABELS}
    groups = {label: rows for label, rows in groups.items() if len(rows)}
    path = out / "frequency.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["cycles_per_pixel", *(f"{label}_{what}" for label in groups for what in ("mean", "p5", "p95"))]
        )
        columns = [frequency]
        for rows in groups.values():
            columns += [rows.mean(0), *np.percentile(rows, (5, 95), axis=0)]
        writer.writerows(np.stack(columns, axis=1).tolist())
    picture = plots.draw_profiles(frequency, groups, "Log power spectrum, azimuthal mean")
    return [path, _save(out / "frequency.png", picture)]


def _save(path, picture):
    PIL.Image.fromarray(picture).save(path)
    return path


def main(argv) -> None:
    """Draw one workdir. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv):
        written = embed_workdir(
            values.workdir,
            values.out,
            evals=values.evals,
            max_images=values.max_images,
            perplexity=values.perplexity,
            seed=values.seed,
            data_dir=values.data_dir,
            batch_size=values.batch_size,
        )
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    command.define_path("out", None, "Folder for the images and tables.", required=True)
    flags.DEFINE_list("evals", None, "Which of the config's evals; all by default.")
    flags.DEFINE_integer("max_images", 200, "Of each eval, half of them real.", lower_bound=2)
    flags.DEFINE_float("perplexity", PERPLEXITY, "Of t-SNE.", lower_bound=1.0)
    flags.DEFINE_integer("seed", 0, "Of t-SNE.", lower_bound=0)
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    flags.DEFINE_integer("batch_size", 32, "Images at once.", lower_bound=1)
    app.run(main)
