"""What a detector calls each test video, and how often it is wrong: from the scores of an evaluated workdir."""

import re
from typing import NamedTuple

import numpy as np

from msddf_jax.data import methods, schema
from msddf_jax.statistics import scores as videos_of
from msddf_jax.statistics import verdict

# (label, called): what such a video is to the reader, in the order in which one of each is shown.
KINDS = {
    ("real", "real"): "real, called real",
    ("fake", "fake"): "fake, called fake",
    ("fake", "real"): "missed fake",
    ("real", "fake"): "false alarm",
}
# The data set of people's own folders (data_prep/folder), and the method of fakes whose maker is not named.
OWN, UNNAMED = "folder", "unknown"


class Call(NamedTuple):
    """key: `<data set>/<compression>/<method>/<video>`. label: "real" or "fake". method: of the fake, or "real".
    in_training: whether the detector was trained on this manipulation of this data set; None for a real, and where it
    is not known. judged: `verdict.Verdict`. file: of the video's first frame, as its record names it."""

    key: str
    label: str
    method: str
    in_training: bool | None
    judged: verdict.Verdict
    file: str


class Count(NamedTuple):
    """Videos of one manipulation (or reals) of one data set and compression. group: of `group_of`.
    real, fake: how many are called so. interval: (low, high) of the share that is called wrong."""

    group: str
    label: str
    method: str
    in_training: bool | None
    real: int
    fake: int
    interval: tuple[float, float]

    @property
    def wrong(self) -> int:
        """How many are called what they are not."""
        return self.fake if self.label == "real" else self.real


def trained_on(config, set_name, method) -> bool | None:
    """Whether a config trains on this manipulation of the data set of a built set ("<data set>/<config>,...").

    None where it is not known: fakes by an unnamed method, of a data set that was not in training.
    """
    if not config.data.group.fake:
        return False
    if not _data_sets(config.data.train.name) & _data_sets(set_name):
        return None if method == UNNAMED else False
    kept = config.data.train.get("methods")
    return kept is None or method in kept


def _data_sets(names):
    """Of "<data set>/<config>,...". Each folder of people's own files is a data set of its own, named by its config."""
    parts = [part.strip().split(":")[0] for part in names.split(",")]
    return {part if part.startswith(f"{OWN}/") else part.split("/")[0] for part in parts}


def group_of(key) -> str:
    """ "<data set>/<compression>" of a video's key; of people's own files, which have none, "folder/<name>"."""
    data_set, compression, _, video = key.split("/", 3)
    return f"{OWN}/{video.split('/')[0]}" if data_set == OWN else f"{data_set}/{compression}"


def call_videos(scores, in_training, *, calibration=None, aggregate="mean") -> list[Call]:
    """The calls of several test sets, each video once: evals of one data set share their reals.

    Args:
      scores: {eval: columns as `detection.read_scores`}, of the sets that count as tests. in_training: (eval, method)
        -> bool or None. calibration, aggregate: as `verdict.judge`.

    Returns:
      list of `Call`, in the order of the sets, within one by key.

    Raises:
      ValueError: as `scores.group_videos`.
    """
    found = {}
    for name, columns in scores.items():
        values, labels, keys = videos_of.group_videos(
            columns["score"], columns["label"], columns["video_key"], aggregate
        )
        _, first = np.unique(columns["video_key"], return_index=True)
        for value, label, key, row in zip(values, labels, keys, first, strict=True):
            method = methods.METHODS[columns["method"][row]]
            known = in_training(name, method) if label else None
            judged = verdict.judge([value], calibration, aggregate)
            call = Call(str(key), schema.LABELS[label], method, known, judged, str(columns["file"][row]))
            found.setdefault(call.key, call)
    return list(found.values())


def count(calls) -> list[Count]:
    """The confusion by group and manipulation; the reals of each group first.

    The interval is Clopper and Pearson's, 95 %, of videos that are independent draws.
    """
    from scipy.stats import binomtest  # not above: half a second

    rows = {}
    for call in calls:
        key = (group_of(call.key), call.label == "fake", call.method)
        rows.setdefault(key, []).append(call)
    out = []
    for (group, _, method), own in sorted(rows.items(), key=lambda item: item[0][:2]):
        fakes = sum(call.judged.label == "fake" for call in own)
        label = own[0].label
        wrong = len(own) - fakes if label == "fake" else fakes
        ends = binomtest(wrong, len(own)).proportion_ci(0.95, "exact")
        interval = (float(ends.low), float(ends.high))
        out.append(Count(group, label, method, own[0].in_training, len(own) - fakes, fakes, interval))
    return out


def one_of_each(calls) -> dict[str, Call | None]:
    """{of `KINDS`: the call whose score is furthest from the threshold}; None where there is none."""
    distance = lambda call: abs(call.judged.score - call.judged.threshold)
    of_kind = lambda kind: [call for call in calls if KINDS[call.label, call.judged.label] == kind]
    return {kind: max(of_kind(kind), key=distance, default=None) for kind in KINDS.values()}


def video_file(call, root) -> str:
    """The video that a frame was cut from, in the layout of FF++ and DeepfakeBench below `root` (Path, or None).

    `<unit>/frames/<video>/<n>.png` comes of `<unit>/videos/<video>.mp4`; without a root, or where no such file is,
    the frame's own path.
    """
    match = re.fullmatch(r"(.*)/frames/([^/]+)/[^/]+", call.file)
    if root is not None and match:
        path = root / match[1] / "videos" / f"{match[2]}.mp4"
        if path.is_file():
            return str(path)
    return call.file
