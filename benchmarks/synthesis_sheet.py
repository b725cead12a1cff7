"""Contact sheet of everything the synthesis makes, to be looked at.

  python -m benchmarks.synthesis_sheet --root FOLDER --out sheet.png [--size 128] [--seed 0]

FOLDER holds videos in the FF++ layout with landmark sidecars, as `python -m data_prep.toy` writes them. One
row a region, one face a row: the real twin and its source, then for each blend and strength the map (what the
map head is asked for), the forgery and four times the difference from the real twin. Below: self-blended
images, Face X-ray (map, boundary) and SLADD.
"""

import argparse
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax import paths
from msddf_jax.data import schema
from msddf_jax.faces import extract
from msddf_jax.synth import blender, face_xray, self_blend, sladd, twins

STRENGTHS = {"alpha": (1.0,), "poisson": (1.0,), "dynamic": (0.3, 0.6, 1.0)}
ENLARGED_DIFFERENCE = 4.0


def load_faces(root, count, size):
    """The middle frame of the first `count` original videos, aligned.

    Returns:
      images float32 [count, size, size, 3] in [0, 1], landmarks float32 [count, 81, 2].

    Raises:
      FileNotFoundError: fewer videos than that.
    """
    videos = sorted(pathlib.Path(root).glob("original_sequences/youtube/*/videos/[!.]*.mp4"))
    if len(videos) < count:
        where = f"{root}/original_sequences/youtube/*/videos/*.mp4"
        raise FileNotFoundError(f"{where}: found {len(videos)} videos, the sheet needs {count}")
    frames = []
    for video in videos[:count]:
        found = extract.extract_faces(video, num_frames=3, size=size, preset="dfb", landmarks="sidecar").frames
        frames.append(found[len(found) // 2])
    images = np.stack([f.image for f in frames]).astype(np.float32) / 255.0
    return jnp.asarray(images), jnp.asarray(np.stack([f.landmarks for f in frames]), jnp.float32)


def region_rows(key, images, landmarks):
    """Rows of panels, one a region: list of (caption, panels [H, W, 3])."""
    twin_key, blend_key = jax.random.split(key)
    pair = jax.jit(twins.make_twins)(twin_key, images, landmarks)
    target = pair["target"]
    region = jnp.arange(len(schema.REGIONS))
    forge = jax.jit(
        lambda key, kind, magnitude: blender.blend_regions(
            key,
            target,
            pair["source"],
            pair["landmarks"],
            region,
            jnp.full(len(region), kind),
            jnp.full(len(region), magnitude),
            ratios=(1.0,),
        )
    )
    columns = [("real twin", target), ("source twin", pair["source"])]
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            out = forge(blend_key, schema.BLENDS.index(kind), strength)
            name = f"{kind} {strength:g}" if len(strengths) > 1 else kind
            columns += result_columns(name, target, out)
    return rows_of(columns, schema.REGIONS)


def result_columns(name, target, out):
    """Map, forgery and enlarged difference of one recipe's output, as captioned columns."""
    difference = jnp.clip(jnp.abs(out["image"] - target) * ENLARGED_DIFFERENCE, 0.0, 1.0)
    return [
        (f"{name}: map", jnp.repeat(out["map"], 3, -1)),
        ("image", out["image"]),
        ("difference", difference),
    ]


def rows_of(columns, captions):
    """Columns of batches to rows: list of (caption, [panel])."""
    heads = [head for head, _ in columns]
    panels = [np.asarray(batch) for _, batch in columns]
    return heads, [(caption, [p[i] for p in panels]) for i, caption in enumerate(captions)]


def recipe_rows(key, images, landmarks):
    """Rows of the other recipes, three faces each: self-blend, Face X-ray, SLADD."""
    count, identity = len(images), jnp.arange(len(images))
    blended = jax.jit(self_blend.self_blend)(key, images, landmarks)
    xray = jax.jit(face_xray.face_xray)(key, images, landmarks, identity)
    region, _, magnitude = blender.uniform_choices(key, count)
    kind = identity % (len(schema.BLENDS) - 1)
    rows = {"image": images, "landmarks": landmarks, "identity": identity}
    reference = jax.jit(sladd.find_reference)(key, rows)
    choices = {"region": region, "blend_type": kind, "magnitude": magnitude}
    chen = jax.jit(sladd.blend_reference)(key, images, landmarks, reference, **choices)
    columns = [
        ("self-blend: real", blended["target"]),
        *result_columns("self-blend", blended["target"], blended),
        ("X-ray: real", images),
        ("X-ray: partner", images[xray["partner"]]),
        *result_columns("X-ray", images, xray),
        ("X-ray: boundary", jnp.repeat(xray["boundary"], 3, -1)),
        ("SLADD: real", images),
        ("SLADD: reference", reference["source"]),
        *result_columns("SLADD", images, chen),
    ]
    return rows_of(columns, [f"face {i}" for i in range(count)])


def draw_sheet(heads, rows, margin=92, head=20):
    """Panels with captions, uint8 RGB."""
    size = rows[0][1][0].shape[0]
    height, width = head + size * len(rows), margin + size * len(heads)
    sheet = np.full((height, width, 3), 255, np.uint8)
    write = lambda text, x, y: cv2.putText(
        sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (0, 0, 0), 1, cv2.LINE_AA
    )
    for j, text in enumerate(heads):
        write(text, margin + j * size + 2, head - 6)
    for i, (caption, panels) in enumerate(rows):
        write(caption, 2, head + i * size + size // 2)
        for j, panel in enumerate(panels):
            top, left = head + i * size, margin + j * size
            sheet[top : top + size, left : left + size] = np.round(np.clip(panel, 0, 1) * 255)
    return sheet


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--root", type=paths.expand, required=True, help="folder of videos in the FF++ layout, with sidecars"
    )
    parser.add_argument("--out", type=paths.expand, required=True, help="PNG to write")
    parser.add_argument("--size", type=int, default=128, help="pixels of a face")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    images, landmarks = load_faces(args.root, len(schema.REGIONS), args.size)
    regions_key, recipes_key = jax.random.split(jax.random.key(args.seed))
    sheets = [
        draw_sheet(*region_rows(regions_key, images, landmarks)),
        draw_sheet(*recipe_rows(recipes_key, images, landmarks)),
    ]
    width = max(s.shape[1] for s in sheets)
    padded = [np.pad(s, ((0, 8), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    if not cv2.imwrite(args.out, np.concatenate(padded)[..., ::-1]):
        raise OSError(f"{args.out}: could not be written; does the folder exist, and is it a .png?")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
