"""Parameters for a model under test that cost no compilation: drawing each in XLA takes half a second."""

import jax
import jax.numpy as jnp
import numpy as np


def random_params(model, *args, scale=0.1, seed=0):
    """Variables of a flax module for `model.apply`, normal with standard deviation `scale`, from NumPy."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *args)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)
