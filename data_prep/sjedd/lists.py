"""Writes a prepared data set's frames as label lists of SJEDD's or FFSC's form, which the public code trains on.

    python -m data_prep.sjedd.lists faceforensics --config c23 --prepared PREPARED --to LISTS
    python -m data_prep.sjedd.lists ffsc --config default --prepared PREPARED --to LISTS --digits 12

One list a split: train.txt, val.txt, test.txt.
"""

import argparse
import pathlib
import sys

from data_prep import catalog, layout
from data_prep.sjedd import labels
from msddf_jax import paths

_NAMES = {"train": "train", "validation": "val", "test": "test"}


def write_lists(prepared, dataset, config, to, digits=10):
    """Write the lists of a prepared data set.

    Args:
      prepared: folder that `data_prep.prepare` wrote to. dataset, config: of its catalog. to: folder of the lists.
      digits: 10, lines `<path> <0|1> <label>`, or 12, lines `<path> <label>`; see `labels.write_label`. Paths are below
        `prepared`, which stands in front of them.

    Returns:
      {path of a list: number of lines}.

    Raises:
      DownloadError: no catalog, a label that cannot be written, or a path with a blank, at which the public code would
      cut the line. layout.PreparedDataError: frames that contradict each other.
    """
    root = pathlib.Path(prepared).absolute()
    lists = {}
    for line in catalog.read_catalog(catalog.catalog_path(root, dataset, config)):
        fields = line["fields"]
        video = layout.read_video(root / line["unit"], line["stem"]) if line["outcome"] == catalog.PREPARED else None
        if video is None:
            continue
        try:
            label = labels.write_label(fields.get("attributes"), digits)
        except ValueError as error:
            raise catalog.DownloadError(f"{fields['video_id']} ({fields['method']}): {error}") from error
        flag = f" {int(fields['label'] == 'fake')}" if digits == 10 else ""
        for frame in video.frames:
            if any(sign.isspace() for sign in str(frame.image)):
                raise catalog.DownloadError(f"{frame.image} has a blank: move the prepared folder, or rename the video")
            lists.setdefault(line["split"], []).append(f"{frame.image}{flag} {label}\n")
    strange = sorted(set(lists) - set(_NAMES))
    if strange or not lists:
        raise catalog.DownloadError(f"{dataset}-{config} has the splits {strange or 'none'}; lists are of {[*_NAMES]}")
    to = pathlib.Path(to)
    to.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, lines in lists.items():
        path = to / f"{_NAMES[split]}.txt"
        path.write_text("".join(lines), encoding="utf-8")
        written[path] = len(lines)
    return written


def main(argv=None):
    """Command line. Returns 0, or 1 after one line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.sjedd.lists", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a prepared data set, such as faceforensics")
    parser.add_argument("--config", required=True, help="its config, as given to data_prep.prepare")
    parser.add_argument("--prepared", type=paths.expand, required=True, help="the --out of data_prep.prepare")
    parser.add_argument("--to", type=paths.expand, required=True, help="folder for the lists")
    parser.add_argument("--digits", type=int, choices=(10, 12), default=10, help="10, of FF++'s kinds, or 12, of FFSC")
    args = parser.parse_args(argv)
    try:
        for path, number in write_lists(args.prepared, args.dataset, args.config, args.to, args.digits).items():
            print(f"{path}: {number} frames")
    except (catalog.DownloadError, layout.PreparedDataError, OSError) as error:
        print(f"data_prep.sjedd.lists: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
