"""SPSL: the image that phases alone give, beside the colours, and a shallow network (Liu et al., CVPR 2021).

"Spatial-Phase Shallow Learning: Rethinking Face Forgery Detection in Frequency Domain", arXiv 2103.01856. Up-sampling
leaves its traces in the phase spectrum: the mean of the channels is transformed, every amplitude set to 1, and the real
part of the inverse is a fourth channel. Most of Xception's middle is left out, so that texture counts and not the face.

Differs from the paper: which blocks stay is this project's reading (the entry's three and the last; the paper has no
table of them). DeepfakeBench's port, `configs/detectors/spsl.py:port`, keeps the whole Xception. Both start with the
mean of ImageNet's first kernel over its channels, four times. Expected result: 96.1 on FF++ c23 and 76.5 on Celeb-DF v2
are frame AUCs of the port as DeepfakeBench trained it (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import heads, xception
from msddf_jax.synth import compose


class Model(nn.Module):
    """Xception on colours and phase + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    options: further fields of the backbone; `without` names the blocks that are left out.
    """

    variant: str
    image_size: int
    family: str = "xception"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B], logits [B, 2], feature [B, d] of unit length,
        spatial [B, h, w, d], phase [B, S, S, 1]: what the fourth channel is."""
        images = compose.resize(rows["image"], self.image_size).astype(jnp.float32)
        images = (images - np.float32(xception.PIXEL_MEAN)) / np.float32(xception.PIXEL_STD)
        phase = _phase_image(images)
        settings = dict(self.options or {}, in_channels=4, dtype=self.dtype, name="backbone")
        backbone = xception.Xception(self.variant, self.image_size, **settings)
        features = backbone(jnp.concatenate([images, phase], axis=-1), train=train)
        out = heads.BinaryHead("raw", name="binary_head")(features["feature"])
        return dict(out, feature=out["embedding"], spatial=features["spatial"], phase=phase)


def _phase_image(images):
    """[B, S, S, C] -> [B, S, S, 1] float32: the mean of the channels with every amplitude of its spectrum set to 1."""
    spectrum = jnp.fft.fft2(images.mean(-1))
    amplitude = jnp.abs(spectrum)
    # A frequency that is not there has phase 0.
    unit = jnp.where(amplitude > 0, spectrum / jnp.where(amplitude > 0, amplitude, 1), 1)
    return jnp.fft.ifft2(unit).real[..., None]


def from_backbone(flat, model) -> dict[str, Any]:
    """Variables of a plain Xception as this detector keeps them: without some blocks, first kernel for four channels.

    Args:
      flat: {"params/backbone/...": array} of `xception.Xception`. model: the config's, for its options.
    """
    gone = tuple(f"block_{number}" for number in (model.get("options") or {}).get("without", ()))
    kept = {name: value for name, value in flat.items() if name.split("/")[2] not in gone}
    first = "params/backbone/conv_1/kernel"
    return kept | {first: np.repeat(kept[first].mean(2, keepdims=True), 4, axis=2)}


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": cross-entropy of every row}, unweighted."""
    del ctx
    return {"label": (L.label_ce(out["logits"], rows["label"]), jnp.ones(rows["label"].shape[0], bool))}
