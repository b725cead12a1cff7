"""CLIP with its adapters up to the binary head: what `detectors.msddf` and `detectors.clip_cross_domain` share.

The functions are called in a Model's compact `__call__`: the modules that they make are the Model's own, named
boundary, frequency, backbone, fusion and binary_head.
"""

import jax
import jax.numpy as jnp

from msddf_jax import losses
from msddf_jax.models import boundary, clip, frequency, heads


def encode(
    images,
    *,
    variant,
    image_size,
    rank=64,
    use_frequency=True,
    use_boundary=True,
    edges="sobel",
    clean=None,
    dtype=jnp.float32,
    **settings,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Boundary Mining, Freq-Adapter, the ViT that the adapter's tokens enter, and fusion.

    Args:
      images: [B, image_size, image_size, 3] float, RGB in [0, 1].
      variant, image_size: of `clip.VisionTransformer`; **settings: its further fields.
      rank: channels of the frequency tokens. use_frequency, use_boundary: the two modules. edges: of `BoundaryMining`.
      clean: None, or another view of the same images, of which the frequency vector alone is wanted.
      dtype: compute dtype.

    Returns:
      features: of the ViT, and fused [B, d] float32. out: boundary_logits [B, g, g], frequency [B, d / 4] and, of
      `clean`, frequency_clean [B, d / 4] without a gradient; those that there are.

    Source: clip_cross_domain B2, B3.
    """
    grid = clip.grid_size(variant, image_size)
    out, weight, tokens = {}, None, None
    if use_boundary:
        mine = boundary.BoundaryMining(grid, dtype=dtype, edges=edges, name="boundary")
        mined = mine(images)
        out["boundary_logits"], weight = mined["logit"], mined["weight"]
    if use_frequency:
        adapter = frequency.FreqAdapter(
            grid,
            width=clip.get_variant(variant).width,
            blocks=clip.injection_blocks(variant),
            rank=rank,
            dtype=dtype,
            name="frequency",
        )
        adapted = adapter(images, weight)
        out["frequency"], tokens = adapted["pooled"], adapted["inject"]
        if clean is not None:
            vector = adapter(clean, mine(clean)["weight"] if use_boundary else None)["pooled"]
            out["frequency_clean"] = jax.lax.stop_gradient(vector)
    backbone = clip.VisionTransformer(variant, image_size, name="backbone", dtype=dtype, **settings)
    features = backbone(images, inject=tokens)
    pooled = boundary.boundary_pool(weight, features["tokens"]) if use_boundary else None
    fused = heads.FeatureFusion(name="fusion")(features["cls"], pooled, out.get("frequency"))
    return dict(features, fused=fused), out


def classify(fused, label=None, *, key=None, kind="linear", slerp_probability=0.0) -> dict[str, jax.Array]:
    """The binary head on the fused feature at unit length.

    Args:
      fused: [B, d] float. label: [B] int, used with a key only. key: typed key where features are to move towards
        others of their class, as in training (`losses.slerp_same_class`); None where not.
      kind: of `heads.BinaryHead`. slerp_probability: chance that a feature moves.

    Returns:
      what `heads.BinaryHead` gives, and feature [B, d] of unit length, before it moved.

    Source: clip_cross_domain B6.
    """
    feature = heads.l2_normalize(fused)
    moved = feature
    if key is not None:
        moved = losses.slerp_same_class(key, feature, label, probability=slerp_probability)
    return dict(heads.BinaryHead(kind, name="binary_head")(moved), feature=feature)
