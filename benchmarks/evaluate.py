"""Evaluation: images a second beside bare inference on the same batches, and memory over many frames, in one run.

    python -m benchmarks.evaluate [--frames=100000] [--runs=5] [--out=FILE]

bare: jitted inference over the batches, each put on the device, the last one waited for. loop:
`evaluators.detection.collect_scores` over the same batches, so with scores fetched, checked and kept with their videos'
names. pipeline: `evaluate.score_set`, with records from memory through grain's threads; where the device is the CPU,
those threads take time from inference itself. The model is a small ViT from random weights; decoding is not part of
this (benchmarks/input.py). Then one pass of the loop over `--frames` frames: host memory (RSS) after a tenth of them,
half and all (the allocator may take a step once), what building the result adds, and the bytes of the rows kept.
"""

import argparse

import jax
import ml_collections
import numpy as np
import psutil

from benchmarks.timing import medians, report
from msddf_jax import evaluate, paths, sharding
from msddf_jax.data import methods, schema
from msddf_jax.detector import to_device_images
from msddf_jax.detectors import baseline
from msddf_jax.evaluators import detection

VARIANT, FRAMES_OF_A_VIDEO = "Mu/8", 32


def make_predict(size, variant):
    """(jitted predict, variables) of a ViT with random weights."""
    model = baseline.Model(variant, size)
    variables = model.init(jax.random.key(0), {"image": np.zeros((1, size, size, 3), np.float32)}, train=False)

    @jax.jit
    def predict(variables, batch):
        out = model.apply(variables, to_device_images({"image": batch["image"]}), train=False)
        return {"score": jax.nn.sigmoid(out["logit"])}

    return predict, variables


def make_record(index, images):
    """One decoded record, as `data.source.Source` gives it; every second video is a fake."""
    video, frame = divmod(index, FRAMES_OF_A_VIDEO)
    fake = video % 2
    size = images.shape[1]
    return {
        "image": images[index % len(images)],
        "mask": np.zeros((size, size, 1), np.uint8),
        "has_mask": np.bool_(False),
        "landmarks": np.zeros((schema.NUM_LANDMARKS, 2), np.float32),
        "has_landmarks": np.bool_(False),
        "label": np.int32(fake),
        "method": np.int32(methods.METHODS.index("deepfakes") if fake else methods.METHODS.index("real")),
        "attributes": np.zeros(len(schema.ATTRIBUTES), np.uint8),
        "has_attributes": np.zeros(len(schema.ATTRIBUTES), bool),
        "identity": np.int32(-1),
        "donor": np.int32(-1),
        "domain": np.int32(0),
        "group": np.int32(-1),
        "_mask": np.bool_(True),
        **dict.fromkeys(schema.HOST_FIELDS, ""),
        "dataset": "faceforensics",
        "compression": "c23",
        "video_id": f"{video:06d}",
        "frame_index": np.int32(frame),
    }


class MemorySource:
    """A source whose records are in memory: what `pipeline.eval_batches` asks of one."""

    def __init__(self, count, images):
        self.name, self._count, self._images = "memory", count, images
        self.image_size, self.clip_length = images.shape[1:3], 0

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return make_record(int(index), self._images)


def make_batches(count, batch_size, images):
    """`count` frames as host batches, made one after the other."""
    template = {}
    for start in range(0, count, batch_size):
        rows = [make_record(i, images) for i in range(start, start + batch_size)]
        if not template:
            template = {name: np.stack([row[name] for row in rows]) for name in schema.DEVICE_FIELDS}
        batch = {name: np.array([row[name] for row in rows]) for name in ("label", "method", "frame_index")}
        batch |= {
            name: np.array([row[name] for row in rows], object) for name in ("dataset", "compression", "video_id")
        }
        yield {**template, **batch, "_mask": np.arange(start, start + batch_size) < count}


def throughput(args, images, predict, variables, mesh):
    """Rows of the first table."""
    batches = list(make_batches(args.timed, args.batch_size, images))
    put = lambda batch: sharding.put_batch({"image": schema.device_batch(batch)["image"]}, mesh)
    config = ml_collections.ConfigDict(
        {"data": {"eval_batch_size": args.batch_size, "image_size": args.size, "num_threads": args.threads}}
    )

    def bare():
        for batch in batches:
            out = predict(variables, put(batch))
        return out

    functions = {
        "bare": bare,
        "loop": lambda: detection.collect_scores(predict, variables, batches, put)["score"],
        "pipeline": lambda: evaluate.score_set(
            config, predict, variables, "memory", MemorySource(args.timed, images), mesh
        )["score"],
    }
    times = medians(functions, runs=args.runs)
    return [[n, args.timed, f"{args.timed / t:,.0f}", f"{times['bare'] / t:.3f}"] for n, t in times.items()]


def memory(args, images, predict, variables, mesh):
    """Row of the second table, MiB: RSS at a tenth, half and the end of the pass, growth, and what is kept."""
    process, marks = psutil.Process(), []
    put = lambda batch: sharding.put_batch({"image": schema.device_batch(batch)["image"]}, mesh)
    total = -(-args.frames // args.batch_size)

    def watched():
        for i, batch in enumerate(make_batches(args.frames, args.batch_size, images)):
            if i in (total // 10, total // 2, total - 1):
                marks.append(process.memory_info().rss / 2**20)
            yield batch

    scores = detection.collect_scores(predict, variables, watched(), put)
    after = process.memory_info().rss / 2**20
    kept = sum(values.nbytes for values in scores.values()) / 2**20
    row = [f"{args.frames:,}", *(f"{m:.0f}" for m in marks), f"{marks[2] - marks[1]:.1f}"]
    return [*row, f"{after - marks[2]:.1f}", f"{kept:.1f}"]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--timed", type=int, default=8192, help="frames of one timed pass")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--size", type=int, default=32, help="of the images, pixels")
    parser.add_argument("--variant", default=VARIANT)
    parser.add_argument("--threads", type=int, default=2, help="of the pipeline")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=paths.expand, help="write the tables as JSON, FILE.memory beside FILE")
    args = parser.parse_args()
    args.timed -= args.timed % args.batch_size
    images = np.random.default_rng(0).integers(0, 256, (args.batch_size, args.size, args.size, 3), np.uint8)
    mesh = sharding.make_mesh({"data": -1})
    with jax.set_mesh(mesh):
        predict, variables = make_predict(args.size, args.variant)
        variables = jax.device_put(variables, sharding.replicated(mesh))
        rows = throughput(args, images, predict, variables, mesh)
        header = ["what", "images", "img/s", "share of bare"]
        report(f"evaluate, ViT {args.variant} at {args.size} px", header, rows, args.out)
        row = memory(args, images, predict, variables, mesh)
    header = ["frames", "RSS at a tenth", "half", "end", "second half", "result", "kept rows"]
    report("host memory of one pass, MiB", header, [row], args.out and f"{args.out}.memory")


if __name__ == "__main__":
    main()
