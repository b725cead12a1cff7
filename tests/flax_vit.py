"""A twin of the ViTs that were trained in Flax (vision_transformer, big_vision), with the names of their files."""

import flax.linen as nn
import jax.numpy as jnp


class FlaxBlock(nn.Module):
    """Encoder block of the ViTs trained in Flax, by the layers' own names; `names` as their files have them."""

    names: tuple

    @nn.compact
    def __call__(self, x):
        norm_1, attention, norm_2, mlp = self.names
        y = nn.LayerNorm(name=norm_1)(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name=attention)(y, y)
        return x + FlaxMlp(name=mlp)(nn.LayerNorm(name=norm_2)(x))


class FlaxMlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Dense(256)(x))
        return nn.Dense(64)(x)


class FlaxEncoder(nn.Module):
    names: tuple
    old: bool

    @nn.compact
    def __call__(self, x):
        if self.old:
            x = FlaxPositions(name="posembed_input")(x)
        for i in range(4):
            x = FlaxBlock(self.names, name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class FlaxPositions(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))


class FlaxViT(nn.Module):
    """old: positions are added inside the encoder, to the class token too (vision_transformer, not big_vision)."""

    old: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (8, 8), strides=(8, 8), padding="VALID", name="embedding")(x).reshape(len(x), -1, 64)
        token = jnp.tile(self.param("cls", nn.initializers.zeros, (1, 1, 64)), (len(x), 1, 1))
        if not self.old:
            x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = jnp.concatenate([token, x], axis=1)
        index = (0, 1, 2, 3) if self.old else (0, 0, 1, 0)
        kinds = ("LayerNorm", "MultiHeadDotProductAttention", "LayerNorm", "MlpBlock")
        names = tuple(f"{kind}_{i}" for kind, i in zip(kinds, index))
        x = FlaxEncoder(names, self.old, name="Transformer")(x)[:, 0]
        nn.Dense(10, name="head")(x)
        return x
