"""TFDS builders of what `data_prep.prepare` left behind, one record a frame, or one a clip of consecutive frames."""

import concurrent.futures
import dataclasses
import importlib
import pathlib
import tempfile

import tensorflow_datasets as tfds
from tqdm import tqdm

from data_prep import beam, catalog, contents, features, layout, records
from data_prep.layout import PreparedDataError

_THREADS = 4
_SHOWN = 20
# Of a build on Beam: small enough that workers end together, large enough for a shard.
_VIDEOS_A_PART = 64


@dataclasses.dataclass
class PreparedConfig(tfds.core.BuilderConfig):
    """catalog: config of `prepare` whose catalog is read, None for `name`. methods: names of `methods.METHODS` to keep
    beside the reals, None for all. splits: {split here: split of the catalog}, None for those of the catalog.
    clip_length: consecutive frames of a record, 0 for one record a frame."""

    catalog: str | None = None
    methods: tuple | None = None
    splits: dict | None = None
    clip_length: int = 0


def with_clips(configs, clip_length=16):
    """The configs, and each again with records of `clip_length` consecutive frames, named `<name>_clip16`."""
    clips = [
        dataclasses.replace(
            config,
            name=f"{config.name}_clip{clip_length}",
            catalog=config.catalog or config.name,
            description=f"{config.description} Clips of {clip_length} consecutive frames.",
            clip_length=clip_length,
        )
        for config in configs
    ]
    return [*configs, *clips]


