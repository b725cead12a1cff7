"""What a detector says of held-out forgeries, against detectors whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import detector
from msddf_jax.data import schema, source
from msddf_jax.evaluators import forgeries


def test_figures_by_hand():
    found = {
        "type": [True, False, True, True],
        # Called and there: one of two hit, one called in vain, one missed: F1 = 2 * 1 / (2 + 2).
        "regions": [
            (np.array([1, 1, 0, 0, 0]) > 0, np.array([1, 0, 0, 0, 0]) > 0),
            (np.zeros(5) > 0, np.eye(5)[4] > 0),
        ],
        "strength": [0.1, 0.3],
    }
    assert forgeries._summary("val", found) == pytest.approx(
        {
            "val/forgery_type_accuracy": 0.75,
            "val/forgery_region_f1": 0.5,
            "val/forgery_strength_mae": 0.2,
            "val/forgery_num": 4.0,
        }
    )
    assert forgeries._summary("val", {"type": [], "regions": [], "strength": []}) == {}


def test_only_forgeries_that_changed_something_count():
    kinds = schema.FORGERY_TYPES
    rows = {
        "type": np.array([kinds.index("alpha"), kinds.index("real"), kinds.index("dynamic")]),
        "regions": np.eye(5)[[0, 1, 2]],
        "has_regions": np.array([True, True, False]),
        "strength": np.array([0.5, 0.0, 1.0]),
        "has_strength": np.array([True, False, True]),
    }
    out = {"type": np.eye(6)[[kinds.index("alpha")] * 3], "regions": np.eye(5)[[0, 0, 0]], "strength": np.full(3, 0.75)}
    found = {"type": [], "regions": [], "strength": []}
    forgeries._add(found, out, rows, np.array([True, False, True]))
    assert found["type"] == [True, False] and len(found["regions"]) == 1
    np.testing.assert_allclose(found["strength"], [0.25, 0.25])


@pytest.mark.long
@pytest.mark.parametrize("right", [True, False])
def test_a_detector_that_knows_and_one_that_does_not(monkeypatch, toy_data, right):
    """Twins are not altered and the blend is one alpha of the whole face: what is said can only be right or wrong."""
    config = tiny_config("nowhere").copy_and_resolve_references().unlock()
    config.synth.recipe = {"name": "msddf", "type_weights": (1.0, 0.0, 0.0, 0.0)}
    said = schema.FORGERY_TYPES.index("alpha" if right else "poisson")

    def apply(weights, rows, mutable=False):
        logits = 9.0 * jnp.eye(len(schema.FORGERY_TYPES))[jnp.full(len(rows["image"]), said)]
        return {"logit": jnp.zeros(len(rows["image"])), "type_logits": logits}

    monkeypatch.setattr(detector, "make_apply", lambda config: apply)
    opened = source.open_source("faceforensics/toy", "validation", toy_data[1], methods=())
    result = forgeries.forgery_metrics(config, {}, "val", opened, max_images=5)
    assert result["val/forgery_type_accuracy"] == float(right) and 1 <= result["val/forgery_num"] <= 5


def test_a_recipe_without_forgeries_or_of_clips_is_not_asked():
    config = tiny_config("nowhere").copy_and_resolve_references().unlock()
    assert forgeries.can_forge(config)
    config.data.clip_length = 4
    assert not forgeries.can_forge(config)
    config.data.clip_length = 0
    old = config.copy_and_resolve_references()
    del old.synth.recipe
    old.synth.recipe = "msddf"  # as workdirs of an earlier version have it
    assert not forgeries.can_forge(old)
    config.synth.recipe = {"name": "none"}
    assert not forgeries.can_forge(config)
