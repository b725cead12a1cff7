"""A batch of faces as the pipeline lays groups, with every field that reaches the device; and a context for hooks."""

import jax.numpy as jnp
import numpy as np
from face_points import face_images, face_points

from msddf_jax import hooks
from msddf_jax.data import schema

METHODS = (3, 5)


def make_batch(group=(1, 1), groups=3, size=48, frames=0, uint8=False):
    """Reals, then fakes of each group: identity and group are the group's number, a fake's left quarter is its mask.

    Groups are of the domains 0 and 1 in turn.

    group: (reals, fakes) or schema.Group. frames: of clips [B, T, ...] whose frames are shifted copies; 0 for images.
    uint8: images and masks as the host has them, not float32 in [0, 1].
    """
    group = schema.Group(*group) if len(group) == 2 else group
    rows = groups * group.rows
    label = np.tile([0] * group.real + [1] * group.fakes, groups)
    image = np.asarray(face_images(size, rows), np.float32)
    points = np.asarray(face_points(size, rows), np.float32)
    mask = np.zeros((rows, size, size, 1), np.float32)
    mask[label == 1, :, : size // 4] = 1.0
    if frames:
        image = np.stack([np.roll(image, shift, axis=1) for shift in range(frames)], axis=1)
        mask = np.repeat(mask[:, None], frames, axis=1)
        points = np.stack([points + np.array([0, shift]) for shift in range(frames)], axis=1).astype(np.float32)
    if uint8:
        image, mask = (255 * image).astype(np.uint8), (255 * mask).astype(np.uint8)
    number = np.repeat(np.arange(groups, dtype=np.int32), group.rows)
    known = np.zeros((rows, len(schema.ATTRIBUTES)), bool)
    known[:, 0] = True
    return {
        "image": image,
        "mask": mask,
        "has_mask": np.ones(rows, bool),
        "landmarks": points,
        "has_landmarks": np.ones(rows, bool),
        "label": label.astype(np.int32),
        "method": np.where(label == 1, METHODS[0], 0).astype(np.int32),
        "identity": number,
        "donor": np.where(label == 1, (number + 1) % groups, number).astype(np.int32),
        "domain": number % 2,
        "attributes": (known & (label == 1)[:, None]).astype(np.uint8),
        "has_attributes": known,
        "group": number,
        "_mask": np.ones(rows, bool),
    }


def make_context(config, modules=None, variables=None, step=0, seed=3):
    """A `hooks.Context` outside a train step."""
    import jax

    key = jax.random.key(seed)
    return hooks.Context(config, modules or {}, variables or {}, step=jnp.int32(step), key=key)