class PreparedBuilder(records.FrameBuilder, skip_registration=True):
    """A TFDS builder that takes videos, splits and labels from the catalog of `data_prep.prepare`.

    A subclass has VERSION, RELEASE_NOTES and BUILDER_CONFIGS of `PreparedConfig`.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is the folder that data_prep.prepare wrote to (its --out)."

    def _info(self):
        length = self.builder_config.clip_length
        made = features.clip_features(length) if length else features.record_features()
        return self.dataset_info_from_configs(features=made, disable_shuffling=True)

    # (Beam's runner, its flags), for a build of which each worker writes some videos; None builds here.
    on_beam = None

    def _generate_splits(self, dl_manager, download_config):
        if self.on_beam is None:
            return super()._generate_splits(dl_manager, download_config)
        root, max_bytes = pathlib.Path(dl_manager.manual_dir), download_config.get_shard_config().max_shard_size
        tasks = []
        for split, videos in self._find_videos(root).items():
            for start in range(0, len(videos), _VIDEOS_A_PART):
                part = (self.name, self.builder_config.name, str(root), str(self.data_path), max_bytes, split)
                tasks.append((len(tasks), *part, videos[start : start + _VIDEOS_A_PART]))
        written = beam.write_parts(tasks, _write_part, self.data_path, *self.on_beam)
        splits = list(dict.fromkeys(task[6] for task in tasks))
        of_split = lambda split: [part for task, part in zip(tasks, written, strict=True) if task[6] == split]
        return [self.join_parts(split, of_split(split)) for split in splits]

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        return {
            split: self._generate_examples(root, split, videos) for split, videos in self._find_videos(root).items()
        }

    def _find_videos(self, root):
        config = self.builder_config
        path = catalog.catalog_path(root, self.name, config.catalog or config.name)
        try:
            lines = catalog.read_catalog(path)
        except catalog.DownloadError as error:
            raise PreparedDataError(str(error)) from error
        return find_videos(root, lines, config, path)

    def _generate_examples(self, root, split, videos):
        length = self.builder_config.clip_length
        total = sum(len(video.frames) for _, video in videos)
        with (
            tqdm(total=total, desc=f"build {split}", unit="frame", mininterval=0.5) as bar,
            concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
        ):
            for line, video in videos:
                fields = line["fields"]
                # Decoding to check is most of the work, and runs outside Python's lock.
                encode = lambda files, v=video, f=fields, m=line["publishes_masks"]: features.encode_frame(
                    files, v, root=root, publishes_masks=m, fields=f
                )
                frames = pool.map(encode, video.frames)
                for example in features.group_clips(frames, length) if length else frames:
                    yield f"{fields['video_id']}/{records.first_frame(example)}", example
                bar.update(len(video.frames))


def _write_part(number, name, config, root, folder, max_bytes, split, videos):
    """One part of a split, in a worker of Beam."""
    module = importlib.import_module(f"data_prep.{name}.{name}_dataset_builder")
    config = module.make_config(config) if hasattr(module, "make_config") else config
    builder = module.Builder(config=config, data_dir=tempfile.gettempdir())
    examples = builder._generate_examples(pathlib.Path(root), split, videos)
    return builder.write_part(examples, pathlib.Path(folder), f"part-{number:05d}", max_bytes)


def find_videos(root, lines, config, path):
    """Open the videos of a catalog that a config takes, and print per split what is there.

    Args:
      root: Path. lines: from `catalog.read_catalog`. config: PreparedConfig. path: of the catalog, for messages.

    Returns:
      {split: list of (line, layout.Video)}, splits without a frame left out.

    Raises:
      PreparedDataError: a video that the catalog calls prepared is not there; no video is left; an unknown split or
        method.
    """
    names = {s: s for s in dict.fromkeys(line["split"] for line in lines)} if config.splits is None else config.splits
    lost = sorted(set(names.values()) - {line["split"] for line in lines})
    if lost:
        raise PreparedDataError(f"{path} has no split {', '.join(lost)}, which config {config.name} needs")
    methods = {line["fields"]["method"] for line in lines}
    if config.methods is not None and not set(config.methods) & methods:
        raise PreparedDataError(f"{path} has none of {', '.join(config.methods)}; it has {', '.join(sorted(methods))}")
    wanted = [
        line
        for line in lines
        if config.methods is None or line["fields"]["label"] == "real" or line["fields"]["method"] in config.methods
    ]
    found, gone = {split: [] for split in names}, []
    for split, source in names.items():
        for line in (line for line in wanted if line["split"] == source):
            video = None
            if line["outcome"] == catalog.PREPARED:
                video = layout.read_video(root / line["unit"], line["stem"])
                if video is None:
                    gone.append(f"{line['unit']}/frames/{line['stem']}")
            found[split].append((line, video))
    if gone:
        raise PreparedDataError(
            f"{len(gone)} videos that {path} calls prepared are not there: {_first(gone)}. Prepare them again"
        )
    for text in _summary(found):
        tqdm.write(text)
    usable = {s: [(line, v) for line, v in videos if v is not None and v.frames] for s, videos in found.items()}
    if not any(usable.values()):
        raise PreparedDataError(f"{path}: config {config.name} has no video with a usable frame")
    return {split: videos for split, videos in usable.items() if videos}


def _summary(found):
    """Lines that show an all-one-class split, and every video that will be missing from a test set."""
    for split, videos in found.items():
        counts = {}
        for line, video in videos:
            number, frames = counts.get(line["fields"]["label"], (0, 0))
            here = 0 if video is None else len(video.frames)
            counts[line["fields"]["label"]] = (number + bool(here), frames + here)
        text = ", ".join(f"{label} {n} videos {frames} frames" for label, (n, frames) in sorted(counts.items()))
        one = " (one class only: AUC is undefined on it)" if len(counts) == 1 else ""
        yield f"{split}: {text or 'no video, the split is left out'}{one}"
        masks = [files.mask for line, v in videos if v and _has_mask(line) for files in v.frames]
        if None in masks:
            yield f"{split}: {masks.count(None)} fake frames have no mask (has_mask is false)"
        lost = [
            f"{contents.shown(line['fields']['video_id'])} [{line['outcome']}]"
            for line, v in videos
            if v is None or not v.frames
        ]
        if lost:
            yield f"{split}: no usable frame in {len(lost)} videos, which any score on it leaves out: {_first(lost)}"


def _has_mask(line):
    """Whether the owners publish a mask of a video's frames."""
    return line["publishes_masks"] and line["fields"]["label"] == "fake"


def _first(items):
    return ", ".join(map(str, items[:_SHOWN])) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
