"""The adversary: a small network that chooses how to forge, and the gradients by which it learns.

Three modes (MSDDF sections 3.1, 5 and 6; SLADD). REINFORCE: `Policy` gives categorical logits over region, blend and
strength; what is executed is their mixture with a uniform choice, and the reward is each sample's own
detector loss. As published: the same network with one number for the strength, `choose_published` and
`published_loss`, whose faults are named there. Pathwise: strength, feather and colour are differentiable in
the blender, so `PathwisePolicy` gives them as numbers and learns through the gradient reversal.

Entropy floor: the executed distribution of a head is (1 - e) softmax(logits) + e / n. Entropy is concave, so
over all logits it is least where the softmax is a corner: the floor is the entropy of (1 - e + e / n, e / n,
...), whatever the network does. `epsilon_for_floor` gives the e that a wanted floor needs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.data import schema
from msddf_jax.models.reverse_grad import reverse_grad

INPUT_SIZE = 112
WIDTHS = (32, 64, 128, 256)
MAGNITUDE_BINS = 8
# Actions of each head, by name.
HEADS = {"region": len(schema.REGIONS), "type": len(schema.BLENDS), "magnitude": MAGNITUDE_BINS}
# Weight of the entropies in SLADD's public code.
PUBLISHED_ENTROPY_WEIGHT = 1e-5
PATHWISE = ("strength", "feather", "color")


class Trunk(nn.Module):
    """Four convolutions of stride 2 with GroupNorm on both twins at 112 x 112, averaged to one vector.

    Attributes:
      dtype: of the computation; parameters are float32.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, target, source) -> jax.Array:
        """target, source: [B, H, W, 3] float in [0, 1] -> [B, 256] float32."""
        x = jnp.concatenate([target, source], axis=-1)
        shape = (x.shape[0], INPUT_SIZE, INPUT_SIZE, x.shape[-1])
        x = jax.image.resize(x, shape, "linear", antialias=True)
        x = (2.0 * x - 1.0).astype(self.dtype)
        for i, width in enumerate(WIDTHS):
            x = nn.Conv(width, (3, 3), strides=2, use_bias=False, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(nn.GroupNorm(num_groups=8, dtype=self.dtype, name=f"norm{i}")(x))
        return x.mean(axis=(1, 2), dtype=jnp.float32)


class Policy(nn.Module):
    """Logits over region, blend type and strength bin; uniform before training. Collection "baseline": the reward's.

    Attributes:
      dtype: of the trunk.
      regions: number of regions to choose from.
      strengths: number of strength bins; 1 is a single logit, for `choose_published`, without a baseline.
    """

    dtype: jnp.dtype = jnp.float32
    regions: int = HEADS["region"]
    strengths: int = MAGNITUDE_BINS

    @nn.compact
    def __call__(self, target, source) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          target, source: [B, H, W, 3] float in [0, 1], the twins.

        Returns:
          dict by `HEADS`: region [B, regions], type [B, 4], magnitude [B, strengths], float32 logits.
        """
        if self.strengths > 1:
            # Carried from step to step beside the parameters; `reinforce_loss` moves it.
            for name, value in init_baseline().items():
                self.variable("baseline", name, lambda value=value: value)
        features = Trunk(self.dtype, name="trunk")(target, source)
        # From zero: the first forgeries are drawn uniformly.
        zeros = nn.initializers.zeros_init()
        sizes = HEADS | {"region": self.regions, "magnitude": self.strengths}
        return {name: nn.Dense(n, kernel_init=zeros, name=name)(features) for name, n in sizes.items()}


class PathwisePolicy(nn.Module):
    """Strength, feather and colour strength of a forgery whose region and blend are given.

    Attributes:
      dtype: of the trunk.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, target, source, region, blend_type) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          target, source: [B, H, W, 3] float in [0, 1]. region, blend_type: int32 [B], indices into
            `schema.REGIONS` and `schema.BLENDS`.

        Returns:
          dict by `PATHWISE`: [B] float32 each, in (0, 1); 0.5 before training.
        """
        features = Trunk(self.dtype, name="trunk")(target, source)
        chosen = [jax.nn.one_hot(region, HEADS["region"]), jax.nn.one_hot(blend_type, HEADS["type"])]
        features = nn.relu(nn.Dense(64, name="hidden")(jnp.concatenate([features, *chosen], axis=-1)))
        logits = nn.Dense(len(PATHWISE), kernel_init=nn.initializers.zeros_init(), name="values")(features)
        # Within 1e-4 of the ends float32 rounds a sigmoid to them, and its gradient dies.
        values = 1e-4 + (1.0 - 2e-4) * jax.nn.sigmoid(logits)
        return {name: values[:, i] for i, name in enumerate(PATHWISE)}


def _row_keys(key, batch_size):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


def executed_log_probs(logits, epsilon) -> jax.Array:
    """Log-probabilities of the distribution that actions are drawn from: (1 - epsilon) softmax + epsilon / n.

    Args:
      logits: [..., n] float. epsilon: scalar in [0, 1], may be traced; 1 is uniform (warm-up).

    Returns:
      [..., n] float32.
    """
    epsilon = jnp.asarray(epsilon, jnp.float32)
    greedy = jnp.log1p(-epsilon) + jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.logaddexp(greedy, jnp.log(epsilon / logits.shape[-1]))


def sample(key, logits, epsilon) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Draws an action of each head.

    Args:
      key: typed key. logits: {head: [B, n]}. epsilon: scalar in [0, 1], share of uniform exploration.

    Returns:
      (actions {head: int32 [B]}, log_probs {head: float32 [B]} under the executed distribution). The actions
      of row i depend on its logits, the key and i, not on B.
    """
    actions, log_probs = {}, {}
    keys = _row_keys(key, next(iter(logits.values())).shape[0])
    draws = jax.vmap(lambda k: jax.random.uniform(k, (len(logits),)))(keys)
    for index, name in enumerate(sorted(logits)):
        executed = executed_log_probs(logits[name], epsilon)
        # Inversion: the action is the number of cumulative shares that the draw has passed.
        passed = draws[:, index, None] >= jnp.cumsum(jnp.exp(executed), axis=-1)
        actions[name] = jnp.minimum(jnp.sum(passed, axis=-1, dtype=jnp.int32), executed.shape[-1] - 1)
        log_probs[name] = jnp.take_along_axis(executed, actions[name][:, None], axis=-1)[:, 0]
    return actions, log_probs


