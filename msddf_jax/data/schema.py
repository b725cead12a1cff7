"""What a record and a batch hold: field names, enums, and the contracts every module relies on.

Contracts, stated once:

* label 1 = fake, 0 = real; a score is P(fake).
* mask 1 (255 in a stored PNG) = manipulated.
* images are uint8 RGB until they reach the device, then float32 in [0, 1]; a model normalises for itself.
* landmarks are 81 points (x, y) in pixels of the crop, pixel centres at integers, in dlib's order
  (0-67 iBUG 68, 68-80 forehead) with the forehead re-ordered left to right, so that a flip reverses it.
* strings never reach the device.
* what is absent has a `has_` flag; a missing file is an error, never zeros.
"""

from typing import NamedTuple

import numpy as np

NUM_LANDMARKS = 81
LABELS = ("real", "fake")
# A score strictly above it is called fake (DeepfakeBench).
THRESHOLD = 0.5

# Stored as integers in built data sets: append only, never reorder.
DATASETS = (
    "faceforensics",
    "toy",
    "dfd",
    "celebdf",
    "dfdc",
    "dfdcp",
    "deeperforensics",
    "uadfv",
    "ffiw",
    "deepspeak",
    "ffsc",
    "diffusionface",
    "diff",
    "df40",
    "wilddeepfake",
    "dfb",
    "sladd",
    "sjedd",
    "folder",
)
COMPRESSIONS = ("raw", "c23", "c40", "none")
# Semantic attributes: FFSC's, in the order of its 12-digit codes, then what SJEDD's table of FF++ adds.
ATTRIBUTES = (
    "fake",
    "age",
    "expression",
    "gender",
    "identity",
    "pose",
    "eye",
    "eyebrow",
    "lip",
    "mouth",
    "nose",
    "skin",
    "physical",
)

# What the synthesis can do, and what the heads are asked to name (reference: MSDDF sections 2.1 and 6).
REGIONS = (
    "left_eye",
    "right_eye",
    "both_eyes",
    "nose",
    "mouth",
    "nose_left_eye",
    "nose_right_eye",
    "nose_both_eyes",
    "nose_mouth",
    "eyes_nose_mouth",
    "hull",
)
BLENDS = ("alpha", "poisson", "dynamic", "none")
FORGERY_TYPES = ("alpha", "poisson", "dynamic", "self_blend", "real", "dataset_fake")
FACE_PARTS = ("left_eye", "right_eye", "nose", "mouth", "whole_face")

# Fields that a batch carries to the device, with the dtype on the host. The rest stays on the host.
DEVICE_FIELDS = {
    "image": np.uint8,  # [B, H, W, 3]
    "mask": np.uint8,  # [B, H, W, 1], 255 = manipulated
    "has_mask": np.bool_,  # [B]
    "landmarks": np.float32,  # [B, 81, 2]
    "has_landmarks": np.bool_,  # [B]
    "label": np.int32,  # [B]
    "method": np.int32,  # [B], index into `methods.METHODS`
    "identity": np.int32,  # [B], index of the target identity in the training set; below 0 unknown, below -1 a video's
    "donor": np.int32,  # [B], that of the source identity, whose face was put in; a real's own; -1 unknown
    "domain": np.int32,  # [B], number of the record's built set among those of its source, -1 in padding
    "attributes": np.uint8,  # [B, 13] of 0 and 1, in the order of ATTRIBUTES; 0 where unknown
    "has_attributes": np.bool_,  # [B, 13]
    "group": np.int32,  # [B], number of the row's group in the global batch, -1 outside training
    "_mask": np.bool_,  # [B], False on rows that only pad the batch
}
# Strings and numbers that stay on the host, for grouping scores by video.
HOST_FIELDS = (
    "dataset",
    "video_id",
    "pair_id",
    "group_id",
    "source_identity",
    "target_identity",
    "frame_index",
    "compression",
    "source_path",
)


