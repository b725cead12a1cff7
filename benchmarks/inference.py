"""Predict: images a second of two published detectors, ours beside PyTorch's with the same weights, in the same run.

    python -m benchmarks.inference [--models=gend,xception] [--batch_size=8] [--runs=9] [--out=FILE]

gend: CLIP ViT-L/14 at 224 px with GenD's head, beside transformers' CLIPVisionModel (sdpa attention).
xception: at 256 px, beside timm's legacy_xception. Weights are drawn once and read by both; scores are compared before
anything is timed. Both sides start from uint8 images, normalise, and end with P(fake). On a CPU there are rows without
what is done for CPUs alone (`models.attention`, `msddf_jax.cpu`), in turn with the others. The first row is a bare
matrix product, of which a ViT is made. On an accelerator ours runs in bfloat16 by default; torch runs on the CPU where
it has no CUDA. Needs the [torch] extra.
"""

import argparse
import functools
import os
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import medians, report, turns
from msddf_jax import cpu, paths, trees
from msddf_jax.detector import to_device_images
from msddf_jax.detectors import baseline
from msddf_jax.models import attention, clip
from msddf_jax.weights import table
from msddf_jax.weights.names import cnn_names, gend_names
from tests import torch_reference


def draw(model, image_size, head=1.0, seed=0):
    """Variables of a model from NumPy, small enough that activations stay in range; variances near one.

    head: factor on the classifier, such that scores differ from picture to picture: equal ones would compare nothing.
    """
    image = {"image": jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)}
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    rng = np.random.default_rng(seed)
    flat = {}
    for name, leaf in trees.flatten(shapes).items():
        one = name.endswith(("/scale", "/var"))
        fan = int(np.prod(leaf.shape[:-1])) or 1
        noise = rng.normal(size=leaf.shape) * (0.02 if one or len(leaf.shape) < 2 else fan**-0.5)
        noise = noise * head if name == "params/binary_head/out/kernel" else noise
        flat[name] = np.asarray(one + noise, np.float32)
    return flat


def torch_gend(theirs, variant):
    """GenD as a torch function from pixels [B, 3, H, W] in [0, 1] to P(fake)."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    size = clip.VARIANTS[variant]
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=size.width,
            intermediate_size=4 * size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            image_size=224,
            patch_size=size.patch,
            attn_implementation="sdpa",
        )
    ).eval()
    prefix = "feature_extractor."
    state = {n.removeprefix(prefix): torch.from_numpy(v) for n, v in theirs.items() if n.startswith(prefix)}
    own = set(tower.state_dict())
    if not own & set(state):
        # transformers 5 names the tower without "vision_model.".
        state = {name.removeprefix("vision_model."): value for name, value in state.items()}
    tower.load_state_dict(state)
    weight, bias = (torch.from_numpy(theirs[f"model.linear.{leaf}"]) for leaf in ("weight", "bias"))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (clip.PIXEL_MEAN, clip.PIXEL_STD))

    def run(pixels):
        feature = tower(pixel_values=(pixels - mean) / std).pooler_output
        feature = torch.nn.functional.normalize(feature, dim=-1)
        return torch.softmax(feature @ weight.T + bias, -1)[:, 1]

    return run


def torch_xception(theirs):
    """DeepfakeBench's Xception as a torch function from pixels in [0, 1] to P(fake)."""
    import timm
    import torch

    network = timm.create_model("legacy_xception", num_classes=2).eval()
    renamed = {n.removeprefix("backbone.").replace("last_linear", "fc"): v for n, v in theirs.items()}
    missing = network.load_state_dict({n: torch.from_numpy(v) for n, v in renamed.items()}, strict=False)
    left = [name for name in missing.missing_keys if not name.endswith("num_batches_tracked")]
    if left or missing.unexpected_keys:
        raise ValueError(f"timm's Xception misses {left} and does not know {missing.unexpected_keys}")
    return lambda pixels: torch.softmax(network((pixels - 0.5) / 0.5), -1)[:, 1]


