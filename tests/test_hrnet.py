"""HRNet against timm's, which has the published names; the joined maps against PyTorch's resizing of timm's maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import hrnet

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import torch_reference  # noqa: E402

torch_reference.prepare()
timm = pytest.importorskip("timm", reason="parity needs timm")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights.names import cnn_names  # noqa: E402

# timm's whole model with 1000 classes, as it publishes the count.
PUBLISHED = {"W18": 21_299_004, "W48": 77_469_864}


def _reference(variant):
    return twins.randomise(timm.create_model(f"hrnet_{variant.lower()}"))


def _compare(reference, variant, side):
    """Largest relative difference of a stage, the joined maps and the feature."""
    model, variables, _ = parity.convert(reference.state_dict(), "hrnet/imagenet", variant, side)
    images = twins.draw_images(2, side)
    out = jax.jit(model.apply)(variables, images)
    parts = {"stem": reference.act2, "stage_1": reference.layer1}
    with torch.no_grad(), parity.recorded(parts) as theirs:
        maps = reference.stages(reference.act2(reference.bn2(reference.conv2(reference.act1(reference.bn1(
            reference.conv1(twins.as_input(images, hrnet.PIXEL_MEAN, hrnet.PIXEL_STD))))))))  # fmt: skip
    theirs |= {f"map_{4 << n}": parity.nhwc(m) for n, m in enumerate(maps)}
    enlarged = [torch.nn.functional.interpolate(m, maps[0].shape[2:], mode="bilinear") for m in maps]
    theirs["joined"] = parity.nhwc(torch.cat(enlarged, 1))
    assert set(out["stages"]) == {*theirs, "stage_2", "stage_3"}
    assert out["feature"].dtype == jnp.float32
    assert parity.relative(out["feature"], theirs["joined"].mean((1, 2))) <= 1e-4
    return max(parity.relative(out["stages"][name], value) for name, value in theirs.items())


@pytest.mark.long  # ten seconds each to compile
@pytest.mark.parametrize(("variant", "side"), [("W18", 64), ("W48", 96)])
def test_equals_timm(variant, side):
    assert _compare(_reference(variant), variant, side) <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("side", [224, 256])
def test_equals_timm_at_full_size(side):
    assert _compare(_reference("W48"), "W48", side) <= 1e-4


@pytest.mark.parametrize("variant", ["W18", "W48"])
def test_a_whole_published_file_is_read_and_counted(variant):
    with torch.device("meta"):
        whole = timm.create_model(f"hrnet_{variant.lower()}").state_dict()
    shapes = {name: tuple(value.shape) for name, value in whole.items()}
    (match,) = cnn_names.find(shapes)
    assert (match.source, match.variant) == ("hrnet/imagenet", variant)
    # Microsoft's own file has the last layer under another name, and is read alike.
    own = {name.replace("classifier.", "fc."): shape for name, shape in shapes.items()}
    assert cnn_names.find(own)[0].table == match.table
    left = [n for n in shapes if n not in match.table and not n.endswith("num_batches_tracked")]
    assert {n.split(".")[0] for n in left} == {"incre_modules", "downsamp_modules", "final_layer", "classifier"}
    trained = lambda names: sum(int(np.prod(shapes[n])) for n in names if "running" not in n)
    count = parity.count_parameters(hrnet.HRNet(variant, 224))
    assert trained(match.table) == count and count + trained(left) == PUBLISHED[variant]


@pytest.mark.parametrize("name", ["hrnet_w18_small", "hrnet_w18_small_v2", "hrnet_w32"])
def test_relatives_are_no_variants(name):
    with torch.device("meta"):
        assert cnn_names.find({n: tuple(v.shape) for n, v in timm.create_model(name).state_dict().items()}) == []


@pytest.mark.parity
def test_training_statistics():
    reference = _reference("W18")
    model, variables, _ = parity.convert(reference.state_dict(), "hrnet/imagenet", "W18", 64)
    from msddf_jax.weights.names import hrnet_names

    table, images = hrnet_names.table("W18"), twins.draw_images(4, 64)
    # The classifier's layers have no counterpart.
    for part in ("incre_modules", "downsamp_modules", "final_layer"):
        setattr(reference, part, None)
    reference.forward = lambda x: reference.stages(
        reference.act2(reference.bn2(reference.conv2(reference.act1(reference.bn1(reference.conv1(x))))))
    )
    assert parity.check_train_statistics(reference, model, variables, table, images) <= 1e-4


@pytest.mark.long  # fifteen seconds to compile
def test_gradients():
    parity.check_gradients(hrnet.HRNet("Mu", 32), twins.draw_images(4, 32))


def test_dtypes():
    parity.check_dtypes(hrnet.HRNet("Mu", 32))


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match="HRNet needs an image_size that 32 divides, got 80"):
        apply(hrnet.HRNet("Mu", 80), jnp.zeros((2, 80, 80, 3)))
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\], got \[2, 64, 64, 1\]"):
        apply(hrnet.HRNet("W48", 64), jnp.zeros((2, 64, 64, 1)))
    with pytest.raises(ValueError, match="'w32'; known: W18, W48, Mu"):
        apply(hrnet.HRNet("w32", 64), jnp.zeros((2, 64, 64, 3)))
