"""What a reader should see first: the worst generator, quality and set, and the figure pooled over all test sets."""

import numpy as np

from msddf_jax.data import methods
from msddf_jax.evaluators import detection
from msddf_jax.statistics import intervals, tables

# {key: what is the worst of it}.
KINDS = {"generator": "generator", "quality": "quality", "set": "test set"}
AUC, TPR = "video_auc", "video_tpr_fpr1"


def pool(scores) -> dict[str, np.ndarray]:
    """Scores of several sets as one, each frame once: evals of one set share their reals.

    scores: list of what `detection.collect_scores` returns. A frame that stands in two must have one score there
    (they are of one detector); the first is kept.
    """
    joined = {name: np.concatenate([one[name] for one in scores]) for name in scores[0]}
    places = [f"{key}\n{frame}" for key, frame in zip(joined["video_key"], joined["frame_index"], strict=True)]
    _, first = np.unique(np.array(places), return_index=True)
    return {name: values[np.sort(first)] for name, values in joined.items()}


def pooled_figures(names, scores, *, aggregate="mean", calibration=None, resamples=intervals.RESAMPLES) -> dict:
    """Figures of test sets as one.

    Args:
      names: of the sets. scores: of each, as `pool` takes them. aggregate, calibration, resamples: as
        `detection.set_intervals`.

    Returns:
      {"sets": names, "figures": {"<level>_<metric>": float}, "intervals": {the same: (low, high)}}. Sets differ in how
      high their scores are, and a pooled AUC counts that: it is the one of a single threshold for all.
    """
    rows = pool(scores)
    whole = {name: rows[name] for name in ("score", "label", "method", "video_key")}
    settings = {"aggregate": aggregate, "calibration": calibration}
    figures = detection.set_metrics("pooled", whole, **settings)
    ends = detection.set_intervals("pooled", whole, resamples=resamples, **settings)
    bare = lambda found: {key.split("/")[1]: value for key, value in found.items() if key.count("/") == 1}
    return {"sets": list(names), "figures": bare(figures), "intervals": bare(ends)}


def worst(results, tested) -> dict[str, dict]:
    """The lowest video AUC of a generator (a method's fakes beside its set's reals), a quality (compression), a set.

    Args:
      results: of `evaluate_workdir`. tested: names of evals that count, the one that chose the checkpoint not among
        them.

    Returns:
      {of `KINDS`: {"name", "of" (the eval), "auc", "auc_interval", "tpr", "tpr_interval"}}, TPR at 1 % FPR; a kind of
      which nothing is defined is left out.
    """
    found = {kind: [] for kind in KINDS}
    for key, value in results.items():
        if key.startswith("_"):
            continue
        name, *group, figure = key.split("/")
        if name not in tested or figure != AUC or value is None or np.isnan(value) or len(group) > 1:
            continue
        if group == ["dfb_compat"]:
            continue  # DeepfakeBench's own figures of the same set
        kind = "set" if not group else "generator" if group[0] in methods.METHODS else "quality"
        found[kind].append((value, name, group[0] if group else name, key.rpartition("/")[0]))
    ends = results.get("_intervals", {})
    out = {}
    for kind, rows in found.items():
        if rows:
            value, name, label, where = min(rows)
            out[kind] = {
                "name": label,
                "of": name,
                "auc": value,
                "auc_interval": ends.get(f"{where}/{AUC}"),
                "tpr": results.get(f"{where}/{TPR}"),
                "tpr_interval": ends.get(f"{where}/{TPR}"),
            }
    return out


def lines(results) -> list[str]:
    """What is to stand above a table of results, percent, each with its interval; none without "_worst"."""
    both = lambda auc, auc_ends, tpr, tpr_ends: (
        f"video AUC {tables.percent(auc, auc_ends)}, TPR at 1 % FPR {tables.percent(tpr, tpr_ends)}"
    )
    out = []
    for kind, row in results.get("_worst", {}).items():
        where = "" if row["name"] == row["of"] else f" (of {row['of']})"
        figures = both(row["auc"], row["auc_interval"], row["tpr"], row["tpr_interval"])
        out.append(f"worst {KINDS[kind]}: {row['name']}{where}: {figures}")
    if pooled := results.get("_pooled"):
        of = lambda metric: (pooled["figures"].get(metric), pooled["intervals"].get(metric))
        out.append(f"pooled over {len(pooled['sets'])} test sets, one threshold for all: {both(*of(AUC), *of(TPR))}")
    return out
