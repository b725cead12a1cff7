"""EfficientNet against timm's two and a twin of efficientnet_pytorch's, in all three paddings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import efficientnet
from msddf_jax.models.efficientnet import EfficientNet, same_padding

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import torch_reference  # noqa: E402

torch_reference.prepare()
timm = pytest.importorskip("timm", reason="parity needs timm")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights.names import cnn_names  # noqa: E402

# timm publishes these, with the classifier of 1000.
PARAMETERS = {
    "B0": 5_288_548,
    "B1": 7_794_184,
    "B2": 9_109_994,
    "B3": 12_233_232,
    "B4": 19_341_616,
    "B5": 30_389_784,
    "B6": 43_040_704,
    "B7": 66_347_960,
    "Lite0": 4_652_008,
    "Lite1": 5_416_680,
    "Lite2": 6_092_072,
    "Lite3": 8_197_096,
    "Lite4": 13_006_568,
}
LITES = [name for name in PARAMETERS if name.startswith("Lite")]
FEATURES = {"B0": 1280, "B1": 1280, "B2": 1408, "B3": 1536, "B4": 1792, "B5": 2048, "B6": 2304, "B7": 2560, "Mu": 320}
FEATURES |= dict.fromkeys(LITES, 1280)
MEANS = {
    "lukemelas": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "deepfakebench": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "sbi": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "timm": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "timm_tf": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "timm_lite": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "timm_tf_lite": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
# source -> prefix of the backbone, name of the classifier.
NAMES = {
    "lukemelas": ("", "_fc"),
    "sbi": ("net.", "net._fc"),
    "deepfakebench": ("backbone.efficientnet.", "backbone.last_layer"),
}


def _timm(source, variant):
    """timm's model; Mu by its own generator, as it makes B0 to B7."""
    if variant != "Mu":
        prefix = {"timm": "efficientnet_", "timm_tf": "tf_efficientnet_"}[source.removesuffix("_lite")]
        return timm.create_model(prefix + variant.lower())
    build = functools.partial(timm.models.efficientnet._gen_efficientnet, "efficientnet_b0", 0.25, 0.3)
    return build() if source == "timm" else build(bn_eps=1e-3, pad_type="same")


def _reference(source, variant):
    """(reference model, function to its last map, {name: tensor} of its file with a classifier of two)."""
    head = {"weight": torch.randn(2, FEATURES[variant]) / 30, "bias": torch.randn(2)}
    if source.startswith("timm"):
        model = twins.randomise(_timm(source, variant))
        return model, model.forward_features, model.state_dict()
    model = twins.randomise(twins.EfficientNet(variant, plain_stem=source == "deepfakebench"))
    prefix, classifier = NAMES[source]
    state = {prefix + name: value for name, value in model.state_dict().items()}
    return model, model, state | {f"{classifier}.{name}": value for name, value in head.items()}


def _compare(source, variant, side):
    """Largest relative difference of spatial, feature and, where the file's classifier is read, logits."""
    _, forward, state = _reference(source, variant)
    model, variables, flat = parity.convert(state, f"efficientnet/{source}", variant, side)
    images = twins.draw_images(2, side)
    out = jax.jit(model.apply)(variables, images)
    with torch.no_grad():
        spatial = forward(twins.as_input(images, *MEANS[source]))
    feature = spatial.mean((2, 3))
    assert out["feature"].dtype == jnp.float32 and out["feature"].shape == (2, FEATURES[variant])
    found = [parity.relative(out["spatial"], parity.nhwc(spatial)), parity.relative(out["feature"], feature)]
    if f"{cnn_names.HEAD}/kernel" in flat:
        classifier = NAMES[source][1]
        logits = feature @ state[f"{classifier}.weight"].T + state[f"{classifier}.bias"]
        found.append(parity.relative(parity.logits(out["feature"], flat), logits))
    else:
        assert source not in ("sbi", "deepfakebench")
    return max(found)


