"""Indexes of built sets without their records, and FaceForensics++'s lists with the structure of the real ones."""

import json

from data_prep import records
from msddf_jax.data import overlap

DEFAULTS = {
    "label": "real",
    "method": "real",
    "dataset": "celebdf",
    "pair_id": "",
    "group_id": "",
    "source_identity": "",
    "target_identity": "",
    "compression": "none",
    "num_frames_video": -1,
    "height": 16,
    "width": 16,
    "num_records": 2,
    "frame_index": (0, 1),
}
# Where the official lists put the clips of the seven YouTube videos that they divide.
STRADDLERS = {
    "train": ("605", "639", "756", "838", "876", "954", "983"),
    "val": ("606", "640", "837", "875", "982"),
    "test": ("755", "955"),
}
SPLIT_IDS = {"train": 720, "val": 140, "test": 140}


def row(video_id, **fields):
    """A row of an index; a fake where a pair_id is given."""
    made = {**DEFAULTS, "video_id": video_id, **fields}
    if made["pair_id"]:
        made["label"] = "fake"
    made["group_id"] = made["group_id"] or made["pair_id"] or video_id
    return made


def write_set(data_dir, name, splits):
    """Writes the indexes of a built set, splits: {split: rows}. Returns its folder."""
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    dataset, config = name.split("/")
    (folder / "dataset_info.json").write_text(json.dumps({"name": dataset, "configName": config}))
    for split, rows in splits.items():
        rows = [{**r, "first_record": 2 * i} for i, r in enumerate(rows)]
        records.write_index(folder / f"index-{split}.csv", rows)
    return folder


def write_ffpp_lists(root):
    """train.json, val.json, test.json and conversion_dict.json: 1000 clips of 977 YouTube videos, seven of them in two
    splits, fourteen others with two clips and one with three in one split."""
    placed = {clip: split for split, clips in STRADDLERS.items() for clip in clips}
    together = [(f"{i:03d}", f"{i + 1:03d}") for i in range(0, 28, 2)] + [("685", "686", "687")]
    placed |= {clip: "train" for clips in together for clip in clips}
    for split, wanted in SPLIT_IDS.items():
        free = [f"{i:03d}" for i in range(1000) if f"{i:03d}" not in placed]
        placed |= {clip: split for clip in free[: wanted - sum(s == split for s in placed.values())]}
    root.mkdir(parents=True, exist_ok=True)
    for split in SPLIT_IDS:
        clips = sorted(clip for clip in placed if placed[clip] == split)
        # The first with the middle one: no pair of neighbours, as in the real lists.
        half = len(clips) // 2
        pairs = [[a, b] for a, b in zip(clips[:half], clips[half:], strict=True)]
        (root / f"{split}.json").write_text(json.dumps(pairs))
    divided = [("605", "606"), ("639", "640"), ("755", "756"), ("837", "838")]
    divided += [("875", "876"), ("954", "955"), ("982", "983")]
    first = {clip: clips[0] for clips in [*together, *divided] for clip in clips}
    youtube = {f"{i:03d}": first.get(f"{i:03d}", f"{i:03d}") for i in range(1000)}
    assert len(set(youtube.values())) == 977
    clips = {clip: f"Yt_-id{video} {int(clip) - int(video)}" for clip, video in youtube.items()}
    (root / "conversion_dict.json").write_text(json.dumps(clips))


def ffpp_rows(root, compression="c23", youtube=True):
    """{split: rows} that the lists in `root` ask for: both reals of a pair, and its two Deepfakes.

    youtube: whether conversion_dict.json was there at the build; without it a clip is its own group.
    """
    group = {}
    if youtube:
        clips = json.loads((root / "conversion_dict.json").read_text())
        group = {clip: text.rsplit(" ", 1)[0] for clip, text in clips.items()}
    made = {}
    for split, stem in (("train", "train"), ("validation", "val"), ("test", "test")):
        pairs = json.loads((root / f"{stem}.json").read_text())
        directed = pairs + [[b, a] for a, b in pairs]
        shared = {"dataset": "faceforensics", "compression": compression}
        made[split] = [
            row(t, group_id=group.get(t, t), source_identity=f"ff:{t}", target_identity=f"ff:{t}", **shared)
            for t, _ in directed
        ] + [
            row(
                f"deepfakes/{t}_{s}",
                method="deepfakes",
                pair_id=t,
                group_id=group.get(t, t),
                source_identity=f"ff:{s}",
                target_identity=f"ff:{t}",
                **shared,
            )
            for t, s in directed
        ]
    return made


def split_of(name, rows, role=None):
    """overlap.Split of rows."""
    return overlap.make_split(name, {column: [r[column] for r in rows] for column in rows[0]}, role)
