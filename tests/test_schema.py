import ml_collections
import numpy as np
import pytest

from msddf_jax.data import methods, schema


def test_flip_is_an_involution_over_all_points():
    flip = schema.LANDMARK_FLIP
    assert sorted(flip) == list(range(schema.NUM_LANDMARKS))
    np.testing.assert_array_equal(flip[flip], np.arange(81))


def test_flip_exchanges_the_named_points():
    # jaw ends, brow ends, eye corners, mouth corners change places; the nose ridge, chin and lip centres stay.
    pairs = {0: 16, 17: 26, 36: 45, 39: 42, 48: 54, 60: 64, 31: 35, 68: 80}
    for a, b in pairs.items():
        assert schema.LANDMARK_FLIP[a] == b and schema.LANDMARK_FLIP[b] == a
    for point in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66, 74):
        assert schema.LANDMARK_FLIP[point] == point


def test_enums_keep_their_order():
    # Stored as integers in built data sets: appending is fine, moving is not.
    assert schema.LABELS == ("real", "fake")
    assert methods.METHODS[:7] == (
        "real", "deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter", "dfd",
    )  # fmt: skip
    assert schema.COMPRESSIONS == ("raw", "c23", "c40", "none")
    assert len(schema.REGIONS) == 11 and len(schema.BLENDS) == 4


def _batch():
    shapes = {"image": (2, 4, 4, 3), "mask": (2, 4, 4, 1), "landmarks": (2, 81, 2), "attributes": (2, 13)}
    return {name: np.zeros(shapes.get(name, (2,)), dtype) for name, dtype in schema.DEVICE_FIELDS.items()}


def test_device_batch_drops_strings_and_checks():
    batch = dict(_batch(), video_id=np.array(["a", "b"], object))
    assert set(schema.device_batch(batch)) == set(schema.DEVICE_FIELDS)
    with pytest.raises(TypeError, match="'image' has dtype float32"):
        schema.device_batch(dict(batch, image=np.zeros((2, 4, 4, 3), np.float32)))
    del batch["has_mask"]
    with pytest.raises(KeyError, match="has_mask"):
        schema.device_batch(batch)


def test_every_method_has_a_family():
    assert len(methods.METHODS) == len(set(methods.METHODS))
    assert {methods.family(name) for name in methods.METHODS} == set(methods.FAMILIES)
    with pytest.raises(KeyError):
        methods.family("deepfake")


def test_a_group_counts_its_rows():
    group = schema.make_group({"real": 2, "fake": 3, "methods": ["deepfakes", "faceswap"], "match": "class"})
    assert (group.fakes, group.rows, group.methods) == (6, 8, ("deepfakes", "faceswap"))
    assert schema.make_group({}) == schema.Group(1, 1, (), "pair")
    assert schema.make_group(ml_collections.ConfigDict({"fake": 0})) == schema.Group(1, 0)
