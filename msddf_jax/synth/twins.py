"""Twin Images Generator (MSDDF section 1): two renderings of one frame that differ a little.

Both twins are the same face in the same expression. Exactly one of them is recoloured and then sharpened or
re-sampled; the source may also be moved by a percent or two. One flip serves both, with the landmarks.
Against the public code: the flip permutes points, not coordinates; its landmarks are returned; moved borders
repeat instead of turning black (a black bar would mark the source); the hue shift of +-0.3 grey levels, which
vanishes in the 8-bit tables there, is left out.
"""

import jax
import jax.numpy as jnp

from msddf_jax.synth import degrade, geometry


def make_twins(key, image, landmarks, *, one_by_one=None, **cfg) -> dict[str, jax.Array]:
    """Twins of every image of a batch.

    Args:
      key: typed key.
      image: float32 [B, H, W, 3] in [0, 1].
      landmarks: float32 [B, 81, 2], pixels; NaN rows are carried along.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `twin_planes`.

    Returns:
      dict: target, source float32 [B, H, W, 3] in [0, 1]; landmarks (of the target), source_landmarks
      float32 [B, 81, 2]; flipped, moved, source_altered bool [B].
    """

    def one(key, image, landmarks):
        twins = twin_planes(key, image, landmarks, **cfg)
        return {**twins, "target": _to_image(twins["target"]), "source": _to_image(twins["source"])}

    return geometry.map_samples(one, key, image, landmarks, one_by_one=one_by_one)


def _to_image(planes):
    return jnp.moveaxis(planes, 0, -1)


def twin_planes(
    key,
    image,
    landmarks,
    *,
    flip=0.5,
    move=0.5,
    alter_target=0.5,
    shift=(0.03, 0.015),
    scale=0.95,
    **transform_cfg,
) -> dict[str, jax.Array]:
    """Twins of one image, in planes.

    Args:
      key: typed key.
      image: float32 [H, W, 3] in [0, 1].
      landmarks: float32 [81, 2].
      flip: probability of the joint flip.
      alter_target: probability that the target is altered and not the source. At 0 what the detector sees as a real is
        the frame as it is.
      move: probability that the source is translated and scaled (SBI: 1, MSDDF's code: 0.25).
      shift, scale: see `geometry.draw_affine`.
      **transform_cfg: keywords of `alter`.

    Returns:
      dict as `make_twins`, images as [3, H, W].
    """
    height, width, _ = image.shape
    flip_key, which_key, alter_key, move_key, affine_key = jax.random.split(key, 5)
    flipped = jax.random.bernoulli(flip_key, flip)
    planes = jnp.moveaxis(image, -1, 0)
    planes = jax.lax.cond(flipped, lambda p: p[:, :, ::-1], lambda p: p, planes)
    landmarks = jnp.where(flipped, geometry.flip_landmarks(landmarks, width), landmarks)

    # The barriers keep XLA from computing the chain once for each twin.
    planes = jax.lax.optimization_barrier(planes)
    altered = jax.lax.optimization_barrier(alter(alter_key, planes, **transform_cfg))
    source_altered = jax.random.bernoulli(which_key, 1.0 - alter_target)
    target = jnp.where(source_altered, planes, altered)
    source = jax.lax.optimization_barrier(jnp.where(source_altered, altered, planes))
    moved = jax.random.bernoulli(move_key, move)
    zoom, offset = geometry.draw_affine(affine_key, height, width, shift, scale)
    source = jax.lax.cond(moved, lambda s: geometry.affine_planes(s, zoom, offset), lambda s: s, source)
    return {
        "target": target,
        "source": source,
        "landmarks": landmarks,
        "source_landmarks": jnp.where(moved, landmarks * zoom + offset, landmarks),
        "flipped": flipped,
        "moved": moved,
        "source_altered": source_altered,
    }


def render_planes(key, planes, *, alter_target=0.5, **transform_cfg) -> jax.Array:
    """A frame as a target twin shows it: altered as often, never moved; other arguments and result as of `alter`."""
    which_key, alter_key = jax.random.split(key)
    change = lambda p: alter(alter_key, p, **transform_cfg)
    return jax.lax.cond(jax.random.bernoulli(which_key, alter_target), change, lambda p: p, planes)


def alter(
    key,
    planes,
    *,
    color_shift=20.0,
    color_shift_prob=0.3,
    brightness=0.1,
    contrast=0.1,
    frequency_prob=1.0,
    factors=(2, 4),
    sharpen=(0.2, 0.5),
    lightness=(0.5, 1.0),
) -> jax.Array:
    """The colour and frequency transform T of the twins (MSDDF section 1.3; SBI step c).

    A shift of each channel, brightness and contrast; then the frequency part, with equal odds one of re-sampling
    (nearest down, bilinear up) and sharpening.

    Args:
      key: typed key.
      planes: float32 [3, H, W] in [0, 1].
      color_shift: largest shift of a channel, grey levels. color_shift_prob: its probability.
      brightness, contrast: largest shift and relative gain, as fractions.
      frequency_prob: probability of the frequency part; 1 in the paper. Where a data set's own traces are as fine as
        what it does, a twin that stays real teaches the detector to pass over them.
      factors: whole down-sampling factors, drawn uniformly.
      sharpen, lightness: ranges of the sharpening's share and of its centre weight above 8.

    Returns:
      float32 [3, H, W] in [0, 1].
    """
    shift_key, tone_key, which_key, factor_key, sharpen_key = jax.random.split(key, 5)
    draw = jax.random.uniform(shift_key, (4,), minval=-1.0)
    shift = jnp.where((draw[3] + 1.0) / 2.0 < color_shift_prob, draw[:3] * color_shift / 255.0, 0.0)
    tone = jax.random.uniform(tone_key, (2,), minval=-1.0)
    planes = jnp.clip(planes + shift[:, None, None], 0.0, 1.0)
    planes = jnp.clip(planes * (1.0 + contrast * tone[0]) + brightness * tone[1], 0.0, 1.0)

    # Counted from 1: 0 would leave the image as it is. A factor that is known compiles to constant taps.
    index = 1 + jax.random.randint(factor_key, (), 0, len(factors))
    share, light = jax.random.uniform(sharpen_key, (2,))
    share = sharpen[0] + (sharpen[1] - sharpen[0]) * share
    light = lightness[0] + (lightness[1] - lightness[0]) * light
    resample = lambda p: degrade.choose_factor(p, index, tuple(factors), "nearest")
    sharpen_it = lambda p: degrade.sharpen_planes(p, share, light)
    frequency = lambda p: jax.lax.cond(jax.random.bernoulli(which_key), resample, sharpen_it, p)
    if frequency_prob == 1.0:
        return frequency(planes)
    wanted = jax.random.bernoulli(jax.random.fold_in(which_key, 1), frequency_prob)
    return jax.lax.cond(wanted, frequency, lambda p: p, planes)
