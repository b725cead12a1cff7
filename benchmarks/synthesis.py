"""Images a second of the synthesis at 256 px, by recipe and by operation, beside OpenCV doing the same recipe.

    python -m benchmarks.synthesis [--cores=1] [--batch_size=16] [--runs=7] [--recipes_only] [--out=FILE]

`--cores=1` holds the process to one core, OpenCV too; without it both have all. The alternative is
`benchmarks/opencv_sbi.py`, run in turn with ours in the same process. Memory is what XLA plans for temporaries.
"""

import argparse
import os

from msddf_jax import paths


def parse():
    """The command line; read before jax is imported, because the number of cores is fixed at its start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, help="hold the process to so many cores (default: all)")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--size", type=int, default=256, help="pixels of an image")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--recipes_only", action="store_true", help="leave the single operations out")
    parser.add_argument("--out", type=paths.expand, help="write the table as JSON")
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    return args


ARGS = parse() if __name__ == "__main__" else None

import cv2  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import opencv_sbi  # noqa: E402
from benchmarks.timing import medians, report  # noqa: E402
from msddf_jax.data import schema  # noqa: E402
from msddf_jax.synth import (  # noqa: E402
    blend,
    blender,
    color,
    degrade,
    face_xray,
    filters,
    geometry,
    masks,
    poisson,
    self_blend,
    sladd,
    twins,
)


def make_faces(batch_size, size):
    """Smooth images with grain and frontal landmarks: float32 [B, size, size, 3] in [0, 1], float32 [B, 81, 2]."""
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.random((batch_size, 16, 16, 3)), jnp.float32)
    image = jax.image.resize(coarse, (batch_size, size, size, 3), "cubic")
    image = jnp.clip(image + 0.03 * jnp.asarray(rng.normal(size=image.shape), jnp.float32), 0.0, 1.0)
    angle = np.linspace(0, 2 * np.pi, schema.NUM_LANDMARKS, endpoint=False)
    points = size * (0.5 + 0.33 * np.stack([np.cos(angle), np.sin(angle)], -1))
    # Where the regions look: eye corners, nose tip and mouth corners of a frontal face.
    spots = {36: (0.29, 0.42), 39: (0.41, 0.42), 42: (0.59, 0.42), 45: (0.71, 0.42)}
    spots |= {33: (0.5, 0.6), 48: (0.38, 0.74), 54: (0.62, 0.74)}
    for index, spot in spots.items():
        points[index] = size * np.array(spot)
    jitter = rng.normal(0, 1, (batch_size, schema.NUM_LANDMARKS, 2))
    return image, jnp.asarray(points[None] + jitter, jnp.float32)


def recipe_functions(image, landmarks):
    """{name: function of a key}: whole recipes, from a real batch to forgeries and their targets."""
    count = image.shape[0]
    identity = jnp.arange(count)
    rows = {"image": image, "landmarks": landmarks, "identity": identity}

    def msddf(key):
        twin_key, choice_key, blend_key = jax.random.split(key, 3)
        pair = twins.make_twins(twin_key, image, landmarks)
        choices = blender.uniform_choices(choice_key, count)
        return blender.blend_regions(blend_key, pair["target"], pair["source"], pair["landmarks"], *choices)

    def blend_only(kind):
        def run(key):
            region, drawn, magnitude = blender.uniform_choices(key, count)
            kinds = drawn if kind is None else jnp.full(count, schema.BLENDS.index(kind))
            return blender.blend_regions(key, image, image[::-1], landmarks, region, kinds, magnitude)

        return run

    def chen(key):
        reference = sladd.find_reference(key, rows)
        region, kind, magnitude = blender.uniform_choices(key, count)
        given = {"region": region, "blend_type": kind, "magnitude": magnitude}
        return sladd.blend_reference(key, image, landmarks, reference, **given)

    return {
        "self_blend": lambda key: self_blend.self_blend(key, image, landmarks),
        "msddf (twins + blender)": msddf,
        "blender": blend_only(None),
        "blender, alpha": blend_only("alpha"),
        "blender, poisson": blend_only("poisson"),
        "blender, dynamic": blend_only("dynamic"),
        "face_xray": lambda key: face_xray.face_xray(key, image, landmarks, identity),
        "sladd": chen,
    }


def operation_functions(image, landmarks):
    """{name: function of a key}: single operations on the batch."""
    count, size = image.shape[0], image.shape[1]
    hull = jax.jit(lambda p: filters.over_rows(lambda q: geometry.hull_mask(q, size, size), p))(landmarks)
    each = lambda fn: lambda key: geometry.map_samples(fn, key, hull)
    eye_distance = jnp.full(count, 0.3 * size)

    def recolor(mode):
        chosen = jnp.full(count, color.MODES.index(mode))
        return lambda key: color.transfer(chosen, image, image[::-1], hull[..., None], eye_distance)

    def elastic(key, mask):
        return geometry.displace(mask[None], *geometry.elastic_field(key, size, size))

    feather = lambda key, mask: blend.feather_weight(mask, jax.random.uniform(key))
    region = jnp.arange(count) % len(schema.REGIONS)
    regions = lambda key: filters.over_rows(lambda row: masks.region_masks(*row, size, size), (landmarks, region))
    return {
        "hull": lambda key: filters.over_rows(lambda p: geometry.hull_mask(p, size, size), landmarks),
        "region mask": regions,
        "deform 5x5": each(lambda key, mask: masks.deform(key, mask)),
        "elastic": each(elastic),
        "dynamic mask": each(lambda key, mask: masks.dynamic_mask(key, mask)),
        "feather": each(feather),
        **{f"colour {mode}": recolor(mode) for mode in color.MODES},
        "poisson": lambda key: poisson.blend(image, image[::-1], hull[..., None]),
        "twins": lambda key: twins.make_twins(key, image, landmarks),
        "jpeg": lambda key: degrade.jpeg(image, 75.0),
        "blur": lambda key: degrade.gaussian_blur(image, 7.0, 1.5),
        "augment": lambda key: degrade.augment(key, image),
    }


def planned_memory(compiled):
    """MiB of temporaries that XLA plans, or "-" where the backend does not say."""
    analysis = compiled.memory_analysis()
    return "-" if analysis is None else f"{analysis.temp_size_in_bytes / 2**20:.0f}"


def main(args):
    """Print the table."""
    if args.cores:
        cv2.setNumThreads(args.cores)
    image, landmarks = make_faces(args.batch_size, args.size)
    functions = recipe_functions(image, landmarks)
    if not args.recipes_only:
        functions |= operation_functions(image, landmarks)
    keys = iter(jax.random.split(jax.random.key(0), 10_000))
    compiled = {name: jax.jit(fn).lower(jax.random.key(0)).compile() for name, fn in functions.items()}
    timed = {name: lambda fn=fn: fn(next(keys)) for name, fn in compiled.items()}

    host_images = np.round(255 * np.asarray(image)).astype(np.uint8)
    host_points, rng = np.asarray(landmarks), np.random.default_rng(0)
    timed["self_blend in OpenCV"] = lambda: [
        opencv_sbi.self_blend(rng, *row) for row in zip(host_images, host_points, strict=True)
    ]
    times = medians(timed, runs=args.runs)
    beside = times["self_blend in OpenCV"]
    rows = []
    for name, seconds in times.items():
        per_image = seconds / args.batch_size
        memory = planned_memory(compiled[name]) if name in compiled else "-"
        rows.append([name, f"{1e3 * per_image:.2f}", f"{1 / per_image:.0f}", f"{beside / seconds:.2f}", memory])
    header = ["", "ms/image", "image/s", "x OpenCV self_blend", "temp MiB"]
    title = f"synthesis, {args.size} px, batch {args.batch_size}, {args.cores or os.cpu_count()} cores"
    report(title, header, rows, args.out)


if __name__ == "__main__":
    main(ARGS)
