"""Losses as functions of arrays: each returns one value a row, [B]; masks and weights come later.

All run in float32 whatever the compute dtype. "msddf.md", "clip_cross_domain.md" and "GenD" in the docstrings
name the method a formula comes from.
"""

import jax
import jax.numpy as jnp
import optax

_EPS = 1e-6


def masked_mean(values, mask) -> jax.Array:
    """Mean of `values` [B] over the rows where `mask` [B] is true; 0 where none is.

    Divides by the rows that count, so a loss that is defined for few rows is not diluted by the others.
    """
    mask = mask.astype(jnp.float32)
    # where, not a product: a row that is masked out may hold inf or NaN.
    return jnp.sum(jnp.where(mask > 0, values, 0.0) * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def label_ce(logits, label, smoothing=0.0) -> jax.Array:
    """Softmax cross-entropy. logits [B, C] float, label [B] int -> [B]."""
    target = jax.nn.one_hot(label, logits.shape[-1])
    target = (1.0 - smoothing) * target + smoothing / logits.shape[-1]
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)


def label_arc(cosine, label, *, scale=30.0, margin=0.3) -> jax.Array:
    """ArcMargin (ArcFace) on cosines in [-1, 1]: cos(theta_y + m), with the linear continuation past pi - m.

    cosine [B, C], label [B] int, margin in radians (a float or a traced scalar, for warm-up) -> [B].
    Source: clip_cross_domain.md B5.
    """
    cosine = jnp.clip(cosine.astype(jnp.float32), -1.0 + _EPS, 1.0 - _EPS)
    sine = jnp.sqrt(1.0 - cosine**2)
    shifted = cosine * jnp.cos(margin) - sine * jnp.sin(margin)
    # Past pi - m the shifted cosine would rise again, so the penalty continues as a constant offset.
    shifted = jnp.where(cosine > jnp.cos(jnp.pi - margin), shifted, cosine - margin * jnp.sin(margin))
    one_hot = jax.nn.one_hot(label, cosine.shape[-1])
    return label_ce(scale * jnp.where(one_hot > 0, shifted, cosine), label)


def label_am(logits, label, *, scale=30.0, margin=0.45) -> jax.Array:
    """AM-softmax: cross-entropy of scale * logits, the label's own less the margin.

    Meant for cosines; SLADD gives it the outputs of a linear layer as they are. logits [B, C] float, label [B] int ->
    [B]. Source: Wang et al., 2018, eq. 6; reference: sladd, "Detector".
    """
    own = jax.nn.one_hot(label, logits.shape[-1])
    return label_ce(scale * (logits.astype(jnp.float32) - margin * own), label)


def label_loss(out, label, progress, settings) -> jax.Array:
    """ArcMargin where a binary head gives cosines, cross-entropy where it gives logits alone.

    Args:
      out: of `heads.BinaryHead`. label: [B] int. progress: share of training done.
      settings: has as `arc` the scale, margin and warmup of ArcMargin; the margin grows from 0 over the first `warmup`
        share of training.

    Returns:
      [B]. Source: clip_cross_domain B5.
    """
    if "cosine" not in out:
        return label_ce(out["logits"], label)
    arc = settings.arc
    margin = arc.margin * jnp.minimum(1.0, progress / max(arc.warmup, 1e-6))
    return label_arc(out["cosine"], label, scale=arc.scale, margin=margin)


def known_ce(logits, index) -> tuple[jax.Array, jax.Array]:
    """(cross-entropy [B], mask bool [B] of the rows that have a class). logits [B, C], index [B] int, -1 unknown."""
    return label_ce(logits, jnp.maximum(index, 0)), index >= 0


def known_accuracy(logits, index) -> jax.Array:
    """Share of the rows with a class whose largest logit is that class; scalar. Arguments as `known_ce`."""
    return masked_mean((jnp.argmax(logits, axis=-1) == index).astype(jnp.float32), index >= 0)


