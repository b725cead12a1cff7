"""What XLA makes of the synthesis, and of the L/14 train step, for an accelerator that is not here. Nothing is run.

    pip install -e '.[cuda13]' or '.[tpu]'   whichever the device belongs to; no GPU, TPU or driver is needed
    python -m benchmarks.compiled --device=h200 [--batch_size=64] [--rows=self_blend,step] [--top=5] [--out=FILE]
        [--attention=flash] [--remat_mlp]

XLA compiles for a described device (`jax.experimental.topologies`). From the compiled program come the kernels that are
launched, the bytes that they read and write (each operand once for each kernel, nothing kept in a cache between two),
loops whose length is not known beforehand (counted as one turn; before each of theirs a GPU asks the host), and the
memory planned for temporaries; from the program before it, the FLOPs. "least ms" is bytes over the device's bandwidth
or FLOPs over its peak, whichever is longer: a bound that no run is faster than unless caches help, and no timing.
Of a kernel of cuDNN, its operands count once each; the workspace that it asks for on a device is not known here.
Nothing is autotuned, for there is nothing to try it on. Synthesis runs in float32 at full precision, the ViT in
bfloat16, as configs/msddf.py has it.

Rows: the recipes of benchmarks/synthesis.py at 256 px (not the blender by type: side by side, every sample pays for
every type); "synthesis", "augmentation" and "step" of configs/msddf.py, a batch of `batch_size` host rows; "H.264",
"resizes" and "two JPEGs", what `augment.h264_prob`, `resize_chain_prob` and `double_jpeg_prob` each add to its
augmentation. All of these also over the step: over its least time, and over the time that its FLOPs alone would take.
Both sides are least times, so this is an estimate of the share and no bound on it.
"""

import argparse
import contextlib
import os
import re
import sys
from typing import NamedTuple
from unittest import mock

from msddf_jax import paths

