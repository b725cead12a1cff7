"""Xceptions side by side that exchange what they see: each is run part by part (F3-Net, SRM)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import xception


class _Part(nn.Module):
    """One Xception, of which a call runs the units that it names."""

    variant: str
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x, names, train, last_relu) -> jax.Array:
        settings = {"stride": self.stride, "last_relu": last_relu}
        return xception.run(x, self.variant, names, train, self.dtype, **settings)[names[-1]]


class Streams(nn.Module):
    """Xceptions with weights of their own, below their names.

    Attributes:
      variant: of `xception.VARIANTS`. strides: ((name, stride of its first convolution), ...). dtype: to compute in.
    """

    variant: str
    strides: tuple
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps, last, *, first="conv_1", train=False, last_relu=True) -> dict[str, jax.Array]:
        """Every stream from its unit `first` to `last`, both included.

        Args:
          maps: {stream: [B, H, W, C]}, normalised images before "conv_1". first, last: of `xception.units`.
          train: of the BatchNorms. last_relu: whether "sep_4" ends with its ReLU.

        Returns:
          {stream: [B, h, w, c]}.

        Raises:
          ValueError: units that there are not, or out of order.
        """
        names = xception.units(self.variant)
        if first not in names or last not in names or names.index(first) > names.index(last):
            raise ValueError(
                f"Xception {self.variant} is not run from {first!r} to {last!r}; it has {', '.join(names)}"
            )
        names = names[names.index(first) : names.index(last) + 1]
        return {
            stream: _Part(self.variant, stride, self.dtype, name=stream)(maps[stream], names, train, last_relu)
            for stream, stride in self.strides
        }


def after(variant, name) -> str:
    """The unit that follows. Raises ValueError for a unit that there is not, and for the last one."""
    names = xception.units(variant)
    if name not in names[:-1]:
        raise ValueError(f"nothing follows {name!r} in Xception {variant}, which has {', '.join(names)}")
    return names[names.index(name) + 1]


def spread(flat, copies) -> dict[str, np.ndarray]:
    """Variables of a plain Xception for every stream of a `Streams` called "backbone".

    Args:
      flat: {"params/backbone/...": array}. copies: {stream: how many times its first kernel repeats the image's three
        channels, as a mean}.
    """
    out = {}
    for stream, times in copies.items():
        for name, value in repeat_channels(flat, times).items():
            collection, backbone, rest = name.split("/", 2)
            out[f"{collection}/{backbone}/{stream}/{rest}"] = value
    return out


def repeat_channels(flat, times) -> dict[str, np.ndarray]:
    """Variables of a plain Xception whose first kernel takes the three channels so many times, and their mean."""
    first = "params/backbone/conv_1/kernel"
    return flat | {first: np.tile(flat[first], (1, 1, times, 1)) / np.float32(times)}