class Group(NamedTuple):
    """What a group of a training batch is: `real` reals, then fakes; the fields of `config.data.group`.

    fake: fakes of a group, of each method where `methods` names some (names of `methods.METHODS`).
    match: "pair", fakes of the real's own video; "class", any fake beside any real. nearest: a file of
    data_prep.nearest, of which the second of two reals comes; "" for another frame of the real's video.
    """

    real: int = 1
    fake: int = 1
    methods: tuple = ()
    match: str = "pair"
    nearest: str = ""

    @property
    def fakes(self) -> int:
        """Number of fakes in a group."""
        return self.fake * max(1, len(self.methods))

    @property
    def rows(self) -> int:
        """Number of rows in a group."""
        return self.real + self.fakes


def make_group(settings) -> Group:
    """The `Group` of `config.data.group`, checked.

    settings: mapping or ConfigDict with fields of `Group`, or a Group.

    Raises:
      ValueError: an unknown field, counts that make no group, an unknown match.
    """
    if isinstance(settings, Group):
        given = settings._asdict()
    else:
        given = {name: settings[name] for name in settings} if hasattr(settings, "keys") else None
    if given is None or set(given) - set(Group._fields):
        raise ValueError(f"config.data.group is {settings!r}, expected the fields {Group._fields}")
    if isinstance(given.get("methods"), str):
        raise ValueError(f"config.data.group.methods is {given['methods']!r}, expected names: ({given['methods']!r},)")
    group = Group(**{**given, "methods": tuple(given.get("methods") or ())})
    if group.real < 1 or group.fake < 0 or (group.methods and group.fake < 1):
        raise ValueError(f"config.data.group is {given}: expected real >= 1, fake >= 0, and fake >= 1 with methods")
    if group.match not in ("pair", "class"):
        raise ValueError(f"config.data.group.match is {group.match!r}, allowed: 'pair', 'class'")
    if group.nearest and group.real != 2:
        raise ValueError(f"config.data.group.nearest gives the second of two reals, and group.real is {group.real}")
    return group


def _flip_permutation():
    reverse = lambda a, b: list(range(b - 1, a - 1, -1))
    return np.array(
        reverse(0, 17)  # jaw
        + reverse(17, 27)  # brows
        + [27, 28, 29, 30]  # nose ridge
        + reverse(31, 36)  # nostrils
        + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]  # eyes
        + reverse(48, 55)  # outer lip, upper
        + reverse(55, 60)  # outer lip, lower
        + reverse(60, 65)  # inner lip, upper
        + reverse(65, 68)  # inner lip, lower
        + reverse(68, 81),  # forehead, left to right
        np.int32,
    )


# landmarks_of_flipped_image = landmarks[LANDMARK_FLIP] with x -> (W - 1) - x.
LANDMARK_FLIP = _flip_permutation()
# dlib's predictor gives the 13 forehead points in another order; this puts them left to right (SBI).
FOREHEAD_LEFT_TO_RIGHT = np.array([77, 75, 76, 68, 69, 70, 71, 80, 72, 73, 79, 74, 78], np.int32)


def device_batch(batch) -> dict[str, np.ndarray]:
    """The part of a host batch that goes to the device, checked.

    Args:
      batch: dict of numpy arrays with at least every key of `DEVICE_FIELDS`.

    Returns:
      dict with exactly the keys of `DEVICE_FIELDS`.

    Raises:
      KeyError: a field is missing. TypeError: a field has another dtype than `DEVICE_FIELDS` states.
    """
    missing = sorted(set(DEVICE_FIELDS) - set(batch))
    if missing:
        raise KeyError(f"batch lacks the fields {missing}; it has {sorted(batch)}")
    out = {}
    for name, dtype in DEVICE_FIELDS.items():
        value = np.asarray(batch[name])
        if value.dtype != dtype:
            raise TypeError(f"batch field {name!r} has dtype {value.dtype}, expected {np.dtype(dtype)}")
        out[name] = value
    return out
