"""Curves of an evaluation as SVG: ROC, precision and recall, histograms of scores, calibration, robustness.

Each function returns the text of one SVG with one panel, so that a page can set them side by side or, on a phone, one
below the other. Text stays text. Series are told apart by colour and by dashes.
"""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from sklearn import metrics as sk

from msddf_jax.statistics import calibration, weighted

_REAL, _FAKE, _GREY = "#1f77b4", "#d62728", "#666666"
# Okabe and Ito's colours, which the common kinds of colour blindness keep apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_SIZE = (4.0, 3.2)
# Points of a curve that a page needs at most.
_MAX_POINTS = 400


def draw_roc(series) -> str:
    """ROC curves of one test set.

    Args:
      series: list of (name, scores float [V], labels int [V]); one of a single class is named as undefined.

    Returns:
      SVG text.
    """
    figure, axes = _panel("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=":")
    for i, (name, scores, labels) in enumerate(series):
        if len(set(np.asarray(labels).tolist())) < 2:
            axes.plot([], [], label=f"{name}: one class", **_style(i))
            continue
        fpr, tpr, _ = sk.roc_curve(labels, scores)
        keep = _thin(len(fpr))
        axes.plot(fpr[keep], tpr[keep], label=f"{name} {100 * sk.auc(fpr, tpr):.1f}", **_style(i))
    axes.legend(loc="lower right", title="AUC, %", fontsize=8, title_fontsize=8)
    return _svg(figure)


def draw_precision_recall(series) -> str:
    """Precision over recall of the fakes. Args, Returns: as `draw_roc`."""
    figure, axes = _panel("recall of fakes", "precision")
    for i, (name, scores, labels) in enumerate(series):
        if len(set(np.asarray(labels).tolist())) < 2:
            axes.plot([], [], label=f"{name}: one class", **_style(i))
            continue
        precision, recall, _ = sk.precision_recall_curve(labels, scores)
        keep = _thin(len(recall))
        ap = sk.average_precision_score(labels, scores)
        axes.plot(recall[keep], precision[keep], label=f"{name} {100 * ap:.1f}", **_style(i), drawstyle="steps-post")
    axes.legend(loc="lower left", title="AP, %", fontsize=8, title_fontsize=8)
    return _svg(figure)


def draw_histogram(scores, labels, threshold, num_bins=20) -> str:
    """How the scores of reals and of fakes lie, each as a share of its class.

    Args:
      scores: float [V] in [0, 1]. labels: int [V]. threshold: drawn as a line.

    Returns:
      SVG text.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    figure, axes = _panel("P(fake)", "share of videos, %", square=False)
    edges = np.linspace(0, 1, num_bins + 1)
    for label, name, color, hatch in ((0, "real", _REAL, ""), (1, "fake", _FAKE, "///")):
        own = scores[labels == label]
        if own.size:
            weights = np.full(own.size, 100 / own.size)
            axes.hist(
                own, edges, weights=weights, color=color, alpha=0.45, hatch=hatch, label=f"{name}, {own.size}", lw=0
            )
    axes.axvline(threshold, color=_GREY, lw=1, ls="--", label=f"threshold {threshold:.2g}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # the legend stands above the bars
    axes.legend(fontsize=8, ncols=3, loc="upper center", columnspacing=1.0, handlelength=1.4)
    return _svg(figure)


def draw_calibration(scores, labels, calibrated=None, num_bins=15) -> str:
    """Reliability diagram: the share of fakes among the scores of each bin, which should be the mean score.

    Args:
      scores, labels: [V]. calibrated: float [V], the probabilities of a calibration, or None.

    Returns:
      SVG text; the size of a point grows with the number of scores in its bin.
    """
    figure, axes = _panel("mean score of the bin", "share of fakes")
    axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=":")
    for i, (name, values) in enumerate((("as scored", scores), ("calibrated", calibrated))):
        if values is None:
            continue
        _, mean, share = calibration.reliability(values, labels, num_bins)
        counts = np.bincount(weighted.score_bins(np.asarray(values), num_bins), minlength=num_bins)
        there = counts > 0
        style = _style(i)
        label = f"{name}, ECE {100 * calibration.ece(values, labels, num_bins):.1f} %"
        axes.plot(mean[there], share[there], label=label, **style)
        axes.scatter(mean[there], share[there], s=10 + 90 * counts[there] / counts.max(), color=style["color"], lw=0)
    axes.legend(loc="upper left", fontsize=8)
    return _svg(figure)


def draw_robustness(title, levels, series) -> str:
    """Video AUC over the levels of one perturbation.

    Args:
      title: name of the perturbation. levels: list of str. series: list of (name, AUC [levels] in [0, 1] with NaN where
        there is none, AUC of the clean set or None).

    Returns:
      SVG text.
    """
    figure, axes = _panel("level", "video AUC, %", square=False)
    for i, (name, values, clean) in enumerate(series):
        style = _style(i)
        axes.plot(range(1, len(levels) + 1), 100 * np.asarray(values, float), marker="o", ms=4, label=name, **style)
        if clean is not None:
            axes.plot(0, 100 * clean, marker="s", ms=5, color=style["color"])
    axes.set_xticks(range(len(levels) + 1), ["clean", *map(str, levels)], fontsize=8)
    axes.set_ylim(min(45.0, axes.get_ylim()[0]), 101)
    axes.axhline(50, color=_GREY, lw=0.8, ls=":")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    return _svg(figure)


def _style(i):
    return {"color": _COLORS[i % len(_COLORS)], "ls": _DASHES[i % len(_DASHES)], "lw": 1.6}


def _thin(count):
    """Indices of at most `_MAX_POINTS` of `count` points, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, _MAX_POINTS)).astype(int))


def _panel(xlabel, ylabel, square=True):
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if square:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    return figure, axes


def _svg(figure):
    buffer = io.StringIO()
    # The same data give the same bytes: no date, no random ids.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "msddf_jax", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
