"""The page of all detectors, from their docstrings: docs/reference/detectors.md.

    python -m benchmarks.detector_page              writes the page
    python -m benchmarks.detector_page --measure    and before it what each costs, docs/reference/detector_costs.json

What a detector is, its citation and what differs are its module's docstring; how to run it, its config's. Costs
are parameters and GFLOP an image at full size, as `benchmarks.zoo` counts them; AUC on drawn faces, speed and memory
are in its table.
"""

import argparse
import ast
import json
import pathlib

from benchmarks import zoo
from msddf_jax import experiments

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE, COSTS = ROOT / "docs/reference/detectors.md", ROOT / "docs/reference/detector_costs.json"


def measure() -> dict[str, dict]:
    """{row: parameters, those that are trained, GFLOP of an image} of every experiment at full size.

    A row that needs a file of the user's which is not there (a vocabulary) is {}, and told.
    """
    found = {}
    for name, spec in zoo.row_specs().items():
        try:
            size = zoo.measure_size(experiments.load(spec))
        except FileNotFoundError as error:
            found[name] = {}
            print(f"{name}: not measured ({error})", flush=True)
            continue
        found[name] = {"parameters": size["parameters"], "trained": size["trained"], "gflop": round(size["gflop"], 2)}
        print(name, found[name], flush=True)
    return found


def make_page(costs) -> str:
    """The page as Markdown. costs: of `measure`."""
    lines = [
        "# Detectors",
        "",
        "Made by `python -m benchmarks.detector_page` from the docstrings of `configs/` and `msddf_jax/detectors/`.",
        "Every experiment takes `:demo` (the embedded data set, minutes on two cores) and `:folder/mine` (a built set",
        "of your own: [own_data.md](../howto/own_data.md)). To write another:",
        "[add_a_detector.md](../howto/add_a_detector.md). Parameters and GFLOP of scoring one image are of",
        "the full size; `python -m benchmarks.zoo` puts AUC on drawn faces, speed and memory beside them.",
        "",
        "| experiment | detector | parameters | trained | GFLOP an image |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = {name: (spec, experiments.load(spec).detector) for name, spec in zoo.row_specs().items()}
    for name, (_, detector) in rows.items():
        cost = costs[name]
        numbers = f"{cost['parameters']:,} | {cost['trained']:,} | {cost['gflop']:.4g}" if cost else "- | - | -"
        lines.append(f"| [{name}](#{name}) | [{detector}](#module-{detector}) | {numbers} |")
    lines += ["", "## Experiments"]
    for name, (spec, detector) in rows.items():
        lines += ["", f"### {name}", "", *_text(ROOT / spec), "", f"Module: [{detector}](#module-{detector})."]
    lines += ["", "## Modules"]
    for detector in dict.fromkeys(sorted(detector for _, detector in rows.values())):
        lines += ["", f"### Module {detector}", "", *_text(ROOT / "msddf_jax/detectors" / f"{detector}.py")]
    return "\n".join(lines) + "\n"


def _text(path):
    """Lines of a file's docstring, indented blocks as code."""
    lines = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n")
    out, inside = [], False
    for number, line in enumerate(lines):
        code = line.startswith("    ")
        if code != inside and (code or line):
            # Flags without their command are nothing for a shell.
            first = next((below.strip() for below in lines[number:] if below.strip()[:1] not in ("", "#")), "")
            opening = "```text" if first.startswith("-") else "```bash"
            out.append(opening if code else "```")
            inside = code
        # What looks like a tag would not be shown.
        out.append(line[4:] if code else line.replace("<", "&lt;"))
    return _closed(out) if inside else _closed(out, end=False)


def _closed(lines, end=True):
    """With the last fence closed, and no blank line before a closing one."""
    lines = [*lines, "```"] if end else lines
    return [line for i, line in enumerate(lines) if line or i + 1 == len(lines) or lines[i + 1] != "```"]


def main(argv=None):
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="also count parameters and GFLOP anew; minutes")
    if parser.parse_args(argv).measure:
        COSTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(make_page(json.loads(COSTS.read_text())), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
