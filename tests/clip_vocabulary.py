"""A vocabulary of CLIP's form and size, for tests: its words are made up, so that it fits no published weights."""

import json

from msddf_jax.data import tokens
from msddf_jax.models import clip_text


def write(folder, variant="B/32"):
    """vocab.json and an empty merges.txt, with as many ids as the text tower of a variant. Returns the folder."""
    size = clip_text.get_text_variant(variant).vocabulary
    known = tokens.load_tokenizer(tokens.BYTES).get_vocab()
    words = sorted(known, key=known.get)[:-2]
    words += [f"<made up {index}>" for index in range(size - 2 - len(words))] + [tokens.START, tokens.END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
