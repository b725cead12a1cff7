"""What the parity tests of the convolutional backbones share; imports torch, so behind `importorskip`."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch_twins import as_input, norm_counts

from msddf_jax import trees
from msddf_jax.models import efficientnet, hrnet, meso, resnet, vgg, xception
from msddf_jax.weights import table
from msddf_jax.weights.names import cnn_names

BACKBONES = {
    "xception": xception.Xception,
    "efficientnet": efficientnet.EfficientNet,
    "resnet": resnet.ResNet,
    "meso": meso.Meso,
    "vgg": vgg.VGG,
    "hrnet": hrnet.HRNet,
}


def count_parameters(model):
    """Parameters of a backbone, found without allocating any."""
    return sum(leaf.size for leaf in jax.tree.leaves(_shapes(model)["params"]))


def relative(ours, theirs):
    """max |ours - theirs| / max |theirs|; theirs may be a torch tensor."""
    theirs = np.asarray(theirs.detach() if isinstance(theirs, torch.Tensor) else theirs)
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@contextlib.contextmanager
def recorded(modules):
    """{name: [B, H, W, C]} of what each of {name: torch module} gives in one forward pass, filled as it runs."""
    out = {}
    keep = lambda name: lambda _, __, given: out.update({name: nhwc(given.clone())})
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    yield out
    for hook in hooks:
        hook.remove()


def nhwc(tensor):
    """[B, C, H, W] torch -> [B, H, W, C] NumPy."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def convert(state, source, variant, image_size, **fields):
    """A state_dict as a `SOURCES[source]` file, found by its names, checked, read and written back bit for bit.

    Returns:
      (backbone, its variables, {our name: array} of everything the table gave).
    """
    # Copies: PyTorch changes running statistics in place.
    state = {name: tensor.numpy().copy() for name, tensor in state.items()}
    matches = cnn_names.find({name: value.shape for name, value in state.items()})
    match = {match.source: match for match in matches}[source]
    assert match.variant == variant
    spec = cnn_names.SOURCES[source]
    model = BACKBONES[spec.family](variant, image_size, **{**spec.fields, **fields})
    tensors = {name: table.Tensor(v.shape, v.dtype, lambda v=v: v) for name, v in state.items()}
    expected = {
        f"{collection}/backbone/{name}": leaf
        for collection, tree in _shapes(model).items()
        for name, leaf in trees.flatten(tree).items()
    }
    if any(entry.ours == f"{cnn_names.HEAD}/kernel" for entry in match.table.values()):
        width = _out_shapes(model)["feature"].shape[-1]
        expected[f"{cnn_names.HEAD}/kernel"] = np.zeros((width, 2))
        expected[f"{cnn_names.HEAD}/bias"] = np.zeros(2)
    table.check(tensors, match.table, expected, source, match.skip)
    flat = table.to_ours(tensors, match.table, source)
    back = table.to_theirs(flat, match.table)
    for name, value in back.items():
        assert value.dtype == state[name].dtype and value.shape == state[name].shape, name
        assert value.tobytes() == np.ascontiguousarray(state[name]).tobytes(), name
    tree = trees.unflatten(flat)
    return model, {collection: tree[collection]["backbone"] for collection in _shapes(model)}, flat


def logits(feature, flat, head=cnn_names.HEAD):
    """The classifier by hand."""
    return np.asarray(feature) @ flat[f"{head}/kernel"] + flat[f"{head}/bias"]


def check_train_statistics(torch_model, model, variables, table_, images):
    """One forward pass in training mode moves the running statistics as PyTorch's, up to the variance's n / (n - 1).

    Returns:
      the largest difference of a statistic, relative to the largest of its layer.
    """
    counts = norm_counts(torch_model)
    old = {name: value.numpy().copy() for name, value in torch_model.state_dict().items()}
    torch_model.train()
    with torch.no_grad():
        torch_model(as_input(images, model.pixel_mean, model.pixel_std))
    new = {name: value.numpy() for name, value in torch_model.state_dict().items()}
    rngs = {"dropout": jax.random.key(0)}
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"], rngs=rngs)[1]["batch_stats"])
    stats = trees.flatten(apply(variables, images))
    worst = 0.0
    norms = {name: module for name, module in torch_model.named_modules() if name in counts}
    for name, count in counts.items():
        keep = 1 - norms[name].momentum
        mean = stats[table_[f"{name}.running_mean"].ours.removeprefix("batch_stats/backbone/")]
        worst = max(worst, relative(mean, new[f"{name}.running_mean"]))
        var = np.asarray(stats[table_[f"{name}.running_var"].ours.removeprefix("batch_stats/backbone/")])
        kept = keep * old[f"{name}.running_var"]
        worst = max(worst, relative(kept + (var - kept) * count / (count - 1), new[f"{name}.running_var"]))
    return worst


def check_gradients(model, images):
    """In a training step every gradient is finite, and no kernel's is zero throughout."""
    variables = draw_variables(model)

    def objective(params):
        out, _ = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return (out["feature"] ** 2).sum()

    gradients = trees.flatten(jax.jit(jax.grad(objective))(variables["params"]))
    for name, value in gradients.items():
        assert np.isfinite(value).all(), name
        # A norm's bias that another norm takes away has none.
        assert not name.endswith("kernel") or np.abs(value).max() > 0, name


def check_dtypes(model):
    """In bfloat16 parameters and statistics stay float32, the map is bfloat16, the feature float32."""
    half = model.clone(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(_shapes(half))} == {jnp.dtype("float32")}
    out = _out_shapes(half)
    assert out["spatial"].dtype == jnp.bfloat16 and out["feature"].dtype == jnp.float32


def draw_variables(model, seed=0):
    """Variables of a backbone that keep signals' size, drawn by NumPy: initialising in XLA takes seconds to compile."""
    rng = np.random.default_rng(seed)

    def draw(name, leaf):
        if name.endswith("kernel"):
            return rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, name.endswith(("scale", "var")), np.float32)

    flat = {name: draw(name, leaf) for name, leaf in trees.flatten(_shapes(model)).items()}
    return trees.unflatten(flat)


def _shapes(model):
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def _out_shapes(model):
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    return jax.eval_shape(model.apply, _shapes(model), images)
