"""Likelihood ratios in words, with the limit of what the videos behind them can show. Plain text."""

# From so many times on, support is called so: the verbal scale of ENFSI's guideline for evaluative reporting, 2015.
SUPPORT = (
    (1e6, "extremely strong"),
    (1e4, "very strong"),
    (1e3, "strong"),
    (1e2, "moderately strong"),
    (1e1, "moderate"),
    (2.0, "weak"),
)


def times(log10_lr) -> str:
    """ "25 times" of 1.4 and of -1.4: how many times more one side is supported, two digits."""
    value = 10.0 ** abs(log10_lr)
    if value < 9.95:
        return f"{value:.1f}".removesuffix(".0") + " times"
    return f"{float(f'{value:.2g}'):,.0f} times"


def support(log10_lr) -> str:
    """ "moderate support" and the like; "no support" of less than twice."""
    value = 10.0 ** abs(log10_lr)
    # Two digits are shown: 9.96 is shown as 10, and called what 10 is.
    value = float(f"{value:.2g}")
    return next((name for least, name in SUPPORT if value >= least), "no") + " support"


def describe(lr) -> str:
    """A sentence or two for people: which side is supported, how much, and the limit; or why there is no answer.

    lr: of `statistics.verdict.weigh`.
    """
    if lr["abstained"]:
        return f"No answer: {lr['reason']}."
    side, other, limit, videos = _sides(lr)
    said = f"The score supports '{side}' {times(lr['log10_lr'])} more than '{other}'"
    if times(limit) == times(lr["log10_lr"]):
        return f"{said}: {support(limit)}, and the limit of what {videos} can show."
    return f"{said}: {support(lr['log10_lr'])}. The limit of what {videos} can show is {times(limit)}."


def describe_short(lr) -> str:
    """The same for a terminal's line: "supports fake 13 times (limit 61)". lr: of an answer."""
    side, _, limit, _ = _sides(lr)
    return f"supports {side} {times(lr['log10_lr'])} (limit {times(limit).removesuffix(' times')})"


def _sides(lr):
    fake = lr["log10_lr"] > 0.0
    side, other = ("fake", "real") if fake else ("real", "fake")
    videos = f"{lr['num_real']} real and {lr['num_fake']} fake calibration videos"
    return side, other, lr["bounds"][int(fake)], videos


def describe_fit(fitted) -> list[str]:
    """Lines on a calibration for who runs `evaluate` or `calibrate`. fitted: as `verdict.load_calibration`."""
    lines = [
        f"calibration: slope {fitted['slope']:.3g}, threshold {fitted['threshold']:.3g} of video scores, fitted on "
        f"{fitted['fitted_on']} ({fitted['num_videos']} videos)"
    ]
    lr = fitted.get("lr")
    if lr is None:
        return [*lines, f"no likelihood ratio: {fitted.get('no_lr', 'the calibration is of an earlier version')}"]
    rest = "there are no others" if lr["error_rest"] is None else f"{lr['error_rest']:.1%} of the others"
    return [
        *lines,
        f"likelihood ratio: at most {times(lr['high'])} for fake and {times(lr['low'])} for real, by {lr['num_real']} "
        f"real and {lr['num_fake']} fake videos; on held-out ones Cllr {lr['cllr']:.2f} bits, least "
        f"{lr['cllr_min']:.2f}",
        f"no answer below {times(lr['abstain_below'])} either way: {lr['abstained']:.0%} of held-out videos; wrong are "
        f"{lr['error']:.1%} of all and {rest}",
    ]
