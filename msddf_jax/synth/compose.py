"""From a host batch of groups to the rows that a detector trains on: twins, forgeries and data-set fakes.

Rows come out group-major, in the order of `ROLES`, so that a group stays on one device. Targets follow from what
happened to the pixels (`blend.settle`), never from what was asked for.
"""

import jax
import jax.numpy as jnp

from msddf_jax import losses
from msddf_jax.data import schema
from msddf_jax.synth import blender, degrade, recipes

ROLES = ("target_twin", "source_twin", "forgery", "dataset_fake")


def compose(
    key,
    batch,
    *,
    group,
    recipe,
    flip=0.5,
    twin=None,
    blend=None,
    choose=None,
    type_weights=None,
    source_twin,
    self_blend_share=0.0,
):
    """A batch of groups -> the batch that the detector sees. Pure; runs in the train step.

    Args:
      key: typed key.
      batch: device batch, images and masks float32 in [0, 1].
      group: (reals, fakes) of a group, as the pipeline laid them.
      recipe: of `recipes.RECIPES`, or "none": reals and data-set fakes as they are, without a forgery.
      flip, twin, blend, self_blend_share: see `recipes.forge`.
      choose: see `recipes.forge`; None draws by `type_weights`.
      type_weights: of `blender.uniform_choices`; None for its own.
      source_twin: whether a real's other twin is a row too; only "msddf" has one.

    Returns:
      batch with, for N rows: image, mask [N, H, W, 1] (strength of the manipulation), blend_mask [N, H, W, 1] (where
      it is, whatever its strength), has_mask, label, type, regions [N, 5], has_regions, strength, has_strength,
      identity, role, and record, what `choose` asked to see again (zeros for the rows that it did not choose for).

    Raises:
      ValueError: an unknown recipe, a source twin of a recipe without one, or no row at all that is fake.
    """
    flip_key, forge_key, fake_key = jax.random.split(key, 3)
    reals, fakes = _split_groups(batch, group)
    if recipe == "none":
        if not group[1]:
            raise ValueError(f"synth.recipe is 'none' and data.group is {tuple(group)}: there would be no fake at all")
        recipes.check_share(recipe, self_blend_share)
        made = {"target": recipes.flip_rows(flip_key, reals, flip)["image"], "source": None, "forged": None}
    else:
        if choose is None:
            weights = {} if type_weights is None else {"type_weights": type_weights}
            choose = lambda k, target, _: _uniform(k, target.shape[0], weights)
        others = fakes if group[1] else None
        settings = {"flip": flip, "twin": twin, "blend": blend, "self_blend_share": self_blend_share}
        made = recipes.forge(recipe, forge_key, reals, choose=choose, others=others, **settings)
    if source_twin and made["source"] is None:
        raise ValueError(f"synth.source_twin is on; the recipe {recipe!r} has no second real view, only 'msddf' has")
    record = made.get("record", {})
    parts = [(_real_rows(reals, made["target"], "target_twin", record), group[0])]
    if source_twin:
        parts.append((_real_rows(reals, made["source"], "source_twin", record), group[0]))
    if made["forged"] is not None:
        parts.append((_forged_rows(reals, made["forged"], record), group[0]))
    if group[1]:
        parts.append((_fake_rows(recipes.flip_rows(fake_key, fakes, flip), record), group[1]))
    return _join_groups(parts)


def augment(key, rows, *, image_size, **settings):
    """Photometric augmentation of every row for itself (`degrade.augment`), then the size of the model."""
    image = degrade.augment(key, rows["image"], **settings)
    return dict(rows, image=resize(image, image_size))


def accuracy_by_role(logit, rows):
    """{"accuracy/<role>": share of the role's rows that `logit` [N] puts on the right side; 0 without a row}.

    Of the forgeries, those that changed something: the others are their target twin once more.
    """
    right = ((logit > 0) == (rows["label"] == 1)).astype(jnp.float32)
    accuracy = {}
    for index, name in enumerate(ROLES):
        counted = rows["role"] == index
        if name == "forgery":
            counted &= rows["label"] == 1
        accuracy[f"accuracy/{name}"] = losses.masked_mean(right, counted)
    return accuracy