# Mu's published side is 64. 49 -> 25 -> 13 -> 7 asks for other padding before a stride of 2 than 64 -> 32 -> 16 -> 8.
@pytest.mark.parametrize(("source", "side"), [("deepfakebench", 49), ("timm", 49), ("timm_tf", 49)])
def test_small_one_equals_the_reference(source, side):
    assert _compare(source, "Mu", side) <= 1e-4


@pytest.mark.parametrize(
    ("source", "variant"),
    [("timm_tf_lite", "Lite0")]
    + [
        pytest.param(source, variant, marks=pytest.mark.parity)  # each compiles for seconds
        for source in ("timm_lite", "timm_tf_lite")
        for variant in LITES
        if (source, variant) != ("timm_tf_lite", "Lite0")
    ],
)
def test_lite_equals_timm(source, variant):
    assert _compare(source, variant, 49) <= 1e-4


def test_timm_states_the_pixels_of_its_lites():
    for source, name in (("timm_lite", "efficientnet_lite0"), ("timm_tf_lite", "tf_efficientnet_lite0")):
        stated = timm.get_pretrained_cfg(name)
        assert MEANS[source] == (stated.mean, stated.std)
        fields = cnn_names.SOURCES[f"efficientnet/{source}"].fields
        assert MEANS[source] == (fields["pixel_mean"], fields["pixel_std"])


def test_lite_by_the_names_of_efficientnet_pytorch_is_the_same_network():
    _, _, state = _reference("timm_tf_lite", "Lite0")
    ours = {name: entry.ours for name, entry in cnn_names.efficientnet_table("Lite0").items()}
    theirs = {entry.ours: name for name, entry in cnn_names.timm_efficientnet_table("Lite0").items()}
    renamed = {name: state[theirs[place]] for name, place in ours.items()}
    assert not any("_se_" in name for name in renamed)
    _, _, expected = parity.convert(state, "efficientnet/timm_tf_lite", "Lite0", 64)
    model, _, flat = parity.convert(renamed, "efficientnet/lukemelas_lite", "Lite0", 64)
    assert set(flat) == set(expected) and all(np.array_equal(flat[name], expected[name]) for name in flat)
    assert (model.padding, model.pixel_mean) == ("static", (127 / 255,) * 3)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("source", "variant", "side"),
    [
        ("deepfakebench", "B4", 256),
        ("sbi", "B4", 380),
        ("lukemelas", "B0", 251),
        ("timm", "B0", 225),
        ("timm_tf", "B0", 225),
        ("timm", "B4", 320),
        ("timm_tf", "B4", 381),
    ],
)
def test_full_size_equals_the_reference(source, variant, side):
    assert _compare(source, variant, side) <= 1e-4


@pytest.mark.parametrize("variant", [v if v == "B4" else pytest.param(v, marks=pytest.mark.parity) for v in PARAMETERS])
def test_parameter_count(variant):
    width = FEATURES[variant]
    assert parity.count_parameters(EfficientNet(variant, 32)) + 1000 * width + 1000 == PARAMETERS[variant]


@pytest.mark.parametrize("variant", PARAMETERS)
def test_names_of_every_size(variant):
    with torch.device("meta"):
        source = "timm_tf" if variant in LITES else "timm"
        shapes = {name: tuple(value.shape) for name, value in _timm(source, variant).state_dict().items()}
    matches = cnn_names.find(shapes)
    lite = "_lite" if variant in LITES else ""
    assert [(m.source, m.variant) for m in matches] == [
        (f"efficientnet/timm{lite}", variant),
        (f"efficientnet/timm_tf{lite}", variant),
    ]
    left = set(shapes) - set(matches[0].table)
    assert {name for name in left if not name.endswith("num_batches_tracked")} == {
        "classifier.weight",
        "classifier.bias",
    }
    # By efficientnet_pytorch's names there are as many tensors.
    assert len(cnn_names.efficientnet_table(variant)) == len(matches[0].table)


