"""What platforms do to an image in the train step: scaling on the way, H.264, a second JPEG; each off by default."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.synth import codec, degrade, filters

# Side of H.264's macroblock, and of what JPEG with halved chroma codes together.
_GRID = 16


def recode(key, x, *, numbers=None, one_by_one=None, **cfg) -> jax.Array:
    """Scaling, H.264 and two JPEGs for a batch, each with its probability.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. one_by_one: see `filters.over_rows`.
      numbers: int32 [B], rows of one number are treated alike; None for 0 to B - 1, each sample for itself.
      **cfg: keywords of `recode_planes`.

    Returns:
      [B, H, W, 3] float32 in [0, 1]; x itself where every probability is 0. Row i depends on the key and on its number,
      not on B.
    """
    check(**cfg)
    if not any(value for name, value in cfg.items() if name.endswith("_prob")):
        return x
    numbers = jnp.arange(x.shape[0]) if numbers is None else numbers
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)

    def one(row):
        return jnp.moveaxis(recode_planes(row[0], jnp.moveaxis(row[1], -1, 0), **cfg), 0, -1)

    return filters.over_rows(one, (keys, x), one_by_one)


def recode_planes(
    key,
    planes,
    *,
    resize_chain_prob=0.0,
    resize_chain_scale=(0.5, 1.0),
    resize_chain_steps=2,
    h264_prob=0.0,
    h264_qp=(23, 46),
    double_jpeg_prob=0.0,
    double_jpeg_quality=(50, 95),
) -> jax.Array:
    """A chain of resizes, H.264, and JPEG twice, in this order, each with its probability.

    Ranges are drawn from evenly. The codecs' blocks begin at a random place: a crop lies anywhere on the grid of the
    frame that was coded. What H.264 gave is sampled up to half a pixel away, bilinearly: aligning a face re-samples it
    after it was decoded, and without that a third of the frequencies are 4 to 5 dB too strong.

    Args:
      key: typed key. planes: [3, H, W] float32 in [0, 1].
      resize_chain_prob, resize_chain_scale, resize_chain_steps: see `resize_chain_planes`; a scale for each step.
      h264_prob, h264_qp: lowest and highest QP, whole numbers 0 to 51, both included. On drawn faces x264's CRF 23 is
        QP 23 to 31, by kind of frame, and CRF 40 is QP 38 to 49.
      double_jpeg_prob, double_jpeg_quality: lowest and highest quality of either JPEG, 1 to 100, both included.

    Returns:
      [3, H, W] float32 in [0, 1].

    Raises:
      ValueError: as `check`.
    """
    own = {"resize_chain_prob": resize_chain_prob, "resize_chain_scale": resize_chain_scale, "h264_qp": h264_qp}
    own |= {"resize_chain_steps": resize_chain_steps, "h264_prob": h264_prob, "double_jpeg_prob": double_jpeg_prob}
    check(**own, double_jpeg_quality=double_jpeg_quality)
    draw = jax.random.uniform(key, (12 + 2 * resize_chain_steps,))
    whole = lambda u, ends: jnp.floor(ends[0] + (ends[1] + 1 - ends[0]) * u)
    place = lambda u: jnp.floor(_GRID * u).astype(jnp.int32)

    def resize_chain(p):
        low, high = resize_chain_scale
        scales, smooth = draw[12 : 12 + resize_chain_steps], draw[12 + resize_chain_steps :] < 0.5
        return resize_chain_planes(p, low + (high - low) * scales, smooth)

    def h264(p):
        code = lambda moved: codec.h264_planes(moved, whole(draw[3], h264_qp))
        return _sample_between(_at_place(code, p, place(draw[4:6])), draw[10:12] - 0.5)

    def double_jpeg(p):
        first, second = whole(draw[6], double_jpeg_quality), whole(draw[7], double_jpeg_quality)
        again = lambda moved: degrade.jpeg_planes(moved, second)
        return _at_place(again, degrade.jpeg_planes(p, first), place(draw[8:10]))

    steps = ((resize_chain_prob, resize_chain), (h264_prob, h264), (double_jpeg_prob, double_jpeg))
    for u, (chance, step) in zip(draw, steps):
        if chance > 0.0:
            planes = jax.lax.cond(u < chance, step, lambda p: p, planes)
    return planes


def resize_chain_planes(planes, scales, smooth) -> jax.Array:
    """Resizes to scale x size and back, one after the other, bilinear; rounding in between is left out.

    Resizes are linear, so a chain is one matrix for the rows and one for the columns, whatever sizes are drawn.

    Args:
      planes: [3, H, W] float32 in [0, 1]. scales: [K] in (0, 1], may be traced. smooth: bool [K], whether what shrinks
        is smoothed first (Pillow, swscale) or not (OpenCV's INTER_LINEAR).

    Returns:
      [3, H, W] float32 in [0, 1].
    """
    _, height, width = planes.shape
    rows = _chain_matrix(height, scales, smooth)
    cols = rows if height == width else _chain_matrix(width, scales, smooth)
    planes = jnp.matmul(rows, planes, precision=filters.PRECISION)
    return jnp.clip(jnp.matmul(planes, cols.T, precision=filters.PRECISION), 0.0, 1.0)


def _chain_matrix(size, scales, smooth):
    """[size, size]: down and up again, for each scale."""
    chain = None
    place = jnp.arange(size, dtype=jnp.float32)
    for i in range(scales.shape[0]):
        small = jnp.maximum(jnp.round(scales[i] * size), 1.0)
        ratio = size / small
        middle = jnp.clip((place + 0.5) * ratio - 0.5, 0.0, size - 1.0)
        reach = jnp.where(smooth[i], ratio, 1.0)
        down = jnp.maximum(1.0 - jnp.abs(place[None, :] - middle[:, None]) / reach, 0.0)
        down = down / down.sum(1, keepdims=True)
        middle = jnp.clip((place + 0.5) / ratio - 0.5, 0.0, small - 1.0)
        up = jnp.maximum(1.0 - jnp.abs(place[None, :] - middle[:, None]), 0.0)
        both = jnp.matmul(up, down, precision=filters.PRECISION)
        chain = both if chain is None else jnp.matmul(both, chain, precision=filters.PRECISION)
    return chain


def _at_place(fn, planes, start):
    """`fn` of planes whose first pixel lies at `start` [2] of the grid; what lies before it repeats the edge."""
    _, height, width = planes.shape
    rows, cols = (-(-(size + _GRID - 1) // _GRID) * _GRID for size in (height, width))
    from_row = jnp.clip(jnp.arange(rows) - start[0], 0, height - 1)
    from_col = jnp.clip(jnp.arange(cols) - start[1], 0, width - 1)
    out = fn(planes[:, from_row][:, :, from_col])
    return jax.lax.dynamic_slice(out, (0, start[0], start[1]), planes.shape)


def _sample_between(planes, offset):
    """[3, H, W] sampled `offset` [2] pixels lower and further right, each in [-1, 1]; outside the edge repeats."""
    for axis, d in ((1, offset[0]), (2, offset[1])):
        pad = [(0, 0)] * 3
        pad[axis] = (1, 1)
        grown, size = jnp.pad(planes, pad, mode="edge"), planes.shape[axis]
        before, here, after = (jax.lax.slice_in_dim(grown, i, i + size, axis=axis) for i in range(3))
        planes = (1.0 - jnp.abs(d)) * here + jnp.maximum(d, 0.0) * after + jnp.maximum(-d, 0.0) * before
    return planes


def own_settings(settings) -> dict:
    """Those of a mapping, config.augment, that are keywords of `recode_planes`."""
    names = inspect.signature(recode_planes).parameters
    return {name: settings[name] for name in settings if name in names}


def check(**settings) -> None:
    """Raise ValueError, with what is allowed, for a setting of `recode_planes` out of its range."""
    ranges = {"resize_chain_scale": (0.05, 1.0, ""), "double_jpeg_quality": (1, 100, "whole ")}
    ranges["h264_qp"] = (*codec.QP_RANGE, "whole ")
    for name, value in settings.items():
        if name.endswith("_prob") and not 0.0 <= value <= 1.0:
            raise ValueError(f"augment.{name} is {value}, expected a probability in [0, 1]")
        if name == "resize_chain_steps" and (value != int(value) or not 1 <= value <= 8):
            raise ValueError(f"augment.{name} is {value}, allowed: 1 to 8 resizes")
        if name in ranges:
            low, high, kind = ranges[name]
            ends = np.asarray(value, float)
            fits = ends.shape == (2,) and low <= ends[0] <= ends[1] <= high
            if not fits or (kind and (ends != np.round(ends)).any()):
                expected = f"two {kind}numbers in [{low}, {high}], lowest first"
                raise ValueError(f"augment.{name} is {value}, expected {expected}")