def draw_magnitude(key, bins, low=0.1, high=1.0) -> jax.Array:
    """Strengths from bins of equal width: uniform in its bin, so that uniform bins give U(low, high).

    Args:
      key: typed key. bins: int32 [B] in [0, MAGNITUDE_BINS). low, high: range of the strength.

    Returns:
      [B] float32 in [low, high).
    """
    within = jax.vmap(jax.random.uniform)(_row_keys(key, bins.shape[0]))
    return low + (high - low) * (bins + within) / MAGNITUDE_BINS


def joint_log_prob(log_probs, blend_type, magnitude_on=("dynamic",)) -> jax.Array:
    """Log-probability of what had an effect: no region without a blend, strength only where the blend uses it.

    Args:
      log_probs: {head: [B]} of `sample`. blend_type: int32 [B], index into `schema.BLENDS`.
      magnitude_on: the blends that use the strength, as the blender has them.

    Returns:
      [B] float32.

    Raises:
      ValueError: a name that is not a blend.
    """
    unknown = sorted(set(magnitude_on) - set(schema.BLENDS))
    if unknown:
        raise ValueError(f"magnitude_on names {unknown}, allowed: {schema.BLENDS}")
    uses_region = blend_type != schema.BLENDS.index("none")
    uses_magnitude = jnp.asarray([name in magnitude_on for name in schema.BLENDS])[blend_type]
    # where, not a product: the derivative of an action without effect is exactly zero.
    region = jnp.where(uses_region, log_probs["region"], 0.0)
    return log_probs["type"] + region + jnp.where(uses_magnitude, log_probs["magnitude"], 0.0)


def entropy(logits, epsilon) -> dict[str, jax.Array]:
    """Entropy of the executed distribution of each head.

    Args:
      logits: {head: [B, n]}. epsilon: scalar in [0, 1].

    Returns:
      {head: [B] float32}, in nats; never below `entropy_floor(epsilon, n)`.
    """

    def one(values):
        log_probs = executed_log_probs(values, epsilon)
        # p log p is 0 at p = 0, where log p is -inf.
        finite = jnp.maximum(log_probs, -1e4)
        return -jnp.sum(jnp.exp(log_probs) * finite, axis=-1)

    return {name: one(values) for name, values in logits.items()}


