"""From a host batch of groups to the rows that a detector trains on: twins, forgeries and data-set fakes.

Rows come out group-major, in the order of `ROLES`, so that a group stays on one device. A row that is a record keeps
its record's label, method and group; targets of a forgery follow from what happened to the pixels (`blend.settle`),
never from what was asked for.
"""

import jax
import jax.numpy as jnp

from msddf_jax import losses
from msddf_jax.data import schema
from msddf_jax.synth import degrade, recipes

ROLES = ("target_twin", "source_twin", "forgery", "dataset_fake")
# What a row has of its record whatever becomes of its pixels.
_KEPT = ("label", "method", "identity", "group", "attributes", "has_attributes")
# Fields of a batch with an axis for the frames of a clip.
_OF_FRAMES = ("image", "mask", "landmarks")


def compose(key, batch, *, group, recipe, flip=0.5, choose=None) -> dict[str, jax.Array | dict]:
    """A batch of groups -> the batch that the detector sees. Pure; runs in the train step.

    Args:
      key: typed key.
      batch: device batch (`schema.DEVICE_FIELDS`), images and masks float32 in [0, 1]; image [B, H, W, 3], or
        [B, T, H, W, 3] of clips, with mask and landmarks alike: all T frames then get the same flip, recipe and
        choices.
      group: `schema.Group` that the pipeline laid the rows by.
      recipe: of `recipes.forge`; "none" gives reals and data-set fakes as they are, without a forgery.
      flip, choose: see `recipes.forge`; choose sees the mean of a clip's frames.

    Returns:
      batch with, for N rows: image, mask [N, H, W, 1] (strength of the manipulation), blend_mask [N, H, W, 1] (where
      it is, whatever its strength), has_mask, label, method (-1 where it was forged here), type, regions [N, 5],
      has_regions, strength, has_strength, identity, group, attributes [N, 13], has_attributes, role, and record, what
      `choose` asked to see again (zeros for the rows that it did not choose for). Clips: images and masks with T.

    Raises:
      ValueError: as `recipes.check`, or no row at all that is fake.
    """
    if batch["image"].ndim == 4:
        return _compose_frames(key, batch, group, recipe, flip, choose)
    axes = {name: 1 if name in _OF_FRAMES else None for name in batch}
    of_clip = None
    if choose is not None:
        mean = lambda image: jax.lax.pmean(image, "frames")
        of_clip = lambda key, target, source, **chosen: choose(key, mean(target), mean(source), **chosen)

    def each(frames):
        # By which partners are found: all frames of a clip are to take the same one.
        frames = dict(frames, pose=jax.lax.pmean(frames["landmarks"], "frames"))
        return _compose_frames(key, frames, group, recipe, flip, of_clip)

    # One key for all frames: what is drawn is drawn once, and only the pixels differ.
    return _merge_frames(jax.vmap(each, in_axes=(axes,), out_axes=1, axis_name="frames")(batch))


def _merge_frames(rows):
    """Rows with an axis of frames -> rows of clips: what holds for one frame at least holds for the clip."""
    changed = jnp.argmax(rows["label"], axis=1)
    take = lambda value: jax.vmap(lambda row, frame: row[frame])(value, changed)
    return {name: value if name in ("image", "mask", "blend_mask") else jax.tree.map(take, value)
            for name, value in rows.items()}  # fmt: skip


def _compose_frames(key, batch, group, recipe, flip, choose):
    _, forge_key, fake_key = jax.random.split(key, 3)
    forges = recipes.split_name(recipe)[0] != "none"
    if not forges:
        # As they are, the rows of a group stay aligned: they are flipped together.
        batch = recipes.flip_rows(fake_key, batch, flip, each=group.rows)
    reals, fakes = _split_groups(batch, group)
    others = fakes if group.fakes else None
    made = recipes.forge(recipe, forge_key, reals, flip=flip, choose=choose, others=others)
    if made["forged"] is None and not group.fakes:
        raise ValueError(f"synth.recipe.name is 'none' and data.group is {group}: there would be no fake at all")
    record = made["record"]
    parts = [(_real_rows(reals, made["target"], "target_twin", record), group.real)]
    if made["source"] is not None:
        parts.append((_real_rows(reals, made["source"], "source_twin", record), group.real))
    if made["forged"] is not None:
        parts.append((_forged_rows(reals, made["forged"], record), group.real))
    if group.fakes:
        fakes = recipes.flip_rows(fake_key, fakes, flip) if forges else fakes
        parts.append((_fake_rows(fakes, record), group.fakes))
    return _join_groups(parts)


