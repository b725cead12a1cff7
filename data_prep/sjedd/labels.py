"""SJEDD's label strings as integers; they are never stored as strings.

Source: reference/datasets.md 4. The attributes are those of `schema.ATTRIBUTES`; SJEDD's fourth semantic label,
physical inconsistency, is none of them.
"""

from msddf_jax.data import schema

# 10 digits: real, fake, expression, identity, physical, eye, lip, mouth, nose, skin. Only these six exist.
# Values: expression, identity; eye, eyebrow, lip, mouth, nose, skin.
FF_KEYS = {
    "1000000000": (0, 0, (0, 0, 0, 0, 0, 0)),  # real
    "0101011111": (0, 1, (1, 1, 1, 1, 1, 1)),  # identity: Deepfakes, FaceSwap
    "0110001100": (1, 0, (0, 0, 1, 1, 0, 0)),  # mouth's expression: Face2Face, NeuralTextures
    "0100110000": (0, 0, (1, 0, 0, 0, 0, 0)),  # physical, eyes, made while training
    "0100101100": (0, 0, (0, 0, 1, 1, 0, 0)),  # physical, mouth
    "0100100010": (0, 0, (0, 0, 0, 0, 1, 0)),  # physical, nose
}
_FOLDERS = {
    "original_sequences": "real",
    "Deepfakes": "deepfakes",
    "Face2Face": "face2face",
    "FaceSwap": "faceswap",
    "NeuralTextures": "neuraltextures",
    "FaceShifter": "faceshifter",
    "FSh": "faceshifter",
    "RealCDF": "real",
    "FakeCDF": "celebdf",
}


def read_label(text):
    """What a label string says.

    Args:
      text: 1 digit, 0 real or 1 fake; 10 digits, a key of `FF_KEYS`; or 12 digits in the order of
        `schema.ATTRIBUTES`, 2 for unknown, of FFSC.

    Returns:
      (whether it is fake, [12] of 0, 1 or None for unknown; None in place of the list for 1 digit).

    Raises:
      ValueError: any other string.
    """
    if text in ("0", "1"):
        return text == "1", None
    if text in FF_KEYS:
        fake = int(text[1])
        expression, identity, parts = FF_KEYS[text]
        unsaid = None if fake else 0  # a real has nothing that was changed; of fakes SJEDD does not say
        named = {"fake": fake, "age": unsaid, "expression": expression, "gender": unsaid}
        named |= {"identity": identity, "pose": unsaid}
        return bool(fake), [*named.values(), *parts]
    if len(text) == len(schema.ATTRIBUTES) and text[0] in "01" and set(text) <= set("012"):
        return text[0] == "1", [None if digit == "2" else int(digit) for digit in text]
    raise ValueError(
        f"label {text!r}: expected 0 or 1, one of {', '.join(FF_KEYS)}, or {len(schema.ATTRIBUTES)} digits 0, 1, 2"
    )


def method_of(parts):
    """The method that a path's folders name, of `methods.METHODS`, or None. parts: folders of a path."""
    return next((_FOLDERS[part] for part in parts if part in _FOLDERS), None)
