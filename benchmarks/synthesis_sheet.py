"""Contact sheet of everything the synthesis makes, to be looked at.

  python -m benchmarks.synthesis_sheet --root FOLDER --out sheet.png [--regions nose,hull] [--faces 3] [--size 96]

FOLDER holds videos in the FF++ layout with landmark sidecars, as `python -m data_prep.toy` writes them. First a row a
region, a face a row: the real twin and its source, then for each blend and strength the map (what the map head is asked
for), the forgery and four times the difference from the real twin. Below: self-blended images, Face X-ray and SLADD.
"""

import argparse
import pathlib
import sys
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from matplotlib import font_manager

from msddf_jax import paths
from msddf_jax.data import schema
from msddf_jax.faces import extract
from msddf_jax.synth import blender, face_xray, self_blend, sladd, twins

STRENGTHS = {"alpha": (1.0,), "poisson": (1.0,), "dynamic": (0.3, 0.6, 1.0)}
ENLARGED_DIFFERENCE = 4
# Pixels: the margin that names the rows, the text, the lines of a heading.
MARGIN, TEXT, LINE, GAP = 92, 15, 20, 14


class Block(NamedTuple):
    """A part of the sheet. title: above it. heads: list of (group, heading), a column each. rows: list of (caption,
    [panel float32 [H, W, 3] in [0, 1]])."""

    title: str
    heads: list
    rows: list


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


def region_blocks(key, images, landmarks, regions):
    """The blends of twins: blocks of at most nine columns, a row a region (index into `schema.REGIONS`)."""
    twin_key, blend_key = jax.random.split(key)
    pair = jax.jit(twins.make_twins)(twin_key, images, landmarks)
    target = pair["target"]
    forge = jax.jit(
        lambda key, kind, magnitude: blender.blend_regions(
            key,
            target,
            pair["source"],
            pair["landmarks"],
            jnp.asarray(regions),
            jnp.full(len(regions), kind),
            jnp.full(len(regions), magnitude),
            ratios=(1.0,),
        )
    )
    columns = {kind: [] for kind in STRENGTHS}
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            out = forge(blend_key, schema.BLENDS.index(kind), strength)
            word = "Poisson" if kind == "poisson" else kind
            name = f"{word}, strength {strength:g}" if len(strengths) > 1 else word
            columns[kind] += result_columns(name, target, out)
    names = [schema.REGIONS[region].replace("_", " ") for region in regions]
    first = [("twins", "real", target), ("twins", "source", pair["source"]), *columns["alpha"], *columns["poisson"]]
    return [
        block_of("A region of a twin, blended: alpha, Poisson", first, names),
        block_of("The same: dynamic mix", columns["dynamic"], names),
    ]


def result_columns(group, target, out):
    """Map, forgery and enlarged difference of one recipe's output, as (group, heading, batch)."""
    difference = jnp.clip(jnp.abs(out["image"] - target) * ENLARGED_DIFFERENCE, 0.0, 1.0)
    return [
        (group, "map", jnp.repeat(out["map"], 3, -1)),
        (group, "forgery", out["image"]),
        (group, f"change x {ENLARGED_DIFFERENCE}", difference),
    ]


def block_of(title, columns, captions):
    """A `Block` of columns (group, heading, batch), a row a caption."""
    panels = [np.asarray(batch) for *_, batch in columns]
    rows = [(caption, [panel[i] for panel in panels]) for i, caption in enumerate(captions)]
    return Block(title, [(group, heading) for group, heading, _ in columns], rows)


def recipe_blocks(key, images, landmarks, count):
    """Blocks of the other recipes, of the first `count` faces: self-blend, Face X-ray, SLADD.

    All faces take part: partners and references are found among them.
    """
    identity = jnp.arange(len(images))
    blended = jax.jit(self_blend.self_blend)(key, images, landmarks)
    xray = jax.jit(face_xray.face_xray)(key, images, landmarks, identity)
    region, _, magnitude = blender.uniform_choices(key, len(images))
    kind = identity % (len(schema.BLENDS) - 1)
    rows = {"image": images, "landmarks": landmarks, "identity": identity}
    reference = jax.jit(sladd.find_reference)(key, rows)
    choices = {"region": region, "blend_type": kind, "magnitude": magnitude}
    chen = jax.jit(sladd.blend_reference)(key, images, landmarks, reference, **choices)
    names = [f"face {i + 1}" for i in range(count)]
    boundary = ("", "boundary", jnp.repeat(xray["boundary"], 3, -1))
    return [
        block_of(
            "Self-blended images (SBI)",
            [("", "real", blended["target"]), *result_columns("", blended["target"], blended)],
            names,
        ),
        block_of(
            "Face X-ray",
            [
                ("", "real", images),
                ("", "partner", images[xray["partner"]]),
                *result_columns("", images, xray),
                boundary,
            ],
            names,
        ),
        block_of(
            "SLADD",
            [("", "real", images), ("", "reference", reference["source"]), *result_columns("", images, chen)],
            names,
        ),
    ]


