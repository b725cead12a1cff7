"""What a network sees of the forgeries that a config makes: the change of each type, and a contact sheet to look at.

    python -m benchmarks.visibility --config configs/msddf.py --data_dir real/ffpp_crops/tfds --set sjedd/list:train \\
        [--size 112] [--count 96] [--progress 0] [--sheet sheet.png]

Change is that of `compose.show_change`, grey levels: quartiles over the reals of the set that could be forged, seen at
--size and augmented as their real. Columns of the sheet are reals: the crop with its landmarks, target twin, forgery,
map, five times the difference, and the forgery as the network sees it. A sheet of real faces is to look at, and not to
keep.
"""

import argparse

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax import detector, experiments, paths
from msddf_jax.data import overlap, pipeline, sample, schema, source
from msddf_jax.synth import compose

LAYOUT = compose.Layout(real=1, forged=1, second_views=0, fake=0)


def forge(config, batch, size, progress):
    """(rows at the crops' own size, rows of `show_change` at `size`) of a batch of reals."""

    @jax.jit
    def run(batch):
        rows = compose.compose(
            jax.random.key(0), batch, layout=LAYOUT, recipe=config.synth.recipe, flip=0.0, progress=progress
        )
        seen = compose.augment(jax.random.key(1), rows, bases=rows["base"], **{**config.augment, "image_size": size})
        return rows, compose.show_change(seen, LAYOUT, 0.0)

    return jax.device_get(run(batch))


def print_table(seen):
    """Quartiles of the change by type of forgery, as Markdown."""
    print("| type | forgeries | 25 % | median | 75 % |\n|---|---|---|---|---|")
    changed = seen["label"] == 1
    for index in np.unique(seen["type"][changed]):
        values = seen["change"][changed & (seen["type"] == index)]
        quartiles = " | ".join(f"{q:.1f}" for q in np.quantile(values, (0.25, 0.5, 0.75)))
        print(f"| {schema.FORGERY_TYPES[index]} | {len(values)} | {quartiles} |")


def draw_sheet(batch, rows, seen, count=16):
    """uint8 RGB picture of the first `count` reals, columns as above."""
    columns = []
    for real in range(min(count, len(batch["image"]))):
        crop = np.array(batch["image"][real])
        for point in np.asarray(batch["landmarks"][real]):
            if np.isfinite(point).all():
                cv2.circle(crop, tuple(round(float(v)) for v in point), 2, (0.0, 1.0, 0.0), -1)
        target, forged = rows["image"][2 * real : 2 * real + 2]
        mask = np.repeat(rows["mask"][2 * real + 1], 3, axis=-1)
        small = cv2.resize(seen["image"][2 * real + 1], target.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        columns.append(np.concatenate([crop, target, forged, mask, 5.0 * np.abs(forged - target), small]))
    return (255.0 * np.clip(np.concatenate(columns, axis=1), 0.0, 1.0)).astype(np.uint8)


def main():
    """Print the table, and write the sheet where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=paths.expand, default="configs/msddf.py")
    parser.add_argument("--data_dir", type=paths.expand, required=True, help="where the set is built")
    parser.add_argument("--set", default="sjedd/list:train", help="a built set and its split")
    parser.add_argument("--size", type=int, default=112, help="side that the network sees")
    parser.add_argument("--count", type=int, default=96, help="reals, evenly spread over the set")
    parser.add_argument("--progress", type=float, default=0.0, help="share of training done, in [0, 1]")
    parser.add_argument("--sheet", type=paths.expand, help="PNG to write")
    args = parser.parse_args()
    config = experiments.load(args.config)
    ((name, split),) = overlap.split_names(args.set, "train")
    opened = source.open_source(name, split, data_dir=args.data_dir, methods=())
    picked = sample.spread(np.arange(len(opened)), args.count)
    host = schema.device_batch(pipeline.collect(opened, picked, image_size=opened.image_size))
    batch = detector.to_device_images(jax.tree.map(jnp.asarray, host))
    rows, seen = forge(config, batch, args.size, args.progress)
    print_table(seen)
    if args.sheet:
        cv2.imwrite(args.sheet, draw_sheet(batch, rows, seen)[..., ::-1])


if __name__ == "__main__":
    main()
