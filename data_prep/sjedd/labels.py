"""SJEDD's label strings as integers; they are never stored as strings."""

from data_prep import attributes
from msddf_jax.data import schema

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
      text: 1 digit, 0 real or 1 fake; 10 digits, of `attributes.KINDS`; or 12 digits of FFSC, 2 for unknown.

    Returns:
      (whether it is fake, [13] of 0, 1 or None as `attributes.of_kind`; None in place of the list for 1 digit).

    Raises:
      ValueError: any other string.
    """
    if text in ("0", "1"):
        return text == "1", None
    if text in attributes.KINDS:
        return text[1] == "1", attributes.of_kind(text)
    try:
        return text[0] == "1", attributes.of_code(text)
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"label {text!r}: expected 0 or 1, one of {', '.join(attributes.KINDS)}, or 12 digits 0, 1, 2"
        ) from error


def write_label(values, digits):
    """The label string of attributes, from which `read_label` reads them again.

    Args:
      values: [13] of 0, 1 or None, `schema.ATTRIBUTES`; or None for nothing known.
      digits: 10, of `attributes.KINDS`, or 12, of FFSC, where what is unknown is 2.

    Raises:
      ValueError: attributes that no label of so many digits says.
    """
    known = [None] * len(schema.ATTRIBUTES) if values is None else list(values)
    if digits == 10:
        found = [kind for kind in attributes.KINDS if attributes.of_kind(kind) == known]
    else:
        code = "".join("2" if value is None else str(value) for value in known[:12])
        found = [code] if code[0] != "2" and attributes.of_code(code) == known else []
    if not found:
        named = {name: value for name, value in zip(schema.ATTRIBUTES, known, strict=True) if value is not None}
        raise ValueError(f"no label of {digits} digits says {named or 'nothing'} and no more")
    return found[0]


def method_of(parts):
    """The method that a path's folders name, of `methods.METHODS`, or None. parts: folders of a path."""
    return next((_FOLDERS[part] for part in parts if part in _FOLDERS), None)
