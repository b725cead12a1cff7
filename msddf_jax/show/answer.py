"""The short answer about a detector, in sentences: how good, where worst, what not to conclude.

What `msddf_jax.report` opens with and `msddf_jax.confusion` ends with, from the files of an evaluated workdir. Metrics
stand with their 95 % intervals in brackets.
"""

import json
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from msddf_jax import checkpoint
from msddf_jax.data import schema
from msddf_jax.evaluators import calls as called
from msddf_jax.evaluators import detection, lead
from msddf_jax.statistics import verdict

# Name in a video's key of the data set that the project draws.
DRAWN = "toy"


class Tested(NamedTuple):
    """An evaluated workdir, read. folder: Path. config: ConfigDict. results: of results.json. scores: {eval: columns as
    `detection.read_scores`}, in the config's order. aggregate: of the frames of a video. fitted: the calibration of
    these scores, or None, and why_none. names: of the evals that count as tests, which are all but the one that chose
    the checkpoint. calls: list of `calls.Call` of their videos. counts: of `calls.count`."""

    folder: pathlib.Path
    config: ConfigDict
    results: dict
    scores: dict
    aggregate: str
    fitted: dict | None
    why_none: str
    names: list
    calls: list
    counts: list


def load(workdir) -> Tested:
    """Read what `msddf_jax.evaluate` wrote into a workdir.

    Raises:
      FileNotFoundError: no results.json, with the command that writes it. ValueError: files that do not fit each other.
    """
    folder = pathlib.Path(workdir)
    config = checkpoint.load_config(folder)
    path = folder / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `python -m msddf_jax.evaluate --workdir {folder}` first")
    results = json.loads(path.read_text(encoding="utf-8"))
    about = results["_about"]
    found = {file.stem: detection.read_scores(file) for file in sorted((folder / "scores").glob("[!.]*.csv"))}
    ordered = [key for key in config.evals if key in found] + [key for key in found if key not in config.evals]
    scores = {name: found[name] for name in ordered}
    aggregate = about.get("aggregate", "mean")
    fitted, why_none = verdict.calibration_of(folder, step=about["step"], weights=about["weights"], aggregate=aggregate)
    # Nobody here knows what published weights were trained on.
    converted = "converted_from" in (checkpoint.read_choice(folder) or {})

    def in_training(name, method):
        settings = config.evals[name] if name in config.evals else about.get("sets", {}).get(name)
        if converted or settings is None:
            return None
        return called.trained_on(config, settings["name"], method)

    names = [name for name in scores if name != (about.get("select") or {}).get("eval")]
    tests = {name: scores[name] for name in names}
    found = called.call_videos(tests, in_training, calibration=fitted, aggregate=aggregate)
    return Tested(folder, config, results, scores, aggregate, fitted, why_none, names, found, called.count(found))


def how_good(tested) -> list[str]:
    """The pooled metrics and the counts at the threshold; the first sentence is the answer itself."""
    results, names = tested.results, tested.names
    if pooled := results.get("_pooled"):
        where, values, ranges = f"Pooled over {len(pooled['sets'])} test sets", pooled["figures"], pooled["intervals"]
        find = lambda metric: (values.get(metric), ranges.get(metric))
    elif len(names) == 1:
        where, values, ranges = f"On {names[0]}", results, results.get("_intervals", {})
        find = lambda metric: (values.get(f"{names[0]}/{metric}"), ranges.get(f"{names[0]}/{metric}"))
    elif names:
        return [*_at_threshold(tested), "results.json has no metric pooled over the test sets: evaluate again."]
    else:
        return ["Nothing was tested but the set that chose the checkpoint."]
    auc, ends = find(lead.AUC)
    if _missing(auc):
        lines = [f"{where}: no video AUC, since one class is absent."]
    else:
        lines = [f"{where}: video AUC {_percent(auc, ends)}.", _auc_in_words(auc, ends)]
    lines += _at_threshold(tested)
    lines += _at_few_alarms(*find(lead.TPR), tested.counts)
    return lines + _cost_of_ratios(*find("video_cllr_calibrated"))


def where_worst(tested) -> list[str]:
    """A sentence for the worst manipulation, quality and test set, and one for the row that is called wrong most."""
    found = tested.results.get("_worst") or lead.worst(tested.results, tested.names)
    lines, said = [], set()
    for kind, row in found.items():
        if (row["of"], row["auc"]) in said:
            continue  # an eval of one manipulation is both the worst set and the worst manipulation
        said.add((row["of"], row["auc"]))
        of = "" if row["name"] == row["of"] else f" (of {row['of']})"
        auc, chance = _percent(row["auc"], row["auc_interval"]), _against_chance(row["auc_interval"])
        lines.append(f"Worst {lead.KINDS[kind]}: {row['name']}{of}, video AUC {auc}{chance}.")
    if tested.counts:
        most = max(tested.counts, key=lambda row: row.wrong / (row.real + row.fake))
        if most.wrong:
            lines.append(f"Called wrong most: {name_of(most, tested.counts)}, {_share(most)}.")
    return lines


