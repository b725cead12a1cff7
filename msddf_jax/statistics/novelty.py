"""Is a file like those of the validation set: how far its features lie from theirs, and when that is too far.

A detector gives a score for any face, and with confidence also for faces that are like none it was measured on. Here
the distance of a frame is Mahalanobis', from the nearest of the classes' means, with one covariance for both classes;
that of a file is the median over its frames. A file is out of range where its distance is above a threshold that
`FALSE_ALARMS` of files like the validation set's pass too. The detector was never measured on the likes of such a
file, and its score is not to be trusted. The reverse does not hold: where a network has kept nothing that tells a file
from those of the validation set, it is in range, and a forgery of an unknown kind can lie among the reals.

Source: Lee et al., NeurIPS 2018, section 2.1, on the last features alone, without their input noise; covariance: Ledoit
and Wolf, J. Multivariate Analysis 88, 2004.
"""

import io
import pathlib
import warnings
import zipfile

import numpy as np
from absl import logging

FILE = "novelty.npz"
# Share of files like those of the validation set that are called out of range all the same.
FALSE_ALARMS = 0.01
# Turns of holding out; so few groups or fewer are held out one by one, since how they are dealt out would matter.
FOLDS, ONE_BY_ONE = 5, 20
MIN_VIDEOS = 10
# Variances, as shares of their mean, below which a direction has none: float32 and bfloat16 do not tell them.
_FLOOR = 1e-6
ARRAYS = ("means", "whiten")
_NUMBERS = (
    "shrinkage",
    "threshold",
    "frame_threshold",
    "false_alarms",
    "num_videos",
    "num_groups",
    "num_frames",
    "step",
)
_TEXTS = ("fitted_on", "split", "weights")


def fit(features, videos, labels, groups=None) -> dict | None:
    """The range of a validation set's features.

    The thresholds are of distances from means and covariance that were fitted without the frame's own group: in each of
    `FOLDS` turns a part of the groups is held out, or each by itself. From 99 groups on a threshold is the order
    statistic that a further file passes with a chance of at most `FALSE_ALARMS`. Below, none is so high, and the rate
    is an extrapolation: the bound of the next value under a log-normal law, or the greatest distance where that is
    larger. Videos of one group count as one observation there.

    Args:
      features: float [N, d], one a frame (or clip); d may be above N, and the vectors may have unit length. videos:
        [N], whose frame it is, of any type that sorts. labels: int [N], the class. groups: [N], of videos that are held
        out together, for example those of one person; None for each video by itself.

    Returns:
      {"means" float32 [C, d], "whiten" float32 [d, d] (distance = |(x - mean) @ whiten|), "shrinkage", "threshold" of
      files of several frames, "frame_threshold" of single ones, "false_alarms", "num_videos", "num_groups",
      "num_frames"}. None with a warning where there are fewer than `MIN_VIDEOS` videos or 2 groups, or where features
      do not differ.

    Raises:
      ValueError: arrays of other shapes; a feature that is not finite.
    """
    features = _check_features(features, "features")
    videos, labels = np.asarray(videos), np.asarray(labels)
    groups = videos if groups is None else np.asarray(groups)
    for name, values in (("videos", videos), ("labels", labels), ("groups", groups)):
        if values.shape != features.shape[:1]:
            raise ValueError(f"expected {name} [N] beside features {features.shape}, got {values.shape}")
    num_videos, num_groups = np.unique(videos).size, np.unique(groups).size
    if num_videos < MIN_VIDEOS or num_groups < 2:
        warnings.warn(
            f"no range is fitted: {num_videos} videos in {num_groups} groups, expected {MIN_VIDEOS} in 2 at least",
            stacklevel=2,
        )
        return None
    fitted = _fit_gaussians(features, videos, labels)
    if fitted is None:
        warnings.warn("no range is fitted: all features of a class are the same", stacklevel=2)
        return None
    distances = _held_out_distances(features, videos, labels, groups)
    if distances is None:
        warnings.warn("no range is fitted: without one part of the groups, all features are the same", stacklevel=2)
        return None
    return {
        **fitted,
        "threshold": _upper_bound(_medians(distances, videos), num_groups),
        "frame_threshold": _upper_bound(distances, num_groups),
        "false_alarms": FALSE_ALARMS,
        "num_videos": num_videos,
        "num_groups": num_groups,
        "num_frames": len(features),
    }