def draw_sheet(blocks):
    """The blocks below each other, uint8 RGB [H, W, 3]; headings can be read where the sheet is 800 px wide."""
    size = blocks[0].rows[0][1][0].shape[0]
    fonts = [
        PIL.ImageFont.truetype(font_manager.findfont(f"DejaVu Sans:weight={weight}"), TEXT)
        for weight in ("normal", "bold")
    ]
    width = MARGIN + size * max(len(block.heads) for block in blocks)
    height = sum(_head_lines(block) * LINE + size * len(block.rows) + GAP for block in blocks)
    sheet = PIL.Image.new("RGB", (width, height), "white")
    top = 0
    for block in blocks:
        top = _draw_block(sheet, block, top, size, *fonts) + GAP
    return np.asarray(sheet)


def _head_lines(block):
    return 2 + any(group for group, _ in block.heads)


def _draw_block(sheet, block, top, size, normal, bold):
    """Draws one block; returns where it ends."""
    draw = PIL.ImageDraw.Draw(sheet)
    draw.text((2, top), block.title, "black", bold)
    line = top + LINE
    if _head_lines(block) == 3:
        for j, (group, _) in enumerate(block.heads):
            if group and (j == 0 or group != block.heads[j - 1][0]):
                count = sum(one == group for one, _ in block.heads)
                left = MARGIN + j * size
                draw.text((left + 2, line), group, "black", normal)
                draw.line((left + 2, line + LINE - 1, left + count * size - 4, line + LINE - 1), "black")
        line += LINE
    for j, (_, heading) in enumerate(block.heads):
        draw.text((MARGIN + j * size + 2, line), heading, "black", normal)
    line += LINE
    for i, (caption, panels) in enumerate(block.rows):
        for k, word in enumerate(_wrap(caption)):
            draw.text((2, line + i * size + size // 3 + k * LINE), word, "black", normal)
        for j, panel in enumerate(panels):
            image = PIL.Image.fromarray(np.round(np.clip(panel, 0, 1) * 255).astype(np.uint8))
            sheet.paste(image, (MARGIN + j * size, line + i * size))
    return line + size * len(block.rows)


def _wrap(caption):
    """Words of a caption in lines that the margin holds."""
    lines = []
    for word in caption.split():
        if lines and len(lines[-1]) + len(word) < 10:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def make_sheet(root, *, regions=schema.REGIONS, faces=None, size=96, seed=0):
    """The sheet of a folder of videos, uint8 RGB [H, W, 3].

    Args:
      root: folder in the FF++ layout, with sidecars. regions: names of `schema.REGIONS`, a row each. faces: rows of
        each other recipe, at most the number of all regions; None for that. size: pixels of a face. seed: of all keys.

    Raises:
      ValueError: no such region, or number of faces. FileNotFoundError: too few videos.
    """
    unknown = sorted(set(regions) - set(schema.REGIONS))
    if unknown or not regions:
        raise ValueError(f"regions are {', '.join(unknown) or 'none'}, allowed: {', '.join(schema.REGIONS)}")
    faces = len(schema.REGIONS) if faces is None else faces
    if not 1 <= faces <= len(schema.REGIONS):
        raise ValueError(f"faces is {faces}, allowed: 1 to {len(schema.REGIONS)}")
    images, landmarks = load_faces(root, len(schema.REGIONS), size)
    regions_key, recipes_key = jax.random.split(jax.random.key(seed))
    chosen = np.array([schema.REGIONS.index(region) for region in regions])
    blocks = region_blocks(regions_key, images[chosen], landmarks[chosen], chosen)
    return draw_sheet([*blocks, *recipe_blocks(recipes_key, images, landmarks, faces)])


def main():
    """Write the sheet. Exit code 1 with one line where it cannot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--root", type=paths.expand, required=True, help="folder of videos in the FF++ layout, with sidecars"
    )
    parser.add_argument("--out", type=paths.expand, required=True, help="PNG or JPEG to write")
    parser.add_argument("--regions", default=",".join(schema.REGIONS), help="comma-separated; all by default")
    parser.add_argument("--faces", type=int, default=len(schema.REGIONS), help="rows of the other recipes")
    parser.add_argument("--size", type=int, default=96, help="pixels of a face")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        sheet = make_sheet(
            args.root, regions=tuple(args.regions.split(",")), faces=args.faces, size=args.size, seed=args.seed
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"benchmarks.synthesis_sheet: {error}")
    if not cv2.imwrite(args.out, sheet[..., ::-1]):
        raise OSError(f"{args.out}: could not be written; does the folder exist, and is it a .png?")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
