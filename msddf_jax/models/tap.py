"""The place in a model where an explanation reads a feature map and moves it."""

import flax.linen as nn
import jax


class Tap(nn.Module):
    """Passes on what it is given, [B, h, w, C] or tokens [B, N, d]: no parameters, no operation.

    Every backbone has one, where `spatial` of its outputs is taken; `saliency` finds it by `nn.intercept_methods`. A
    gradient with respect to an intermediate value needs a place to add to; flax's own `perturb` makes variables at
    initialisation, which would become part of every checkpoint.

    prefix: how many of the tokens stand before the patches (class token, registers).
    """

    prefix: int = 0

    def __call__(self, x) -> jax.Array:
        return x