def entropy_floor(epsilon, actions) -> float:
    """Least entropy (nats) that a head with this many actions can have: float. See the module's docstring."""
    peak, rest = 1.0 - epsilon + epsilon / actions, epsilon / actions
    tail = (actions - 1) * rest * np.log(rest) if rest > 0 else 0.0
    return float(max(0.0, -peak * np.log(peak) - tail))


def epsilon_for_floor(floor, actions) -> float:
    """Least exploration that holds a floor on the entropy of a head.

    Args:
      floor: float in [0, 1], as a share of the entropy of a uniform choice, log(actions).
      actions: int, number of actions.

    Returns:
      float in [0, 1], to be used where it exceeds the exploration wanted otherwise.

    Raises:
      ValueError: a floor outside [0, 1].
    """
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"entropy floor is {floor}, expected a share of log({actions}) in [0, 1]")
    low, high = 0.0, 1.0
    # The floor grows with epsilon: bisection, keeping `high` on the side where it holds.
    for _ in range(60):
        middle = 0.5 * (low + high)
        if entropy_floor(middle, actions) >= floor * np.log(actions):
            high = middle
        else:
            low = middle
    return high if floor > 0.0 else 0.0


def init_baseline() -> dict[str, jax.Array]:
    """State of the reward's moving mean and variance: dict of float32 scalars, to be carried from step to step."""
    return {"mean": jnp.zeros(()), "variance": jnp.ones(()), "count": jnp.zeros(())}