def map_bce(logits, target, *, pos_weight=2.0) -> jax.Array:
    """Binary cross-entropy of a map against a soft target, mean over the grid.

    logits, target [B, g, g, 1], target in [0, 1]; `pos_weight` weighs the positive part -> [B]. Source: MSDDF 6.
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    bce = -pos_weight * target * jax.nn.log_sigmoid(logits) - (1.0 - target) * jax.nn.log_sigmoid(-logits)
    return jnp.mean(bce, axis=(1, 2, 3))


def map_dice(logits, target) -> jax.Array:
    """1 - soft Dice between sigmoid(logits) and target, both [B, g, g, 1] -> [B] in [0, 1]."""
    prob, target = jax.nn.sigmoid(logits.astype(jnp.float32)), target.astype(jnp.float32)
    overlap = jnp.sum(prob * target, axis=(1, 2, 3))
    total = jnp.sum(prob**2, axis=(1, 2, 3)) + jnp.sum(target**2, axis=(1, 2, 3))
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def map_mse(logits, target) -> jax.Array:
    """Squared error of sigmoid(logits), mean over the grid: both [B, g, g, 1] -> [B] in [0, 1] for such targets."""
    return jnp.mean((jax.nn.sigmoid(logits.astype(jnp.float32)) - target) ** 2, axis=(1, 2, 3))


def multilabel_bce(logits, target) -> jax.Array:
    """Mean sigmoid cross-entropy over labels. logits, target [B, K] -> [B]."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target), axis=-1)


def node_fidelity(log_p, log_rest, target) -> jax.Array:
    """Fidelity loss 1 - sqrt(p g + e) - sqrt((1 - p)(1 - g) + e) with e = 1e-8, mean over nodes.

    log_p, log_rest: log p and log(1 - p) [B, K]; target g [B, K] in [0, 1] -> [B] in [0, 1]. Source: SJEDD;
    reference: sjedd section 3.
    """
    agree = jnp.sqrt(jnp.exp(log_p) * target + 1e-8) + jnp.sqrt(jnp.exp(log_rest) * (1.0 - target) + 1e-8)
    return jnp.mean(1.0 - agree, axis=-1)


def node_ce(log_p, log_rest, target, known) -> jax.Array:
    """Binary cross-entropy of the nodes that are known, over the number of all nodes.

    log_p, log_rest: log p and log(1 - p) [B, K]; target [B, K] in [0, 1], known [B, K] bool -> [B]. Source: SO-DFD;
    reference: sjedd section 3.
    """
    loss = -target * log_p - (1.0 - target) * log_rest
    return jnp.mean(jnp.where(known, loss, 0.0), axis=-1)


def strength_mse(prediction, target) -> jax.Array:
    """Squared error of the blending strength. prediction, target [B] in [0, 1] -> [B]."""
    return (prediction.astype(jnp.float32) - target) ** 2


def strength_all_pairs(prediction, target, mask) -> jax.Array:
    """Squared error of every prediction to the target of every row in `mask`, over the number of all rows.

    What SLADD's public code computes by broadcasting a column with a row; `strength_mse` is what it meant.
    prediction, target [B], mask [B] bool -> [B]. Source: reference: sladd, "Detector".
    """
    apart = (prediction.astype(jnp.float32)[:, None] - target[None, :]) ** 2
    return jnp.mean(jnp.where(mask[None, :], apart, 0.0), axis=1)


def pair_cosine(a, b) -> jax.Array:
    """1 - cos(a, b) for paired rows, [B, d] and [B, d] -> [B] in [0, 2]. Twin and frequency consistency."""
    return 1.0 - jnp.sum(unit(a) * unit(b), axis=-1)


