"""How well a manipulation map finds what was manipulated: pixel AUC, IoU, boundary F1, batch by batch.

Host, numpy. Fake frames with a mask count; no map is kept. A map is brought to the mask's size by bilinear
interpolation, pixel centres aligned.
"""

import warnings

import jax
import numpy as np
import PIL.Image
from jax.experimental import multihost_utils
from scipy.spatial import cKDTree

from msddf_jax.data import schema

# Two boundaries meet where they are this near, as a share of the image's diagonal (7.2 pixels at 256 x 256).
TOLERANCE = 0.02
# Pixel scores are counted in bins equal in width on the logit scale, 0.004; the ends are those of float32.
NUM_BINS = 1 << 15
_LOGITS = (-104.0, 18.0)


def init_sums() -> dict[str, np.ndarray | float]:
    """Sums of no frame: a dict of arrays and numbers, for `add_batch`."""
    histogram = np.zeros((2, NUM_BINS), np.int64)  # row 0: untouched pixels, row 1: manipulated ones
    return {"histogram": histogram, "iou": 0.0, "boundary_f1": 0.0, "num_frames": 0, "num_empty": 0}


def add_batch(sums, maps, batch) -> None:
    """Adds the fake frames with masks of one batch to the sums.

    Args:
      sums: of `init_sums`, changed in place. maps: float32 [B, g, g], P(manipulated).
      batch: host batch with mask uint8 [B, H, W, 1], has_mask, label, _mask [B].

    Raises:
      ValueError: another number of maps than rows, or a map outside [0, 1].
    """
    masks = np.asarray(batch["mask"])
    if len(maps) != len(masks):
        raise ValueError(f"predict_fn gave maps {np.shape(maps)} for a batch with {len(masks)} rows")
    rows = np.asarray(batch["_mask"], bool) & np.asarray(batch["has_mask"], bool) & (np.asarray(batch["label"]) == 1)
    for row in np.flatnonzero(rows):
        mask = masks[row, ..., 0] > 127
        if not mask.any():
            sums["num_empty"] += 1
            continue
        scores = resize_map(maps[row], mask.shape)
        for value in (0, 1):
            sums["histogram"][value] += np.bincount(score_bins(scores[mask == value]), minlength=NUM_BINS)
        predicted = scores > schema.THRESHOLD
        sums["iou"] += iou(predicted, mask)
        sums["boundary_f1"] += boundary_f1(predicted, mask)
        sums["num_frames"] += 1


def gather_sums(sums) -> dict[str, np.ndarray | float]:
    """The sums over all processes, on every process; every process must call it."""
    if jax.process_count() == 1:
        return sums
    # Counts of pixels pass 2^31; a process gather without 64-bit types would cut them.
    words = {name: np.frombuffer(np.asarray(value, np.float64).tobytes(), np.uint32) for name, value in sums.items()}
    gathered = {name: np.ascontiguousarray(v) for name, v in multihost_utils.process_allgather(words).items()}
    total = {name: v.view(np.float64).sum(0).reshape(np.shape(sums[name])) for name, v in gathered.items()}
    return {name: value if value.ndim else value.item() for name, value in total.items()}


def localization_metrics(name, sums) -> dict[str, float]:
    """The figures of one set.

    Args:
      name: of the set, the first part of every key. sums: what `add_batch` filled.

    Returns:
      {} where no frame counted, else {"<name>/pixel_auc": over all pixels of all counted frames, "pixel_auc_error":
      the most by which the histogram can have moved it, "pixel_iou" and "pixel_boundary_f1": means over frames, of the
      map above 0.5, "pixel_num_frames"}. AUC and its error are NaN with a warning where every pixel is manipulated.
    """
    if sums["num_empty"]:
        warnings.warn(
            f"{name}: {sums['num_empty']} fake frames have an empty mask and are left out of the pixel figures",
            stacklevel=2,
        )
    if not sums["num_frames"]:
        return {}
    auc, error = histogram_auc(sums["histogram"])
    if np.isnan(auc):
        warnings.warn(f"{name}: pixel AUC is undefined, NaN: the masks cover every pixel", stacklevel=2)
    values = {"auc": auc, "auc_error": error, "num_frames": float(sums["num_frames"])}
    values |= {metric: sums[metric] / sums["num_frames"] for metric in ("iou", "boundary_f1")}
    return {f"{name}/pixel_{metric}": float(value) for metric, value in values.items()}


def resize_map(values, size) -> np.ndarray:
    """float32 [g, h] in [0, 1] -> [H, W] = size, bilinear, the outermost values repeated. Raises ValueError outside."""
    values = np.asarray(values, np.float32)
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise ValueError("a map must hold probabilities in [0, 1]")
    if values.shape == tuple(size):
        return values
    image = PIL.Image.fromarray(values).resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
    # Interpolation may leave the range by a rounding.
    return np.clip(np.asarray(image), 0.0, 1.0)


def score_bins(scores) -> np.ndarray:
    """int [N]: the bin in [0, NUM_BINS) of each probability."""
    with np.errstate(divide="ignore"):
        logits = np.log(scores) - np.log1p(-scores)
    place = (logits - _LOGITS[0]) * (NUM_BINS / (_LOGITS[1] - _LOGITS[0]))
    return np.clip(place, 0, NUM_BINS - 1).astype(np.int64)


def histogram_auc(histogram) -> tuple[float, float]:
    """(AUC, the most it can differ from that of the single scores) of counts [2, bins]: negatives, positives.

    A bin's pairs count half, as ties do; they are the only ones whose order is lost. NaN where a row is empty.
    """
    negatives, positives = np.asarray(histogram, np.float64)
    pairs = negatives.sum() * positives.sum()
    if pairs == 0.0:
        return np.nan, np.nan
    below = np.cumsum(negatives) - negatives
    tied = 0.5 * np.dot(positives, negatives)
    return (np.dot(positives, below) + tied) / pairs, tied / pairs


def iou(predicted, mask) -> float:
    """Intersection over union of two bool arrays [H, W]; NaN where both are empty."""
    union = np.sum(predicted | mask)
    return float(np.sum(predicted & mask) / union) if union else np.nan


def boundary_f1(predicted, mask, tolerance=TOLERANCE) -> float:
    """Harmonic mean of the shares of either boundary that lie near the other.

    A boundary is made of the pixels of a region with a 4-neighbour outside it, beyond the image being outside. Near is
    a Euclidean distance of at most tolerance x the image's diagonal.

    Args:
      predicted, mask: bool [H, W]. tolerance: share of the diagonal.

    Returns:
      float in [0, 1]; 0 where one region is empty, NaN where both are.

    Source: Csurka et al., BMVC 2013; the tolerance as usual in DAVIS-style evaluations is a share of the diagonal.
    """
    ours, theirs = boundary(predicted), boundary(mask)
    if not len(ours) or not len(theirs):
        return np.nan if len(ours) == len(theirs) else 0.0
    # Distances of boundary points alone: a quarter of the time of a distance transform of the image, the same values.
    reach = tolerance * np.hypot(*mask.shape)
    precision = np.mean(cKDTree(theirs).query(ours)[0] <= reach)
    recall = np.mean(cKDTree(ours).query(theirs)[0] <= reach)
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0.0 else 0.0


def boundary(region) -> np.ndarray:
    """int [P, 2]: (row, column) of the pixels of a region [H, W] with a 4-neighbour outside it."""
    padded = np.pad(np.asarray(region, bool), 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(region & ~inside)
