"""Pictures of a verdict and of a detector: scores over time, maps over a face, embeddings, spectra, the adversary.

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
# Okabe and Ito's colours, told apart with any kind of colour vision; beyond eight, markers and dashes tell more apart.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B8A90B")
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")
# Of pictures that a phone shows whole: text of 9 points is then as large as the page's own small print.
_PHONE_WIDTH, _PHONE_DPI = 5.4, 150


def draw_timeline(title, people, judged, *, named=0, fps=0.0, unanswered="") -> np.ndarray:
    """Each person's scores over time, with a face and the worst stretch, the threshold, and frames without a score.

    Args:
      title: of the plot, such as a file name; cut in the middle when long.
      people: list of dicts, one a row: frames, int [N], frame numbers in the video, N >= 1; scores, float [N] in
        [0, 1], P(fake); score, of all of them; and where there: missing, frame numbers without a score; thumbnail,
        uint8 RGB; stretch, {start, end} to point out, in seconds (frame numbers without a rate).
      judged: `verdict.Verdict` on the video; frames strictly above its threshold are coloured as fake.
      named: which of the people the verdict is about. fps: frames a second; 0 = unknown, the axis is frame numbers.
      unanswered: why there is no verdict (`records.why_unanswered`), which the title then says; "" where there is.

    Returns:
      uint8 RGB [400 + 230 (people - 1), 900, 3].

    Raises:
      ValueError: no scores, lengths that differ, or a score outside [0, 1].
    """
    for person in people:
        frames, scores = np.asarray(person["frames"]), np.asarray(person["scores"], np.float64)
        if scores.ndim != 1 or scores.size == 0 or frames.shape != scores.shape:
            raise ValueError(f"expected frames and scores [N], N >= 1, got {frames.shape} and {scores.shape}")
        _check_unit(scores, "a score")
    rows = len(people)
    figure, axes = _figure(9.0, 4.0 + 2.3 * (rows - 1), 2, rows, width_ratios=(1, 9))
    axes = np.asarray(axes).reshape(rows, 2)
    every = np.concatenate([np.asarray([*p["frames"], *p.get("missing", ())], np.float64) for p in people])
    for number, (person, (face, plot)) in enumerate(zip(people, axes, strict=True)):
        _draw_person(plot, person, judged.threshold, fps, every, last=number == rows - 1, first=number == 0)
        face.axis("off")
        if "thumbnail" in person:
            face.imshow(person["thumbnail"])
        if rows > 1:
            mark = "\nthe verdict is\nabout this one" if number == named else ""
            face.set_title(f"person {number + 1}{mark}", fontsize=8)
    said = "not calibrated" if judged.calibration is None else f"probability of fake {100 * judged.probability:.0f} %"
    count, sampled = len(people[named]["frames"]), len(np.unique(every))
    who = f"person {named + 1} of {rows}, " if rows > 1 else ""
    verdict = f"{judged.label}, {who}score {judged.score:.3f}, {said}"
    if unanswered:
        verdict = f"{unanswered}; {who}score {judged.score:.3f}"
    about = f"{verdict}, {count} of {sampled} frames scored"
    figure.suptitle(f"{_printable(title)}\n{about}", fontsize=11, parse_math=False)
    keys = {}
    for plot in axes[:, 1]:
        handles, labels = plot.get_legend_handles_labels()
        keys |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in keys}
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return _render(figure)


def _draw_person(axes, person, threshold, fps, every, *, first, last):
    """One row of `draw_timeline`; every: all frame numbers that were looked at."""
    frames, scores = np.asarray(person["frames"], np.float64), np.asarray(person["scores"], np.float64)
    order = np.argsort(frames)
    frames, scores = frames[order], scores[order]
    missing = np.asarray(sorted(person.get("missing", ())), np.float64)
    unit = fps if fps > 0 else 1.0
    fake = scores > threshold
    axes.axhspan(threshold, 1.05, color=_FAKE, alpha=0.06, lw=0)
    axes.axhspan(-0.05, threshold, color=_REAL, alpha=0.06, lw=0)
    stretch = person.get("stretch")
    if stretch is not None:
        axes.axvspan(stretch["start"], stretch["end"], color=_FAKE, alpha=0.18, lw=0, label="most like a fake")
    # The line breaks at a frame without a score: nothing is known there.
    sampled = np.concatenate([frames, missing])
    broken = np.concatenate([scores, np.full(missing.size, np.nan)])
    order = np.argsort(sampled)
    axes.plot(sampled[order] / unit, broken[order], color=_GREY, lw=1, zorder=2)
    for keep, color, label in ((fake, _FAKE, "frame called fake"), (~fake, _REAL, "frame called real")):
        if keep.any():
            axes.scatter(frames[keep] / unit, scores[keep], s=28, color=color, zorder=3, label=label, clip_on=False)
    axes.axhline(threshold, color="black", lw=1, ls="--", label=f"threshold {threshold:.3g}")
    color = _FAKE if person["score"] > threshold else _REAL
    axes.axhline(person["score"], color=color, lw=1.5, label="of all frames")
    if missing.size:
        for frame in missing:
            axes.axvline(frame / unit, color="black", alpha=0.12, lw=1, zorder=1)
        axes.scatter(
            missing / unit, np.zeros(missing.size), marker="x", s=32, color="black", zorder=3, clip_on=False,
            label="not scored",
        )  # fmt: skip
    pad = max(0.02 * (every.max() - every.min()), 0.5)
    axes.set_xlim((every.min() - pad) / unit, (every.max() + pad) / unit)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("score")
    if fps > 0 and first:
        top = axes.secondary_xaxis("top", functions=(lambda s: s * fps, lambda f: f / fps))
        top.set_xlabel("frame", fontsize=9, color=_GREY)
        top.tick_params(labelsize=8, colors=_GREY)
        top.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    if last:
        axes.set_xlabel("time (s)" if fps > 0 else "frame")
    if fps <= 0:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))


def draw_overlay(image, heat, title, *, score=None) -> np.ndarray:
    """A face, and beside it the manipulation map over the same face, with a colour bar from 0 to 1.

    The map is enlarged linearly from its grid; colours mean the same in every picture.

    Args:
      image: uint8 RGB [H, W, 3], the crop. heat: float [g, g] in [0, 1], P(manipulated) on the token grid.
      title: above the picture. score: of the face, for its caption, or None.

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
    left.set_xlabel("face" if score is None else f"face, score {score:.3f}", fontsize=10)
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


