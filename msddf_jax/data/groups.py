"""Groups of a training batch: which reals and fakes stand together, drawn anew each epoch."""

import dataclasses

import numpy as np
from absl import logging

from msddf_jax.data import nearest, schema
from msddf_jax.data.methods import METHODS
from msddf_jax.data.source import Source, check_methods


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """What a training batch is made of: groups, each about one real record.

    source: Source. group: schema.Group.
    anchors: [G] int64, the real record that each group is about.
    partners: {row of a real video: for each kind of fake, [P] rows of the fake videos made from it}; a kind is a method
    of `group.methods`, or any where it names none.
    reals: [R] int64, and fakes: of each kind [F] int64, records for the groups of reals that are not in `partners`.
    nearest: None, or {real record: [K] records of which one stands second in its groups} (`nearest.load`).
    """

    source: Source
    group: schema.Group
    anchors: np.ndarray
    partners: dict
    reals: np.ndarray
    fakes: tuple
    nearest: dict | None = None

    def __len__(self) -> int:
        return len(self.anchors)

    def draw(self, index, rng) -> list[int]:
        """Records of group `index`: first the reals, the anchor ahead, then the fakes, kind by kind.

        The fakes of one kind are of different videos (by class: different records) as far as there are so many. A fake
        of the real's own video has the frame number of the real of that video that stands in its place among the reals,
        or the nearest that there is.

        Args:
          index: in [0, len). rng: numpy Generator, fresh for each element and epoch.

        Returns:
          list of `group.rows` indices into the source.
        """
        source, group = self.source, self.group
        anchor = int(self.anchors[index])
        video = int(source.video[anchor])
        reals, own = [anchor], 1
        if self.nearest is not None:
            reals.append(rng.choice(self.nearest[anchor]))
        if video not in self.partners:
            if len(reals) < group.real:
                reals += list(_pick(_others(self.reals, anchor), group.real - 1, rng))
            return [int(i) for i in (*reals, *(i for kind in self.fakes for i in _pick(kind, group.fake, rng)))]
        if len(reals) < group.real:
            records = np.arange(source.first[video], source.first[video] + source.count[video])
            reals += _draw(_others(records, anchor), group.real - 1, rng)
            own = group.real
        fakes = []
        for partner in (row for kind in self.partners[video] for row in _draw(kind, group.fake, rng)):
            wanted = source.frame_index[reals[len(fakes) % own]]
            start = int(source.first[partner])
            frames = source.frame_index[start : start + int(source.count[partner])]
            fakes.append(start + int(np.argmin(np.abs(frames - wanted))))
        return [int(i) for i in (*reals, *fakes)]


def make_groups(source, group=None) -> Groups:
    """Groups of each real frame with fakes: of its own video ("pair"), or with any ("class").

    A fake is of a real's own video where its `pair_id` is the real's `video_id`. Where "pair" is asked for, a set
    without any such fake is grouped by class, together with the other sets of a mixed source that have none; the log
    says so. `{"real": 1, "fake": 0}` is every real frame alone.

    Args:
      source: Source. group: what `schema.make_group` takes; None for one real and one fake of its video.

    Returns:
      Groups, one for each real frame that has a fake of every kind asked for; other reals are left out and counted in
      the log.

    Raises:
      ValueError: a wrong group, a method that the source has not, no reals, or not one real with fakes. And as
        `nearest.load`.
    """
    group = schema.make_group(group or {})
    videos, there = source.videos, source.count > 0
    is_real, is_fake = (there & (videos["label"] == label) for label in schema.LABELS)
    check_methods(source.name, group.methods, videos["method"][is_fake])
    kinds = [is_fake & (videos["method"] == name) for name in group.methods] or [is_fake] * (group.fake > 0)
    if group.match == "class":
        own, by_class = {}, np.ones(len(there), bool)
    elif group.fake == 0:
        own, by_class = dict.fromkeys(np.flatnonzero(is_real).tolist(), ()), np.zeros(len(there), bool)
    else:
        own = _fakes_of_reals(videos, is_real, is_fake)
        by_class = ~np.isin(videos["reader"], videos["reader"][list(own)])
        _say_unpaired(source, by_class & is_real, by_class & is_fake)
    partners = {real: tuple(rows[kind[rows]] for kind in kinds) for real, rows in own.items()}
    partners = {real: rows for real, rows in partners.items() if all(map(len, rows))}
    records = lambda chosen: np.flatnonzero(chosen[source.video])
    reals, fakes = records(is_real & by_class), tuple(records(kind & by_class) for kind in kinds)
    if not all(map(len, fakes)):
        reals = reals[:0]
    anchors = np.sort(np.concatenate([reals, np.flatnonzero(np.isin(source.video, list(partners)))])).astype(np.int64)
    wanted = f"fake of each of {', '.join(group.methods)}" if group.methods else "fake"
    if not len(anchors):
        raise ValueError(
            f"{source.name} has {is_real.sum()} real and {is_fake.sum()} fake videos, and no {wanted} for any of the "
            f"reals, which {group} needs; choose other methods, build the missing videos, or train on reals alone "
            "with config.data.group.fake = 0"
        )
    neighbours = nearest.load(group.nearest, source) if group.nearest else None
    if neighbours is not None:
        anchors = nearest.keep(anchors, neighbours, source.name, group.nearest)
    if left_out := int(is_real.sum()) - len(np.unique(source.video[anchors])):
        logging.warning("%s: %d real videos have no %s and are left out of training", source.name, left_out, wanted)
    return Groups(source, group, anchors, partners, reals, fakes, neighbours)


