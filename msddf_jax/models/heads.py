"""What the detector predicts from features, and how side features join the class feature. All in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models.filters import DepthwiseConv
from msddf_jax.models.layers import Linear, layer_norm


def l2_normalize(x, eps=1e-12) -> jax.Array:
    """Unit vectors along the last axis, float32; a zero vector stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + eps)


def _cosine(module, x, classes):
    """Cosines [B, classes] of features [B, d] with a learned direction for each class."""
    directions = module.param(
        "directions", nn.initializers.normal(x.shape[-1] ** -0.5), (classes, x.shape[-1]), jnp.float32
    )
    product = l2_normalize(x) @ l2_normalize(directions).T
    return jnp.clip(product, -1.0, 1.0)


class BinaryHead(nn.Module):
    """Real or fake, from the feature or from its direction.

    Attributes:
      kind: "linear" = linear map of the unit feature, no temperature (GenD's LinearNorm); "raw" = linear map of the
        feature as it is; "cosine" = scaled cosines with two class directions, for ArcMargin, whose margin the loss
        adds.
      scale: factor on the cosines (s of ArcFace), "cosine" only.
    """

    kind: str = "linear"
    scale: float = 30.0

    @nn.compact
    def __call__(self, feature) -> dict[str, jax.Array]:
        """Scores of features [B, d].

        Returns:
          dict, float32: embedding [B, d], the unit feature; logits [B, 2], (real, fake); logit [B], their
          difference, whose sigmoid is P(fake); for "cosine" also cosine [B, 2].

        Raises:
          ValueError: unknown `kind`.
        """
        embedding = l2_normalize(feature)
        out = {"embedding": embedding}
        if self.kind in ("linear", "raw"):
            logits = Linear(2, name="out")(embedding if self.kind == "linear" else feature.astype(jnp.float32))
        elif self.kind == "cosine":
            out["cosine"] = _cosine(self, feature.astype(jnp.float32), 2)
            logits = self.scale * out["cosine"]
        else:
            raise ValueError(f"BinaryHead kind must be 'linear', 'raw' or 'cosine', got {self.kind!r}")
        return {**out, "logits": logits, "logit": logits[:, 1] - logits[:, 0]}


class CosineHead(nn.Module):
    """Features [B, d] of any length to cosines [B, classes] float32 with a learned direction for each class."""

    classes: int

    @nn.compact
    def __call__(self, feature) -> jax.Array:
        return _cosine(self, feature, self.classes)


class TypeHead(nn.Module):
    """How the forgery was made: features [B, d] to logits [B, num_types] float32."""

    num_types: int = 6
    hidden: int = 256

    @nn.compact
    def __call__(self, feature) -> jax.Array:
        x = jax.nn.gelu(Linear(self.hidden, name="hidden")(feature))
        return Linear(self.num_types, name="out")(x)


class RegionHead(nn.Module):
    """Which face parts are forged: features [B, d] to logits [B, num_regions] float32, one sigmoid each."""

    num_regions: int = 5
    hidden: int = 256

    @nn.compact
    def __call__(self, feature) -> jax.Array:
        x = jax.nn.gelu(Linear(self.hidden, name="hidden")(feature))
        return Linear(self.num_regions, name="out")(x)


class StrengthHead(nn.Module):
    """How strongly the forgery was blended in: features [B, d] to strength [B] float32 in (0, 1)."""

    hidden: int = 64

    @nn.compact
    def __call__(self, feature) -> jax.Array:
        x = jax.nn.gelu(Linear(self.hidden, name="hidden")(feature))
        return jax.nn.sigmoid(Linear(1, name="out")(x)[:, 0])


class MapHead(nn.Module):
    """Where the image is manipulated, on the token grid, from the middle and last patch tokens."""

    hidden: int = 128

    @nn.compact
    def __call__(self, mid_tokens, tokens) -> jax.Array:
        """Logits of a batch.

        Args:
          mid_tokens: [B, N, d] without LayerNorm; it gets one here, since residual streams grow with depth.
          tokens: [B, N, d] after the last LayerNorm. N must be a square.

        Returns:
          [B, g, g, 1] float32 logits.

        Raises:
          ValueError: N is not a square.
        """
        batch, count, _ = tokens.shape
        grid = round(count**0.5)
        if grid * grid != count:
            raise ValueError(f"MapHead needs a square grid of tokens, got {count} tokens")
        mid = layer_norm(jnp.float32, "ln_mid")(mid_tokens)
        x = jnp.concatenate([mid, tokens.astype(jnp.float32)], axis=-1)
        x = jax.nn.gelu(Linear(self.hidden, name="reduce")(x))
        x = DepthwiseConv(name="mix")(x.reshape(batch, grid, grid, self.hidden))
        return Linear(1, name="out")(x)


class IdentityHead(nn.Module):
    """Whose face it is: scaled cosines with one direction an identity.

    The caller reverses the gradient of the feature (`reverse_grad`) where identity is to be unlearned.

    Attributes:
      num_identities: number of training identities.
      hidden: width of the hidden layer.
      scale: factor on the cosines; no margin, so that the adversary stays easy to train.
    """

    num_identities: int
    hidden: int = 256
    scale: float = 30.0

    @nn.compact
    def __call__(self, feature) -> jax.Array:
        """Features [B, d] to logits [B, num_identities] float32, in [-scale, scale]."""
        x = Linear(self.hidden, name="hidden")(feature)
        x = jax.nn.gelu(layer_norm(jnp.float32, "ln")(x))
        return self.scale * _cosine(self, x, self.num_identities)


class FeatureFusion(nn.Module):
    """Joins the boundary-pooled patch feature and the frequency vector to the class feature.

    f' = f + alpha * Linear(LN(b)), h = f' + Linear0([f', q]): alpha and Linear0 are zero at initialisation,
    so h equals f to the bit until the first update. The second step is the linear map of [f', q] initialised
    to [I, 0], with the identity written as a skip: it survives low-precision products and weight decay.
    """

    @nn.compact
    def __call__(self, feature, boundary=None, frequency=None) -> jax.Array:
        """Fused feature.

        Args:
          feature: f [B, d], the class feature.
          boundary: None, or b [B, d] from `boundary_pool`.
          frequency: None, or q [B, r] from `FreqAdapter`.

        Returns:
          h [B, d] float32; `feature` itself where both are None.
        """
        width = feature.shape[-1]
        fused = feature.astype(jnp.float32)
        if boundary is not None:
            alpha = self.param("alpha", nn.initializers.zeros, (), jnp.float32)
            fused = fused + alpha * Linear(width, name="boundary")(layer_norm(jnp.float32, "ln_boundary")(boundary))
        if frequency is not None:
            joined = jnp.concatenate([fused, frequency.astype(jnp.float32)], axis=-1)
            fused = fused + Linear(width, kernel_init=nn.initializers.zeros, name="join")(joined)
        return fused
