"""Which videos a download of UADFV holds; the README beside this file has the layout."""

import re

from data_prep import listing
from data_prep.catalog import Problem, make_fields

CONFIGS = ("default",)
_NAMES = {"real": (re.compile(r"([0-9]{4})"), "0000.mp4"), "fake": (re.compile(r"([0-9]{4})_fake"), "0000_fake.mp4")}


def find(root, config, options):
    """The videos of UADFV (Li et al. 2018).

    Args:
      root: `UADFV`, or the folder that it is in. config: of `CONFIGS`. options: catalog.Options.

    Returns:
      list of Entry, all in the split "all". list of Problem: name_unparsed, pair_missing, count_mismatch.

    Raises:
      DownloadError: no such folder, no video, a folder filled on two levels, or options that name what is not there.
    """
    listing.check_config(config, CONFIGS)
    root = listing.find_root(root, ("UADFV",), tuple(_NAMES))
    problems, entries = [], []
    for folder, (_, example) in _NAMES.items():
        for path in listing.videos_in(root / folder):
            fields = name_fields(path.stem)
            if fields is None or fields["label"] != folder:
                problems.append(listing.unparsed(path, root, example))
            else:
                entries.append(listing.make_entry(path, root, f"UADFV/{folder}", "all", fields))
    reals = {entry.stem for entry in entries if entry.fields["label"] == "real"}
    problems += [
        Problem("pair_missing", entry.path, f"its real {entry.fields['pair_id']}.mp4 is not there")
        for entry in entries
        if entry.fields["label"] == "fake" and entry.fields["pair_id"] not in reals
    ]
    problems += listing.count_problems(listing.count_labels(entries), {"all real": 49, "all fake": 49})
    return listing.finish(entries, options, root), problems


def name_fields(stem):
    """The fields of a video from its name, <number> or <number>_fake, or None where it is of another form.

    The number stands for the people: nobody says who they are.
    """
    for folder, (pattern, _) in _NAMES.items():
        if match := pattern.fullmatch(stem):
            person = f"uadfv:{match[1]}"
            is_real = folder == "real"
            method, pair = ("real", "") if is_real else ("uadfv", match[1])
            return make_fields("uadfv", method, stem, pair_id=pair, source=person, target=person)
    return None
