"""Gaussians of feature vectors, one a class, fitted from time to time: sums of a window, the fit of the one before.

Everything is a dict of float32 arrays with the classes first, `shapes`: a linen collection, so that it is part of a
checkpoint. Sums are of distances to a mean and are merged as Chan et al. (1979) do, since squares of raw features lose
what a covariance is made of.
"""

import jax
import jax.numpy as jnp

# Added to the covariance's diagonal: features that never vary would leave none.
_FLOOR = 1e-6
_HIGH = jax.lax.Precision.HIGHEST


def shapes(classes, width) -> dict[str, tuple[int, ...]]:
    """{name: shape} of what is kept.

    Of the window: count; mean; scatter, the sum of products of distances; cubic, of distances times their square;
    quartic, of the square's square. Of the fit: fit_mean; whiten W, for which W cov W' is the identity; fitted, of how
    many vectors, 0 before the first.
    """
    of = {"count": (), "mean": (width,), "scatter": (width, width), "cubic": (width,), "quartic": ()}
    of |= {"fit_mean": (width,), "whiten": (width, width), "fitted": ()}
    return {name: (classes, *shape) for name, shape in of.items()}


def collect(kept, features, weight) -> dict[str, jax.Array]:
    """`kept` with more vectors in its window.

    Args:
      kept: of `shapes`. features: [classes, M, width] float. weight: [classes, M], 1 for those that count and else 0.
    """
    return {**kept, **jax.vmap(_merge)({name: kept[name] for name in _WINDOW}, features.astype(jnp.float32), weight)}


def refit(kept, due) -> dict[str, jax.Array]:
    """`kept` with the fit of its window and a window that starts anew, where `due` (bool scalar); as it is elsewhere.

    The covariance is Ledoit and Wolf's (2004), as scikit-learn estimates it. A class with fewer than two vectors keeps
    its fit.
    """
    return jax.lax.cond(due, jax.vmap(_fit), lambda kept: kept, kept)


def distances(kept, features) -> jax.Array:
    """Squared Mahalanobis distances of features [..., width] to each class: [classes, ...] float32; 0 without a fit."""

    def of_class(mean, whiten):
        moved = jnp.einsum("...d,ed->...e", features.astype(jnp.float32) - mean, whiten, precision=_HIGH)
        return (moved**2).sum(-1)

    return jax.vmap(of_class)(kept["fit_mean"], kept["whiten"])


_WINDOW = ("count", "mean", "scatter", "cubic", "quartic")


def _merge(window, x, weight):
    """The window of one class with x [M, d] of weight [M]: both moved to their common mean, and added."""
    weight = weight.astype(jnp.float32)
    count = weight.sum()
    mean = (weight[:, None] * x).sum(0) / jnp.maximum(count, 1.0)
    centred = x - mean
    square = (centred**2).sum(-1)
    batch = {
        "count": count,
        "mean": mean,
        "scatter": jnp.einsum("m,md,me->de", weight, centred, centred, precision=_HIGH),
        "cubic": jnp.einsum("m,md->d", weight * square, centred, precision=_HIGH),
        "quartic": (weight * square**2).sum(),
    }
    total = window["count"] + count
    common = window["mean"] + (mean - window["mean"]) * count / jnp.maximum(total, 1.0)
    first, second = _about(window, common), _about(batch, common)
    return {"count": total, "mean": common, **{name: first[name] + second[name] for name in first}}


def _about(sums, point):
    """{scatter, cubic, quartic} of a window about another point than its mean."""
    count, shift = sums["count"], sums["mean"] - point
    length, trace = (shift**2).sum(), jnp.trace(sums["scatter"])
    turned = jnp.matmul(sums["scatter"], shift, precision=_HIGH)
    return {
        "scatter": sums["scatter"] + count * shift[:, None] * shift[None, :],
        "cubic": sums["cubic"] + shift * trace + 2 * turned + count * shift * length,
        "quartic": sums["quartic"]
        + 4 * (shift * turned).sum()
        + 4 * (shift * sums["cubic"]).sum()
        + 2 * length * trace
        + count * length**2,
    }


def _fit(kept):
    """One class: fit and empty window."""
    count, width = jnp.maximum(kept["count"], 1.0), kept["mean"].shape[-1]
    sample = kept["scatter"] / count
    # Towards mu times the identity, by the share of the sample's distance from it that is noise.
    mu = jnp.trace(sample) / width
    squares = (sample**2).sum()
    noise = (kept["quartic"] / count - squares) / count
    apart = squares - width * mu**2
    share = jnp.where(apart > 0, jnp.clip(noise / jnp.where(apart > 0, apart, 1.0), 0.0, 1.0), 0.0)
    identity = jnp.eye(width)
    root = jnp.linalg.cholesky((1 - share) * sample + (share * mu + _FLOOR) * identity)
    whiten = jax.scipy.linalg.solve_triangular(root, identity, lower=True)
    enough = kept["count"] >= 2
    fit = {"fit_mean": kept["mean"], "whiten": whiten, "fitted": kept["count"]}
    fresh = {name: jnp.zeros_like(kept[name]) for name in _WINDOW}
    return {**fresh, **{name: jnp.where(enough, value, kept[name]) for name, value in fit.items()}}
