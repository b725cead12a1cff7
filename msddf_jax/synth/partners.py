"""Another face of the batch to take a forgery's source from, brought onto the target's landmarks."""

import jax
import jax.numpy as jnp

from msddf_jax.synth import geometry


def allowed_partners(landmarks, identity, usable=None) -> jax.Array:
    """Which rows may lend their face to which.

    Args:
      landmarks: float32 [B, 81, 2].
      identity: int32 [B]; rows of one number never pair. Of unknown persons it is negative: each video's own, or -1,
        which pairs with every other number only.
      usable: bool [B] or None: rows that may lend or take a face at all.

    Returns:
      bool [B (taker), B (lender)].
    """
    whole = jnp.isfinite(landmarks).all((1, 2))
    whole = whole if usable is None else whole & usable
    return whole[:, None] & whole[None, :] & (identity[:, None] != identity[None, :])


def nearest_partner(landmarks, allowed) -> tuple[jax.Array, jax.Array]:
    """Face X-ray's choice: the allowed row whose landmarks lie nearest (Li et al. 2020, section 3.2).

    Args:
      landmarks: float32 [B, 81, 2]. allowed: bool [B, B], as `allowed_partners`.

    Returns:
      index int32 [B] (its own where nothing is allowed), found bool [B].
    """
    points = jnp.nan_to_num(landmarks, nan=0.0, posinf=0.0, neginf=0.0).reshape(landmarks.shape[0], -1)
    points = points - points.mean(0)  # keeps the expanded square below well conditioned
    power = (points**2).sum(-1)
    product = jnp.matmul(points, points.T, precision="highest")
    distance = jnp.where(allowed, power[:, None] + power[None, :] - 2.0 * product, jnp.inf)
    return _choice(jnp.argmin(distance, 1), allowed)


def random_partner(key, allowed) -> tuple[jax.Array, jax.Array]:
    """An allowed row, all alike: index int32 [B] (its own where nothing is allowed), found bool [B]."""
    draw = jax.random.uniform(key, allowed.shape)
    return _choice(jnp.argmax(jnp.where(allowed, draw, -1.0), 1), allowed)


def _choice(index, allowed):
    found = allowed.any(1)
    return jnp.where(found, index, jnp.arange(len(found))).astype(jnp.int32), found


def align_face(image, landmarks, onto) -> jax.Array:
    """A face moved by the similarity that brings its landmarks onto others in the least-squares sense.

    Args:
      image: float32 [H, W, 3]. landmarks, onto: float32 [81, 2]; the image comes back as it is if one of
        them is not finite.

    Returns:
      float32 [H, W, 3], bilinear, borders repeated.
    """
    height, width, _ = image.shape
    read = geometry.estimate_similarity(onto, landmarks)
    identity = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    read = jnp.where(jnp.isfinite(read).all(), read, identity)
    moved = geometry.warp(jnp.moveaxis(image, -1, 0), *geometry.matrix_grid(read, height, width))
    return jnp.moveaxis(moved, 0, -1)
