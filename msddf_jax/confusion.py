"""What an evaluated detector calls each test video: `python -m msddf_jax.confusion --workdir DIR [--root VIDEOS]`.

Prints the confusion by manipulation, one video of each kind (right and wrong, real and fake), and what these metrics do
not show. Reads results.json and scores/*.csv of `msddf_jax.evaluate`; nothing is scored again.
"""

import pathlib

from absl import app, flags

from msddf_jax import command
from msddf_jax.evaluators import calls
from msddf_jax.show import answer


def describe(workdir, root=None) -> str:
    """The confusion of an evaluated workdir as text for a terminal.

    Args:
      workdir: of `msddf_jax.evaluate`. root: folder in which the test videos lie in the layout of FF++, to name them;
        None to name a frame of each.

    Raises:
      FileNotFoundError: not evaluated yet, or no such root. ValueError: no test video, files that do not fit.
    """
    root = None if root is None else pathlib.Path(root)
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"no folder {root} of videos")
    tested = answer.load(workdir)
    if not tested.calls:
        raise ValueError(f"{workdir}: nothing was tested but the set that chose the checkpoint")
    parts = [
        ("What the test videos are called", _table(tested)),
        ("One of each kind, the clearest", _one_of_each(tested, root)),
        ("In short, with 95 % intervals", [*answer.how_good(tested), *answer.where_worst(tested)]),
        ("What this does not show", answer.not_to_conclude(tested)),
    ]
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in parts)


def _table(tested):
    header, rows = answer.confusion(tested)
    rows = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _one_of_each(tested, root):
    lines = []
    for kind, call in calls.one_of_each(tested.calls).items():
        if call is None:
            lines.append(f"{kind}: none")
            continue
        known = {True: ", in training", False: ", not in training"}.get(call.in_training, "")
        method = "method not named" if call.method == calls.UNNAMED else call.method
        what = "" if call.label == "real" else f" ({method}{known})"
        lines.append(f"{kind}{what}: P(fake) {call.judged.probability:.2f}, {calls.video_file(call, root)}")
    return lines


def main(argv) -> None:
    """Print the confusion. Exit code 1 with one line where there is none."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv):
        text = describe(values.workdir, values.root)
    print(text)


if __name__ == "__main__":
    command.define_path("workdir", None, "An evaluated workdir.", workdir=True, required=True)
    command.define_path("root", None, "Folder of the test videos in the layout of FF++, to name each by its file.")
    app.run(main)