def _masked_mean(values, mask):
    """Mean over the rows where mask holds, 0 where none does; a row left out may hold NaN."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1.0)


def reinforce_loss(
    log_prob,
    head_entropy,
    reward,
    mask,
    baseline,
    *,
    decay=0.99,
    entropy_weight=0.01,
    advantage_clip=5.0,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """REINFORCE on each sample's own reward: -mean(A log pi) - entropy_weight * mean(H) (MSDDF section 6).

    A = (reward - moving mean) / moving deviation, clipped. Mean and deviation are those before this batch, so
    that they do not depend on its actions; the first batch uses its own.

    Args:
      log_prob: [B], of `joint_log_prob`; the only input that the gradient reaches, with head_entropy.
      head_entropy: {head: [B]}, of `entropy`. reward: [B], what the policy is to raise (the detector's loss).
      mask: [B] bool, the rows that were forged by the policy; the others may hold anything.
      baseline: of `init_baseline` or of the step before. decay: of the moving mean and variance.
      entropy_weight: of the sum of the heads' entropies. advantage_clip: largest |A|.

    Returns:
      (loss scalar, next baseline, {"policy/reward", "policy/baseline", "policy/entropy_<head>"} scalars). A batch
      without a row that counts gives 0 and leaves the baseline.
    """
    mask = mask.astype(bool)
    reward = jax.lax.stop_gradient(reward.astype(jnp.float32))
    mean = _masked_mean(reward, mask)
    started, rows = baseline["count"] > 0, jnp.sum(mask) > 0
    center = jnp.where(started, baseline["mean"], mean)
    variance = _masked_mean(jnp.square(reward - center), mask)
    spread = jnp.sqrt(jnp.where(started, baseline["variance"], variance)) + 1e-6
    advantage = jnp.clip((reward - center) / spread, -advantage_clip, advantage_clip)
    # A row left out must not reach the loss even as 0 * NaN.
    gain = _masked_mean(jnp.where(mask, advantage, 0.0) * jnp.where(mask, log_prob, 0.0), mask)
    entropies = {name: _masked_mean(value, mask) for name, value in head_entropy.items()}
    loss = -gain - entropy_weight * sum(entropies.values())

    def move(old, new):
        moved = jnp.where(started, decay * old + (1.0 - decay) * new, new)
        return jnp.where(rows, moved, old)

    following = {
        "mean": move(baseline["mean"], mean),
        "variance": move(baseline["variance"], variance),
        "count": baseline["count"] + rows,
    }
    scalars = {"policy/reward": mean, "policy/baseline": center}
    scalars |= {f"policy/entropy_{name}": value for name, value in entropies.items()}
    return loss, following, scalars


def choose_published(key, logits) -> tuple[dict[str, jax.Array], jax.Array, dict[str, jax.Array]]:
    """SLADD's choice as its public code has it: region and type are drawn, the strength is not.

    The strength is s = sigmoid(z), taken as an action of "log-probability" log s and "entropy" -s log s. That is no
    probability of anything: a positive reward raises s, whatever s does to the reward. The log-probabilities of all
    three count, also of what had no effect on the image.

    Args:
      key: typed key. logits: {"region": [B, n], "type": [B, 4], "magnitude": [B, 1]}.

    Returns:
      (actions: region, type int32 [B], magnitude float32 [B] in (0, 1) without a gradient; log_prob [B], the sum;
      entropies {head: [B]}). Source: reference: sladd, "Policy".
    """
    drawn = {name: logits[name] for name in ("region", "type")}
    actions, log_probs = sample(key, drawn, 0.0)
    log_strength = jax.nn.log_sigmoid(logits["magnitude"][:, 0])
    strength = jnp.exp(log_strength)
    entropies = entropy(drawn, 0.0) | {"magnitude": -strength * log_strength}
    actions = {**actions, "magnitude": jax.lax.stop_gradient(strength)}
    return actions, log_probs["region"] + log_probs["type"] + log_strength, entropies


def published_loss(log_prob, head_entropy, reward, mask) -> tuple[jax.Array, dict[str, jax.Array]]:
    """SLADD's objective as its public code has it: -mean(R log pi) - 1e-5 mean(H), one reward R for the whole batch.

    R is not split among the samples and has no baseline. It is positive, so that every action becomes more likely by
    having been drawn, and the strength goes to 1 (`choose_published`).

    Args:
      log_prob: [B], head_entropy: {head: [B]}, of `choose_published`. reward: scalar, the detector's loss; no gradient
        passes. mask: [B] bool, the rows that were forged by the policy.

    Returns:
      (loss scalar, {"policy/reward", "policy/entropy_<head>"} scalars). Source: reference: sladd, "Policy".
    """
    reward = jax.lax.stop_gradient(reward.astype(jnp.float32))
    entropies = {name: _masked_mean(value, mask) for name, value in head_entropy.items()}
    loss = -reward * _masked_mean(log_prob, mask) - PUBLISHED_ENTROPY_WEIGHT * sum(entropies.values())
    scalars = {"policy/reward": reward}
    return loss, scalars | {f"policy/entropy_{name}": value for name, value in entropies.items()}


def action_shares(actions, mask) -> dict[str, jax.Array]:
    """Histogram of the actions taken in a batch, for the log.

    Args:
      actions: {head: int32 [B]}, indices into `schema.REGIONS`, `schema.BLENDS` and the strength bins. mask: [B] bool.

    Returns:
      {"policy/<head>/<action>": share in [0, 1]}; regions and types by name, strength bins by number.
    """
    names = {"region": schema.REGIONS, "type": schema.BLENDS, "magnitude": range(MAGNITUDE_BINS)}
    shares = {}
    for head, taken in actions.items():
        for index, name in enumerate(names[head]):
            shares[f"policy/{head}/{name}"] = _masked_mean((taken == index).astype(jnp.float32), mask)
    return shares


def adversarial_values(key, values, epsilon, scale) -> dict[str, jax.Array]:
    """Pathwise mode: values for the blender whose gradient, reversed, raises the detector's loss.

    Args:
      key: typed key. values: {name: [B]} of `PathwisePolicy`. epsilon: scalar in [0, 1], share of the rows that
        take uniform numbers instead, so that training goes on seeing the whole range.
      scale: scalar >= 0, factor on the reversed gradient; grows over training (`reverse_grad.dann_schedule`).

    Returns:
      {name: [B] float32}, in (0, 1). No gradient passes through a row that explores.
    """
    batch_size = next(iter(values.values())).shape[0]
    keys = _row_keys(key, batch_size)
    draws = jax.vmap(lambda k: jax.random.uniform(k, (1 + len(values),)))(keys)
    explores = draws[:, 0] < epsilon
    return {
        name: jnp.where(explores, draws[:, 1 + i], reverse_grad(values[name], scale))
        for i, name in enumerate(sorted(values))
    }
