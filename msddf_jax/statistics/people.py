"""The people in a video, each with a verdict of their own, and which of them the video's verdict is about."""

from typing import NamedTuple

import numpy as np

from msddf_jax.statistics import verdict

# Who is seen in a smaller share of the frames of the person seen most is reported and does not decide: the mean of a
# few frames is far more often high by chance.
LEAST_SHARE = 0.25


class Stretch(NamedTuple):
    """Where a person looks most like a fake: from `start` to `end`, frame numbers that may lie between two frames; the
    mean score and the number of the scored frames in between."""

    start: float
    end: float
    score: float
    frames: int


class Person(NamedTuple):
    """track: number of the face's track. rows: int [n], of the faces given, in order of their frames.

    frames: int [n]. scores: float [n]. judged: `verdict.Verdict` of these alone. stretch: `Stretch`.
    decides: whether the video's verdict may be about this person.
    """

    track: int
    rows: np.ndarray
    frames: np.ndarray
    scores: np.ndarray
    judged: verdict.Verdict
    stretch: Stretch
    decides: bool


def judge_people(frames, tracks, scores, sampled, calibration=None, aggregate="mean") -> tuple[list[Person], int]:
    """Everybody's verdict, and who the video's is about: of those seen often enough, the one of the highest score.

    Args:
      frames, tracks: int [N], of each scored face; a track has one face a frame. scores: float [N] in [0, 1].
      sampled: frame numbers that were looked at. calibration, aggregate: of `verdict.judge`.

    Returns:
      (list of `Person`, by track; index into it).

    Raises:
      ValueError: as `verdict.judge`, or two faces of one track in a frame.
    """
    frames, tracks, scores = np.asarray(frames), np.asarray(tracks), np.asarray(scores, np.float64)
    if len({*zip(frames.tolist(), tracks.tolist(), strict=True)}) != len(frames):
        raise ValueError("a track has two faces in one frame")
    numbers, counts = np.unique(tracks, return_counts=True)
    people = []
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        rows = np.flatnonzero(tracks == number)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        judged = verdict.judge(scores[rows], calibration, aggregate)
        stretch = find_stretch(frames[rows], scores[rows], judged.threshold, sampled)
        decides = count >= LEAST_SHARE * counts.max()
        people.append(Person(number, rows, frames[rows], scores[rows], judged, stretch, decides))
    best = max((i for i, person in enumerate(people) if person.decides), key=lambda i: people[i].judged.score)
    return people, best


def find_stretch(frames, scores, threshold, sampled) -> Stretch:
    """The run of frames that lies furthest above the threshold, added up; the highest frame where none is above.

    Args:
      frames: int [N], increasing. scores: float [N]. threshold: above it a frame is called fake.
      sampled: all frame numbers that were looked at: the run reaches half-way to the next one on either side.
    """
    frames, above = np.asarray(frames), np.asarray(scores, np.float64) - threshold
    first = last = int(np.argmax(above))
    best, total, start = above[first], 0.0, 0
    for i, value in enumerate(above):
        if total <= 0.0:
            total, start = 0.0, i
        total += value
        if total > best:
            best, first, last = total, start, i
    looked = np.union1d(sampled, frames)
    before, after = looked[looked < frames[first]], looked[looked > frames[last]]
    begin = (before[-1] + frames[first]) / 2 if before.size else frames[first]
    end = (after[0] + frames[last]) / 2 if after.size else frames[last]
    return Stretch(float(begin), float(end), float(np.mean(scores[first : last + 1])), last + 1 - first)
