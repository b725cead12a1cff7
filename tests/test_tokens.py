import json

import numpy as np
import pytest

from msddf_jax.data.tokens import END, START, load_tokenizer, tokenize

tokenizers = pytest.importorskip("tokenizers", reason="CLIP's tokenizer needs the library tokenizers")

MERGES = [
    "f a",
    "fa k",
    "fak e</w>",
    "a</w> p",
    "p h",
    "ph o",
    "pho t",
    "phot o</w>",
    "' s</w>",
    "c e</w>",
    "fa ce</w>",
]
TEXTS = [
    "a photo of a FAKE face.",
    "it's 2 faces, don't",
    "  spaces\n\tand   tabs ",
    "Ünïcode café nai\u0308ve \u2014 ½ \U0001f600",
    "12345 <|x|>",
    "",
]


def _write(folder, extra=()):
    """vocab.json and merges.txt as OpenAI's are built: bytes, bytes that end a word, merges, start, end."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(char + "</w>" for char in alphabet), *("".join(pair.split()) for pair in MERGES)]
    words += [START, END, *extra]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    return folder, _write(folder)


def test_ids_by_hand(folder):
    path, words = folder
    ids = tokenize(load_tokenizer(path), ["A  photo's FAKE", "face"], context_length=8)
    assert ids.dtype == np.int32 and ids.shape == (2, 8)
    first = [START, "a</w>", "photo</w>", "'s</w>", "fake</w>", END]
    assert [words[i] for i in ids[0][:6]] == first
    assert [words[i] for i in ids[1][:3]] == [START, "face</w>", END]
    assert not ids[0][6:].any() and not ids[1][3:].any()
    assert ids.argmax(axis=1).tolist() == [5, 2]


def test_equals_transformers_from_both_kinds_of_files(folder, tmp_path):
    pytest.importorskip("torch", reason="parity needs the [torch] extra")
    import torch_reference

    torch_reference.prepare()
    transformers = pytest.importorskip("transformers", reason="parity needs the [torch] extra")
    theirs = transformers.CLIPTokenizer.from_pretrained(folder[0])
    theirs.save_pretrained(tmp_path)
    expected = [theirs(text)["input_ids"] for text in TEXTS]
    for path in (folder[0], tmp_path / "tokenizer.json"):
        ids = tokenize(load_tokenizer(path), TEXTS)
        assert ids.shape == (len(TEXTS), 77)
        for row, want in zip(ids, expected):
            assert row[: len(want)].tolist() == want and not row[len(want) :].any()


def test_bytes_are_clips_ids_before_any_merge():
    tokenizer = load_tokenizer("bytes")
    assert tokenizer.get_vocab_size() == 514
    # OpenAI's table starts with "!" to "~", so "a" is 64; ids that end a word are 256 further.
    ids = tokenize(tokenizer, ["a ! it's"], context_length=9)
    assert ids.tolist() == [[512, 64 + 256, 256, 72, 83 + 256, 6, 82 + 256, 513, 0]]
    assert tokenize(tokenizer, ["\u00e9"], 4).tolist() == [[512, 127, 102 + 256, 513]]


def test_saved_padding_and_truncation_are_not_taken_over(folder, tmp_path):
    tokenizer = load_tokenizer(folder[0])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(tokenize(load_tokenizer(tmp_path), TEXTS), tokenize(load_tokenizer(folder[0]), TEXTS))


def test_a_text_too_long_raises_or_keeps_its_end(folder):
    tokenizer, words = load_tokenizer(folder[0]), folder[1]
    with pytest.raises(ValueError, match=r"text 1 has 6 tokens .* at most 5 fit.*fake face fake face"):
        tokenize(tokenizer, ["a", "fake face fake face"], context_length=5)
    ids = tokenize(tokenizer, ["fake face fake face"], context_length=5, truncate=True)[0]
    assert [words[i] for i in ids] == [START, "fake</w>", "face</w>", "fake</w>", END]
    assert tokenize(tokenizer, ["fake face fake"], context_length=5).shape == (1, 5)


def test_wrong_arguments(folder):
    tokenizer = load_tokenizer(folder[0])
    with pytest.raises(TypeError, match="list of str"):
        tokenize(tokenizer, "a photo")
    with pytest.raises(ValueError, match="got 1"):
        tokenize(tokenizer, ["a"], context_length=1)


def test_files_that_are_missing_or_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"hf download openai/clip-vit-large-patch14 tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot be read as a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    _write(tmp_path, extra=["another"])
    with pytest.raises(ValueError, match="last two of its 526 ids, got 523 and 524"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("not json")
    with pytest.raises(ValueError, match="no vocabulary of CLIP's"):
        load_tokenizer(tmp_path)