def blend_heat(image, heat) -> np.ndarray:
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


def draw_maps(image, maps, title, *, score=None, columns=3) -> np.ndarray:
    """A face, and several maps over the same face, captions below, one colour bar for all.

    Args:
      image: uint8 RGB [H, W, 3]. maps: {caption: float [g, g] in [0, 1]}, at least one; grids may differ.
      title: above the picture. score: of the face, for its caption, or None. columns: faces side by side.

    Returns:
      uint8 RGB [h, 810, 3], h by the number of maps.

    Raises:
      ValueError: other shapes or dtype, or a map outside [0, 1].
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image uint8 RGB [H, W, 3], got {image.dtype} {image.shape}")
    for name, heat in maps.items():
        if np.ndim(heat) != 2 or np.size(heat) == 0:
            raise ValueError(f"expected maps [g, g], got {name} {np.shape(heat)}")
        _check_unit(np.asarray(heat), f"the map {name}")
    rows = -(-(1 + len(maps)) // columns)
    side = _PHONE_WIDTH / columns
    figure, axes = _phone_figure(rows * (side + 0.12) + 0.65, rows, columns)
    axes = np.ravel(axes)
    axes[0].imshow(image)
    axes[0].set_xlabel("face" if score is None else f"face, score {score:.3f}", fontsize=8.5)
    for one, (name, heat) in zip(axes[1:], maps.items(), strict=False):
        one.imshow(blend_heat(image, np.asarray(heat, np.float32)))
        one.set_xlabel(name, fontsize=8.5)
    for one in axes:
        one.set_xticks([])
        one.set_yticks([])
    for one in axes[1 + len(maps) :]:
        one.axis("off")
    colors = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), _COLORMAP)
    bar = figure.colorbar(colors, ax=axes.tolist(), orientation="horizontal", fraction=0.05, aspect=40, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(_printable(title), fontsize=10, parse_math=False)
    return _render(figure)


def draw_embedding(points, groups, title) -> np.ndarray:
    """Points in the plane, coloured by group; the legend says how many of each.

    Args:
      points: float [N, 2]. groups: str [N]; the first seen is drawn first. title: above.

    Returns:
      uint8 RGB [h, 810, 3], h by the length of the legend.

    Raises:
      ValueError: no points, or other shapes.
    """
    points, groups = np.asarray(points, np.float64), np.asarray(groups)
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) == 0 or groups.shape != points.shape[:1]:
        raise ValueError(f"expected points [N, 2] and groups [N], N >= 1, got {points.shape} and {groups.shape}")
    names = list(dict.fromkeys(groups.tolist()))
    labels = [f"{_printable(name)} ({(groups == name).sum()})" for name in names]
    # Inches of an entry: its marker and spaces, and 0.07 a letter.
    columns = min(3, len(names), max(1, int(5.2 / (0.55 + 0.07 * max(map(len, labels))))))
    # As high as the points ask for, so that equal distances look equal without empty space.
    wide, high = np.maximum(np.ptp(points, axis=0), 1e-6)
    figure, axes = _phone_figure(0.6 + 5.2 * float(np.clip(high / wide, 0.4, 1.0)) + 0.2 * -(-len(names) // columns))
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        keep = groups == name
        color = _COLORS[index % len(_COLORS)]
        # Each colour comes back with another marker.
        marker = _MARKERS[(index + index // len(_COLORS)) % len(_MARKERS)]
        axes.scatter(*points[keep].T, s=16, color=color, marker=marker, alpha=0.75, lw=0, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    figure.suptitle(_printable(title), fontsize=10, parse_math=False)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5, markerscale=1.5)
    return _render(figure)


def draw_profiles(frequency, profiles, title) -> np.ndarray:
    """Spectra of groups of images: mean and the band of 90 % of the images; below, the difference from the first group.

    The difference's band is 1.96 standard errors, images taken as independent, which frames of one video are not.

    Args:
      frequency: float [F], cycles a pixel. profiles: {group: float [N, F]}, dB, N >= 1; real first.
      title: above.

    Returns:
      uint8 RGB [930, 810, 3].

    Raises:
      ValueError: no group, or shapes that do not fit.
    """
    frequency = np.asarray(frequency, np.float64)
    profiles = {name: np.asarray(rows, np.float64) for name, rows in profiles.items()}
    shapes = {name: rows.shape for name, rows in profiles.items()}
    if not shapes or any(len(s) != 2 or s[0] == 0 or s[1:] != frequency.shape for s in shapes.values()):
        raise ValueError(f"expected profiles [N, {frequency.size}], N >= 1, got {shapes}")
    figure, (top, bottom) = _phone_figure(6.2, 2, sharex=True, height_ratios=(3, 2))
    first = next(iter(profiles.values()))
    for index, (name, rows) in enumerate(profiles.items()):
        color, dash = _COLORS[(0, 3, 2, 1, 4)[index % 5]], _DASHES[index % len(_DASHES)]
        low, high = np.percentile(rows, (5, 95), axis=0)
        top.fill_between(frequency, low, high, color=color, alpha=0.18, lw=0)
        top.plot(frequency, rows.mean(0), color=color, ls=dash, label=f"{_printable(name)} ({len(rows)} images)")
        change = rows.mean(0) - first.mean(0)
        bottom.plot(frequency, change, color=color, ls=dash)
        if index and min(len(rows), len(first)) > 1:
            error = 1.96 * np.sqrt(rows.var(0, ddof=1) / len(rows) + first.var(0, ddof=1) / len(first))
            bottom.fill_between(frequency, change - error, change + error, color=color, alpha=0.18, lw=0)
    top.set_title("mean, and band of 90 % of the images", fontsize=9, loc="left")
    bottom.set_title(f"difference of means from {next(iter(profiles))}, +-1.96 standard errors", fontsize=9, loc="left")
    for axes in (top, bottom):
        axes.set_ylabel("power (dB)", fontsize=9)
        axes.tick_params(labelsize=8)
    bottom.set_xlabel("spatial frequency (cycles a pixel)", fontsize=9)
    bottom.set_xlim(0, 0.5)
    top.legend(frameon=False, fontsize=9)
    figure.suptitle(_printable(title), fontsize=10, parse_math=False)
    return _render(figure)


def draw_policy(steps, shares, entropy, title, *, bins=24) -> np.ndarray:
    """What the adversary chose over training: for each head a heat map of shares, below, each head's entropy.

    Logged steps are averaged into at most `bins` columns: one batch has few forgeries.

    Args:
      steps: int [S], S >= 1, rising. shares: {head: {action: float [S] in [0, 1]}}.
      entropy: {head: float [S]}, as a share of that of a uniform choice; {} where `shares` holds mean values instead.
      title: above.

    Returns:
      uint8 RGB [h, 810, 3], h by the number of actions.

    Raises:
      ValueError: nothing to draw, or lengths that differ.
    """
    steps = np.asarray(steps, np.float64)
    lengths = {np.size(v) for head in shares.values() for v in head.values()} | {np.size(v) for v in entropy.values()}
    if not shares or lengths != {steps.size} or steps.size == 0:
        raise ValueError(f"expected shares and entropy of {steps.size} steps, at least 1, got {sorted(lengths)}")
    columns = min(bins, steps.size)
    edges = np.rint(np.linspace(0, steps.size, columns + 1)).astype(int)
    average = lambda values: np.add.reduceat(np.asarray(values, np.float64), edges[:-1]) / np.diff(edges)
    centers = average(steps)
    counts = [len(actions) for actions in shares.values()]
    heights = [0.19 * count + 0.45 for count in counts] + [1.5] * bool(entropy)
    figure, axes = _phone_figure(sum(heights) + 0.9, len(heights), height_ratios=heights)
    axes = np.ravel(axes)
    width = (steps[-1] - steps[0]) / max(columns - 1, 1) or 1.0
    extent = (steps[0] - width / 2, steps[-1] + width / 2)
    largest = max(average(values).max() for actions in shares.values() for values in actions.values())
    for one, (head, actions) in zip(axes, shares.items(), strict=False):
        heat = np.stack([average(values) for values in actions.values()])
        box = (*extent, len(actions) - 0.5, -0.5)
        drawn = one.imshow(
            heat, aspect="auto", cmap="cividis", vmin=0, vmax=largest, extent=box, interpolation="nearest"
        )
        one.set_yticks(range(len(actions)), [str(name).replace("_", " ") for name in actions], fontsize=8)
        uniform = f", uniform would be {1 / len(actions):.3f}" if head in entropy else ""
        one.set_title(head + uniform, fontsize=9, loc="left")
        one.tick_params(labelbottom=False)
    bar = figure.colorbar(drawn, ax=axes[: len(shares)].tolist(), fraction=0.04, pad=0.02)
    bar.set_label("share of forgeries" if entropy else "mean over forgeries", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if entropy:
        for index, (head, values) in enumerate(entropy.items()):
            axes[-1].plot(centers, average(values), color=_COLORS[index], ls=_DASHES[index % 4], label=head)
        axes[-1].set_xlim(*extent)
        axes[-1].set_ylim(0, 1.05)
        axes[-1].set_title("entropy, 1 = uniform", fontsize=9, loc="left")
        axes[-1].legend(frameon=False, fontsize=8, loc="lower left", ncols=3)
    axes[-1].tick_params(labelbottom=True, labelsize=8)
    axes[-1].set_xlabel("training step", fontsize=9)
    figure.suptitle(_printable(title), fontsize=10, parse_math=False)
    return _render(figure)


def draw_faithfulness(curves, title) -> np.ndarray:
    """Mean deletion and insertion curves of several maps, with the areas under them in the legends.

    Args:
      curves: {method: {"deletion": float [S + 1], "insertion": float [S + 1]}}, P(fake) after each step; "random" and
        "mask" are drawn as references. title: above.

    Returns:
      uint8 RGB [1080, 810, 3].

    Raises:
      ValueError: no curves, or a score outside [0, 1].
    """
    if not curves:
        raise ValueError("expected the curves of at least one method")
    figure, panels = _phone_figure(7.2, 2)
    better = {"deletion": "most salient first blurred: lower is better", "insertion": "brought back: higher is better"}
    styles = {"random": {"color": _GREY, "ls": ":"}, "mask": {"color": "black", "ls": "--"}}
    for axes, (what, text) in zip(panels, better.items(), strict=True):
        for index, (name, both) in enumerate(curves.items()):
            values = np.asarray(both[what], np.float64)
            _check_unit(values, f"a score of {name}")
            style = styles.get(name, {"color": _COLORS[index % 6], "marker": _MARKERS[index % 8], "ms": 3.5})
            area = np.trapezoid(values, dx=1 / (len(values) - 1))
            axes.plot(np.linspace(0, 1, len(values)), values, lw=1.5, label=f"{name} {area:.3f}", **style)
        axes.set_title(f"{what} ({text})", fontsize=9, loc="left")
        axes.set_ylabel("P(fake)", fontsize=9)
        axes.set_ylim(0, 1.02)
        axes.set_xlim(0, 1)
        axes.tick_params(labelsize=8)
        axes.legend(framealpha=0.8, edgecolor="none", fontsize=8, title="area under the curve", title_fontsize=8)
    panels[-1].set_xlabel("share of pixels", fontsize=9)
    figure.suptitle(_printable(title), fontsize=10, parse_math=False)
    return _render(figure)


def _figure(width, height, columns=1, rows=1, **gridspec):
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.05)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, gridspec_kw=gridspec)


def _phone_figure(height, rows=1, columns=1, **subplots):
    figure = Figure(figsize=(_PHONE_WIDTH, height), dpi=_PHONE_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)
    FigureCanvasAgg(figure)
    gridspec = {name: subplots.pop(name) for name in ("height_ratios",) if name in subplots}
    return figure, figure.subplots(rows, columns, gridspec_kw=gridspec, **subplots)


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
