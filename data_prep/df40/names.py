"""DF40's methods under all the names that its README, its folders and its JSON files give them."""

import difflib
import re

SWAP = (
    "fsgan",
    "faceswap",
    "simswap",
    "inswapper",
    "blendface",
    "uniface",
    "mobilefaceswap",
    "e4s",
    "facedancer",
)
REENACT = (
    "fomm",
    "facevid2vid",
    "wav2lip",
    "mraa",
    "one_shot_free",
    "pirender",
    "tpsmm",
    "lia",
    "dagan",
    "sadtalker",
    "mcnet",
    "hyperreenact",
)
SYNTHESIS = (
    "vqgan",
    "stylegan2",
    "stylegan3",
    "stylegan_xl",
    "sd2_1",
    "ddim",
    "rddm",
    "pixart",
    "dit",
    "sit",
)
# Made from FaceForensics++ and Celeb-DF; the others bring reals of their own.
KNOWN = (*SWAP, *REENACT, *SYNTHESIS)
UNKNOWN = (
    "deepfacelab",
    "heygen",
    "midjourney",
    "whichfaceisreal",
    "stargan",
    "starganv2",
    "styleclip",
    "e4e",
    "collabdiff",
)
# All methods of one kind that were made from the same reals, as the owners' protocols take them.
GROUPS = {"fs": SWAP, "fr": REENACT, "efs": SYNTHESIS}
# What a name is once it is lower case without punctuation; a method's own name needs no line.
_ALIASES = {
    "inswap": "inswapper",
    "mobileswap": "mobilefaceswap",
    "fsvid2vid": "facevid2vid",
    "oneshot": "one_shot_free",
    "tpsm": "tpsmm",
    "danet": "dagan",
    "ddpm": "ddim",
    "pixartalpha": "pixart",
    "ditxl2": "dit",
    "sitxl2": "sit",
    "whichisreal": "whichfaceisreal",
}
# Names of the JSON files and labels, in DeepfakeBench's spelling: the folder's, where it is not the method's.
JSON_NAMES = {
    "inswapper": ("inswap",),
    "mobilefaceswap": ("mobileswap",),
    "mraa": ("MRAA", "mraa"),
    "tpsmm": ("tpsm",),
    "dagan": ("danet",),
    "vqgan": ("VQGAN",),
    "stylegan2": ("StyleGAN2",),
    "stylegan3": ("StyleGAN3",),
    "stylegan_xl": ("StyleGANXL",),
    "sd2_1": ("sd2.1",),
    "pixart": ("pixart", "PixArt"),
    "dit": ("DiT",),
    "sit": ("SiT",),
    "midjourney": ("MidJourney",),
    "whichfaceisreal": ("whichisreal", "whichfaceisreal"),
    "collabdiff": ("CollabDiff",),
}


def method_of(name):
    """The method that a README, folder or JSON name means: of `methods.METHODS`, or None.

    `InSwapper`, `inswap` are "inswapper"; `StyleGAN-XL`, `StyleGANXL` are "stylegan_xl"; `DDPM` is "ddim".
    """
    return _BY_PLAIN.get(_plain(name))


def nearest(name):
    """The end of a message about a name that is no method: a guess, and what there is."""
    close = difflib.get_close_matches(_plain(name), list(_BY_PLAIN), n=1, cutoff=0.5)
    hint = f"; did you mean {_BY_PLAIN[close[0]]}?" if close else ";"
    return f"{hint} there are {', '.join((*KNOWN, *UNKNOWN, 'roop'))}"


def json_names(method):
    """Names of a method in DeepfakeBench's spelling, such as ("inswap",)."""
    return JSON_NAMES.get(method, (method,))


def _plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_PLAIN = {_plain(method): method for method in (*KNOWN, *UNKNOWN, "roop")} | _ALIASES
