"""TFDS builder of FaceForensics++ (Rössler et al. 2019) and of the toy set, from prepared crops.

Built by `python -m data_prep.build faceforensics --config c23 --manual_dir PREPARED --data_dir DIR`.
"""

import concurrent.futures
import dataclasses
import json
import pathlib
import re
import shlex
from typing import ClassVar, NamedTuple

import tensorflow_datasets as tfds
from tqdm import tqdm

from data_prep import features, layout, records
from data_prep.layout import PreparedDataError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
METHODS = {
    "Deepfakes": "deepfakes",
    "Face2Face": "face2face",
    "FaceSwap": "faceswap",
    "NeuralTextures": "neuraltextures",
}
# Configs of one manipulation, <compression>_<suffix>.
ONE_METHOD = {
    "df": {"Deepfakes": "deepfakes"},
    "f2f": {"Face2Face": "face2face"},
    "fs": {"FaceSwap": "faceswap"},
    "nt": {"NeuralTextures": "neuraltextures"},
    "fsh": {"FaceShifter": "faceshifter"},
}
TOY_METHODS = {
    "ToySwap": "toy_swap",
    "ToyReenact": "toy_reenact",
    "ToyNeural": "toy_neural",
    "ToyTexture": "toy_texture",
}
_SHOWN = 20
_THREADS = 4
_CLIP = 16


@dataclasses.dataclass
class FaceForensicsConfig(tfds.core.BuilderConfig):
    """compression: folder below each method. partial: take what is there. methods: {folder: schema method}.
    dataset: schema data set. identity: namespace of identities. clip_length: consecutive frames of a record, 0 for one
    record a frame."""

    compression: str = "c23"
    partial: bool = False
    methods: dict = dataclasses.field(default_factory=lambda: METHODS)
    dataset: str = "faceforensics"
    identity: str = "ff"
    clip_length: int = 0


class ListedVideo(NamedTuple):
    """A video that a split list asks for. unit: Path. name: its stem. fields: what its records share."""

    unit: pathlib.Path
    name: str
    fields: dict


def _configs():
    """The configs of frames, and each again with clips."""
    configs = [
        FaceForensicsConfig(
            name=compression + ("_partial" if partial else ""),
            description=f"{compression}, four methods{', the listed videos there are' * partial}",
            compression=compression,
            partial=partial,
        )
        for compression in ("c23", "c40", "raw")
        for partial in (False, True)
    ]
    configs += [
        FaceForensicsConfig(
            name=f"{compression}_{suffix}",
            description=f"{compression}, {', '.join(methods)} and the reals",
            compression=compression,
            methods=methods,
        )
        for compression in ("c23", "c40", "raw")
        for suffix, methods in ONE_METHOD.items()
    ]
    configs += [
        FaceForensicsConfig(
            name=name,
            description=f"The embedded procedural set, {compression}.",
            compression=compression,
            methods=TOY_METHODS,
            dataset="toy",
            identity="toy",
        )
        for name, compression in (("toy", "c23"), ("toy_c40", "c40"))
    ]
    clips = [
        dataclasses.replace(
            config,
            name=f"{config.name}_clip{_CLIP}",
            description=f"{config.description.rstrip('.')}, clips of {_CLIP} consecutive frames",
            clip_length=_CLIP,
        )
        for config in configs
    ]
    return [*configs, *clips]


