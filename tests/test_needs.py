"""What a detector needs and a data set lacks is told before the first step."""

import numpy as np
import pytest

from msddf_jax.data import needs, source


def _source(pair="", target="", has=False):
    """One real, one fake."""
    videos = {
        "label": np.array(["real", "fake"]),
        "video_id": np.array(["a", "b"]),
        "pair_id": np.array(["", pair]),
        "target_identity": np.array(["", target]),
    }
    record = {"has_mask": np.bool_(has), "has_landmarks": np.bool_(has)}

    class Two:
        name, count, first = "sjedd/list:train", np.array([1, 1]), np.array([0, 1])

        def __getitem__(self, index):
            return record

    two = Two()
    two.videos = videos
    return two


@pytest.mark.parametrize("field", ["mask", "landmarks", "pair", "identity"])
def test_a_field_that_is_lacking_is_named_with_the_sets_that_have_it(field):
    with pytest.raises(
        ValueError, match=r"needs .* for its loss extra, and sjedd/list:train has none .*These sets"
    ) as told:
        needs.check("ffd", {field: "extra"}, {"label": 1.0, "extra": 0.5}, _source())
    assert needs.FIELDS[field][1][0] in str(told.value) and "--config.loss_weights.extra=0" in str(told.value)
    # Without the loss nothing is needed.
    needs.check("ffd", {field: "extra"}, {"label": 1.0, "extra": 0.0}, _source())
    with pytest.raises(ValueError, match="detector 'ucf' needs"):
        needs.check("ucf", {field: ""}, {"label": 1.0}, _source())


def test_what_is_there_is_enough():
    every = dict.fromkeys(needs.FIELDS, "")
    needs.check("ffd", every, {"label": 1.0}, _source(pair="a", target="ff:000", has=True))
    with pytest.raises(ValueError, match="with their own real"):
        needs.check("ffd", every, {"label": 1.0}, _source(pair="c", target="ff:000", has=True))


def test_a_misspelt_field_is_told():
    with pytest.raises(ValueError, match=r"NEEDS names \['masks'\], allowed: mask"):
        needs.check("ffd", {"masks": ""}, {}, _source())


def test_the_embedded_set_has_all(toy_data):
    opened = source.open_source("faceforensics/toy", "train", toy_data[1])
    needs.check("ffd", dict.fromkeys(needs.FIELDS, ""), {}, opened)