def augment(key, rows, *, image_size, **settings) -> dict[str, jax.Array | dict]:
    """Photometric augmentation of every row for itself (`degrade.augment`), then the size of the model.

    The frames of a clip, [B, T, H, W, 3], are augmented alike.
    """
    one = lambda image: resize(degrade.augment(key, image, **settings), image_size)
    return dict(rows, image=_over_frames(one, rows["image"]))


def accuracy_by_role(logit, rows) -> dict[str, jax.Array]:
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


def resize(images, size) -> jax.Array:
    """Images [B, H, W, 3] or clips [B, T, H, W, 3] to size x size, cubic with antialiasing, clipped to [0, 1].

    They stay as they are where they fit.
    """
    height, width, channels = images.shape[-3:]
    if (height, width) == (size, size):
        return images
    shape = (*images.shape[:-3], size, size, channels)
    return jnp.clip(jax.image.resize(images, shape, "cubic", antialias=True), 0.0, 1.0)


def _over_frames(fn, images):
    return fn(images) if images.ndim == 4 else jax.vmap(fn, in_axes=1, out_axes=1)(images)


def _split_groups(batch, group):
    """(rows of the reals, rows of the data-set fakes) of a group-major batch; a missing landmark is NaN."""
    # A face without landmarks cannot be forged: NaN makes every recipe leave it real.
    batch = dict(batch, landmarks=jnp.where(batch["has_landmarks"][:, None, None], batch["landmarks"], jnp.nan))

    def take(value, part):
        grouped = value.reshape(-1, group.rows, *value.shape[1:])[:, part]
        return grouped.reshape(-1, *value.shape[1:])

    reals = {name: take(value, slice(0, group.real)) for name, value in batch.items()}
    return reals, {name: take(value, slice(group.real, None)) for name, value in batch.items()}


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
        "type": jnp.full(count, schema.FORGERY_TYPES.index(kind), jnp.int32),
        "regions": jnp.zeros((count, len(schema.FACE_PARTS)), jnp.float32),
        "has_regions": yes,
        "strength": jnp.zeros(count, jnp.float32),
        "has_strength": no,
        "role": jnp.full(count, ROLES.index(role), jnp.int32),
        # Nothing was chosen for this row: zeros of the same tree, so that the roles join.
        "record": jax.tree.map(lambda x: jnp.zeros((count, *x.shape[1:]), x.dtype), record),
    }
    return {**rows, **{name: batch[name] for name in _KEPT}, **given}


def _real_rows(reals, image, role, record):
    return _rows(reals, image, role, "real", record)


def _forged_rows(reals, forged, record):
    """Forgeries; one that changed nothing comes back from the blender as a real and is treated as one."""
    # An adversary that learns through the blender is to change the image, not what is asked of the detector.
    forged = {name: value if name == "image" else jax.lax.stop_gradient(value) for name, value in forged.items()}
    peak = jnp.max(forged["map"], axis=(1, 2, 3), keepdims=True)
    changed = forged["label"] == 1
    # Of a forgery the first attribute, "fake", is known and no other; what changed nothing is its real once more.
    fake = jnp.arange(len(schema.ATTRIBUTES)) == 0
    attributes = jnp.where(changed[:, None], fake, reals["attributes"]).astype(reals["attributes"].dtype)
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
        method=jnp.where(changed, -1, reals["method"]),
        attributes=attributes,
        has_attributes=jnp.where(changed[:, None], fake, reals["has_attributes"]),
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
        # What a data-set fake replaced is known from its mask alone, and not by region.
        has_regions=jnp.zeros(count, bool),
    )