def unit(x) -> jax.Array:
    """x [..., d] / |x|, in float32, with a finite gradient at 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def feature_uniformity(z, mask) -> jax.Array:
    """log mean_{i<j} exp(-2 |z_i - z_j|^2) over the global batch, the same value for every row.

    z [B, d] of unit length, mask [B] of the rows that take part -> [B]. Source: GenD 3.
    """
    distance, pairs = _pairwise(z), _pairs(mask)
    mean = jnp.sum(jnp.exp(-2.0 * distance) * pairs) / jnp.maximum(jnp.sum(pairs), 1.0)
    value = jnp.where(jnp.sum(pairs) > 0, jnp.log(jnp.maximum(mean, 1e-6)), 0.0)
    return jnp.broadcast_to(value, z.shape[:1])


def feature_alignment(z, label, mask) -> jax.Array:
    """mean over same-label pairs i<j of |z_i - z_j|^2, the same value for every row; 0 without a pair.

    z [B, d] of unit length, label [B], mask [B] -> [B]. Source: GenD 3.
    """
    same = _pairs(mask) * (label[:, None] == label[None, :])
    value = jnp.sum(_pairwise(z) * same) / jnp.maximum(jnp.sum(same), 1.0)
    return jnp.broadcast_to(value, z.shape[:1])


def feature_decorrelation(a, b, mask) -> jax.Array:
    """|corr(a, b)|_F^2: the squared correlations of every channel of a with every one of b, summed.

    The same value for every row. A channel that does not vary correlates with none. Channels that have nothing to do
    with each other reach k d / (n - 1) by chance over n rows.

    a [B, k], b [B, d], mask [B] of the rows that take part -> [B]. Source: clip_cross_domain B4.
    """
    share = mask.astype(jnp.float32)[:, None] / jnp.maximum(jnp.sum(mask), 1)

    def standard(x):
        x = x.astype(jnp.float32)
        x = x - jnp.sum(share * x, axis=0)
        return x * jax.lax.rsqrt(jnp.sum(share * x**2, axis=0) + 1e-12)

    correlation = jnp.matmul((share * standard(a)).T, standard(b), precision=jax.lax.Precision.HIGHEST)
    return jnp.broadcast_to(jnp.sum(correlation**2), a.shape[:1])


def _pairwise(z):
    # |a - b|^2 = 2 - 2ab only for unit vectors; the general form keeps the function honest for others.
    z = z.astype(jnp.float32)
    norm = jnp.sum(z**2, axis=-1)
    return jnp.maximum(norm[:, None] + norm[None, :] - 2.0 * z @ z.T, 0.0)


def _pairs(mask):
    mask = mask.astype(jnp.float32)
    return jnp.triu(mask[:, None] * mask[None, :], k=1)


def slerp_same_class(key, z, label, *, probability=0.5, t_max=0.5) -> jax.Array:
    """Move a unit feature along the great circle towards another of its class.

    Args:
      key: typed key. z: [B, d] of unit length. label: [B] int in {0, 1}.
      probability: chance that a row moves. t_max: t ~ U(0, t_max); 0.5 keeps the anchor dominant.

    Returns:
      [B, d] of unit length; rows whose class has no other member stay. Source: clip_cross_domain.md B6.
    """
    partner_key, t_key, move_key = jax.random.split(key, 3)
    batch = z.shape[0]
    # The partner is the row of the same class with the largest random score: a uniform draw without replacement.
    score = jax.random.uniform(partner_key, (batch, batch))
    eligible = (label[:, None] == label[None, :]) & ~jnp.eye(batch, dtype=bool)
    partner = jnp.argmax(jnp.where(eligible, score, -1.0), axis=1)
    t = jax.random.uniform(t_key, (batch, 1), maxval=t_max)
    other = z[partner]
    cosine = jnp.clip(jnp.sum(z * other, axis=-1, keepdims=True), -1.0 + 1e-6, 1.0 - 1e-6)
    angle = jnp.arccos(cosine)
    moved = (jnp.sin((1.0 - t) * angle) * z + jnp.sin(t * angle) * other) / jnp.sin(angle)
    move = (jax.random.uniform(move_key, (batch, 1)) < probability) & jnp.any(eligible, axis=1, keepdims=True)
    return jnp.where(move, unit(moved), z)