def resize(images, size):
    """Images [B, H, W, 3] to size x size, cubic with antialiasing, clipped to [0, 1]; as they are where they fit."""
    if images.shape[1:3] == (size, size):
        return images
    shape = (images.shape[0], size, size, images.shape[3])
    return jnp.clip(jax.image.resize(images, shape, "cubic", antialias=True), 0.0, 1.0)


def _uniform(key, count, weights):
    region, blend_type, magnitude = blender.uniform_choices(key, count, **weights)
    return {"region": region, "blend_type": blend_type, "magnitude": magnitude, "record": {}}


def _split_groups(batch, group):
    """(rows of the reals, rows of the data-set fakes) of a group-major batch; a missing landmark is NaN."""
    real, fake = group
    # A face without landmarks cannot be forged: NaN makes every recipe leave it real.
    batch = dict(batch, landmarks=jnp.where(batch["has_landmarks"][:, None, None], batch["landmarks"], jnp.nan))

    def take(value, part):
        grouped = value.reshape(-1, real + fake, *value.shape[1:])[:, part]
        return grouped.reshape(-1, *value.shape[1:])

    reals = {name: take(value, slice(0, real)) for name, value in batch.items()}
    return reals, {name: take(value, slice(real, None)) for name, value in batch.items()}


def _join_groups(parts):
    """[(rows, rows a group), ...] -> one batch, group-major."""

    def join(*values):
        grouped = [v.reshape(-1, count, *v.shape[1:]) for v, (_, count) in zip(values, parts, strict=True)]
        joined = jnp.concatenate(grouped, axis=1)
        return joined.reshape(-1, *joined.shape[2:])

    return jax.tree.map(join, *(rows for rows, _ in parts))


def _rows(batch, image, role, kind, record, **given):
    """One role's rows with every field, from what is given and what a real row has otherwise."""
    count = image.shape[0]
    yes, no = jnp.ones(count, bool), jnp.zeros(count, bool)
    rows = {
        "image": image,
        "mask": jnp.zeros((*image.shape[:3], 1), jnp.float32),
        "blend_mask": jnp.zeros((*image.shape[:3], 1), jnp.float32),
        "has_mask": yes,
        "label": jnp.zeros(count, jnp.int32),
        "type": jnp.full(count, schema.FORGERY_TYPES.index(kind), jnp.int32),
        "regions": jnp.zeros((count, len(schema.FACE_PARTS)), jnp.float32),
        "has_regions": yes,
        "strength": jnp.zeros(count, jnp.float32),
        "has_strength": no,
        "identity": batch["identity"],
        "role": jnp.full(count, ROLES.index(role), jnp.int32),
        # Nothing was chosen for this row: zeros of the same tree, so that the roles join.
        "record": jax.tree.map(lambda x: jnp.zeros((count, *x.shape[1:]), x.dtype), record),
    }
    return {**rows, **given}


def _real_rows(reals, image, role, record):
    return _rows(reals, image, role, "real", record)


def _forged_rows(reals, forged, record):
    """Forgeries; one that changed nothing comes back from the blender as a real and is treated as one."""
    # An adversary that learns through the blender is to change the image, not what is asked of the detector.
    forged = {name: value if name == "image" else jax.lax.stop_gradient(value) for name, value in forged.items()}
    peak = jnp.max(forged["map"], axis=(1, 2, 3), keepdims=True)
    return _rows(
        reals,
        forged["image"],
        "forgery",
        "real",
        record,
        mask=forged["map"],
        # A boundary is where the mask changes; at half strength the whole mask would look like one.
        blend_mask=forged["map"] / jnp.maximum(peak, 1e-6),
        regions=forged["region_parts"],
        has_regions=forged["has_region"],
        **{name: forged[name] for name in ("label", "type", "strength", "has_strength")},
    ) | {"record": record}


def _fake_rows(fakes, record):
    count = fakes["image"].shape[0]
    return _rows(
        fakes,
        fakes["image"],
        "dataset_fake",
        "dataset_fake",
        record,
        mask=fakes["mask"],
        blend_mask=fakes["mask"],
        has_mask=fakes["has_mask"],
        label=jnp.ones(count, jnp.int32),
        # What a data-set fake replaced is known from its mask alone, and not by region.
        has_regions=jnp.zeros(count, bool),
    )
