"""What training writes while it runs: metrics.jsonl and TensorBoard files, without TensorFlow."""

import collections
import json
import math
import os
import pathlib
import time

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class MetricWriter:
    """Writes scalars to `<workdir>/metrics.jsonl` and to TensorBoard files beside it.

    On a resumed run, lines after the restored step are cut away: the steps are run again, and each step
    should stand in the file once.

    Args:
      workdir: folder. first_step: the step that training starts from.
    """

    def __init__(self, workdir, first_step):
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _keep_until(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = EventFileWriter(str(self._path.parent / "tensorboard"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.add_event(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=start))

    def write(self, step, scalars) -> None:
        """Append one line and one TensorBoard event. scalars: {name: float}; NaN is written as null."""
        values = {k: float(v) for k, v in scalars.items()}
        line = {"step": int(step), **{k: v if math.isfinite(v) else None for k, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        summary = summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        )
        self._events.add_event(event_pb2.Event(wall_time=time.time(), step=int(step), summary=summary))

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._events.close()


class PriorWatch:
    """Says once that a detector has not left the class prior: it calls every row what most rows are.

    It looks at "nll/all" and "nll/prior" of `synth.compose.by_role`, averaged over `PATIENCE` steps; a step without
    them is passed over.
    """

    PATIENCE = 200
    # Of what the prior alone costs. Detectors that learn were at 0.9 and below by then.
    SHARE = 0.97

    def __init__(self):
        self._seen = collections.deque(maxlen=self.PATIENCE)
        self._told = False

    def look(self, step, scalars) -> str | None:
        """What to tell the user after this step, or None. scalars: {name: float}."""
        if self._told or "nll/prior" not in scalars:
            return None
        self._seen.append((scalars["nll/all"], scalars["nll/prior"]))
        own, prior = (sum(column) for column in zip(*self._seen, strict=True))
        if len(self._seen) < self.PATIENCE or own < self.SHARE * prior:
            return None
        self._told = True
        called = "; ".join(
            f"{name.removeprefix('called_fake/')} {value:.0%}, nll {scalars['nll/' + name.partition('/')[2]]:.2f}"
            for name, value in sorted(scalars.items())
            if name.startswith("called_fake/")
        )
        return (
            f"step {step}: for {self.PATIENCE} steps the label loss, {own / len(self._seen):.3f}, has been that of a "
            f"detector which knows the share of fakes and nothing else, {prior / len(self._seen):.3f}. Called fake "
            f"(label loss) in the last batch: {called}. Where forgeries stay at the prior and the rest does not, they "
            "cannot be seen (config.synth.visible, strength_floor); where all do, try another learning rate, more "
            "fakes of the data set (config.data.group), or no forgeries (synth.recipe = {'name': 'none'} in "
            "the config file)"
        )


def read_metrics(workdir) -> list[dict[str, float | None]]:
    """The whole lines of metrics.jsonl as dicts, in order; [] where there is no file.

    What follows the last line break is left out: a run is still writing it, or was killed there.
    """
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


def _keep_until(path, step):
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            # A kill can cut the last line short; its step is run again.
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    os.replace(temporary, path)
