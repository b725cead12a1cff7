"""Linear layers split by SVD into a frozen part and a trained rest of low rank (Effort; Yan et al., ICML 2025)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

RESIDUAL = ("u", "s", "v")


def split_svd(kernel, rank, xp=jnp) -> tuple[jax.Array | np.ndarray, ...]:
    """Split a matrix into all but its `rank` last singular triplets, and those.

    Args:
      kernel: [in, out] float. rank: in [1, min(in, out) - 1]. xp: module to compute with, jax.numpy or numpy.

    Returns:
      main [in, out], u [in, rank], s [rank] (falling), v [rank, out] with main + (u * s) @ v = kernel, in its dtype;
      u has orthonormal columns, v orthonormal rows, and main has no part along either.

    Raises:
      ValueError: a `rank` outside the range.
    """
    most = min(kernel.shape) - 1
    if not 1 <= rank <= most:
        raise ValueError(f"a kernel of shape {tuple(kernel.shape)} can leave out ranks 1 to {most}, got {rank}")
    left, values, right = xp.linalg.svd(kernel, full_matrices=False)
    u, s, v = left[:, -rank:], values[-rank:], right[-rank:]
    # A difference and not the sum of the other triplets: the parts add up to the kernel to the last rounding.
    return kernel - (u * s) @ v, u, s, v


class LowRankLinear(nn.Module):
    """Affine map x (main + u diag(s) v) + bias of the last axis; called like `layers.Linear`.

    Parameters, float32: `kernel` [in, out] (main) and `bias` [out], and `u` [in, rank], `s` [rank], `v` [rank, out],
    which alone are meant to be trained: the optimiser's groups say so. They start as the split of one kernel drawn by
    `kernel_init`.
    """

    features: int
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()
    use_bias: bool = True
    rank: int = 1

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width, rank = x.shape[-1], self.rank
        if self.is_initializing():
            kernel = self.kernel_init(self.make_rng("params"), (width, self.features), jnp.float32)
            parts = split_svd(kernel, rank)
        else:
            # Shapes alone, which loaded parameters are compared with.
            shapes = ((width, self.features), (width, rank), (rank,), (rank, self.features))
            parts = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        start = dict(zip(("kernel", *RESIDUAL), parts, strict=True))
        main, u, s, v = (self.param(name, _constant, value).astype(self.dtype) for name, value in start.items())
        flat = x.reshape(-1, width).astype(self.dtype)
        # The rest apart: summed into the kernel it would vanish in bfloat16, and its gradient would cost a full one.
        y = flat @ main + (flat @ u * s) @ v
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


def _constant(_, value):
    return jnp.zeros(value.shape) if isinstance(value, jax.ShapeDtypeStruct) else value


def layers(params) -> list[Mapping[str, jax.Array]]:
    """Every {"kernel", "u", "s", "v", ...} of a `LowRankLinear` in a nested dict of parameters, in its order."""
    if set(RESIDUAL) <= set(params):
        return [params]
    return [layer for value in params.values() if isinstance(value, Mapping) for layer in layers(value)]


def orthogonality(layer) -> jax.Array:
    """How far a layer's rest is from orthonormal, and from orthogonal to its main part: a scalar >= 0, 0 at the start.

    (|u'u - I|^2 + |v v' - I|^2) / 2 + (|main' u|^2 + |main v'|^2) / |main|^2, Frobenius norms. Source: Effort's
    orthogonality constraint; the second term has the main part itself for its singular vectors, which are not kept.
    """
    main, u, v = layer["kernel"], layer["u"], layer["v"]
    unit = jnp.eye(u.shape[1])
    shape = jnp.sum((u.T @ u - unit) ** 2) + jnp.sum((v @ v.T - unit) ** 2)
    overlap = jnp.sum((main.T @ u) ** 2) + jnp.sum((main @ v.T) ** 2)
    return shape / 2 + overlap / jnp.sum(main**2)


def norm_change(layer) -> jax.Array:
    """||main + u diag(s) v|^2 - |main|^2|, Frobenius norms: a scalar >= 0.

    Source: Effort's singular value constraint, whose reference is the norm of the dense kernel. That of the main part
    is less by the squares of the smallest singular values, so the term starts at these and not at 0.
    """
    main, u, s, v = (layer[name] for name in ("kernel", *RESIDUAL))
    # Expanded, since the difference of two large norms would lose what is left.
    cross = jnp.sum((main @ v.T) * u, axis=0) @ s
    own = jnp.sum((u.T @ u) * (v @ v.T) * (s[:, None] * s))
    return jnp.abs(2.0 * cross + own)
