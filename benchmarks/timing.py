"""Timing that can be believed: warm-up, medians of several runs, alternatives in turn in the same process."""

import json
import pathlib
import platform
import subprocess
import time

import jax
import numpy as np


def block(value):
    """Wait until every array of a tree is there."""
    return jax.block_until_ready(value)


def turns(functions, *, runs=5, warmup=1):
    """Seconds of each function of no arguments, run in turn (A B A B ...), so that drift hits all alike.

    Args:
      functions: {name: callable}; a jax result is waited for.

    Returns:
      {name: float [runs]}. The ratio of two functions is best taken turn by turn, and then its median.
    """
    times = {name: [] for name in functions}
    for turn in range(warmup + runs):
        for name, function in functions.items():
            start = time.perf_counter()
            block(function())
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def medians(functions, *, runs=5, warmup=1):
    """{name: median seconds} of `turns`."""
    return {name: float(np.median(values)) for name, values in turns(functions, runs=runs, warmup=warmup).items()}


def about():
    """Device, versions and commit, for the head of a result."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=pathlib.Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",
    }


def report(title, header, rows, out=None):
    """Print a table with `about()` above it; write it as JSON to `out` where given."""
    print(f"{title}\n{about()}")
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)))
    if out:
        pathlib.Path(out).write_text(
            json.dumps({"title": title, **about(), "header": header, "rows": rows}, indent=2) + "\n"
        )
