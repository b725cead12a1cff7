"""The trunk of MSDDF and clip_cross_domain: its parts put together by hand, and names that checkpoints have."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import losses, trees
from msddf_jax.detectors import clip_cross_domain, msddf
from msddf_jax.models import boundary, clip, frequency, heads

SIZE, VARIANT, RANK = 32, "Mu/8", 8
FIELDS = {"variant": VARIANT, "image_size": SIZE, "rank": RANK}


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(4, SIZE, SIZE, 3)), jnp.float32)


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "use_frequency", "use_boundary"),
    [(msddf, True, True), (msddf, True, False), (msddf, False, True), (clip_cross_domain, True, True)],
)
def test_a_detector_is_the_parts_put_together(module, use_frequency, use_boundary, images):
    model = module.Model(**FIELDS, use_frequency=use_frequency, use_boundary=use_boundary)
    rows = {"image": images}
    variables = _variables(model, rows)

    def by_hand(params):
        take = lambda name: {"params": params[name]}
        weight = adapted = pooled = None
        if use_boundary:
            weight = boundary.BoundaryMining(SIZE // 8).apply(take("boundary"), images)["weight"]
        if use_frequency:
            adapter = frequency.FreqAdapter(SIZE // 8, width=64, blocks=(1, 2, 3), rank=RANK)
            adapted = adapter.apply(take("frequency"), images, weight)
        vit = clip.VisionTransformer(VARIANT, SIZE)
        features = vit.apply(take("backbone"), images, inject=adapted["inject"] if use_frequency else None)
        if use_boundary:
            pooled = boundary.boundary_pool(weight, features["tokens"])
        vector = adapted["pooled"] if use_frequency else None
        fused = heads.FeatureFusion().apply(take("fusion"), features["cls"], pooled, vector)
        return heads.BinaryHead("linear").apply(take("binary_head"), losses.unit(fused))

    both = jax.jit(lambda v: (model.apply(v, rows, train=False), by_hand(v["params"])))
    out, expected = both(variables)
    for name in ("logits", "logit"):
        np.testing.assert_allclose(out[name], expected[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["feature"], expected["embedding"], atol=1e-6)


def _variables(model, rows):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), rows, train=False))
    return jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def test_names_and_shapes_of_msddf_are_those_of_its_checkpoints():
    model = msddf.Model(**tiny_config("nowhere").model.to_dict())
    image = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": image}, train=False))["params"]
    lines = "\n".join(f"{name} {list(leaf.shape)}" for name, leaf in sorted(trees.flatten(params).items()))
    # As they were before the trunk had a file of its own.
    assert hashlib.sha256(lines.encode()).hexdigest().startswith("415183596ec1e2d8cfd354ae3b8834d7")


def test_the_trunk_has_the_same_names_and_shapes_in_both_detectors(images):
    shapes = lambda module: jax.eval_shape(
        lambda: module.Model(**FIELDS).init(jax.random.key(1), {"image": images}, train=False)
    )["params"]
    ours, theirs = shapes(clip_cross_domain), shapes(msddf)
    assert set(ours) == {"boundary", "frequency", "backbone", "fusion", "binary_head"}
    assert ours == {name: theirs[name] for name in ours}
