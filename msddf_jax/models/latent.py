"""LSDA's networks beside its detector: teachers, recogniser, and forgeries made of forgeries in the space of features.

Source: Yan et al., CVPR 2024, sections 3.2 and 3.3; what it leaves open, DeepfakeBench's lsda_detector.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax.models import conv, efficientnet, iresnet, layers
from msddf_jax.models.filters import area_pool

# What counts as a sample of a kind of fakes: a whole map, as the paper has it, or each channel of one.
SAMPLES = ("maps", "channels")
WAYS = ("to the hardest", "from the mean", "noise", "difference")


class Teacher(nn.Module):
    """EfficientNet for one kind of fakes: images [B, S, S, 3] in [0, 1] -> map [B, g, g, d] in `dtype`.

    options: its further fields.
    """

    variant: str
    image_size: int
    options: Any = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False) -> jax.Array:
        settings = dict(self.options or {}, dtype=self.dtype, name="backbone")
        return efficientnet.EfficientNet(self.variant, self.image_size, **settings)(images, train=train)["spatial"]


class Recogniser(nn.Module):
    """iResNet without its embedding: images [B, S, S, 3] in [0, 1] -> map [B, grid, grid, c] float32, cells' means."""

    variant: str
    image_size: int
    grid: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train=False) -> jax.Array:
        fields = {"dtype": self.dtype, "embed": False, "name": "backbone"}
        seen = iresnet.IResNet(self.variant, self.image_size, **fields)(images, train=train)["spatial"]
        return area_pool(seen.astype(jnp.float32), self.grid)


class Mixer(nn.Module):
    """What is made of the teachers' maps: narrowed, augmented and fused; and which kind each map is of.

    width: channels of the narrowed maps. samples: of `SAMPLES`.
    """

    width: int
    samples: str = "maps"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps, real, train=False) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          maps: [G, D, g, g, d], of each group one of each of D kinds of fakes. real: [G, g, g, width] of its real.
          train: whether maps are augmented (stream "dropout"); else they are fused with themselves.

        Returns:
          dict: fused [G, D, g, g, width] float32; kinds [G, 1 + D, 1 + D] logits of real and kinds, the real ahead.
        """
        narrow = lambda k: layers.Linear(self.width, self.dtype, conv.HE_NORMAL, name=f"narrow_{k}")
        fakes = jnp.stack([narrow(k)(maps[:, k]) for k in range(maps.shape[1])], axis=1).astype(jnp.float32)
        within = across = fakes
        if train:
            keys = jax.random.split(self.make_rng("dropout"))
            within, across = augment_within(keys[0], fakes, self.samples), mix_across(keys[1], fakes)
        x = jnp.concatenate([within, across], axis=-1).astype(self.dtype)
        x = x.reshape(-1, *x.shape[2:])
        for index, size in enumerate((1, 3, 3)):
            name = f"fuse_{index}"
            x = conv.conv(self.width, size, self.dtype, name, padding=size // 2, use_bias=True)(x)
            x = jax.nn.leaky_relu(x)
        every = jnp.concatenate([real[:, None], fakes], axis=1).mean((2, 3))
        hidden = jax.nn.leaky_relu(layers.Linear(self.width // 2, name="kind_hidden")(every))
        kinds = layers.Linear(every.shape[1], name="kind")(hidden)
        return {"fused": x.reshape(fakes.shape).astype(jnp.float32), "kinds": kinds}


def augment_within(key, maps, samples="maps") -> jax.Array:
    """Each map of a kind of fakes changed by one of `WAYS`, all equally likely, by a random share of the way in [0, 1).

    To the hardest sample of its kind in the batch, that which is farthest from their mean; away from the mean; by white
    noise of random deviation in [0, 1); by the difference of two others. With samples "maps" these are the next two of
    its kind in the batch; with "channels" each channel is a sample with a share of its own, and the difference is that
    of the map's first two.

    Args:
      key: typed key. maps: float32 [G, D, g, g, c]. samples: of `SAMPLES`.

    Returns:
      float32 [G, D, g, g, c].

    Raises:
      ValueError: other samples.
    """
    if samples not in SAMPLES:
        raise ValueError(f"samples is {samples!r}, allowed: {SAMPLES}")
    groups, kinds, rows, columns, channels = maps.shape
    way_key, share_key, deviation_key, noise_key = jax.random.split(key, 4)
    # By kind, group and, where they are samples, channel.
    z = maps.transpose(1, 0, 4, 2, 3).reshape(kinds, groups, channels if samples == "channels" else 1, -1)
    flat = z.reshape(kinds, -1, z.shape[-1])
    mean = flat.mean(1, keepdims=True)
    far = jnp.argmax(jax.lax.stop_gradient(jnp.square(flat - mean).sum(-1)), axis=1)
    hardest = jnp.take_along_axis(flat, far[:, None, None], axis=1)[:, None]
    if samples == "maps":
        apart = jnp.roll(z, -1, axis=1) - jnp.roll(z, -2, axis=1)
    else:
        apart = z[:, :, :1] - z[:, :, 1:2]
    deviation = jax.random.uniform(deviation_key, z[..., :1].shape)
    steps = (hardest - z, z - mean[:, None], deviation * jax.random.normal(noise_key, z.shape), apart)
    way = jax.random.randint(way_key, (kinds, groups, 1, 1), 0, len(WAYS))
    step = jnp.select([way == number for number in range(len(WAYS))], jnp.broadcast_arrays(*steps, z)[:-1])
    changed = z + jax.random.uniform(share_key, z[..., :1].shape) * step
    return changed.reshape(kinds, groups, channels, rows, columns).transpose(1, 0, 3, 4, 2)


def mix_across(key, maps) -> jax.Array:
    """Each map and that of another kind (or its own) in its group, w and 1 - w of them: float32 [G, D, g, g, c].

    A group's kinds are permuted, and its w is drawn from Beta(a, a), a from U(0.5, 2).
    """
    order_key, shape_key, weight_key = jax.random.split(key, 3)
    groups, kinds = maps.shape[:2]
    order = jnp.argsort(jax.random.uniform(order_key, (groups, kinds)), axis=1)
    shape = jax.random.uniform(shape_key, (groups,), minval=0.5, maxval=2.0)
    weight = jax.random.beta(weight_key, shape, shape)[:, None, None, None, None]
    other = jnp.take_along_axis(maps, order[:, :, None, None, None], axis=1)
    return weight * maps + (1 - weight) * other
