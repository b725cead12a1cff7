"""What SJEDD trains on: one of five perturbations at one of its two mildest levels, for some of the images.

Four are DeeperForensics-1.0's (BW, GNC, GB, and the pixelation that it calls JPEG), whose levels for testing are in
`evaluators.perturb`: a detector trained here has seen the first two columns of those rows.
Source: SJEDD and SO-DFD; reference: sjedd section 5.
"""

import functools
import math

import jax
import jax.numpy as jnp

from msddf_jax.synth import degrade, geometry

# Level 1 and 2: grey blocks at 256 px, variance of the noise, side of the blur's kernel (px), factor of the pixelation.
# JPEG's levels, the qualities, differ between SJEDD and SO-DFD.
BLOCKS, VARIANCES, KERNELS, FACTORS = (16, 32), (0.001, 0.002), (7, 9), (2, 3)
KINDS = ("blocks", "noise", "blur", "pixels", "jpeg")


def perturb(key, x, *, prob=0.3, qualities=(75, 80, 90), one_by_one=None) -> jax.Array:
    """Each image with the chance `prob` through one of `KINDS`, all of them, and their levels, equally likely.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. prob: in [0, 1]. qualities: of JPEG, libjpeg's scale.
      one_by_one: see `filters.over_rows`.

    Returns:
      [B, H, W, 3] float32 in [0, 1]; row i depends on the key and on i, not on B.

    Raises:
      ValueError: a prob outside [0, 1], or no quality.
    """
    if not 0.0 <= prob <= 1.0 or not qualities:
        raise ValueError(f"prob is {prob}, expected one in [0, 1]; qualities are {qualities}, expected at least one")

    def one(key, image):
        choice, rest = jax.random.split(key)
        wanted, kind, level = jax.random.uniform(choice, (3,))
        kind = jnp.floor(kind * len(KINDS)).astype(jnp.int32)
        changed = functools.partial(distort, rest, kind=kind, draw=level, qualities=qualities)
        return jax.lax.cond(wanted < prob, changed, lambda image: image, image)

    return geometry.map_samples(one, key, x, one_by_one=one_by_one) if prob else x


def distort(key, image, *, kind, draw, qualities) -> jax.Array:
    """One perturbation of one image.

    Args:
      key: typed key. image: [H, W, 3] float32 in [0, 1]. kind: int, place in `KINDS`. draw: in [0, 1), which level: the
        first below 1/2, the second from there on; of JPEG by as many equal parts as there are qualities.
      qualities: as in `perturb`.

    Returns:
      [H, W, 3] float32 in [0, 1]. Grey blocks come by the multiple of 256 px in the shorter side: none below that.
    """
    second = (draw >= 0.5).astype(jnp.int32) if isinstance(draw, jax.Array) else int(draw >= 0.5)
    pick = lambda values: jnp.asarray(values, jnp.float32)[second]
    times = min(image.shape[:2]) // 256

    def blocks(x):
        return degrade.block_out(key, x, times * pick(BLOCKS), max_blocks=times * BLOCKS[-1], one_by_one=False)

    def pixels(x):
        scale = functools.partial(degrade.down_up_planes, down="bilinear", whole=math.floor)
        planes = jax.lax.switch(
            second, [functools.partial(scale, factor=f) for f in FACTORS], jnp.moveaxis(x[0], -1, 0)
        )
        return jnp.moveaxis(planes, 0, -1)[None]

    def jpeg(x):
        index = jnp.floor(jnp.asarray(draw) * len(qualities)).astype(jnp.int32)
        return degrade.jpeg(x, jnp.asarray(qualities, jnp.float32)[index], one_by_one=False)

    # In the order of `KINDS`.
    branches = (
        blocks if times else lambda x: x,
        lambda x: degrade.color_noise(key, x, pick(VARIANCES), one_by_one=False),
        lambda x: degrade.gaussian_blur(x, pick(KERNELS), pick(KERNELS) / 6.0, one_by_one=False),
        pixels,
        jpeg,
    )
    return jax.lax.switch(kind, branches, image[None])[0]
