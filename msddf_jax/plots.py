"""Pictures of a verdict: the scores of a video over time, and the manipulation map over a face.

Functions return uint8 RGB arrays and touch no global state of matplotlib (no pyplot), so that they may run
anywhere.
"""

import warnings

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_DPI = 100
_REAL, _FAKE, _GREY = "#1f77b4", "#d62728", "#666666"
# Perceptually even, readable in grey and with red-green blindness.
_COLORMAP = "inferno"
# Share of the heat map in the overlay where the map is 0 and where it is 1: a clean face stays visible.
_ALPHA = (0.25, 0.75)
_MAX_TITLE = 60


def draw_timeline(title, frame_indices, scores, *, missing=(), fps=0.0, threshold=0.5):
    """The score of each frame over time, their mean, the threshold, and the frames that gave no score.

    Args:
      title: of the plot, such as a file name; cut in the middle when long.
      frame_indices: int [N], frame numbers in the video. scores: float [N] in [0, 1], P(fake), N >= 1.
      missing: frame numbers sampled that have no score (no face, cut short). fps: frames a second; 0 =
        unknown, the axis is frame numbers.
      threshold: scores strictly above it are called fake.

    Returns:
      uint8 RGB [400, 900, 3].

    Raises:
      ValueError: no scores, lengths that differ, or a score outside [0, 1].
    """
    frames, scores = np.asarray(frame_indices, np.float64), np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0 or frames.shape != scores.shape:
        raise ValueError(f"expected frame_indices and scores [N], N >= 1, got {frames.shape} and {scores.shape}")
    _check_unit(scores, "a score")
    order = np.argsort(frames)
    frames, scores = frames[order], scores[order]
    missing = np.asarray(sorted(missing), np.float64)
    unit = fps if fps > 0 else 1.0
    mean = float(scores.mean())
    fake = scores > threshold

    figure, axes = _figure(9.0, 4.0)
    axes.axhspan(threshold, 1.05, color=_FAKE, alpha=0.06, lw=0)
    axes.axhspan(-0.05, threshold, color=_REAL, alpha=0.06, lw=0)
    # The line breaks at a frame without a score: nothing is known there.
    sampled = np.concatenate([frames, missing])
    broken = np.concatenate([scores, np.full(missing.size, np.nan)])
    order = np.argsort(sampled)
    axes.plot(sampled[order] / unit, broken[order], color=_GREY, lw=1, zorder=2)
    for keep, color, label in ((fake, _FAKE, "frame called fake"), (~fake, _REAL, "frame called real")):
        if keep.any():
            axes.scatter(frames[keep] / unit, scores[keep], s=28, color=color, zorder=3, label=label, clip_on=False)
    axes.axhline(threshold, color="black", lw=1, ls="--", label=f"threshold {threshold:g}")
    axes.axhline(mean, color=_FAKE if mean > threshold else _REAL, lw=1.5, label=f"mean {mean:.3f}")
    if missing.size:
        for frame in missing:
            axes.axvline(frame / unit, color="black", alpha=0.12, lw=1, zorder=1)
        axes.scatter(
            missing / unit, np.zeros(missing.size), marker="x", s=32, color="black", zorder=3, clip_on=False,
            label=f"not scored ({missing.size})",
        )  # fmt: skip
    first, last = sampled.min(), sampled.max()
    pad = max(0.02 * (last - first), 0.5)
    axes.set_xlim((first - pad) / unit, (last + pad) / unit)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("P(fake)")
    if fps > 0:
        axes.set_xlabel("time (s)")
        top = axes.secondary_xaxis("top", functions=(lambda s: s * fps, lambda f: f / fps))
        top.set_xlabel("frame", fontsize=9, color=_GREY)
        top.tick_params(labelsize=8, colors=_GREY)
        top.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    else:
        axes.set_xlabel("frame")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    verdict = "fake" if mean > threshold else "real"
    text = f"{_printable(title)}\n{verdict}, P(fake) = {mean:.3f}, {scores.size} of {sampled.size} frames scored"
    figure.suptitle(text, fontsize=11, parse_math=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return _render(figure)


def draw_overlay(image, heat, title, *, score=None):
    """A face, and beside it the manipulation map over the same face, with a colour bar from 0 to 1.

    The map is enlarged linearly from its grid; colours mean the same in every picture.

    Args:
      image: uint8 RGB [H, W, 3], the crop. heat: float [g, g] in [0, 1], P(manipulated) on the token grid.
      title: above the picture. score: P(fake) of the face, for its caption, or None.

    Returns:
      uint8 RGB [390, 740, 3].

    Raises:
      ValueError: other shapes or dtype, or a map outside [0, 1].
    """
    image, heat = np.asarray(image), np.asarray(heat, np.float32)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image uint8 RGB [H, W, 3], got {image.dtype} {image.shape}")
    if heat.ndim != 2 or heat.size == 0:
        raise ValueError(f"expected a map [g, g], got {heat.shape}")
    _check_unit(heat, "the map")

    figure, (left, right) = _figure(7.4, 3.9, columns=2)
    left.imshow(image)
    left.set_xlabel("face" if score is None else f"face, P(fake) = {score:.3f}", fontsize=10)
    right.imshow(blend_heat(image, heat))
    grid = "x".join(map(str, heat.shape))
    right.set_xlabel(f"map {grid}, mean {heat.mean():.2f}, max {heat.max():.2f}", fontsize=10)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
    colors = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), _COLORMAP)
    figure.colorbar(colors, ax=[left, right], label="P(manipulated)", fraction=0.046, pad=0.02)
    figure.suptitle(_printable(title), fontsize=11, parse_math=False)
    return _render(figure)


def blend_heat(image, heat):
    """A map drawn over a grey version of its image: the hotter, the more of the map is seen.

    Args:
      image: uint8 RGB [H, W, 3]. heat: float [g, g] in [0, 1].

    Returns:
      uint8 RGB [H, W, 3].
    """
    height, width = image.shape[:2]
    large = PIL.Image.fromarray(np.asarray(heat, np.float32)).resize((width, height), PIL.Image.Resampling.BILINEAR)
    large = np.clip(np.asarray(large), 0.0, 1.0)[..., None]
    color = matplotlib.colormaps[_COLORMAP](large[..., 0])[..., :3] * 255.0
    grey = np.asarray(PIL.Image.fromarray(image).convert("L"), np.float32)[..., None]
    alpha = _ALPHA[0] + (_ALPHA[1] - _ALPHA[0]) * large
    return np.rint(alpha * color + (1.0 - alpha) * grey).astype(np.uint8)


def _figure(width, height, columns=1):
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.05)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _render(figure):
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the JSON line has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def _printable(text):
    """One line that every font backend takes: no control characters, no half surrogates, not too long."""
    text = "".join(c if c.isprintable() else "?" for c in str(text))
    if len(text) <= _MAX_TITLE:
        return text
    half = (_MAX_TITLE - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def _check_unit(values, what):
    if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError(f"{what} is outside [0, 1]: from {values.min()} to {values.max()}")
