"""DeepfakeBench's names of data sets and labels, and what they are here (its `label_dict`, and DF40's)."""

import re
from typing import NamedTuple

from data_prep import attributes, catalog
from data_prep.df40 import names as df40_names
from data_prep.dfb import stems
from data_prep.layout import PreparedDataError

# Label name: (data set, method). The whole of DeepfakeBench's `label_dict`; roop's is of DF40's first JSON files, which
# call simswap's and uniface's labels the same.
LABELS = {
    "FF-real": ("faceforensics", "real"),
    "FF-DF": ("faceforensics", "deepfakes"),
    "FF-F2F": ("faceforensics", "face2face"),
    "FF-FS": ("faceforensics", "faceswap"),
    "FF-NT": ("faceforensics", "neuraltextures"),
    "FF-FH": ("faceforensics", "faceshifter"),
    "FF-SH": ("faceforensics", "faceshifter"),
    "DFD_real": ("dfd", "real"),
    "DFD_fake": ("dfd", "dfd"),
    "CelebDFv1_real": ("celebdf", "real"),
    "CelebDFv1_fake": ("celebdf", "celebdf"),
    "CelebDFv2_real": ("celebdf", "real"),
    "CelebDFv2_fake": ("celebdf", "celebdf"),
    "CelebDFv3_real": ("celebdf", "real"),
    "CelebDFv3_fake": ("celebdf", None),
    "DFDCP_Real": ("dfdcp", "real"),
    "DFDCP_FakeA": ("dfdcp", "dfdcp_a"),
    "DFDCP_FakeB": ("dfdcp", "dfdcp_b"),
    "DFDC_Real": ("dfdc", "real"),
    "DFDC_Fake": ("dfdc", "dfdc"),
    "DF_real": ("deeperforensics", "real"),
    "DF_fake": ("deeperforensics", "deeperforensics"),
    "UADFV_Real": ("uadfv", "real"),
    "UADFV_Fake": ("uadfv", "uadfv"),
    "roop_Real": ("df40", "real"),
    "roop_Fake": ("df40", None),
}
# Data set names that the JSON files have.
FF_FAMILY = ("FaceForensics++", "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "FaceShifter", "DeepFakeDetection")
OTHERS = (
    "Celeb-DF-v1",
    "Celeb-DF-v2",
    "Celeb-DF-v3",
    "DFDC",
    "DFDCP",
    "DeeperForensics-1.0",
    "UADFV",
)
DF40 = (
    *(f"{group}All_{domain}" for group in ("FS", "FR", "EFS") for domain in ("ff", "cdf")),
    *(
        f"{name}_{domain}"
        for method in (*df40_names.KNOWN, "e4e", "roop")
        for name in df40_names.json_names(method)
        for domain in ("ff", "cdf")
    ),
    *(name for method in df40_names.UNKNOWN for name in df40_names.json_names(method)),
)
# Labels of each JSON that is written here, as DeepfakeBench's rearrange.py writes it: the real's first.
JSON_LABELS = {
    "FaceForensics++": ("FF-real", "FF-DF", "FF-F2F", "FF-FS", "FF-NT"),
    "FF-DF": ("FF-real", "FF-DF"),
    "FF-F2F": ("FF-real", "FF-F2F"),
    "FF-FS": ("FF-real", "FF-FS"),
    "FF-NT": ("FF-real", "FF-NT"),
    "FaceShifter": ("FF-real", "FF-FH"),
    "DeepFakeDetection": ("DFD_real", "DFD_fake"),
    "Celeb-DF-v1": ("CelebDFv1_real", "CelebDFv1_fake"),
    "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake"),
    "Celeb-DF-v3": ("CelebDFv3_real", "CelebDFv3_fake"),
    "DFDC": ("DFDC_Real", "DFDC_Fake"),
    "DFDCP": ("DFDCP_Real", "DFDCP_FakeA", "DFDCP_FakeB"),
    "DeeperForensics-1.0": ("DF_real", "DF_fake"),
    "UADFV": ("UADFV_Real", "UADFV_Fake"),
}
_OF_BUILDER = {
    "dfd": "DeepFakeDetection",
    "dfdc": "DFDC",
    "dfdcp": "DFDCP",
    "deeperforensics": "DeeperForensics-1.0",
    "uadfv": "UADFV",
}
# Folders that a path of a JSON is cut to: what stands before the last of them is whoever's disk it was written on.
FOLDERS = (
    "FaceForensics++",
    "Celeb-DF-v1",
    "Celeb-DF-v2",
    "Celeb-DF-v3",
    "Celeb-DF++",
    "DFDC",
    "DFDCP",
    "DeeperForensics-1.0",
    "UADFV",
    "DF40",
    "DF40_train",
)
_OF_DF40 = re.compile(r"(.+)_(real|fake)", re.IGNORECASE)
_PARSERS = {
    "faceforensics": stems.ff,
    "dfd": stems.dfd,
    "celebdf": stems.cdf,
    "dfdcp": stems.dfdcp,
    "deeperforensics": stems.df1,
    "uadfv": stems.uadfv,
}
# Celeb-DF-v3's folders in lower case without punctuation.
_CELEB = {"celebdf": "celebdf", "celebdfv2": "celebdf", "iplap": "ip_lap"} | {
    name: name
    for name in (
        "blendface",
        "ghost",
        "hififace",
        "inswapper",
        "mobilefaceswap",
        "simswap",
        "uniface",
        "dagan",
        "fsrt",
        "hyperreenact",
        "lia",
        "liveportrait",
        "mcnet",
        "tpsmm",
        "anitalker",
        "echomimic",
        "edtalk",
        "float",
        "real3dportrait",
        "sadtalker",
    )
}