def distance(features, fitted) -> np.ndarray:
    """float64 [N]: Mahalanobis distance of each feature [N, d] from the nearest class; in standard deviations.

    Raises: ValueError: features of another width than `fitted`'s; one that is not finite.
    """
    features = _check_features(features, "features")
    if features.shape[1] != fitted["means"].shape[1]:
        raise ValueError(f"features have {features.shape[1]} numbers, those of the range {fitted['means'].shape[1]}")
    whiten = fitted["whiten"].astype(np.float64)
    # From the first mean on: differences of what is far from 0 keep their digits.
    origin = fitted["means"][0].astype(np.float64)
    points, means = (features - origin) @ whiten, (fitted["means"] - origin) @ whiten
    return np.sqrt(np.min([((points - mean) ** 2).sum(1) for mean in means], axis=0))


def judge(frame_features, fitted, level="video") -> dict[str, float | bool]:
    """{"distance", "threshold", "out_of_range": distance > threshold} of one file, or of one image or face.

    Args:
      frame_features: float [N, d], one a frame, N >= 1: "feature" of `inference.score_crops`. fitted: as `find`.
      level: "video", or "frame" for a single image, whose threshold is higher: no median calms it.

    Raises:
      ValueError: an unknown level; as `distance`; no feature.
    """
    if level not in ("video", "frame"):
        raise ValueError(f"level is {level!r}, allowed: 'video', 'frame'")
    value = float(np.median(distance(frame_features, fitted)))
    threshold = float(fitted["threshold" if level == "video" else "frame_threshold"])
    return {"distance": value, "threshold": threshold, "out_of_range": value > threshold}


def find(workdir, model) -> dict | None:
    """As `fitted_of`, of an `inference.Inference`; None with one line in the log that says why."""
    found, why = fitted_of(workdir, step=model.step, weights=model.origin)
    if found is None:
        logging.warning("files out of range are not recognised: %s", why)
    return found


def fitted_of(workdir, *, step, weights) -> tuple[dict | None, str]:
    """(what `fit` gave, "") where a workdir's is of these weights, else (None, why not, in one line).

    Args: workdir: a folder. step, weights: step and origin of `inference.Inference`.
    Raises: as `load`.
    """
    found = load(workdir)
    if found is None:
        return None, f"there is no {FILE} in {workdir}; python -m msddf_jax.evaluate writes it for most detectors"
    for name, wanted in (("step", step), ("weights", weights)):
        if found[name] != wanted:
            return None, f"{FILE} is of {name} {found[name]!r}, and these features are of {name} {wanted!r}"
    return found, ""


def load(workdir) -> dict | None:
    """What `to_bytes` was given, from a workdir's file, or None without one. Raises ValueError where it is damaged."""
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ARRAYS}
            found |= {name: file[name].item() for name in (*_NUMBERS, *_TEXTS)}
        means, whiten = (found[name] for name in ARRAYS)
        width = means.shape[-1]
        right = means.ndim == 2 and len(means) and whiten.shape == (width, width)
        right = right and all(np.isfinite(found[name]).all() for name in (*ARRAYS, *_NUMBERS))
        if not right:
            raise ValueError(f"means {means.shape} and whiten {whiten.shape} do not fit, or are not finite")
    except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged ({error}); write it anew: python -m msddf_jax.evaluate --workdir {workdir}"
        ) from error
    return found


def to_bytes(fitted) -> bytes:
    """The contents of `FILE`: what `fit` gave, with "step", "weights", "fitted_on" and "split"."""
    data = io.BytesIO()
    np.savez(data, **{name: fitted[name] for name in (*ARRAYS, *_NUMBERS, *_TEXTS)})
    return data.getvalue()


def _check_features(features, name):
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"expected {name} [N, d] of at least one frame, got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: {int((~np.isfinite(features)).sum())} of {features.size} numbers are not finite")
    return features