def build(name, dtype):
    """(image size, model, variables, torch's function) of a detector."""
    if name == "gend":
        size, entries = 224, gend_names.gend("gend/clip", "L/14")
        model = baseline.Model("L/14", size, normalize=True, dtype=dtype)
    else:
        source, size = cnn_names.SOURCES["xception/deepfakebench"], 256
        entries = source.table("xception")
        options = dict(source.fields)
        model = baseline.Model("xception", size, family="xception", normalize=False, options=options, dtype=dtype)
    # GenD's head sees a unit vector.
    flat = draw(model, size, head=30.0 if name == "gend" else 1.0)
    theirs = table.to_theirs(flat, entries)
    reference = torch_gend(theirs, "L/14") if name == "gend" else torch_xception(theirs)
    return size, model, jax.device_put(trees.unflatten(flat)), reference


def predictors(name, model, variables, images):
    """{row: compiled function of no arguments that gives P(fake) of the images}; as `predict` runs it, then without."""

    def predict(variables, images):
        out = model.apply(variables, to_device_images({"image": images}), train=False)
        return jax.nn.sigmoid(out["logit"].astype(jnp.float32))

    # A function of its own each: jit keeps what was traced by the function.
    compiled = lambda **options: jax.jit(lambda *inputs: predict(*inputs), **options).lower(variables, images).compile()
    programs = {name: compiled(compiler_options=cpu.scoring_options())}
    if jax.default_backend() == "cpu":
        programs[f"{name}, all by YNNPACK"] = compiled()
        if name == "gend":
            with mock.patch.object(attention, "_TOKENS_AT_ONCE", 10**9):
                programs[f"{name}, all heads at once"] = compiled(compiler_options=cpu.scoring_options())
    return {row: functools.partial(program, variables, images) for row, program in programs.items()}


def measure(name, batch_size, dtype, runs):
    """Rows: [detector, images, our img/s, torch's, ours / torch's, its quartiles, largest difference of scores]."""
    import torch

    size, model, variables, reference = build(name, dtype)
    images = np.random.default_rng(1).integers(0, 256, (batch_size, size, size, 3), np.uint8)

    def run_torch():
        with torch.inference_mode():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return reference(pixels).numpy()

    ours = predictors(name, model, variables, images)
    scores = run_torch()
    gaps = {row: float(np.abs(np.asarray(function()) - scores).max()) for row, function in ours.items()}
    seconds = turns({**ours, "torch": run_torch}, runs=runs)
    rate = {row: batch_size / np.median(values) for row, values in seconds.items()}
    rows = []
    for row in ours:
        low, ratio, high = np.quantile(seconds["torch"] / seconds[row], [0.25, 0.5, 0.75])
        cells = [f"{rate[row]:.2f}", f"{rate['torch']:.2f}", f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]
        rows.append([row, batch_size, *cells, f"{gaps[row]:.1e}"])
    return rows


def measure_matmul(dtype, runs, shape=(1028, 1024, 4096)):
    """A row for the bare matrix product of the ViT's MLP at four images: what either library has to work with."""
    import torch

    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s, np.float32) for s in ((m, k), (k, n)))
    ours = [jnp.asarray(x, dtype) for x in (a, b)]
    theirs = [torch.from_numpy(x) for x in (a, b)]
    product = jax.jit(jnp.matmul, compiler_options=cpu.scoring_options())
    with torch.inference_mode():
        gap = float(np.abs(np.asarray(product(*ours), np.float32) - torch.matmul(*theirs).numpy()).max())
        times = medians({"ours": lambda: product(*ours), "torch": lambda: torch.matmul(*theirs).numpy()}, runs=4 * runs)
    speeds = [2e-9 * m * k * n / times[name] for name in ("ours", "torch")]
    cells = [f"{speeds[0]:.0f} GFLOP/s", f"{speeds[1]:.0f} GFLOP/s", f"{speeds[0] / speeds[1]:.2f}", "-", f"{gap:.1e}"]
    return [f"matrix product {m} x {k} x {n}", "-", *cells]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="gend,xception")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", default="float32" if jax.default_backend() == "cpu" else "bfloat16")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=None, help="of torch; its own choice by default")
    parser.add_argument("--out", type=paths.expand, help="write the table as JSON")
    args = parser.parse_args()
    torch_reference.prepare()
    import torch

    torch.set_num_threads(args.threads or os.cpu_count())
    rows = [measure_matmul(jnp.dtype(args.dtype), args.runs)]
    for name in args.models.split(","):
        rows += measure(name, args.batch_size, jnp.dtype(args.dtype), args.runs)
    header = ["detector", "images", "ours img/s", "torch img/s", "ours/torch", "quartiles", "largest difference"]
    report(f"predict, {args.dtype}", header, rows, args.out)


if __name__ == "__main__":
    main()
