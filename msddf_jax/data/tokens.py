"""CLIP's tokenizer on the host: texts to ids for `models.clip_text`, with a vocabulary the user downloads.

The vocabulary is not part of this package. Hugging Face's CLIP repositories hold it as tokenizer.json, and as
vocab.json with merges.txt: `hf download openai/clip-vit-large-patch14 tokenizer.json --local-dir DIR`. Needs the
library `tokenizers`.
"""

import json
import pathlib

import numpy as np

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT_LENGTH = 77
# In place of a path: CLIP's 512 ids before any merge, then start and end. No file is needed, nor fits CLIP's weights.
BYTES = "bytes"
# How CLIP cuts a text before merging (Radford et al., 2021): English contractions, letters, single digits, the rest.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def load_tokenizer(path) -> "tokenizers.Tokenizer":  # noqa: F821 (imported where it is used)
    """A `tokenizers.Tokenizer` that puts CLIP's start and end tokens around every text.

    Args:
      path: a tokenizer.json, or a folder that holds one, or that holds vocab.json and merges.txt; or the word
        `BYTES`, a vocabulary of 514: each byte, each byte that ends a word, start and end.

    Texts are lowercased, Unicode-composed (NFC) and runs of white space are one space, as Hugging Face's tokenizer
    does. OpenAI's also mends wrongly decoded text (ftfy) and unescapes HTML: the same ids for texts that need neither.

    Raises:
      FileNotFoundError: no such file; says how to fetch it. ValueError: a file that is no tokenizer, or whose start and
        end tokens are missing or not the highest ids (the text tower pools at the highest id).
      ModuleNotFoundError: the library `tokenizers` is not installed.
    """
    tokenizers = _library()
    if path == BYTES:
        return _finish(_from_merges(tokenizers, _byte_ids(tokenizers), []), BYTES)
    path = pathlib.Path(path)
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    single = path / "tokenizer.json" if path.is_dir() else path
    if single.is_file():
        tokenizer = _from_file(tokenizers, single)
    elif vocabulary.is_file() and merges.is_file():
        tokenizer = _from_vocabulary(tokenizers, vocabulary, merges)
    else:
        raise FileNotFoundError(
            f"no tokenizer at {path}: expected tokenizer.json, or a folder with it or with vocab.json and merges.txt. "
            "Fetch CLIP's: `hf download openai/clip-vit-large-patch14 tokenizer.json --local-dir DIR`"
        )
    return _finish(tokenizer, path)


def _finish(tokenizer, path):
    """With start and end around every text, once it is known that they are the last two ids."""
    size = tokenizer.get_vocab_size()
    if (tokenizer.token_to_id(START), tokenizer.token_to_id(END)) != (size - 2, size - 1):
        raise ValueError(
            f"{path} is no tokenizer of CLIP: {START} and {END} must be the last two of its {size} ids, "
            f"got {tokenizer.token_to_id(START)} and {tokenizer.token_to_id(END)}"
        )
    tokenizer.post_processor = _library().processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, size - 2), (END, size - 1)]
    )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer, texts, context_length=CONTEXT_LENGTH, truncate=False) -> np.ndarray:
    """Ids of texts: start token, text, end token, zeros.

    Padding is 0 as OpenAI's; Hugging Face pads with the end token. The text tower's features are the same, since no
    token sees what follows it and pooling takes the first end token.

    Args:
      tokenizer: of `load_tokenizer`. texts: list of str. context_length: L, at least 2.
      truncate: cut texts that are too long, keeping the end token, instead of raising.

    Returns:
      [B, L] int32.

    Raises:
      TypeError: a str instead of a list. ValueError: a text of more than L tokens without `truncate`; L < 2.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of str, got one str")
    if context_length < 2:
        raise ValueError(f"context_length must hold the start and end tokens, got {context_length}")
    out = np.zeros((len(texts), context_length), np.int32)
    for row, (text, encoding) in enumerate(zip(texts, tokenizer.encode_batch(list(texts)), strict=True)):
        ids = encoding.ids
        if len(ids) > context_length:
            if not truncate:
                raise ValueError(
                    f"text {row} has {len(ids)} tokens with start and end, at most {context_length} fit; "
                    f"shorten it or pass truncate=True: {text[:60]!r}"
                )
            ids = [*ids[: context_length - 1], ids[-1]]
        out[row, : len(ids)] = ids
    return out


def _library():
    """Imported where it is used: training without texts needs no tokenizer."""
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("CLIP's tokenizer needs the library: pip install tokenizers") from error
    return tokenizers


def _from_file(tokenizers, path):
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises plain Exception for whatever is wrong with the file.
        raise ValueError(f"{path} cannot be read as a tokenizer.json: {error}") from error


def _from_vocabulary(tokenizers, vocabulary, merges):
    try:
        ids = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        return _from_merges(tokenizers, ids, pairs)
    except Exception as error:
        # As above; and a file that is no JSON.
        raise ValueError(f"{vocabulary} and {merges.name} are no vocabulary of CLIP's: {error}") from error


def _byte_ids(tokenizers):
    """{text: id} of CLIP's vocabulary up to its first merge, then start and end: bytes in the order of their signs."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(sign + "</w>" for sign in alphabet), START, END]
    return {word: index for index, word in enumerate(words)}


def _from_merges(tokenizers, ids, pairs):
    model = tokenizers.models.BPE(
        ids, pairs, unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix="", fuse_unk=False
    )
    tokenizer = tokenizers.Tokenizer(model)
    normalizers, split, regex = tokenizers.normalizers, tokenizers.pre_tokenizers, tokenizers.Regex
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Split(regex(WORDS), behavior="removed", invert=True), split.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer
