"""Which semantic attributes a forgery changes, of `schema.ATTRIBUTES`: SJEDD's table of FaceForensics++, FFSC's codes.

Source of `KINDS`: SJEDD (Zou et al.), the targets that its public code trains FaceForensics++ with (`label_map_soff`),
which set "physical" for expression and identity too. Its lists name a kind by 10 digits: real, fake, expression,
identity, physical, eye, lip, mouth, nose, skin. What the table has no node for (age, gender, pose) is unknown of a fake
and 0 of a real. FaceShifter, which the table leaves out, is an identity swap. FFSC's table has no "physical".
"""

from msddf_jax.data import schema

# 10 digits: (expression, identity, physical), (eye, eyebrow, lip, mouth, nose, skin). Only these six exist.
KINDS = {
    "1000000000": ((0, 0, 0), (0, 0, 0, 0, 0, 0)),  # real
    "0101011111": ((0, 1, 1), (1, 1, 1, 1, 1, 1)),  # identity
    "0110001100": ((1, 0, 1), (0, 0, 1, 1, 0, 0)),  # expression, by the mouth
    "0100110000": ((0, 0, 1), (1, 0, 0, 0, 0, 0)),  # physical, eyes
    "0100101100": ((0, 0, 1), (0, 0, 1, 1, 0, 0)),  # physical, mouth
    "0100100010": ((0, 0, 1), (0, 0, 0, 0, 1, 0)),  # physical, nose
}
_KIND_OF = {
    "real": "1000000000",
    "deepfakes": "0101011111",
    "faceswap": "0101011111",
    "faceshifter": "0101011111",
    "face2face": "0110001100",
    "neuraltextures": "0110001100",
    "toy_swap": "0101011111",  # another person's inner face
    "toy_texture": "0100101100",  # a generator's grid over the mouth, nothing moves
}
# Toy methods that are none of the kinds, by what data_prep/toy/manipulate.py does.
_OTHERS = {
    # Lids, brows and mouth take another's state; nose and skin are drawn coarser, which no table speaks of.
    "toy_reenact": {"eye": 1, "eyebrow": 1, "lip": 1, "mouth": 1, "expression": 1, "physical": 1}
    | dict.fromkeys(("age", "gender", "identity", "pose"), 0),
    # The whole inner face through a bottleneck: who it is and what it does stay.
    "toy_neural": dict.fromkeys(("eye", "eyebrow", "lip", "mouth", "nose", "skin", "physical"), 1)
    | dict.fromkeys(("age", "expression", "gender", "identity", "pose"), 0),
}


def of_method(method):
    """What a method of FaceForensics++ or of the toy set changes.

    Args:
      method: of `methods.METHODS`.

    Returns:
      [13] of 0, 1 or None for unknown, in the order of `schema.ATTRIBUTES`; None for a method of other data sets.
    """
    if method in _OTHERS:
        return _ordered({"fake": 1, **_OTHERS[method]})
    return of_kind(_KIND_OF[method]) if method in _KIND_OF else None


def of_kind(kind):
    """[13] of 0, 1 or None, as `of_method`, of a label of 10 digits. Raises KeyError for one that is not in `KINDS`."""
    (expression, identity, physical), parts = KINDS[kind]
    fake = int(kind[1])
    named = dict.fromkeys(("age", "gender", "pose"), None if fake else 0)
    named |= {"fake": fake, "expression": expression, "identity": identity, "physical": physical}
    return _ordered(named | dict(zip(("eye", "eyebrow", "lip", "mouth", "nose", "skin"), parts, strict=True)))


def of_code(code):
    """[13] of 0, 1 or None, as `of_method`, of a code of FFSC: 12 digits 0, 1 or 2, which is unknown.

    Raises:
      ValueError: another text.
    """
    if len(code) != 12 or code[0] not in "01" or not set(code) <= set("012"):
        raise ValueError(f"{code!r} is no code of 12 digits 0, 1, 2 of which the first is 0 or 1")
    named = {name: None if digit == "2" else int(digit) for name, digit in zip(schema.ATTRIBUTES, code, strict=False)}
    return _ordered({"physical": 0 if code[0] == "0" else None, **named})


def _ordered(named):
    return [named.get(name) for name in schema.ATTRIBUTES]