def check_places(groups, indices, batch) -> None:
    """Raise ValueError where a row stands at a place of its group that its record contradicts.

    Args:
      groups: Groups. indices: of the rows' records, whole groups. batch: of these, with `label` and `method`.
    """
    group = groups.group
    fakes = np.repeat(np.array(group.methods or ("any fake",), object), group.fake)
    places = np.resize(np.array(["real"] * group.real + fakes.tolist(), object), len(indices))
    labels = np.array(schema.LABELS, object)[batch["label"]]
    methods = np.array(METHODS, object)[batch["method"]]
    right = np.where(places == "any fake", methods != "real", methods == places)
    for row in np.flatnonzero(~right | ((labels == "real") != (places == "real"))):
        raise ValueError(
            f"{groups.source.name} record {indices[row]} ({batch['video_id'][row]}, frame {batch['frame_index'][row]}) "
            f"has label {labels[row]!r} and method {methods[row]!r}, and stands at place {row % group.rows} of its "
            f"group, which is for {places[row]!r}: index and records of the set disagree, build it again (--overwrite)"
        )


def _fakes_of_reals(videos, is_real, is_fake):
    """{row of a real video: [P] rows of the fake videos made from it}, of those that have one."""
    fakes, own = {}, {}
    for row in np.flatnonzero(is_fake):
        key = videos["dataset"][row], videos["compression"][row], videos["pair_id"][row]
        fakes.setdefault(key, []).append(row)
    for row in np.flatnonzero(is_real):
        key = videos["dataset"][row], videos["compression"][row], videos["video_id"][row]
        if key in fakes:
            own[int(row)] = np.array(fakes[key], np.int64)
    return own


def _say_unpaired(source, reals, fakes):
    for reader, name in enumerate(source.sets if fakes.any() else ()):
        mine = source.videos["reader"] == reader
        if (reals & mine).any() or (fakes & mine).any():
            logging.warning(
                "%s: none of its %d fake videos is of one of its %d real videos; grouped by class: any fake beside any "
                "real", name, (fakes & mine).sum(), (reals & mine).sum(),
            )  # fmt: skip


def _others(records, anchor):
    """The records but the anchor; the anchor once more where there is no other."""
    others = records[records != anchor]
    return others if len(others) else np.array([anchor])


def _draw(items, number, rng):
    """`number` of the items in random order; none twice before all were drawn once."""
    drawn = []
    while len(drawn) < number:
        drawn.extend(rng.permutation(items))
    return drawn[:number]


def _pick(items, number, rng):
    """As `_draw`, in a time that does not grow with the items where they are many."""
    return rng.choice(items, number, replace=False) if number <= len(items) else _draw(items, number, rng)
