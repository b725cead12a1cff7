"""Towers whose MLPs are computed again in the backward pass: the same numbers, and no hidden layer kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import clip, dinov3, pe

# {tower: a block of width 64, further inputs of it}.
BLOCKS = {
    clip: (lambda **fields: clip.Block(2, 4, True, jnp.float32, **fields), ()),
    pe: (lambda **fields: pe.Block(2, 4, jnp.float32, **fields), (np.full((5, 16), 0.3, np.float32),)),
    dinov3: (lambda **fields: dinov3.Block(2, True, jnp.float32, **fields), (np.full((5, 16), 0.3, np.float32),)),
}
each_tower = pytest.mark.parametrize("tower", BLOCKS, ids=lambda module: module.__name__.rpartition(".")[2])


@each_tower
def test_parameters_and_gradients_are_the_same_and_no_hidden_layer_is_kept(tower):
    make, inputs = BLOCKS[tower]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 64)), jnp.float32)
    plain, again = make(), make(remat_mlp=True)
    params = jax.jit(plain.init)(jax.random.key(0), x, *inputs)
    shapes = jax.eval_shape(again.init, jax.random.key(0), x, *inputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    square = lambda block: lambda params, x: jnp.sum(block.apply(params, x, *inputs) ** 2)
    gradients = [jax.jit(jax.grad(square(block), (0, 1)))(params, x) for block in (plain, again)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients)

    def hidden(block):
        kept = jax.eval_shape(lambda params, x: jax.vjp(square(block), params, x)[1], params, x)
        # Four times the width of 64; the weights themselves have 64 rows.
        return [leaf.shape for leaf in jax.tree.leaves(kept) if leaf.shape[-1:] == (256,) and leaf.shape[0] in (2, 10)]

    assert hidden(plain) and not hidden(again)


def test_a_tower_hands_it_to_its_blocks():
    images = jnp.zeros((3, 16, 16, 3))
    shape = lambda **fields: jax.eval_shape(
        clip.VisionTransformer("Mu/8", 16, **fields).init, jax.random.key(0), images
    )
    params = shape()
    assert jax.tree.map(jnp.shape, shape(remat_mlp=True)) == jax.tree.map(jnp.shape, params)
    forward = lambda params: clip.VisionTransformer("Mu/8", 16, remat_mlp=True).apply(params, images)["feature"]
    kept = jax.tree.leaves(jax.eval_shape(lambda params: jax.vjp(forward, params)[1], params))
    # 3 images of 5 tokens, of which the last block's first goes apart.
    assert not [leaf.shape for leaf in kept if leaf.shape[-1:] == (256,) and leaf.shape[0] in (3, 12, 15)]
