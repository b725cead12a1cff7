"""Which kind of file names and shapes belong to; that names are complete is in each backbone's own test."""

import numpy as np
import pytest

from msddf_jax.weights import table
from msddf_jax.weights.names import cnn_names, meso_names

# Meso4's names with the two shapes that tell it.
MESO = dict.fromkeys(meso_names.port_table("meso4", "backbone.", cnn_names.HEAD), (1,)) | {
    "backbone.conv1.weight": (8, 3, 3, 3),
    "backbone.fc1.weight": (16, 1024),
}


def test_a_parallel_checkpoint_has_its_prefix_in_the_table():
    (match,) = cnn_names.find({f"module.{name}": shape for name, shape in MESO.items()})
    assert (match.source, match.variant) == ("meso/deepfakebench", "meso4")
    assert match.table["module.backbone.fc2.weight"].ours == "params/binary_head/out/kernel"
    assert set(match.table) == {f"module.{name}" for name in MESO}


def test_what_fits_nothing_is_an_empty_list():
    assert cnn_names.find({}) == []
    assert cnn_names.find({"vision_model.embeddings.class_embedding": (768,)}) == []
    # A classifier input of another image size is another network.
    assert cnn_names.find(MESO | {"backbone.fc1.weight": (16, 256)}) == []


def test_a_third_class_is_named_with_both_shapes():
    # DeepfakeBench's SBI is configured with three.
    tensor = table.Tensor((3, 1792), np.dtype(np.float32), None)
    head = {"backbone.last_layer.weight": table.Entry(f"{cnn_names.HEAD}/kernel", "linear")}
    with pytest.raises(ValueError, match=r"last_layer.*\(1792, 3\).*\(1792, 2\)"):
        table.check(
            {"backbone.last_layer.weight": tensor}, head, {f"{cnn_names.HEAD}/kernel": np.zeros((1792, 2))}, "b4.pth"
        )


@pytest.mark.parametrize("source", cnn_names.SOURCES)
def test_every_source_names_every_variable_once(source):
    spec = cnn_names.SOURCES[source]
    variant = {
        "xception": "xception",
        "efficientnet": "B4",
        "resnet": "resnet34",
        "meso": "meso4",
        "vgg": "vgg19",
        "hrnet": "W48",
    }[spec.family]
    variant = "Lite0" if source.endswith("_lite") else variant
    ours = [entry.ours for entry in spec.table(variant).values()]
    assert len(ours) == len(set(ours))
    assert all(name.startswith(("params/", "batch_stats/")) for name in ours)
    has_head = f"{cnn_names.HEAD}/kernel" in ours
    assert has_head == (source.endswith(("deepfakebench", "sbi")) or source in meso_names.ABOUT)