# Data sheets: memory bandwidth in byte/s; peak FLOP/s in float32 (on a TPU six passes in bfloat16) and in bfloat16.
DEVICES = {
    "h100": ("cuda", 3.35e12, 67e12, 989e12),
    "h200": ("cuda", 4.8e12, 67e12, 989e12),
    "v5e": ("tpu", 0.819e12, 197e12 / 6, 197e12),
    "v6e": ("tpu", 1.64e12, 918e12 / 6, 918e12),
}
TPU_TOPOLOGY = {"v5e": "v5e:2x2x1", "v6e": "v6e:2x2x1"}
# What XLA's GPU compiler asks about a device (xla/stream_executor/device_description.proto), of an H100 or H200 SXM.
GPU_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98  l2_cache_size: 52428800
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth}  device_memory_size: 80000000000
  cuda_compute_capability {{ major: 9 minor: 0 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{name}"
"""
# Instructions that launch nothing.
FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "iota", "partition-id", "after-all")
FREE += ("opt-barrier", "async-done", "copy-done", "slice-done")
BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "s64": 8}
# What recompresses in the augmentation; each row by its setting.
RECODED = {"H.264": "h264_prob", "resizes": "resize_chain_prob", "two JPEGs": "double_jpeg_prob"}


class Plan(NamedTuple):
    """kernels launched; bytes moved; loops of unknown length, where from; costly [(bytes, times, what, where from)]."""

    kernels: int
    moved: int
    loops: list
    costly: list


def shape_bytes(text):
    """Bytes of an HLO shape as text, tuples too."""
    sizes = (BYTES[kind] * product_of(sides) for kind, sides in re.findall(r"(\w+)\[([\d,]*)\]", text) if kind in BYTES)
    return sum(sizes)


def product_of(sides):
    """Product of "2,3,4"; 1 for the empty text of a scalar."""
    product = 1
    for side in filter(None, sides.split(",")):
        product *= int(side)
    return product


def read_plan(text):
    """`Plan` of an optimised HLO module as text.

    A loop counts as often as it is known to turn, one of unknown length once.
    """
    bodies, entry, current = {}, None, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if head:
            current = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("  ") and current is not None:
            current.append(line.strip())
    if entry is None:
        raise ValueError(f"no ENTRY computation in the compiled program: {text[:200]!r}")
    costly, loops = [], []

    def source(line):
        found = re.search(r'op_name="([^"]*)"', line)
        return found[1][-70:] if found else "no op_name"

    def walk(name, times):
        size = {}
        for line in bodies[name]:
            found = re.match(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line)
            if not found:
                continue
            instruction, shape, kind, rest = found.groups()
            size[instruction] = shape_bytes(shape)
            if kind in FREE:
                continue
            if kind in ("while", "call"):
                body = re.search(r"(?:body|to_apply)=%?([\w.\-]+)", rest)[1]
                turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
                if kind == "while" and turns is None:
                    loops.append(source(line))
                walk(body, times * (int(turns[1]) if turns else 1))
                continue
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            moved = size[instruction] + sum(size.get(operand, 0) for operand in operands)
            costly.append((moved * times, times, f"{kind} {shape[:48]}", source(line)))

    walk(entry, 1)
    return Plan(sum(row[1] for row in costly), sum(row[0] for row in costly), loops, sorted(costly, reverse=True))


def parse():
    """The command line; read before jax is imported, since the compiler's flags are fixed at its start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True, choices=DEVICES)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rows", help="names, comma separated (default: all)")
    parser.add_argument("--top", type=int, default=0, help="also print so many of each row's kernels, by bytes")
    parser.add_argument("--out", type=paths.expand, help="write the table as JSON")
    parser.add_argument("--attention", default="auto", choices=("auto", "flash"), help="of the step's model")
    parser.add_argument(
        "--remat_mlp", action="store_true", help="of the step's model: computed again in the backward pass"
    )
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if DEVICES[args.device][0] == "cuda":
        # Without a device nothing can be tried out, and Triton's products are chosen by trying.
        flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    else:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    return args


def describe_device(name):
    """The described device as a jax device.

    Raises:
      SystemExit: the packages that compile for it are not installed.
    """
    import jax
    from jax.experimental import topologies

    platform, bandwidth, *_ = DEVICES[name]
    jax.devices()  # finds the plug-ins
    try:
        if platform == "tpu":
            topology = topologies.get_topology_desc(platform="tpu", topology_name=TPU_TOPOLOGY[name])
        else:
            text = GPU_DESCRIPTION.format(bandwidth=int(bandwidth), name=f"NVIDIA {name.upper()}")
            topology = topologies.get_topology_desc(
                platform="cuda", topology_name="1x1x1", topology="1x1x1", target_config=text
            )
    except (RuntimeError, ImportError, ValueError) as error:
        sys.exit(f"no compiler for {name}: {str(error).splitlines()[0]}. pip install -e '.[{platform}]'")
    return topology.devices[0]


def synthesis_programs(batch_size):
    """{row: (function, inputs)} of the recipes; images are those that the recipe makes."""
    import jax

    from benchmarks import synthesis

    image, landmarks = jax.eval_shape(lambda: synthesis.make_faces(batch_size, 256))

    def program(name):
        return lambda key, image, landmarks: synthesis.recipe_functions(image, landmarks)[name](key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    names = [name for name in synthesis.recipe_functions(image, landmarks) if not name.startswith("blender, ")]
    return {name: (program(name), (key, image, landmarks)) for name in names}


def step_programs(batch_size, fields):
    """{row: (function, inputs)} of the full-size train step and its parts, and how many rows the detector sees.

    fields: of config.model.
    """
    import jax

    from benchmarks import train_step as bench
    from msddf_jax.synth import recode as recoding
    from msddf_jax.train_step import init_state, make_train_step

    config = bench.make_config("L/14", batch_size, "bfloat16", **fields)
    batch = jax.eval_shape(lambda: bench.make_batch(config))
    state = jax.eval_shape(lambda: init_state(config))
    parts = bench.parts(config)
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.eval_shape(parts["synthesis"], state, key, batch)
    recoded = lambda setting: lambda key, image: recoding.recode(key, image, **{setting: 0.5})
    programs = {
        "synthesis": (parts["synthesis"], (state, key, batch)),
        "augmentation": (parts["augmentation"], (key, made)),
        **{name: (recoded(setting), (key, made["image"])) for name, setting in RECODED.items()},
        "step": (make_train_step(config), (state, (batch,))),
    }
    return programs, made["label"].shape[0]


@contextlib.contextmanager
def tracing_for(platform):
    """Programs are traced as on a host that has devices of a platform, "cuda" or "tpu"; a GPU is one of Hopper's."""
    import jax
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    with contextlib.ExitStack() as stack:
        replace = lambda *where, **what: stack.enter_context(mock.patch.object(*where, **what))
        # Rows of a batch are run side by side on everything but a CPU, which is all that jax knows of here.
        replace(jax, "default_backend", return_value="gpu" if platform == "cuda" else platform)
        # What jax asks of the GPU itself before it calls cuDNN's attention.
        replace(cudnn, "check_cudnn_version", return_value=90800)
        replace(cudnn, "check_compute_capability", return_value=True)
        replace(cudnn, "is_cuda_compute_capability_equal", return_value=False)
        yield


def compile_for(device, function, inputs):
    """(`Plan`, FLOPs, bytes of temporaries) of a function on a described device."""
    import jax

    there = jax.sharding.SingleDeviceSharding(device)
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), inputs)
    lowered = jax.jit(function).trace(*placed).lower()
    compiled = lowered.compile()
    flops = jax.jit(function).lower(*inputs).cost_analysis()["flops"]
    return read_plan(compiled.as_text()), flops, compiled.memory_analysis().temp_size_in_bytes


def main(args):
    """Print the table."""
    from benchmarks.timing import report

    device = describe_device(args.device)
    _, bandwidth, float32, bfloat16 = DEVICES[args.device]
    fields = {"attention": args.attention, "remat_mlp": args.remat_mlp}
    with tracing_for(DEVICES[args.device][0]):
        programs = synthesis_programs(args.batch_size)
        parts, detector_rows = step_programs(args.batch_size, fields)
        images = {**dict.fromkeys(programs, args.batch_size), **dict.fromkeys(parts, detector_rows)}
        programs |= parts
        wanted = args.rows.split(",") if args.rows else list(programs)
        unknown = sorted(set(wanted) - set(programs))
        if unknown:
            sys.exit(f"--rows names {unknown}, allowed: {', '.join(programs)}")
        rows, least, computing = [], {}, {}
        for name in wanted:
            plan, flops, memory = compile_for(device, *programs[name])
            computing[name] = flops / (bfloat16 if name == "step" else float32)
            least[name] = max(plan.moved / bandwidth, computing[name])
            count = images[name]
            cells = [plan.kernels, len(plan.loops), f"{plan.moved / count / 1e6:.0f}", f"{flops / count / 1e9:.2f}"]
            cells += [f"{memory / 2**20:.0f}", f"{1e3 * least[name]:.2f}", f"{count / least[name]:.0f}"]
            rows.append([name, count, *cells])
            for source in plan.loops:
                print(f"  {name}: a loop of unknown length from {source}", flush=True)
            for moved, times, what, source in plan.costly[: args.top]:
                print(f"  {name}: {moved / 1e6:8.1f} MB  x{times}  {what}  {source}", flush=True)
    header = ["", "images", "kernels", "unknown loops", "MB/image", "GFLOP/image", "temp MiB", "least ms", "image/s <="]
    report(f"compiled for {args.device}, not run; batch {args.batch_size}", header, rows, args.out)
    if "step" in least:
        for title, chosen in {
            "synthesis and augmentation": ("synthesis", "augmentation"),
            **{name: (name,) for name in RECODED},
        }.items():
            if set(chosen) <= set(least):
                shares = [f"{100 * sum(least[n] for n in chosen) / of['step']:.1f} %" for of in (least, computing)]
                print("{}: {} of the step's least time, {} of its FLOPs at peak".format(title, *shares))


if __name__ == "__main__":
    main(parse())
