"""Who is in a video, from the names that FaceForensics++, DFD, Celeb-DF, DFDC-Preview, DeeperForensics and UADFV give.

Sources: the owners' naming rules; reference/datasets.md 1.1-1.10.
"""

import re
from typing import NamedTuple

_FF = re.compile(r"(\d{3})(?:_(\d{3}))?")
_CDF_REAL = re.compile(r"(id\d+)_\d{4}")
_CDF_FAKE = re.compile(r"(id\d+)_(id\d+)_(\d{4})")
_CDF_TALK = re.compile(r"(id\d+)_(\d{4})_test_.+")
_CDF_YOUTUBE = re.compile(r"\d{5}")
_DFD = re.compile(r"(\d{2})__((?:(?!__).)+)")
_DFD_FAKE = re.compile(r"(\d{2})_(\d{2})__(.+)__(\w{8})")
_DFDCP_REAL = re.compile(r"(\d+)_[A-Za-z0-9]+_\d+")
_DFDCP_FAKE = re.compile(r"(\d+)_((\d+)_[A-Za-z0-9]+_\d+)")
_DF1 = re.compile(r"(\d{3})_([MW]\d{3})")
_DF1_REAL = re.compile(r"\d{3}|[MW]\d{3}")
_UADFV = re.compile(r"(\d{4})(_fake)?")


class Person(NamedTuple):
    """Identities of a video, with namespace: target is on screen, source gave the face or the motion; equal on reals.

    real: stem of the real that a fake was made from, "" on reals or unknown. group: videos that must share a split.
    """

    target: str
    source: str
    real: str
    group: str


def ff(stem):
    """`071` or `<target>_<source>`, as "ff:071". Returns Person, or None where the name is none of FaceForensics++."""
    match = _FF.fullmatch(stem)
    if match is None:
        return None
    target, source = match[1], match[2] or match[1]
    return Person(f"ff:{target}", f"ff:{source}", target if match[2] else "", f"ff:{target}")


def cdf(stem):
    """`id<a>_<k>`, `<5 digits>` (YouTube), `id<a>_id<b>_<k>`, `id<a>_<k>_test_<voice>`. Returns Person or None."""
    if _CDF_YOUTUBE.fullmatch(stem):
        return Person(f"cdf:yt:{stem}", f"cdf:yt:{stem}", "", f"cdf:yt:{stem}")
    if match := _CDF_REAL.fullmatch(stem):
        return Person(f"cdf:{match[1]}", f"cdf:{match[1]}", "", f"cdf:{stem}")
    if match := _CDF_FAKE.fullmatch(stem):
        real = f"{match[1]}_{match[3]}"
        return Person(f"cdf:{match[1]}", f"cdf:{match[2]}", real, f"cdf:{real}")
    if match := _CDF_TALK.fullmatch(stem):
        real = f"{match[1]}_{match[2]}"
        return Person(f"cdf:{match[1]}", "", real, f"cdf:{real}")
    return None


def dfd(stem):
    """`<actor>__<scene>` or `<target>_<source>__<scene>__<8 characters>`. Returns Person or None."""
    if match := _DFD_FAKE.fullmatch(stem):
        real = f"{match[1]}__{match[3]}"
        return Person(f"dfd:{match[1]}", f"dfd:{match[2]}", real, f"dfd:{real}")
    if match := _DFD.fullmatch(stem):
        return Person(f"dfd:{match[1]}", f"dfd:{match[1]}", "", f"dfd:{stem}")
    return None


def dfdcp(stem):
    """`<id>_<suffix>_<counter>` or `<swapped>_<target>_<suffix>_<counter>`. Returns Person or None."""
    if match := _DFDCP_FAKE.fullmatch(stem):
        return Person(f"dfdcp:{match[3]}", f"dfdcp:{match[1]}", match[2], f"dfdcp:{match[2]}")
    if match := _DFDCP_REAL.fullmatch(stem):
        return Person(f"dfdcp:{match[1]}", f"dfdcp:{match[1]}", "", f"dfdcp:{stem}")
    return None


def df1(stem):
    """`<FaceForensics++ id>_<actor>`: the actor's face in the FF++ clip. Returns Person or None."""
    if match := _DF1.fullmatch(stem):
        return Person(f"ff:{match[1]}", f"df1:{match[2]}", match[1], f"ff:{match[1]}")
    if _DF1_REAL.fullmatch(stem):
        who = f"ff:{stem}" if stem.isdecimal() else f"df1:{stem}"
        return Person(who, who, "", who)
    return None


def uadfv(stem):
    """`<4 digits>` or `<4 digits>_fake`, one proxy identity a pair. Returns Person or None."""
    match = _UADFV.fullmatch(stem)
    if match is None:
        return None
    who = f"uadfv:{match[1]}"
    return Person(who, who, match[1] if match[2] else "", who)