def test_every_kind_of_file_gives_the_same_backbone():
    _, _, state = _reference("lukemelas", "Mu")
    bare = {name: value for name, value in state.items() if not name.startswith("_fc")}
    read = {}
    for source, (prefix, classifier) in NAMES.items():
        file = {f"module.{prefix}{name}": value for name, value in bare.items()}
        file |= {f"module.{classifier}.{leaf}": state[f"_fc.{leaf}"] for leaf in ("weight", "bias")}
        _, _, flat = parity.convert(file, f"efficientnet/{source}", "Mu", 64)
        read[source] = {name: value for name, value in flat.items() if "binary_head" not in name}
        assert len(flat) - len(read[source]) == (0 if source == "lukemelas" else 2)
    for flat in read.values():
        assert set(flat) == set(read["sbi"])
        assert all(np.array_equal(flat[name], read["sbi"][name]) for name in flat)


def test_same_padding_by_hand():
    # TensorFlow: outputs ceil(size / stride), the odd pixel behind. 380 -> 190 with 3; 95 -> 48 and 24 -> 12 with 5.
    assert same_padding(380, 3, 2) == (0, 1)
    assert same_padding(95, 5, 2) == (2, 2)
    assert same_padding(24, 5, 2) == (1, 2)
    assert same_padding(7, 3, 1) == (1, 1)


@pytest.mark.parity
def test_training_statistics():
    twin, _, state = _reference("lukemelas", "Mu")
    model, variables, _ = parity.convert(state, "efficientnet/lukemelas", "Mu", 64)
    table = cnn_names.efficientnet_table("Mu")
    assert parity.check_train_statistics(twin, model, variables, table, twins.draw_images(4, 64)) <= 1e-4


def test_dtypes():
    parity.check_dtypes(EfficientNet("Mu", 40))


@pytest.mark.parity
def test_gradients():
    model = EfficientNet("Mu", 40, dropout=0.2, drop_connect=efficientnet.DROP_CONNECT)
    parity.check_gradients(model, twins.draw_images(4, 40))


def test_a_dropped_block_is_its_skip_connection():
    plan = efficientnet.BlockPlan(expand=2, kernel=3, stride=1, before=4, after=4)
    block = efficientnet.Block(plan, ((1, 1), (1, 1)), 1e-3, 0.99, 0.25, jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 5, 5, 4)), jnp.float32)
    key = jax.random.key(0)
    variables = jax.jit(functools.partial(block.init, train=False))(key, x)
    apply = lambda block, **rngs: block.apply(variables, x, True, mutable=["batch_stats"], rngs=rngs)[0] - x
    whole = jax.jit(functools.partial(apply, block.clone(drop=0.0)))()
    kept = jax.jit(functools.partial(apply, block))(dropout=key)
    ratio = np.asarray((kept * whole).sum((1, 2, 3)) / (whole * whole).sum((1, 2, 3)))
    # Each image loses the branch as a whole, or keeps it divided by 1 - 0.25.
    np.testing.assert_allclose(kept, whole * ratio[:, None, None, None], atol=1e-5)
    assert {round(float(r), 3) for r in ratio} == {0.0, 1.333}
    assert 4 <= (ratio == 0).sum() <= 28


def test_dropout_of_the_feature():
    model = EfficientNet("Mu", 32, dropout=0.5)
    variables, images = parity.draw_variables(model), twins.draw_images(4, 32)
    apply = lambda key: model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]
    out = jax.jit(apply)(jax.random.key(0))
    # 1280 draws: five standard deviations are 0.07. What stays is doubled.
    kept = out["feature"] != 0
    assert abs(float(kept.mean()) - 0.5) <= 0.07
    np.testing.assert_allclose(out["feature"], jnp.where(kept, 2 * out["spatial"].mean((1, 2)), 0), rtol=1e-5)


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\], got \[64, 64, 3\]"):
        apply(EfficientNet("Mu", 64), jnp.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="'B8'; known: B0, B1"):
        apply(EfficientNet("B8", 64), jnp.zeros((2, 64, 64, 3)))
    with pytest.raises(ValueError, match="same, static, symmetric, got 'SAME'"):
        apply(EfficientNet("B0", 64, padding="SAME"), jnp.zeros((2, 64, 64, 3)))
