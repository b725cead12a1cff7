"""Two detectors on the same videos: paired differences with intervals and tests."""

import json
import pathlib

import numpy as np

from msddf_jax import checkpoint
from msddf_jax.evaluators import detection
from msddf_jax.statistics import intervals, metrics, tables
from msddf_jax.statistics.scores import group_videos

TESTS = "paired DeLong test and paired permutation test of the video AUC; a p-value is of one test, uncorrected"


def compare_scores(name, ours, theirs, *, aggregate="mean", resamples=intervals.RESAMPLES, seed=0) -> dict[str, dict]:
    """Detector a against detector b on one set, pooled, and by method and compression where there are several.

    Args:
      name: of the set. ours, theirs: scores of a and b, as `detection.collect_scores`, rows in any order.
      aggregate: as `scores.group_videos`. resamples: of the bootstrap; seed: of all draws.

    Returns:
      {"<name>" or "<name>/<group>": {"a", "b", "difference", "low", "high", "p_delong", "p_permutation" of the video
      AUC, low and high by DeLong; "num_real", "num_fake" videos; "metrics": {"<level>_<metric>": {"a", "b",
      "difference", "low", "high"}}, intervals by paired bootstrap over videos}}. NaN where undefined (one class).

    Raises:
      ValueError: the two were scored on other frames.
    """
    ours, theirs = _aligned(name, ours, theirs)
    result = {}
    for where, keep in detection.set_groups(name, ours).items():
        # The one method of a set is the set.
        if where != name and keep.all():
            continue
        labels, keys = ours["label"][keep], ours["video_key"][keep]
        a, b = (scores["score"][keep].astype(np.float64) for scores in (ours, theirs))
        result[where] = _compare_group(where, a, b, labels, keys, aggregate, resamples, seed)
    return result


def _compare_group(where, a, b, labels, keys, aggregate, resamples, seed):
    videos_a, video_labels, _ = group_videos(a, labels, keys, aggregate)
    videos_b, _, _ = group_videos(b, labels, keys, aggregate)
    figures = [metrics.detection_metrics(s, labels, keys, name=where, aggregate=aggregate) for s in (a, b)]
    ends = intervals.paired_bootstrap(a, b, labels, keys, aggregate=aggregate, resamples=resamples, seed=seed)
    test, permutation = intervals.PairedTest(*(np.nan,) * 6), np.nan
    if 0 < video_labels.sum() < video_labels.size:
        test = intervals.delong_test(videos_a, videos_b, video_labels)
        permutation = intervals.permutation_test(videos_a, videos_b, video_labels, seed=seed)
    return {
        **{field: getattr(test, field) for field in ("a", "b", "difference", "low", "high")},
        "p_delong": test.p_value,
        "p_permutation": permutation,
        "num_real": int(np.sum(video_labels == 0)),
        "num_fake": int(np.sum(video_labels == 1)),
        "metrics": {
            metric: {
                "a": figures[0][metric],
                "b": figures[1][metric],
                "difference": figures[0][metric] - figures[1][metric],
                "low": low,
                "high": high,
            }
            for metric, (low, high) in ends.items()
        },
    }


def compare_workdirs(workdir, against, *, aggregate=None, resamples=intervals.RESAMPLES) -> dict[str, dict]:
    """Compares the scores that two evaluated workdirs hold, on every eval that both have.

    Args:
      workdir, against: folders with results.json and scores/, of a and of b. aggregate: of both; None for the one that
        their results are by. resamples: as `compare_scores`.

    Returns:
      what is written to `<workdir>/compare.json`: `compare_scores` of every eval, and "_about" with both folders, steps
      and the tests' names; None where undefined.

    Raises:
      FileNotFoundError: a workdir without results. ValueError: no eval in common, other frames, or video scores made
      another way.
    """
    folders = {"a": pathlib.Path(workdir), "b": pathlib.Path(against)}
    results = {side: _read_results(folder) for side, folder in folders.items()}
    names = {side: tables.eval_names(values) for side, values in results.items()}
    common = [name for name in names["a"] if name in names["b"]]
    if not common:
        raise ValueError(f"no eval in common: {workdir} has {names['a']}, {against} has {names['b']}")
    about = {side: values["_about"] for side, values in results.items()}
    ways = {side: value.get("aggregate", "mean") for side, value in about.items()}
    if aggregate is None and ways["a"] != ways["b"]:
        raise ValueError(
            f"video scores of {workdir} are by {ways['a']}, of {against} by {ways['b']}; use one --aggregate"
        )
    aggregate, result = aggregate or ways["a"], {}
    for name in common:
        scores = [detection.read_scores(folder / "scores" / f"{name}.csv") for folder in folders.values()]
        result |= compare_scores(name, *scores, aggregate=aggregate, resamples=resamples)
    result["_about"] = {
        **{s: {"workdir": str(folders[s]), "step": about[s]["step"], "weights": about[s]["weights"]} for s in folders},
        "aggregate": aggregate,
        "tests": TESTS,
        "intervals": {"method": intervals.METHOD, "level": intervals.LEVEL, "resamples": resamples},
    }
    result = none_for_nan(result)
    checkpoint.write_json(folders["a"] / "compare.json", result)
    return result


def format_comparison(result) -> str:
    """The paired table as text: video AUC of a and b in percent, their difference with its interval, and p-values."""
    about = result.get("_about", {})
    lines = [f"{side}: {v['workdir']} (step {v['step']})" for side, v in about.items() if side in ("a", "b")]
    rows = [["video AUC", "a", "b", "a - b", "p (DeLong)", "p (permutation)", "videos"]]
    for name, row in result.items():
        if name.startswith("_"):
            continue
        p_values = [format_p(row[test]) for test in ("p_delong", "p_permutation")]
        difference = tables.percent(row["difference"], (row["low"], row["high"]))
        videos = f"{row['num_real']} + {row['num_fake']}"
        rows.append([name, tables.percent(row["a"]), tables.percent(row["b"]), difference, *p_values, videos])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        lines.append(
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        )
    return "\n".join(lines)


def none_for_nan(value) -> dict | list | str | float | None:
    """The same nested dicts and lists with None for every float that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: none_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [none_for_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def format_p(value) -> str:
    """A p-value as text, "-" where it is None or NaN."""
    return "-" if value is None or np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _read_results(folder):
    path = folder / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"no {path}; evaluate it first: python -m msddf_jax.evaluate --workdir {folder}")
    return json.loads(path.read_text())


def _aligned(name, ours, theirs):
    """Both with their rows in one order, by video and frame. Raises ValueError where the frames differ."""
    sides = []
    for scores in (ours, theirs):
        order = np.lexsort((scores["frame_index"], scores["video_key"]))
        sides.append({field: np.asarray(values)[order] for field, values in scores.items()})
    rows = [set(zip(s["video_key"].tolist(), s["frame_index"].tolist(), strict=True)) for s in sides]
    if rows[0] != rows[1] or len(sides[0]["score"]) != len(sides[1]["score"]):
        example = next(iter(sorted(rows[0] ^ rows[1])), "one twice")
        raise ValueError(
            f"{name}: the two were scored on other frames ({len(sides[0]['score'])} and {len(sides[1]['score'])}; "
            f"first difference: {example}); a paired test needs the same ones. Evaluate both on the same data."
        )
    if not np.array_equal(sides[0]["label"], sides[1]["label"]):
        raise ValueError(f"{name}: the two have other labels for the same frames; evaluate both on the same data")
    return sides
