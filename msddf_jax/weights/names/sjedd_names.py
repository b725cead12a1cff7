"""SJEDD's checkpoints: a CLIP with OpenAI's names, both towers fine-tuned.

Nothing in one tells it from a CLIP, nor which data set's prompts it was trained with: both are asked for by format.
"""

import re

from msddf_jax.weights.names import clip_names

# By the graph of `semantic_graph.GRAPHS`.
FORMATS = ("sjedd/ffpp", "sjedd/ffsc")


def find(shapes, wanted) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is no CLIP with OpenAI's names.

    wanted: of `FORMATS`. The temperature is skipped, which the detector divides by itself.
    """
    clip = clip_names.recognise(shapes)
    if clip is None or clip["format"] != "open_clip" or not clip["text"]:
        return None
    table, skip = clip_names.table_of(clip, text=True)
    scale = {name for name, entry in table.items() if entry.ours == "params/logit_scale"}
    return {
        "format": wanted,
        "family": "clip",
        "variant": clip["variant"],
        "options": {"quick_gelu": True},
        "image_size": clip["image_size"],
        "table": {name: entry for name, entry in table.items() if name not in scale},
        "skip": (*skip, *map(re.escape, scale)),
        "detector": "sjedd",
    }
