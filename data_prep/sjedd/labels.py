"""SJEDD's label strings as integers; they are never stored as strings."""

from data_prep import attributes

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


def method_of(parts):
    """The method that a path's folders name, of `methods.METHODS`, or None. parts: folders of a path."""
    return next((_FOLDERS[part] for part in parts if part in _FOLDERS), None)
