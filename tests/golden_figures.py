"""Golden figures: what published detectors give with drawn weights and inputs, without their code or their weights.

`tests/golden/<detector>.json`, made by `benchmarks/golden.py` from a checkout of the repository that it names, holds
names and shapes of the state, and figures of its forward pass at several depths. A test fills the same state here,
converts it as a file of that detector, and compares.
"""

import fnmatch
import hashlib
import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "golden"
# Figures kept of a depth and input, at places drawn from the depth's name.
KEPT = 64
# What is filled of a norm, in PyTorch's order.
NORM = ("weight", "bias", "running_mean", "running_var")


def draw(name, shape, scaled=(), seed=0) -> np.ndarray:
    """float32 values of a parameter or statistic, by its name alone.

    scaled: {name or pattern of `fnmatch`: factor on kernels}, the first that fits. Kernels (two axes or more) are
    He-scaled; variances in [0.5, 2]; one-axis weights, which are a norm's, around 1; all others small.
    """
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")])
    if name.endswith("running_var"):
        return rng.uniform(0.5, 2.0, shape).astype(np.float32)
    values = rng.standard_normal(shape)
    if len(shape) >= 2:
        factor = next((f for pattern, f in dict(scaled).items() if fnmatch.fnmatchcase(name, pattern)), 1.0)
        return (values * factor * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    return (0.1 * values + (name.endswith("weight") and len(shape) == 1)).astype(np.float32)


def images(side, number=3, seed=0) -> np.ndarray:
    """float32 [number, side, side, 3] in [0, 1], multiples of 1 / 255: smooth shapes with noise, each of its own."""
    rng = np.random.default_rng([seed, side])
    y, x = np.mgrid[:side, :side] / side
    waves = [0.5 + 0.3 * np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-4, 4, (number * 3, 3))]
    smooth = np.stack(waves).reshape(number, 3, side, side).transpose(0, 2, 3, 1)
    return np.float32(np.round(255 * np.clip(smooth + rng.normal(0, 0.1, smooth.shape), 0, 1)) / 255)


def keep(name, values) -> list:
    """Of a depth [N, ...]: for each input `KEPT` values (all, where it has no more) at places drawn from the name."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if flat.shape[1] > KEPT:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        flat = flat[:, np.sort(rng.choice(flat.shape[1], KEPT, replace=False))]
    return [[float(f"{value:.9g}") for value in row] for row in flat]


def pack(pairs) -> list:
    """[name, shape] pairs, of the four of a norm, which follow each other, one: "bn1.{norm}"."""
    names, out = [name for name, _ in pairs], []
    for place, (name, shape) in enumerate(pairs):
        start = name.removesuffix(NORM[0])
        if names[place : place + len(NORM)] == [start + leaf for leaf in NORM]:
            out.append([start + "{norm}", shape])
        elif not (out and out[-1][0].endswith("{norm}") and name in _of_norm(out[-1][0])):
            out.append([name, shape])
    return out


def unpack(pairs) -> list:
    """The inverse of `pack`."""
    of = lambda name: _of_norm(name) if name.endswith("{norm}") else [name]
    return [[whole, shape] for name, shape in pairs for whole in of(name)]


def _of_norm(name):
    return [name.removesuffix("{norm}") + leaf for leaf in NORM]


def read(detector, side) -> dict:
    """The golden file of a detector at an input side, and its entry of that side under "sides"."""
    content = json.loads((FOLDER / f"{detector}.json").read_text())
    own = content["sides"][str(side)]
    # What has another shape at this side stands behind the first side's.
    shapes = {kind: unpack([*content[kind], *own.get(kind, ())]) for kind in ("filled", "fixed")}
    return content | own | shapes


def state(content) -> dict[str, np.ndarray]:
    """{their name: float32 array} of what the file says is filled."""
    scaled = content.get("scaled", {})
    return {name: draw(name, tuple(shape), scaled) for name, shape in content["filled"]}


def difference(content, depth, values) -> float:
    """Largest difference of values [N, ...], channels last, from a depth's figures, relative to their largest."""
    figures = np.array(content["outputs"][depth]["values"])
    ours = np.array(keep(depth, values))
    assert ours.shape == figures.shape, (depth, ours.shape, figures.shape)
    return float(np.abs(ours - figures).max() / np.abs(figures).max())


def check_worth(content, tolerance=1e-4) -> None:
    """Raise AssertionError where a depth could not see a fault: its inputs must differ by 100 times the tolerance."""
    for depth, kept in content["outputs"].items():
        figures = np.array(kept["values"])
        for a in range(len(figures)):
            for b in range(a):
                apart = np.abs(figures[a] - figures[b]).max() / np.abs(figures).max()
                assert apart > 100 * tolerance, (depth, a, b, apart)
