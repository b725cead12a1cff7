"""SJEDD's table of FaceForensics++ and FFSC's codes, against the rows as published, and the toy set by its pixels."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data_prep import attributes
from data_prep.toy import generate, manipulate
from msddf_jax.data import methods, schema

# fake; expression, identity, physical; eye, eyebrow, lip, mouth, nose, skin.
ORDER = ("fake", "expression", "identity", "physical", "eye", "eyebrow", "lip", "mouth", "nose", "skin")


@pytest.mark.parametrize(
    ("methods", "row"),
    [
        ("real", "0000000000"),
        ("deepfakes faceswap faceshifter toy_swap", "1011111111"),
        ("face2face neuraltextures", "1101001100"),
        ("toy_texture", "1001001100"),
    ],
)
def test_rows_of_the_table(methods, row):
    for method in methods.split():
        named = dict(zip(schema.ATTRIBUTES, attributes.of_method(method), strict=True))
        assert [named.pop(name) for name in ORDER] == [int(digit) for digit in row]
        assert named == dict.fromkeys(("age", "gender", "pose"), 0 if method == "real" else None)


def test_methods_of_other_sets_have_none():
    known = {method for method in methods.METHODS if attributes.of_method(method) is not None}
    five = {"deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter"}
    assert known == {"real", "toy_swap", "toy_reenact", "toy_neural", "toy_texture"} | five


def test_toy_methods_that_no_row_describes():
    named = lambda method: dict(zip(schema.ATTRIBUTES, attributes.of_method(method), strict=True))
    reenact, neural = named("toy_reenact"), named("toy_neural")
    assert [reenact[n] for n in ORDER] == [1, 1, 0, 1, 1, 1, 1, 1, None, None]
    assert [neural[n] for n in ORDER] == [1, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    for row in (reenact, neural):
        assert row["age"] == row["gender"] == row["pose"] == 0


def test_toy_videos_change_what_the_table_says():
    """Landmarks move with an expression or another face, and stay with textures, whose masks cover what is named."""
    drawn = generate.draw_pair(0, "000", "001", 8, 128)
    real = drawn["youtube", "000"].landmarks
    moved = lambda method, part: np.abs(drawn[method, "000_001"].landmarks[:, part] - real[:, part]).max()
    eyes, brows, mouth = slice(36, 48), slice(17, 27), slice(48, 68)
    for method in ("ToySwap", "ToyReenact"):
        assert min(moved(method, eyes), moved(method, brows), moved(method, mouth)) > 0.3, method
    for method in ("ToyNeural", "ToyTexture"):
        assert moved(method, slice(0, 81)) == 0, method
    inside = lambda method, part: np.mean(
        [
            mask[tuple(np.clip(np.round(points[part, ::-1]).astype(int), 0, 127).T)] > 0
            for mask, points in zip(drawn[method, "000_001"].masks, real, strict=True)
        ]
    )
    assert set(manipulate.METHODS) == {"ToySwap", "ToyReenact", "ToyNeural", "ToyTexture"}
    assert min(inside("ToyNeural", part) for part in (eyes, brows, mouth)) > 0.5
    assert inside("ToyTexture", mouth) > 0.9 and inside("ToyTexture", eyes) == inside("ToyTexture", brows) == 0


@hypothesis.given(st.text("0123", max_size=14))
def test_codes_are_read_digit_by_digit_or_refused(code):
    valid = len(code) == 12 and "3" not in code and code[0] in "01"
    if not valid:
        with pytest.raises(ValueError, match="no code of 12 digits"):
            attributes.of_code(code)
        return
    *found, physical = attributes.of_code(code)
    assert ["2" if value is None else str(value) for value in found] == list(code)
    assert physical == (None if code[0] == "1" else 0)
