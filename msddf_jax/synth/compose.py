"""From a host batch of groups to the rows that a detector trains on: twins, forgeries and data-set fakes.

Rows come out group-major, in the order of `ROLES`, so that a group stays on one device. A row that is a record keeps
its record's label, method and group; targets of a forgery follow from what happened to the pixels (`blend.settle`),
never from what was asked for.

No photometric step marks a class: what a recipe does to a real (`recipes.render`) it does to a data set's fakes too,
and a forgery is augmented as the real that it was made of, so that the two differ by the forgery alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax import losses
from msddf_jax.data import schema
from msddf_jax.synth import degrade, geometry, recipes, recode

ROLES = ("target_twin", "source_twin", "forgery", "dataset_fake")
# What a row has of its record whatever becomes of its pixels.
_KEPT = ("label", "method", "identity", "donor", "domain", "group", "attributes", "has_attributes")
# Fields of a batch with an axis for the frames of a clip.
_OF_FRAMES = ("image", "mask", "landmarks")
# Cells a side of the grid on which the change of a forgery is looked at (`show_change`).
_CHANGE_GRID = 8


class Layout(NamedTuple):
    """The rows of a group as the detector sees them: shares that a config sets, whatever the recipe.

    real: reals of the data set, each seen once. forged: how many of them are forged, the first ones. second_views: how
    many of these are seen once more, as the other twin. fake: fakes of the data set.
    """

    real: int
    forged: int
    second_views: int
    fake: int

    @property
    def rows(self) -> int:
        """Rows of a group."""
        return sum(self)

    @property
    def bases(self) -> np.ndarray:
        """int32 [rows]: for each row of a group the real that it is another view or a forgery of; else itself."""
        own = np.arange(self.rows, dtype=np.int32)
        own[self.real : self.real + self.second_views] = np.arange(self.second_views)
        start = self.real + self.second_views
        own[start : start + self.forged] = np.arange(self.forged)
        return own


def make_layout(group, recipe, *, forged=None, second_views=0) -> Layout:
    """The layout of a config's groups.

    Args:
      group: `schema.Group` that the pipeline lays the rows by. recipe: of `recipes.forge`.
      forged: of a group's reals, None for all of them; none with the recipe "none". second_views: of those forged.

    Raises:
      ValueError: more forged than there are reals, more second views than forged, a second view of a recipe that makes
        none, no row at all that is fake, or a nearest face in the group that the recipe does not take.
    """
    name, settings = recipes.split_name(recipe)
    most = 0 if name == "none" else group.real
    forged = most if forged is None else forged
    if not 0 <= forged <= most:
        raise ValueError(f"config.synth.forged is {forged}; with {group} and the recipe {name!r} it is 0 to {most}")
    most = forged if recipes.RECIPES[name].second_view else 0
    if not 0 <= second_views <= most:
        raise ValueError(
            f"config.synth.second_views is {second_views}; with {forged} forged reals a group and the recipe {name!r} "
            f"it is 0 to {most}"
        )
    if bool(group.nearest) != (settings.get("partner") == "group") or (group.nearest and forged != 2):
        raise ValueError(
            f"data.group.nearest is {group.nearest!r}, synth.recipe.partner is {settings.get('partner', 'batch')!r} "
            f"and {forged} reals of a group are forged: a group's nearest face is lent by the recipe 'face_xray' with "
            "partner='group', where both of its reals are forged, and by no other"
        )
    if not forged and not group.fakes:
        raise ValueError(
            f"synth.recipe.name is {name!r}, data.group is {group} and {forged} are forged: no fake at all"
        )
    return Layout(group.real, forged, second_views, group.fakes)


def compose(key, batch, *, layout, recipe, flip=0.5, choose=None, progress=1.0) -> dict[str, jax.Array | dict]:
    """A batch of groups -> the batch that the detector sees. Pure; runs in the train step.

    Args:
      key: typed key.
      batch: device batch (`schema.DEVICE_FIELDS`), images and masks float32 in [0, 1]; image [B, H, W, 3], or
        [B, T, H, W, 3] of clips, with mask and landmarks alike: all T frames then get the same flip, recipe and
        choices. A group is its reals, then its fakes.
      layout: of `make_layout`.
      recipe: of `recipes.forge`; "none" gives reals and data-set fakes as they are, without a forgery.
      flip, choose, progress: see `recipes.forge`; choose sees the mean of a clip's frames.

    Returns:
      batch with, for N rows: image, mask [N, H, W, 1] (strength of the manipulation), blend_mask [N, H, W, 1] (where
      it is, whatever its strength), has_mask, label, method (-1 where it was forged here), type, regions [N, 5],
      has_regions, strength, has_strength, identity, donor (as method), domain, group, attributes [N, 13],
      has_attributes, role, base int32 [N] (`Layout.bases`, counted through the batch), counted bool [N] (`show_change`;
      all are until then), and record, what `choose` asked to see again (zeros for the rows that it did not choose for).
      Clips: images and masks with T.

    Raises:
      ValueError: as `recipes.check`.
    """
    if batch["image"].ndim == 4:
        rows = _compose_frames(key, batch, layout, recipe, flip, choose, progress)
    else:
        rows = _compose_clips(key, batch, layout, recipe, flip, choose, progress)
    count = rows["label"].shape[0]
    start = jnp.arange(count, dtype=jnp.int32) // layout.rows * layout.rows
    base = start + jnp.tile(jnp.asarray(layout.bases), count // layout.rows)
    return dict(rows, base=base, counted=jnp.ones(count, bool))


def _compose_clips(key, batch, layout, recipe, flip, choose, progress):
    axes = {name: 1 if name in _OF_FRAMES else None for name in batch}
    of_clip = None
    if choose is not None:
        mean = lambda image: jax.lax.pmean(image, "frames")
        of_clip = lambda key, target, source, **chosen: choose(key, mean(target), mean(source), **chosen)

    def each(frames):
        # By which partners are found: all frames of a clip are to take the same one.
        frames = dict(frames, pose=jax.lax.pmean(frames["landmarks"], "frames"))
        return _compose_frames(key, frames, layout, recipe, flip, of_clip, progress)

    # One key for all frames: what is drawn is drawn once, and only the pixels differ.
    return _merge_frames(jax.vmap(each, in_axes=(axes,), out_axes=1, axis_name="frames")(batch))


def _merge_frames(rows):
    """Rows with an axis of frames -> rows of clips: what holds for one frame at least holds for the clip."""
    changed = jnp.argmax(rows["label"], axis=1)
    take = lambda value: jax.vmap(lambda row, frame: row[frame])(value, changed)
    return {name: value if name in ("image", "mask", "blend_mask") else jax.tree.map(take, value)
            for name, value in rows.items()}  # fmt: skip


def _compose_frames(key, batch, layout, recipe, flip, choose, progress):
    rest_key, forge_key, fake_key = jax.random.split(key, 3)
    group_rows = layout.real + layout.fake
    forges = recipes.split_name(recipe)[0] != "none"
    if not forges:
        # As they are, the rows of a group stay aligned: they are flipped together.
        batch = recipes.flip_rows(fake_key, batch, flip, each=group_rows)
    # A face without landmarks cannot be forged: NaN makes every recipe leave it real.
    batch = dict(batch, landmarks=jnp.where(batch["has_landmarks"][:, None, None], batch["landmarks"], jnp.nan))
    take = lambda first, last: {name: _part(value, group_rows, first, last) for name, value in batch.items()}
    forge_these, rest = take(0, layout.forged), take(layout.forged, layout.real)
    fakes = take(layout.real, group_rows)
    render = lambda key, rows: recipes.render(recipe, key, rows, flip=flip) if forges else rows
    parts, record = [], {}
    if layout.forged:
        made = recipes.forge(
            recipe, forge_key, forge_these, flip=flip, choose=choose, others=fakes if layout.fake else None,
            progress=progress,
        )  # fmt: skip
        record = made["record"]
        parts.append((_real_rows(forge_these, made["target"], "target_twin", record), layout.forged))
    if layout.real > layout.forged:
        rest = render(rest_key, rest)
        parts.append((_real_rows(rest, rest["image"], "target_twin", record), layout.real - layout.forged))
    if layout.second_views:
        seen = _real_rows(forge_these, made["source"], "source_twin", record)
        seen = jax.tree.map(lambda value: _part(value, layout.forged, 0, layout.second_views), seen)
        parts.append((seen, layout.second_views))
    if layout.forged:
        parts.append((_forged_rows(forge_these, made["forged"], record), layout.forged))
    if layout.fake:
        parts.append((_fake_rows(render(fake_key, fakes), record), layout.fake))
    return _join_groups(parts)


def augment(key, rows, *, image_size, bases=None, crop=0.0, **settings) -> dict[str, jax.Array | dict]:
    """Photometric augmentation (`degrade.augment`), codecs (`recode`), a random window, then the size of the model.

    Args:
      key: typed key. rows: of `compose`. image_size: of the model.
      bases: int32 [N]: rows that share a number are augmented alike; None for each for itself. With `rows["base"]`, the
        views of one real and its forgery are, as SBI's step 5 has it. The frames of a clip, [B, T, H, W, 3], always
        are.
      crop: each edge of an image moves by up to this share of its side, in or out, on its own (SBI, step 6); masks
        follow. What lies outside repeats the edge. 0 for none.
      **settings: of `degrade.augment` and `recode.recode`.

    Returns:
      rows; with `crop` also window float32 [N, 4], what is seen of an image: left, right, top and bottom edge, as
      shares of its sides.
    """
    window, codecs = None, recode.own_settings(settings)
    settings = {name: value for name, value in settings.items() if name not in codecs}
    if crop:
        key, window_key = jax.random.split(key)
        numbers = jnp.arange(rows["image"].shape[0]) if bases is None else bases
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(window_key, numbers)
        moves = jax.vmap(lambda k: jax.random.uniform(k, (4,), minval=-crop, maxval=crop))(keys)
        window = jnp.array([0.0, 1.0, 0.0, 1.0]) + moves

    def one(image):
        image = degrade.augment(key, image, numbers=bases, **settings)
        image = recode.recode(jax.random.fold_in(key, 1), image, numbers=bases, **codecs)
        return resize(image if window is None else geometry.cut_windows(image, window), image_size)

    out = dict(rows, image=_over_frames(one, rows["image"]))
    if window is not None:
        cut = lambda mask: geometry.cut_windows(mask, window)
        out |= {name: _over_frames(cut, rows[name]) for name in ("mask", "blend_mask") if name in rows}
        out["window"] = window
    return out


def show_change(rows, layout, least) -> dict[str, jax.Array | dict]:
    """Rows in which a forgery that cannot be seen is asked of no loss: `counted` False.

    What is seen is the image as it goes to the model, re-sampled and augmented alike with its real (`augment`). Eyes
    that moved by a pixel change many grey levels and look like any other eyes, so pixels are not compared: the change
    of a forgery is by how much colour (mean) and contrast (standard deviation) differ in that cell of an 8 x 8 grid in
    which they differ most, both added up. Where views are augmented each for itself there is nothing to compare, and
    `least` is to be 0.

    Args:
      rows: of `augment`. layout: of `make_layout`. least: scalar, grey levels; 0 counts every row.

    Returns:
      rows with `change` float32 [N], grey levels, 0 for what is no forgery; and counted.
    """
    image = jax.lax.stop_gradient(rows["image"])
    cells = (*image.shape[:-3], _CHANGE_GRID, _CHANGE_GRID, 3)
    pool = lambda value: jax.image.resize(value, cells, "linear", antialias=True)
    mean = pool(image)
    spread = jnp.sqrt(jnp.maximum(pool(image**2) - mean**2, 0.0) + 1e-8)
    look = jnp.concatenate([mean, spread], axis=-1).reshape(-1, layout.rows, *cells[1:-1], 6)
    difference = jnp.abs(look - look[:, layout.bases]).mean(-1)
    change = 2.0 * 255.0 * difference.reshape(image.shape[0], -1).max(1)
    forged = rows["role"] == ROLES.index("forgery")
    change = jnp.where(forged, change, 0.0)
    return dict(rows, change=change, counted=rows["counted"] & (~forged | (change >= least)))


def by_role(logit, rows) -> dict[str, jax.Array]:
    """What tells early that a detector learns nothing, over the rows that count.

    Args:
      logit: float32 [N], log odds of fake. rows: of `compose`.

    Returns:
      of each role "accuracy/<role>", share on the right side; "called_fake/<role>", share called fake; "nll/<role>",
      mean negative log-likelihood of the label; and over all rows "nll/all", and "nll/prior", that of a detector which
      knows the share of fakes and nothing else. float32 scalars, natural logarithms; 0 without a row.
    """
    label, counted = rows["label"], rows["counted"]
    fake = (logit > 0).astype(jnp.float32)
    right = ((logit > 0) == (label == 1)).astype(jnp.float32)
    nll = jax.nn.softplus(jnp.where(label == 1, -logit, logit).astype(jnp.float32))
    values = {}
    for index, name in enumerate(ROLES):
        here = counted & (rows["role"] == index)
        if name == "forgery":
            # Those that changed something: the others are their target twin once more.
            here &= label == 1
        for what, value in (("accuracy", right), ("called_fake", fake), ("nll", nll)):
            values[f"{what}/{name}"] = losses.masked_mean(value, here)
    share = losses.masked_mean(label.astype(jnp.float32), counted)
    entropy = -jax.scipy.special.xlogy(share, share) - jax.scipy.special.xlogy(1.0 - share, 1.0 - share)
    return {**values, "nll/all": losses.masked_mean(nll, counted), "nll/prior": entropy}


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


def _part(value, each, first, last):
    """Rows `first` to `last` of every group of `each` rows."""
    grouped = value.reshape(-1, each, *value.shape[1:])[:, first:last]
    return grouped.reshape(-1, *value.shape[1:])


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
        donor=jnp.where(changed, -1, reals["donor"]),
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