def _fit_gaussians(features, videos, labels):
    """Means, whitening and shrinkage; None where no feature differs from its class's mean."""
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    residuals = features - means[np.searchsorted(np.unique(labels), labels)]
    covariance = residuals.T @ residuals / len(residuals)
    mean_variance = np.trace(covariance) / len(covariance)
    # What float32 features differ by where they are equal but for rounding.
    if mean_variance <= np.finfo(np.float32).eps ** 2 * (features**2).mean():
        return None
    shrinkage = _shrinkage(residuals, videos, covariance)
    values, vectors = np.linalg.eigh(covariance)
    values = (1.0 - shrinkage) * values + shrinkage * mean_variance
    whiten = vectors / np.sqrt(np.maximum(values, _FLOOR * mean_variance))
    return {
        "means": means.astype(np.float32),
        "whiten": whiten.astype(np.float32),
        "shrinkage": shrinkage,
    }


def _shrinkage(residuals, videos, covariance):
    """How far to move a covariance to the multiple of the identity with its trace, in [0, 1].

    Ledoit and Wolf's, but that the error of the covariance is summed over videos and not over frames, of which those of
    one video say nearly the same. With one frame a video it is theirs.
    """
    order = np.argsort(videos, kind="stable")
    starts = np.flatnonzero(np.r_[True, videos[order][1:] != videos[order][:-1]])
    along = np.einsum("ij,ij->i", residuals @ covariance, residuals)
    squared = np.vdot(covariance, covariance)
    error = 0.0
    for rows in np.split(order, starts[1:]):
        products = residuals[rows] @ residuals[rows].T
        error += (products**2).sum() - 2.0 * len(rows) * along[rows].sum() + len(rows) ** 2 * squared
    error /= len(residuals) ** 2
    spread = squared - np.trace(covariance) ** 2 / len(covariance)
    return float(np.clip(error / spread, 0.0, 1.0)) if spread > 0.0 else 1.0


def _held_out_distances(features, videos, labels, groups):
    """float64 [N]: the distance of each frame from what was fitted without its group; None as `_fit_gaussians`."""
    fold, result = deal_folds(labels, groups), np.empty(len(features))
    for number in np.unique(fold):
        out = fold == number
        fitted = _fit_gaussians(features[~out], videos[~out], labels[~out])
        if fitted is None:
            return None
        result[out] = distance(features[out], fitted)
    return result


def deal_folds(labels, groups) -> np.ndarray:
    """int [N]: the turn in which each frame is held out with its group.

    There are `FOLDS` turns, to which groups of the same classes are dealt out one after the other; `ONE_BY_ONE` groups
    or fewer have a turn each. labels, groups: [N], of any type that sorts.
    """
    _, group = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    lowest, highest = np.full(group.max() + 1, label.max()), np.zeros(group.max() + 1, np.int64)
    np.minimum.at(lowest, group, label)
    np.maximum.at(highest, group, label)
    count = group.max() + 1
    fold = np.empty(count, np.int64)
    fold[np.lexsort((highest, lowest))] = np.arange(count) % (count if count <= ONE_BY_ONE else FOLDS)
    return fold[group]


def _medians(values, videos):
    """float64 [V]: the median of each video's values."""
    _, which = np.unique(videos, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))[:-1]
    return np.array([np.median(part) for part in np.split(values[order], ends)])


def _upper_bound(values, count):
    """What a further value passes with a chance of `FALSE_ALARMS`. values: of videos or frames; count: independent."""
    values = np.sort(values)
    rank = int(np.ceil((count + 1) * (1.0 - FALSE_ALARMS)))
    if rank <= count:
        return float(values[int(np.ceil((len(values) + 1) * (1.0 - FALSE_ALARMS))) - 1])
    from scipy import stats  # not above: what only scores starts without it

    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    margin = stats.t.ppf(1.0 - FALSE_ALARMS, count - 1) * logs.std(ddof=1) * np.sqrt(1.0 + 1.0 / count)
    return float(max(np.exp(logs.mean() + margin), values[-1]))