def not_to_conclude(tested) -> list[str]:
    """What these metrics do not show: drawn faces, unseen manipulations, size of the test, origin of the threshold."""
    lines = []
    drawn = {call.key.split("/")[0] == DRAWN for call in tested.calls}
    if drawn == {True}:
        lines.append("All faces are drawn: nothing here says how the detector does on real faces.")
    elif True in drawn:
        lines.append("Some of the faces are drawn: those rows say nothing about real faces.")
    lines += _about_training(tested.counts)
    if tested.counts:
        least = min(tested.counts, key=lambda row: row.real + row.fake)
        size = least.real + least.fake
        lines.append(
            f"The smallest row has {size} videos ({name_of(least, tested.counts)}): {least.wrong} of them called wrong "
            f"may be {_range(least.interval)} of all such videos."
        )
    if tested.fitted is None:
        lines.append(f"The threshold {schema.THRESHOLD:g} was not fitted ({tested.why_none}).")
    else:
        lines.append(
            f"The threshold {tested.fitted['threshold']:.2f} was fitted on {tested.fitted['fitted_on']} "
            f"({tested.fitted['num_videos']} videos): other cameras, compressions and shares of fakes may need another."
        )
    if ratio := (tested.fitted or {}).get("lr"):
        low, high = (10.0 ** abs(ratio[end]) for end in ("low", "high"))
        lines.append(
            f"Its likelihood ratios end at {high:.2g} for fake and {low:.2g} for real: {ratio['num_real']} real and "
            f"{ratio['num_fake']} fake calibration videos bear out no more."
        )
    lines.append("One training run: another seed gives other metrics. A score is no proof.")
    return lines


def confusion(tested) -> tuple[list, list]:
    """(header, rows) of the counts as text; a share that is called wrong with its interval."""
    header = ["test videos", "in training", "videos", "called real", "called fake", "called wrong, %"]
    rows = []
    for row in tested.counts:
        size = row.real + row.fake
        low, high = (100 * end for end in row.interval)
        known = "-" if row.label == "real" else {True: "yes", False: "no", None: "not known"}[row.in_training]
        wrong = f"{100 * row.wrong / size:.1f} [{low:.1f}, {high:.1f}]"
        rows.append([name_of(row, tested.counts), known, f"{size}", f"{row.real}", f"{row.fake}", wrong])
    return header, rows


def name_of(row, counts) -> str:
    """ "toy_swap", "reals", or "fakes" where no method is named, of a `calls.Count`; with its group if of several."""
    name = "reals" if row.label == "real" else "fakes" if row.method == called.UNNAMED else row.method
    return name if len({one.group for one in counts}) == 1 else f"{name} of {row.group}"


def _auc_in_words(auc, ends):
    between = "" if ends is None or _missing(ends[0]) else f" ({100 * ends[0]:.0f} to {100 * ends[1]:.0f})"
    pairs = f"Of a real and a fake video taken at random, the fake has the higher score {100 * auc:.0f} times in 100"
    return f"{pairs}{between}; guessing gives 50{_against_chance(ends)}."


def _against_chance(ends):
    """Words where the interval of an AUC holds one half."""
    if ends is None or _missing(ends[0]) or not ends[0] <= 0.5 <= ends[1]:
        return ""
    return ", and these videos are too few to tell it from guessing"


def _at_threshold(tested):
    reals = [row for row in tested.counts if row.label == "real"]
    fakes = [row for row in tested.counts if row.label == "fake"]
    total = lambda rows: sum(row.real + row.fake for row in rows)
    parts = []
    if reals:
        parts.append(f"{sum(row.wrong for row in reals)} of {total(reals)} real videos are called fake")
    if fakes:
        parts.append(f"{sum(row.wrong for row in fakes)} of {total(fakes)} fakes are missed")
    threshold = schema.THRESHOLD if tested.fitted is None else tested.fitted["threshold"]
    return [f"At the threshold {threshold:.2f}: {' and '.join(parts)}."] if parts else []


def _at_few_alarms(rate, ends, counts):
    reals = sum(row.real + row.fake for row in counts if row.label == "real")
    # Of fewer than a hundred, one alarm is more than 1 %.
    if _missing(rate) or reals < 100:
        return []
    return [f"With at most 1 false alarm in 100 real videos it finds {_percent(rate, ends)} of the fakes."]


def _cost_of_ratios(cllr, ends):
    if _missing(cllr):
        return []
    between = "" if ends is None or _missing(ends[0]) else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    return [f"Cllr {cllr:.2f} bits{between}, the cost of its likelihood ratios: 0 is perfect, 1 is as good as none."]


def _about_training(counts):
    fakes = [row for row in counts if row.label == "fake"]
    named = lambda known: ", ".join(name_of(row, counts) for row in fakes if row.in_training is known)
    lines = []
    if unseen := named(False):
        seen = named(True)
        lines.append(
            f"Not in training: {unseen}. "
            + (f"In training: {seen}; those rows say nothing of new manipulations." if seen else "")
        )
    elif seen := named(True):
        lines.append(f"Every manipulation was in training ({seen}): how it does on others is not measured.")
    if unknown := named(None):
        lines.append(f"Whether these were in its training is not known: {unknown}.")
    return [line.rstrip() for line in lines]


def _share(row):
    size = row.real + row.fake
    word = "called fake" if row.label == "real" else "missed"
    return f"{row.wrong} of {size} {word}, {_range(row.interval)} of all such videos (95 % interval)"


def _range(interval):
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"


def _percent(value, ends):
    """ "96.7 % (92.1 to 98.7)": a share with its 95 % interval, which is left out where it is unknown."""
    known = ends is not None and not _missing(ends[0])
    return f"{100 * value:.1f} %" + (f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if known else "")


def _missing(value):
    return value is None or value != value