class Meaning(NamedTuple):
    """What a label name is. method: of `methods.METHODS`, None where only the path or the folder tells."""

    dataset: str
    method: str | None


def read_label(name):
    """The meaning of a label name of a DeepfakeBench JSON.

    Raises:
      PreparedDataError: neither one of `LABELS` nor `<method of DF40>_Real`, `<method>_Fake`.
    """
    if name in LABELS:
        return Meaning(*LABELS[name])
    match = _OF_DF40.fullmatch(name)
    if match and match[2].lower() == "real":
        if _df40(match[1]):
            return Meaning("df40", "real")
    elif match and _df40(match[1]):
        return Meaning("df40", df40_names.method_of(match[1]))
    raise PreparedDataError(
        f"label {name!r} is none that DeepfakeBench or DF40 gives{catalog.nearest(name, LABELS)}, "
        "<method of DF40>_Real, <method of DF40>_Fake"
    )


def json_name(dataset, config):
    """DeepfakeBench's name of a config of one of the other builders, or None where it has no such data set.

    Args:
      dataset: name of the builder. config: prepared.PreparedConfig.
    """
    if dataset == "faceforensics":
        of = {frozenset(LABELS[label][1] for label in JSON_LABELS[name][1:]): name for name in FF_FAMILY[:6]}
        return of.get(frozenset(config.methods))
    if dataset == "celebdf":
        versions = {"v1": "Celeb-DF-v1", "v2": "Celeb-DF-v2", "pp": "Celeb-DF-v3"}
        return versions.get(config.name.removesuffix("_derivedval"))
    return _OF_BUILDER.get(dataset)


def label_of(name, method):
    """The label of a video in the JSON `name`; `read_label` undoes it. method: of `methods.METHODS`.

    Raises:
      PreparedDataError: the JSON has no such videos.
    """
    exact = [label for label in JSON_LABELS[name] if LABELS[label][1] == method]
    # Celeb-DF++'s 22 methods, and both kinds of DeeperForensics, have one label.
    wide = [label for label in JSON_LABELS[name] if LABELS[label][1] in (None, "deeperforensics")]
    if not exact and (method == "real" or not wide):
        raise PreparedDataError(f"method {method!r} has no label in DeepfakeBench's {name}")
    return (exact or wide)[0]


def own_labels(name):
    """The labels, real and fake, of a set that DeepfakeBench does not have."""
    return f"{name}_Real", f"{name}_Fake"


def method_of_path(parts):
    """The method of DF40 whose folder a path goes through, or None. parts: of a path below the root."""
    return next((method for part in parts[1:-1] if (method := df40_names.method_of(part))), None)


def make_fields(meaning, method, stem, path, compression):
    """What the records of one video share.

    Args:
      meaning: from `read_label`. method: of `methods.METHODS`. stem: of the video. path: of a frame, below the root.
      compression: of `schema.COMPRESSIONS`.

    Returns:
      dict as `catalog.make_fields` returns.
    """
    parts = path.split("/")
    above = parts[:-3]  # the unit: without frames/<video>/<frame>
    real, perturbation = method == "real", ""
    parse = _PARSERS.get(meaning.dataset, lambda _: None)
    # Ids are those of the data set's own builder, so that one video is known to be the same.
    video_id = stem if real or meaning.dataset in ("dfdc", "uadfv") else f"{method}/{stem}"
    prefix = ""
    if meaning.dataset == "df40":
        domain = _domain(parts)
        parse = {"ff": stems.ff, "cdf": stems.cdf, "": lambda _: None}[domain]
        prefix = f"{domain}/" if domain else f"{method_of_path(parts) or 'df40'}/real/" if real else ""
        video_id = f"{prefix}{stem}" if real else f"{method}/{prefix}{stem}"
    elif meaning.dataset == "deeperforensics" and not real:
        variant = above[2] if len(above) > 2 else "end_to_end"
        video_id, perturbation = f"{variant}/{stem}", "" if variant == "end_to_end" else variant
        method = variant if variant == "reenact_postprocess" else method
    elif meaning.dataset == "deeperforensics" and not stem.isdecimal():
        # A source video's name stands below actor, light, emotion and camera, and is not the only one of its name.
        parse = lambda _: next((person for part in above if (person := stems.df1(part))), None)
        video_id = "__".join(("source", *above[2:], stem))
    person = parse(stem)
    return catalog.make_fields(
        meaning.dataset,
        method,
        video_id,
        pair_id="" if real or person is None or not person.real else f"{prefix}{person.real}",
        group_id=person.group if person and meaning.dataset == "df40" else "",
        target=person.target if person else "",
        source=person.source if person else "",
        compression=compression,
        perturbation=perturbation,
        attributes=attributes.of_method(method) if meaning.dataset == "faceforensics" else None,
    )


def celeb_method(level):
    """The method of a folder of Celeb-DF-v3, of `methods.METHODS`, or None where the folder is none of its 22."""
    return _CELEB.get(re.sub(r"[^a-z0-9]", "", level.lower()))


def _domain(parts):
    """Whose names a video of DF40 has: "ff", "cdf" or "" for neither."""
    if parts[0] == "FaceForensics++" or "ff" in parts[:-1]:
        return "ff"
    return "cdf" if parts[0].startswith("Celeb-DF") or "cdf" in parts[:-1] else ""


def _df40(name):
    return name in ("FSAll", "FRAll", "EFSAll") or df40_names.method_of(name) is not None
