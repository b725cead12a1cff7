"""Where a detector looks: Grad-CAM and attention rollout, beside the maps that a detector predicts itself.

Pure functions on the device. "gradcam" (of a model without a `Tap`: "gradient") and "rollout" say what the score comes
from, as far as their assumptions hold; "map" and "boundary" are outputs of the detector, trained on masks, and say
where it believes forgery and boundary to be. Whether a map tells the truth about the score is measured by
`faithfulness`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from msddf_jax import detector
from msddf_jax.models.tap import Tap

# Name: what its colours mean, for captions.
METHODS = {
    "gradcam": "Grad-CAM, for fake",
    "gradient": "size of the logit's gradient",
    "rollout": "attention rollout",
    "map": "P(manipulated)",
    "boundary": "P(blending boundary)",
}
_PRECISION = jax.lax.Precision.HIGHEST


def grad_cam(activation, gradient) -> jax.Array:
    """Grad-CAM of a feature map: ReLU of its channels' sum, each weighted by its mean gradient, over the largest value.

    Args:
      activation, gradient: [B, h, w, C], a feature map and the derivative of the logit with respect to it.

    Returns:
      [B, h, w] float32 in [0, 1], largest value 1; all 0 where nothing in the map raises the logit.

    Source: Selvaraju et al., ICCV 2017, eq. 1 and 2.
    """
    activation, gradient = activation.astype(jnp.float32), gradient.astype(jnp.float32)
    weight = gradient.mean((1, 2))
    heat = jax.nn.relu(jnp.einsum("bhwc,bc->bhw", activation, weight, precision=_PRECISION))
    return _ratio(heat, heat.max((1, 2), keepdims=True))


def attention_rollout(attention) -> jax.Array:
    """How much of each input token is in each token after the last block, by attention and skip connections alone.

    The heads' mean is mixed half and half with the identity, for the skip connection, normalised by rows, and the
    blocks are multiplied. Values, MLPs and the head of the detector play no part: real or fake, it is the same map.

    Args:
      attention: list of [B, heads, N, N], rows (queries) sum to 1, the first block first.

    Returns:
      [B, N, N] float32, rows sum to 1. Source: Abnar and Zuidema, ACL 2020, 3.
    """
    joint = jnp.broadcast_to(jnp.eye(attention[0].shape[-1]), attention[0][:, 0].shape)
    for weights in attention:
        mixed = 0.5 * weights.astype(jnp.float32).mean(1) + 0.5 * jnp.eye(weights.shape[-1])
        mixed = mixed / mixed.sum(-1, keepdims=True)
        joint = jnp.matmul(mixed, joint, precision=_PRECISION)
    return joint


def explain(apply, weights, images, methods) -> dict[str, jax.Array]:
    """Score and maps of a batch; traceable.

    Args:
      apply: (weights, rows, mutable) -> as linen's `apply`, of `detector.make_apply`; at most one `Tap` inside.
      weights: for it. images: float32 [B, H, W, 3] in [0, 1]. methods: names of `METHODS`.

    Returns:
      {"score": [B] P(fake), <method>: [B, g, g]}, float32 in [0, 1]; grids may differ between methods. Grad-CAM and
      the gradient are divided by their largest value, the rollout moved from its range to [0, 1] (a constant one is 0).

    Raises:
      ValueError: a method that the model has not, with those that it has.
    """
    shapes = jax.eval_shape(lambda w, x: _forward(apply, w, x), weights, images)
    _check(methods, _available(*shapes))
    # What the gradient is taken by: a nudge of the tapped map, or of the image itself.
    nudge = jnp.zeros(images.shape if shapes[1] is None else shapes[1].shape, images.dtype)

    def logit_sum(nudge):
        moved = (images + nudge, None) if shapes[1] is None else (images, nudge.astype(shapes[1].dtype))
        out, tapped, attention = _forward(apply, weights, *moved)
        # The rows of a batch do not see each other in a detector that scores: one sum gives every row its own gradient.
        return out["logit"].astype(jnp.float32).sum(), (out, tapped, attention)

    if {"gradcam", "gradient"} & set(methods):
        gradient, (out, tapped, attention) = jax.grad(logit_sum, has_aux=True)(nudge)
    else:
        out, tapped, attention = _forward(apply, weights, images)
    result = {"score": jax.nn.sigmoid(out["logit"].astype(jnp.float32))}
    for method in methods:
        if method == "gradcam":
            result[method] = grad_cam(tapped, gradient)
        elif method == "gradient":
            # The largest of a pixel's colours (Simonyan et al., ICLR 2014, section 3.1).
            size = jnp.abs(gradient).max(-1)
            result[method] = _ratio(size, size.max((1, 2), keepdims=True))
        elif method == "rollout":
            result[method] = _rollout_map(attention, tapped.shape[1])
        elif method == "map":
            result[method] = jax.nn.sigmoid(out["map_logits"].astype(jnp.float32))[..., 0]
        else:
            result[method] = jax.nn.sigmoid(out["boundary_logits"].astype(jnp.float32))
    return result


def make_explain_fn(config, methods=None) -> Callable[[dict, dict], dict[str, jax.Array]]:
    """explain(weights, {"image": uint8 [B, H, W, 3]}) -> as `explain`, jitted.

    Args:
      config: of the detector. methods: names of `METHODS`; None for all that the detector has.

    Raises:
      ValueError: a method that the detector has not, with those that it has.
    """
    if config.data.get("clip_length", 0):
        raise ValueError(f"detector {config.detector!r} takes clips: maps are of single crops")
    apply = detector.make_apply(config)
    methods = _check(methods, methods_of(config), f"the detector {config.detector!r}")

    @jax.jit
    def explain_batch(weights, batch):
        return explain(apply, weights, detector.to_device_images(batch)["image"], methods)

    return explain_batch


def methods_of(config) -> tuple[str, ...]:
    """The names of `METHODS` that the config's detector has, in that order."""
    apply, image = detector.make_apply(config), detector.example_batch(config)["image"]
    return _available(*jax.eval_shape(lambda w: _forward(apply, w, image), detector.weight_shapes(config)))


