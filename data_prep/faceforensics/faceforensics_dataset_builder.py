"""TFDS builder of FaceForensics++ (Rössler et al. 2019) and of the toy set, from prepared crops.

Built by `python -m data_prep.build faceforensics --config c23 --manual_dir PREPARED --data_dir DIR`.
"""

import dataclasses
import shlex
from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import catalog, prepared
from data_prep.faceforensics import downloads
from data_prep.layout import PreparedDataError

METHODS = ("deepfakes", "face2face", "faceswap", "neuraltextures")
# Configs of one manipulation, <compression>_<suffix>.
ONE_METHOD = {
    "df": "deepfakes",
    "f2f": "face2face",
    "fs": "faceswap",
    "nt": "neuraltextures",
    "fsh": "faceshifter",
}
_SHOWN = 20


@dataclasses.dataclass
class FaceForensicsConfig(prepared.PreparedConfig):
    """partial: take what is there; without it, every listed video of the methods must have been prepared."""

    partial: bool = False


def _configs():
    make = lambda name, compression, methods, what, partial=False: FaceForensicsConfig(
        name=name, description=what, catalog=compression, methods=methods, partial=partial
    )
    for c in downloads.CONFIGS:
        yield make(c, c, METHODS, f"{c}, four methods.")
        yield make(f"{c}_partial", c, METHODS, f"{c}, four methods, the listed videos there are.", True)
        for suffix, method in ONE_METHOD.items():
            yield make(f"{c}_{suffix}", c, (method,), f"{c}, {method} and the reals.")
    for name, c in (("toy", "c23"), ("toy_c40", "c40")):
        yield make(name, c, tuple(downloads.TOY_FOLDERS.values()), f"The embedded procedural set, {c}.")


class Builder(prepared.PreparedBuilder):
    """Frames or clips of FaceForensics++ or the toy set; see the README beside this file."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "First release.",
        "1.1.0": "Perturbation and attributes in the records.",
        "1.2.0": "Attributes are 13, and written: what each method changes, by SJEDD's table.",
    }
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(list(_configs()))

    def _find_videos(self, root):
        found = super()._find_videos(root)
        check_complete(root, self.builder_config)
        return found


def check_complete(root, config):
    """Whether a catalog of FaceForensics++ holds what a config builds.

    Args:
      root: Path, the --out of `prepare`, with the catalog and the split lists. config: FaceForensicsConfig.

    Raises:
      PreparedDataError: a listed video is not prepared and the config is not partial; no split lists; a catalog of
        before there were attributes.
    """
    path = catalog.catalog_path(root, "faceforensics", config.catalog)
    command = (
        "python -m data_prep.prepare --layout=faceforensics --root DOWNLOAD "
        f"--out {shlex.quote(str(root))} --compression={config.catalog}"
    )
    try:
        lines, lists = catalog.read_catalog(path), downloads.read_split_lists(root)
    except catalog.DownloadError as error:
        raise PreparedDataError(str(error)) from error
    if any("attributes" not in line["fields"] for line in lines):
        raise PreparedDataError(
            f"{path} was written before it held attributes. Run prepare again, which leaves finished videos as they "
            f"are: {command}"
        )
    if config.partial:
        return
    # A video without a usable frame has been prepared, which its meta file says; one that does not decode has not.
    meta = lambda line: [root / line["unit"] / "meta" / f"{line['stem']}.{end}" for end in ("json", "faces")]
    there = {line["fields"]["video_id"].partition("#")[0] for line in lines if any(p.exists() for p in meta(line))}
    pairs = [pair for name in downloads.SPLITS for pair in sorted(lists.get(name, ()))]
    listed = [name for pair in pairs for name in pair]
    listed += [f"{method}/{t}_{s}" for method in config.methods for a, b in pairs for t, s in ((a, b), (b, a))]
    missing = [name for name in listed if name not in there]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        hint = f", or build --config {config.catalog}_partial without them" if config.methods == METHODS else ""
        raise PreparedDataError(
            f"{len(missing)} listed videos are not prepared: {shown}. Prepare them: {command}{hint}"
        )