class Builder(records.FrameBuilder):
    """Frames or clips of FaceForensics++ or the toy set; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Perturbation and attributes in the records."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is the folder that data_prep.prepare wrote to (its --out)."
    BUILDER_CONFIGS: ClassVar = _configs()

    def _info(self):
        length = self.builder_config.clip_length
        made = features.clip_features(length) if length else features.record_features()
        return self.dataset_info_from_configs(features=made, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        pairs = read_split_lists(root)
        listed = list_videos(root, self.builder_config, pairs)
        check_unlisted(root, listed)
        found = find_videos(root, self.builder_config, listed)
        return {
            split: self._generate_examples(root, split, videos) for split, videos in found.items() if _any_frame(videos)
        }

    def _generate_examples(self, root, split, videos):
        total = sum(len(video.frames) for _, video in videos)
        with (
            tqdm(total=total, desc=f"build {split}", unit="frame", mininterval=0.5) as bar,
            concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
        ):
            for listed, video in videos:
                # Decoding to check is most of the work, and runs outside Python's lock.
                encode = lambda files, v=video, f=listed.fields: features.encode_frame(
                    files, v, root=root, publishes_masks=True, fields=f
                )
                length, frames = self.builder_config.clip_length, pool.map(encode, video.frames)
                for example in features.group_clips(frames, length) if length else frames:
                    yield f"{listed.fields['video_id']}/{records.first_frame(example)}", example
                bar.update(len(video.frames))


def read_split_lists(root):
    """The official split lists.

    Args:
      root: Path with train.json, val.json and test.json, each a list of [id, id] strings.

    Returns:
      {"train" | "validation" | "test": list of (id, id)}.

    Raises:
      PreparedDataError: a list is missing or malformed, or an id stands in two pairs.
    """
    pairs, seen = {}, {}
    for split, stem in SPLITS.items():
        path = root / f"{stem}.json"
        if not path.exists():
            raise PreparedDataError(
                f"no split list {path}. manual_dir must hold train.json, val.json and test.json beside "
                "original_sequences and manipulated_sequences; FaceForensics++ has its lists in "
                "dataset/splits of its repository"
            )
        pairs[split] = _parse_split_list(path)
        for identity in (identity for pair in pairs[split] for identity in pair):
            if identity in seen:
                raise PreparedDataError(f"id {identity} stands twice: in {seen[identity]} and in {path}")
            seen[identity] = path
    return pairs


def list_videos(root, config, pairs):
    """Every video that the lists ask for: both reals of a pair, and both directions of each manipulation.

    Args:
      root: Path. config: FaceForensicsConfig. pairs: from `read_split_lists`.

    Returns:
      {split: list of ListedVideo}, reals first, then by method and name. A fake is <target>_<source>; its
      real partner is the target.
    """
    youtube = _read_youtube_ids(root, pairs)
    compression = config.compression
    folder = _compression_folder(root, config)

    def listed(method_folder, method, target, source):
        is_real = method == "real"
        name = target if is_real else f"{target}_{source}"
        unit = root / "original_sequences" / "youtube" if is_real else root / "manipulated_sequences" / method_folder
        return ListedVideo(
            unit / folder,
            name,
            {
                "label": "real" if is_real else "fake",
                "method": method,
                "dataset": config.dataset,
                "video_id": name if is_real else f"{method}/{name}",
                "pair_id": "" if is_real else target,
                "group_id": youtube.get(target, target),
                "source_identity": f"{config.identity}:{source}",
                "target_identity": f"{config.identity}:{target}",
                "compression": compression,
            },
        )

    out = {}
    for split, split_pairs in pairs.items():
        directed = sorted(split_pairs + [(b, a) for a, b in split_pairs])
        out[split] = [listed(None, "real", target, target) for target, _ in directed]
        for method_folder, method in config.methods.items():
            out[split] += [listed(method_folder, method, target, source) for target, source in directed]
    return out


def check_unlisted(root, listed):
    """Raise PreparedDataError for a prepared video in no list: a list or a folder is of another set."""
    wanted = {}
    for video in (video for videos in listed.values() for video in videos):
        wanted.setdefault(video.unit, set()).add(video.name)
    unlisted = [
        (unit / "frames" / name).relative_to(root)
        for unit, names in wanted.items()
        for name in layout.prepared_videos(unit)
        if name not in names
    ]
    if unlisted:
        raise PreparedDataError(
            f"{len(unlisted)} prepared videos stand in no split list of {root}: {_first(unlisted)}. Fakes "
            "are named <target>_<source> after a listed pair. Remove them, or use the lists of these videos"
        )


def find_videos(root, config, listed):
    """Open the listed videos and report what is there.

    Args:
      root: Path. config: FaceForensicsConfig. listed: from `list_videos`.

    Returns:
      {split: list of (ListedVideo, layout.Video)}.

    Raises:
      PreparedDataError: a listed video is not prepared and the config is not partial; or none is there.
    """
    found = {split: [] for split in listed}
    missing = []
    with tqdm(total=sum(map(len, listed.values())), desc="look for videos", unit="video", mininterval=0.5) as bar:
        for split, videos in listed.items():
            for video in videos:
                opened = layout.read_video(video.unit, video.name)
                if opened is None:
                    missing.append((video.unit / "frames" / video.name).relative_to(root))
                else:
                    found[split].append((video, opened))
                bar.update()
    command = (
        "python -m data_prep.prepare --layout=faceforensics --root DOWNLOAD "
        f"--out {shlex.quote(str(root))} --compression={config.compression}"
    )
    if not any(map(_any_frame, found.values())):
        raise PreparedDataError(f"no prepared video in {root}: looked for {_first(missing)}. Prepare them: {command}")
    if missing and not config.partial:
        has_partial = config.dataset != "toy" and config.methods is METHODS
        hint = f", or build --config {config.compression}_partial without them" if has_partial else ""
        raise PreparedDataError(
            f"{len(missing)} listed videos are not prepared: {_first(missing)}. Prepare them: {command}{hint}"
        )
    _report(found, missing)
    return found


def _report(found, missing):
    """Print per split what is there, so that an all-one-class split or lost frames are seen."""
    lines = [] if not missing else [f"{len(missing)} listed videos are not there: {_first(missing)}"]
    for split, videos in found.items():
        counts = {}
        for listed, video in videos:
            label = listed.fields["label"]
            number, frames = counts.get(label, (0, 0))
            counts[label] = (number + 1, frames + len(video.frames))
        text = ", ".join(f"{label} {n} videos {frames} frames" for label, (n, frames) in sorted(counts.items()))
        lines.append(f"{split}: {text or 'no video, the split is left out'}")
        if len(counts) == 1:
            lines[-1] += " (one class only: AUC is undefined on it)"
        empty = [listed.fields["video_id"] for listed, video in videos if not video.frames]
        if empty:
            lines.append(f"{split}: no usable frame in {len(empty)} videos: {_first(empty)}")
        no_mask = sum(
            files.mask is None for listed, v in videos if listed.fields["label"] == "fake" for files in v.frames
        )
        if no_mask:
            lines.append(f"{split}: {no_mask} fake frames have no mask (has_mask is false)")
    for line in lines:
        tqdm.write(line)


def _parse_split_list(path):
    try:
        pairs = json.loads(path.read_bytes())
    except ValueError as error:
        raise PreparedDataError(f"{path}: not JSON ({error})") from error
    if not isinstance(pairs, list) or not pairs:
        raise PreparedDataError(f'{path}: expected a list of pairs like ["071", "054"], got {str(pairs)[:80]}')
    for pair in pairs:
        is_pair = isinstance(pair, list) and len(pair) == 2 and pair[0] != pair[1]
        if not is_pair or not all(isinstance(i, str) and re.fullmatch(r"\d{3,}", i) for i in pair):
            raise PreparedDataError(f'{path}: expected a pair of two ids like ["071", "054"], got {str(pair)[:80]}')
    return [tuple(pair) for pair in pairs]


def _read_youtube_ids(root, pairs):
    """{id: YouTube id} from conversion_dict.json ("071": "<YouTube id> <clip>"), empty without the file."""
    path = root / "conversion_dict.json"
    if not path.exists():
        return {}
    try:
        youtube = {clip: str(value).rsplit(" ", 1)[0] for clip, value in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise PreparedDataError(f"{path}: not a JSON object of ids ({error})") from error
    lacking = sorted({i for split in pairs.values() for pair in split for i in pair} - set(youtube))
    if lacking:
        raise PreparedDataError(f"{path} lacks {len(lacking)} ids of the split lists: {_first(lacking)}")
    return youtube


def _compression_folder(root, config):
    """`raw` is `c0` in some copies of the data set."""
    reals = root / "original_sequences" / "youtube"
    if config.compression == "raw" and (reals / "c0").is_dir() and not (reals / "raw").is_dir():
        tqdm.write(f"reading c0 as raw in {root}")
        return "c0"
    return config.compression


def _any_frame(videos):
    return any(video.frames for _, video in videos)


def _first(items):
    shown = ", ".join(map(str, items[:_SHOWN]))
    return shown + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