def upsample(heat, size) -> jax.Array:
    """Maps [B, g, g] enlarged linearly to [B, size, size], float32; values stay within their range."""
    return jax.image.resize(heat.astype(jnp.float32), (heat.shape[0], size, size), "bilinear")


def _forward(apply, weights, images, nudge=None):
    """(outputs, the feature map that passes the Tap [B, g, g, C] or None, {module path: attention weights}).

    nudge: None, or what is added to that map on its way.
    """
    tapped = []

    def intercept(call, args, kwargs, context):
        if not isinstance(context.module, Tap):
            return call(*args, **kwargs)
        (x,) = args
        patches = x[:, context.module.prefix :] if x.ndim == 3 else x
        side = round(patches.shape[1] ** 0.5)
        tapped.append(patches.reshape(len(x), side, side, -1) if x.ndim == 3 else x)
        if nudge is None:
            return call(x)
        if x.ndim == 3:
            return call(x.at[:, context.module.prefix :].add(nudge.reshape(patches.shape)))
        return call(x + nudge)

    with nn.intercept_methods(intercept):
        out, sown = apply(weights, {"image": images}, ["intermediates"])
    if len(tapped) > 1:
        raise ValueError(f"the model passes {len(tapped)} feature maps through models.tap.Tap, expected one or none")
    found = traverse_util.flatten_dict(dict(sown.get("intermediates", {})))
    return (
        out,
        tapped[0] if tapped else None,
        {path[:-1]: value[0] for path, value in found.items() if path[-1] == "attention"},
    )


def _available(out, tapped, attention):
    """The methods for outputs, tapped value and attention of `_forward`."""
    there = {"gradcam": tapped is not None, "gradient": tapped is None}
    there["rollout"] = bool(attention) and tapped is not None
    there["map"] = "map_logits" in out
    there["boundary"] = "boundary_logits" in out
    return tuple(name for name in METHODS if there[name])


def _check(methods, available, what="this detector"):
    methods = available if methods is None else tuple(methods)
    unknown = [name for name in methods if name not in available]
    if unknown or not methods:
        reasons = {
            "gradcam": "it passes no feature map through models.tap.Tap",
            "gradient": "it has a feature map for gradcam",
            "rollout": "it has no attention",
            "map": "it predicts no manipulation map",
            "boundary": "it has no boundary module",
        }
        why = "; ".join(f"{name}: {reasons.get(name, 'no such method')}" for name in unknown) or "none was named"
        raise ValueError(f"{what} cannot be explained by {list(methods)} ({why}); allowed: {', '.join(available)}")
    return methods


def _rollout_map(attention, side):
    """The row of the class token, or of the query that pools the tokens, on the grid of `side` cells."""
    blocks = {int(path[-2].split("_")[-1]): weights for path, weights in attention.items() if path[-1] == "attn"}
    joint = attention_rollout([blocks[index] for index in sorted(blocks)])
    row = joint[:, 0]
    for path, weights in attention.items():
        if path[-1] == "pool":
            row = jnp.matmul(weights.astype(jnp.float32).mean(1), joint, precision=_PRECISION)[:, 0]
    # The patches stand last.
    heat = row[:, -side * side :].reshape(-1, side, side)
    low = heat.min((1, 2), keepdims=True)
    return _ratio(heat - low, heat.max((1, 2), keepdims=True) - low)


def _ratio(values, largest):
    return jnp.where(largest > 0, values / jnp.where(largest > 0, largest, 1.0), 0.0)
