"""Do 95 % intervals hold the truth 95 times in 100? Simulated videos with known metrics, in one table.

    python -m benchmarks.coverage [--sets=1000] [--table_sets=100] [--resamples=500] [--out=FILE]

Logits of videos are normal with unit variance, the classes `distance` apart, so that AUC, EER, accuracy, TNR at a TPR
and TPR at an FPR are known. Intervals are those of `intervals.bootstrap_intervals`; that of the AUC comes from its fast
form (`intervals.auc_interval`, the same figure) on `--sets` sets, the others from `--table_sets`, 0 for none. A share
of 1,000 sets is known to +- 1.4 points (two standard errors), of 100 to +- 4.4. Also the level of DeLong's and of the
permutation test: how often equal detectors get p < 0.05.
"""

import argparse

import numpy as np
from scipy.stats import norm

from benchmarks.timing import report
from msddf_jax.statistics import intervals

SETTINGS = ((1.0, 100, 100), (2.0, 100, 100), (2.0, 140, 140), (1.5, 178, 340), (2.0, 30, 30), (2.5, 40, 140))


def truths(distance):
    """{metric: value} of two normals `distance` apart, scores being sigmoids of logits centred between them."""
    return {
        "auc": norm.cdf(distance / np.sqrt(2)),
        "eer": norm.cdf(-distance / 2),
        "accuracy": norm.cdf(distance / 2),
        "tnr90": norm.cdf(distance - norm.ppf(0.9)),
        "tnr95": norm.cdf(distance - norm.ppf(0.95)),
        "tpr_fpr5": norm.cdf(distance - norm.ppf(0.95)),
    }


def simulate(distance, num_real, num_fake, sets):
    """Yields (seed, scores, labels) of one set after another."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [num_real, num_fake])
    for seed in range(sets):
        yield seed, 1 / (1 + np.exp(-(rng.normal(size=labels.size) + distance * (labels - 0.5)))), labels


def coverage(setting, sets, table_sets, resamples):
    """One row: [distance, reals, fakes, share of sets in %, one a metric]."""
    true = truths(setting[0])
    hits = dict.fromkeys(true, 0)
    for seed, scores, labels in simulate(*setting, sets):
        low, high = intervals.auc_interval(scores, labels, resamples=resamples, seed=seed)
        hits["auc"] += low <= true["auc"] <= high
    shares = [f"{100 * hits.pop('auc') / sets:.1f}"]
    for seed, scores, labels in simulate(*setting, table_sets):
        keys = [f"v{i:04d}" for i in range(labels.size)]
        found = intervals.bootstrap_intervals(scores, labels, keys, resamples=resamples, seed=seed)
        for name in hits:
            low, high = found[f"video_{name}"]
            hits[name] += low <= true[name] <= high
    return [*setting, *shares, *(f"{100 * count / table_sets:.1f}" if table_sets else "-" for count in hits.values())]


def levels(sets):
    """One row: [share of sets in % with p < 0.05 by DeLong, by permutation, largest difference of the two p]."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    below, gap = np.zeros(2), 0.0
    for seed in range(sets):
        shared = rng.normal(size=200) + labels
        a, b = (shared + 0.7 * rng.normal(size=200) for _ in range(2))
        p = np.array(
            [
                intervals.delong_test(a, b, labels).p_value,
                intervals.permutation_test(a, b, labels, resamples=2000, seed=seed),
            ]
        )
        below += p < 0.05
        gap = max(gap, abs(p[0] - p[1]))
    return [sets, *(f"{100 * share / sets:.1f}" for share in below), f"{gap:.3f}"]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--table_sets", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--out", help="write the first table as JSON")
    args = parser.parse_args()
    rows = []
    for setting in SETTINGS:
        rows.append(coverage(setting, args.sets, args.table_sets, args.resamples))
        print(*rows[-1], flush=True)
    header = ["distance", "reals", "fakes", *truths(1.0)]
    report(f"coverage of 95 % intervals, percent of {args.sets} sets", header, rows, args.out)
    header = ["sets", "DeLong p < .05", "permutation p < .05", "largest gap of p"]
    report("equal detectors, 100 + 100 videos", header, [levels(min(args.sets, 400))])


if __name__ == "__main__":
    main()
