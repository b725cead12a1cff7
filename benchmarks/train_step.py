"""The train step: images a second, model FLOP/s and the share of each part; beside torch's CLIP where installed.

    python -m benchmarks.train_step [--variants=Ti/16,B/16,L/14] [--batch_size=8] [--runs=5] [--torch] [--out=FILE]
        [--attention=flash] [--remat_mlp]

"step" is the whole train step on detector rows (synthesis, augmentation, forward, backward, update); the parts are
timed as functions of their own, so their sum is near and not equal to the step. FLOP/s are those of the ViT alone
(multiply-adds count two; forward plus what LN-tuning's backward needs), over the time of forward and backward.
`--torch` runs transformers' CLIPVisionModel of the same size, float32 with sdpa attention, forward and backward to the
LayerNorms alone as here, in turn with ours. `--attention=flash` (bfloat16, an NVIDIA GPU) and `--remat_mlp` are fields
of the model in all tables, and add one: the step with them and the step as configs/msddf.py has it, in turn, and
whether the two compute the same.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import medians, report, turns
from configs import msddf as msddf_config
from msddf_jax import detector, hooks, optim, paths, trees
from msddf_jax.data import schema
from msddf_jax.models import attention, clip
from msddf_jax.synth import compose
from msddf_jax.train_step import init_state, make_cast, make_train_step


def make_config(variant, batch_size, dtype, **fields):
    """configs/msddf.py at another size of ViT; `batch_size` host rows; fields: of config.model."""
    config = msddf_config.get_config().unlock()
    config.model.variant = variant
    config.data.batch_size = batch_size
    config.dtype = dtype
    config.init.backbone = "random"
    config.model.update(fields)
    return config


def make_batch(config):
    """A host batch of noise with plausible landmarks, as the pipeline lays it out."""
    rng = np.random.default_rng(0)
    rows, size = config.data.batch_size, config.data.image_size
    angle = np.linspace(0, 2 * np.pi, schema.NUM_LANDMARKS, endpoint=False)
    face = size / 2 + size / 4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    group = schema.make_group(config.data.group)
    label = np.tile([0] * group.real + [1] * group.fakes, rows // group.rows)
    return {
        "image": rng.integers(0, 256, (rows, size, size, 3), np.uint8),
        "mask": np.zeros((rows, size, size, 1), np.uint8),
        "has_mask": np.ones(rows, bool),
        "landmarks": (face + rng.normal(size=(rows, schema.NUM_LANDMARKS, 2))).astype(np.float32),
        "has_landmarks": np.ones(rows, bool),
        "label": label.astype(np.int32),
        "method": label.astype(np.int32),
        "identity": np.zeros(rows, np.int32),
        "donor": np.zeros(rows, np.int32),
        "domain": np.zeros(rows, np.int32),
        "attributes": np.zeros((rows, len(schema.ATTRIBUTES)), np.uint8),
        "has_attributes": np.zeros((rows, len(schema.ATTRIBUTES)), bool),
        "group": np.arange(rows, dtype=np.int32) // group.rows,
        "_mask": np.ones(rows, bool),
    }


def vit_flops(variant, image_size, rows):
    """Multiply-adds x 2 of the ViT's matrix products, forward, for `rows` images."""
    size = clip.VARIANTS[variant]
    tokens = (image_size // size.patch) ** 2 + 1
    block = 12 * size.width**2 * tokens + 2 * tokens**2 * size.width
    patches = 3 * size.patch**2 * size.width * (tokens - 1)
    return 2.0 * rows * (size.depth * block + patches)


def make_context(config, cast, state, fixed=None):
    """The context of a hook half-way through training; fixed: {frozen player: variables}."""
    fixed = fixed or {}
    players = {name: tree for name, tree in state.params.items() if name in state.model_state}
    variables = {name: {"params": tree, **state.model_state[name]} for name, tree in players.items()}
    step = jnp.int32(config.steps // 2)
    return hooks.Context(config, cast.modules, {**variables, **fixed}, step=step, key=state.key, frozen=tuple(fixed))


def parts(config):
    """{part: function} of a step: "rows" and "synthesis" of (state, key, batch), "augmentation" of (key, rows).

    "synthesis" are the rows without augmentation, at their own size.
    """
    cast, plain = make_cast(config), config.copy_and_resolve_references()
    with plain.unlocked():
        steps = ("blur", "downscale", "noise", "tone", "jpeg", "resize_chain", "h264", "double_jpeg")
        plain.augment.update({f"{name}_prob": 0.0 for name in steps})
        plain.augment.image_size = config.data.image_size

    def rows_of(chosen):
        images = detector.to_device_images
        return lambda state, key, batch: cast.hooks.make_rows(key, images(batch), make_context(chosen, cast, state))

    augment = lambda key, rows: compose.augment(key, rows, **config.augment)
    return {"rows": rows_of(config), "synthesis": rows_of(plain), "augmentation": augment}


def measure(variant, batch_size, dtype, runs, fields):
    """One row of the table."""
    config = make_config(variant, batch_size, dtype, **fields)
    cast = make_cast(config)
    state = jax.jit(lambda: init_state(config))()
    batch = jax.device_put(make_batch(config))
    key, made_of = jax.random.key(0), parts(config)
    synthesis, augment = jax.jit(made_of["synthesis"]), jax.jit(made_of["augmentation"])
    made = synthesis(state, key, batch)
    ready = jax.jit(made_of["rows"])(state, key, batch)
    trained = optim.trainable_names(state.params, cast.groups)
    model = cast.modules["detector"]

    def loss(trainable, frozen, b):
        params = trees.merge(trainable, jax.lax.stop_gradient(frozen))
        out = model.apply({"params": params["detector"]}, b, train=True, rngs={"dropout": key})
        return sum(jnp.sum(v * m) for v, m in cast.hooks.losses(out, b, make_context(config, cast, state)).values())

    trainable, frozen = trees.split(state.params, trained)
    forward = jax.jit(lambda b: loss(trainable, frozen, b))
    both = jax.jit(lambda b: jax.grad(loss)(trainable, frozen, b))
    step = jax.jit(make_train_step(config))
    times = medians(
        {
            "synth": lambda: synthesis(state, key, batch),
            "augment": lambda: augment(key, made),
            "forward": lambda: forward(ready),
            "both": lambda: both(ready),
            "step": lambda: step(state, (batch,)),
        },
        runs=runs,
    )
    rows = int(made["label"].shape[0])
    # Backward of LN-tuning: gradients of activations and none of the frozen weights, so as much again as forward.
    flops = 2.0 * vit_flops(variant, config.model.image_size, rows)
    share = lambda name: f"{100 * times[name] / times['step']:.0f} %"
    return [
        variant,
        rows,
        f"{times['step']:.3f}",
        f"{rows / times['step']:.1f}",
        f"{flops / times['both'] / 1e9:.0f}",
        share("synth"),
        share("augment"),
        share("forward"),
        f"{100 * (times['both'] - times['forward']) / times['step']:.0f} %",
    ]


def measure_fields(variant, batch_size, dtype, runs, fields):
    """[variant, seconds of a step as it is, seconds with fields of the model, median of their ratio, losses' ratio]."""
    config = make_config(variant, batch_size, dtype)
    state, batch = jax.jit(lambda: init_state(config))(), jax.device_put(make_batch(config))
    run = lambda config: functools.partial(jax.jit(make_train_step(config)), state, (batch,))
    steps = {"as it is": run(config), "with": run(make_config(variant, batch_size, dtype, **fields))}
    losses = {name: float(step()[1]["loss"]) for name, step in steps.items()}
    times = turns(steps, runs=runs)
    seconds = [f"{np.median(times[name]):.4f}" for name in steps]
    ratio = np.median(times["as it is"] / times["with"])
    return [variant, *seconds, f"{ratio:.2f}", f"{losses['with'] / losses['as it is']:.4f}"]


def measure_torch(variant, rows, runs):
    """[variant, our seconds, torch's seconds, torch / ours] for the ViT alone, forward and LN-only backward."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    size = clip.VARIANTS[variant]
    settings = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        image_size=224,
        patch_size=size.patch,
        attn_implementation="sdpa",
    )
    theirs = CLIPVisionModel(settings)
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad = "norm" in name
    images = np.random.default_rng(0).random((rows, 224, 224, 3), np.float32)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())

    def run_torch():
        theirs.zero_grad(set_to_none=True)
        theirs(pixel_values=pixels).pooler_output.square().sum().backward()

    ours = clip.VisionTransformer(variant, 224)
    params = jax.jit(lambda: ours.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))()["params"]
    groups = ((r"(.*/)?ln_[^/]+/.*", {}), (".*", None))
    trained = {name: value is not None for name, value in trees.match(trees.flatten(params), groups).items()}
    trainable, frozen = trees.split(params, trained)

    def loss(trainable, x):
        return jnp.sum(ours.apply({"params": trees.merge(trainable, frozen)}, x)["cls"] ** 2)

    gradient = jax.jit(jax.grad(loss))
    x = jnp.asarray(images)
    times = medians({"ours": lambda: gradient(trainable, x), "torch": run_torch}, runs=runs)
    return [variant, rows, f"{times['ours']:.3f}", f"{times['torch']:.3f}", f"{times['torch'] / times['ours']:.2f}"]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default="Ti/16,B/16,L/14")
    parser.add_argument("--batch_size", type=int, default=4, help="host rows; the detector sees twice as many")
    parser.add_argument("--dtype", default="float32" if jax.default_backend() == "cpu" else "bfloat16")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--attention", default="auto", choices=attention.KINDS)
    parser.add_argument("--remat_mlp", action="store_true", help="the MLPs are computed again in the backward pass")
    parser.add_argument("--torch", action="store_true", help="also time transformers' CLIP (needs the [torch] extra)")
    parser.add_argument("--torch_rows", type=int, default=8, help="images of the comparison with torch")
    parser.add_argument("--out", type=paths.expand, help="write the first table as JSON")
    args = parser.parse_args()
    variants, rows = args.variants.split(","), []
    fields = {"attention": args.attention, "remat_mlp": args.remat_mlp}
    for variant in variants:
        rows.append(measure(variant, args.batch_size, args.dtype, args.runs, fields))
        # A large ViT takes long on a CPU: what is there is said at once.
        print(*rows[-1], flush=True)
    header = ["ViT", "rows", "step s", "img/s", "GFLOP/s", "synth", "augment", "forward", "backward"]
    report(f"train step, {args.dtype}", header, rows, args.out)
    if fields != {"attention": "auto", "remat_mlp": False}:
        rows = [measure_fields(v, args.batch_size, args.dtype, args.runs, fields) for v in variants]
        report(f"the step with {fields}", ["ViT", "as it is s", "with s", "as it is/with", "loss/loss"], rows)
    if args.torch:
        rows = [measure_torch(v, args.torch_rows, args.runs) for v in variants]
        report("ViT alone, forward and LN-only backward", ["ViT", "rows", "ours s", "torch s", "torch/ours"], rows)


if __name__ == "__main__":
    main()
