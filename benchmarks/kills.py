"""Kills commands at drawn moments of every phase and looks whether the same command, started again, ends alike.

    python -m benchmarks.kills [--kills=100] [--seed=0] [--processes=1] [--out=kills] [--phases=training,...]

Each phase gets its share of SIGKILLs, at a moment drawn from how long the phase lasted when nobody killed it. A kill
counts where the command was in that phase and had not ended; it is then run to its end, and what it leaves is compared,
byte by byte or figure by figure, with what the undisturbed command left. With `--processes=2` the phases of training
run as two processes of which one, drawn, is killed. Writes `<out>/kills.json` and prints a line a phase; exit code 1
where a result differs.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np

from data_prep import build, prepare
from data_prep.toy import generate
from msddf_jax import checkpoint, logs, paths

METHODS = "ToySwap,ToyReenact,ToyNeural,ToyTexture"
STEPS, EVERY = 24, 8


class Phase(NamedTuple):
    """command: (material, place) -> command line. inside: (place, what it has printed) -> whether the phase is on.

    result: place -> what is compared. copy: what of the material the place begins with.
    """

    command: object
    inside: object
    result: object
    copy: tuple = ()


def _python(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def _train(material, place):
    return _python(
        "msddf_jax.main", "--config=configs/detectors/meso4.py:demo", f"--workdir={place / 'run'}",
        f"--config.data.data_dir={material / 'tfds'}", f"--config.steps={STEPS}", f"--config.select.every={EVERY}",
        "--config.checkpoint_every=4", "--config.data.batch_size=8", "--config.log_every=1",
    )  # fmt: skip


def _steps_done(place):
    return sum("loss" in line for line in logs.read_metrics(place / "run"))


def _trained(place):
    """Weights and figures of a run; the log holds each step once."""
    arrays = checkpoint.read_arrays(place / "run" / "best" / "weights.safetensors")
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)))
    figures = json.loads((place / "run" / "results.json").read_text())
    losses = [(line["step"], line["loss"]) for line in logs.read_metrics(place / "run") if "loss" in line]
    return {"weights": digest.hexdigest(), "losses": losses, "figures": _without(figures, "_about")}


def _without(values, name):
    return {key: value for key, value in values.items() if key != name}


def _files(folder, patterns):
    """{name: SHA-256} of files below a folder."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _prepare(_, place):
    return _python(
        "data_prep.prepare", "--layout=faceforensics", "--root", place / "videos", f"--methods={METHODS}",
        "--landmarks=sidecar", "--num_frames=3", "--size=96", "--workers=2",
    )  # fmt: skip


def _build(material, place):
    return _python(
        "data_prep.build", "faceforensics", "--config=toy", "--manual_dir", material / "videos", "--data_dir",
        place / "tfds",
    )  # fmt: skip


def _predict(material, place):
    return _python(
        "msddf_jax.score", "--workdir", material / "reference" / "run", "--list", material / "list.txt", "--out",
        place / "scores", "--landmarks=sidecar", "--num_frames=3", "--workers=2", "--shard_size=7", "--batch_size=4",
    )  # fmt: skip


def _stage(material, place):
    # A copy from a store that is a folder, each file slowly: what is staged does not know the difference.
    code = (
        "import os, sys, time; from msddf_jax import remote; from fsspec.implementations.local import LocalFileSystem\n"
        "class Slow(LocalFileSystem):\n"
        "    def get_file(self, source, target, **_):\n"
        "        data = open(source, 'rb').read()\n"
        "        with open(target, 'wb') as file:\n"
        "            for start in range(0, len(data), 20000):\n"
        "                file.write(data[start:start + 20000]); file.flush(); time.sleep(0.02)\n"
        "remote.open_store = lambda url: (Slow(), url.partition('://')[2])\n"
        "print(remote.stage('slow://' + sys.argv[1]))"
    )
    return [sys.executable, "-c", code, str(material / "tfds")]


def _is_half_saved(place):
    return any("tmp" in path.name for path in (place / "run" / "checkpoints").glob("*"))


PHASES = {
    "training": Phase(_train, lambda p, said: 0 < _steps_done(p) < STEPS, _trained),
    "checkpointing": Phase(_train, lambda p, said: _is_half_saved(p), _trained),
    "selecting": Phase(
        _train, lambda p, said: 0 < _steps_done(p) < STEPS and "evaluate val" in said[-1500:], _trained
    ),
    "evaluating": Phase(_train, lambda p, said: "evaluate toy_" in said, _trained),
    "preparing": Phase(
        _prepare, lambda p, said: "prepare" in said, lambda p: _files(p / "videos", ("*.png", "*.npy")), ("videos",)
    ),
    "building": Phase(
        _build, lambda p, said: (p / "tfds").exists(), lambda p: _files(p / "tfds", ("*.array_record*", "*.csv"))
    ),
    "staging": Phase(
        _stage, lambda p, said: (p / "stage").exists(), lambda p: _files(p / "stage", ("*record*", "*.csv"))
    ),
    "predicting": Phase(
        _predict,
        lambda p, said: list((p / "scores").glob(".*partial")),
        lambda p: _files(p / "scores", ("scores-*.jsonl",)),
    ),
}  # fmt: skip


class Run:
    """A command as one process, or as several that find each other, and what they have printed."""

    def __init__(self, command, place, processes):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        env = os.environ | {"JAX_PLATFORMS": "cpu", "MSDDF_JAX_STAGE": str(place / "stage")}
        self.said, self.processes = "", []
        for number in range(processes):
            own = [f"--coordinator=localhost:{port}", f"--num_processes={processes}", f"--process_id={number}"]
            words = [*command, *(own if processes > 1 else [])]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            self.processes.append(subprocess.Popen(words, cwd=pathlib.Path(__file__).parents[1], env=env, **pipes))
        for process in self.processes:
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()

    def _listen(self, process):
        while text := process.stdout.read(64):
            self.said += text

    def is_over(self):
        """Whether any process has ended."""
        return any(process.poll() is not None for process in self.processes)

    def end(self):
        """Exit codes, once all have ended."""
        return [process.wait(timeout=900) for process in self.processes]


def _watch(run, names, place):
    """{phase: seconds that a command was in it}, once it has ended."""
    first, last = {}, {}
    while not run.is_over():
        for name in names:
            if PHASES[name].inside(place, run.said):
                last[name] = time.monotonic()
                first.setdefault(name, last[name])
        time.sleep(0.01)
    return {name: last[name] - first[name] if name in first else 0.0 for name in names}


def _begin(place, material, phase):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in phase.copy:
        # Without what preparing has made: that is to be made again.
        made = shutil.ignore_patterns("frames", "landmarks", "masks", "meta", "catalog", "report.json")
        shutil.copytree(material / name, place / name, ignore=made)


def kill_once(name, material, place, lasted, rng, processes):
    """What became of one kill: {"phase", "after" seconds, "resumed", "same"}, or None where it came too late."""
    phase = PHASES[name]
    _begin(place, material, phase)
    run, wait, first = Run(phase.command(material, place), place, processes), rng.uniform(0, lasted), None
    while not run.is_over():
        if first is None and phase.inside(place, run.said):
            first = time.monotonic()
        if first is not None and time.monotonic() - first >= wait:
            if phase.inside(place, run.said):
                break
            first = None  # this time the phase was shorter: the next time it is on
        time.sleep(0.002)
    if run.is_over():
        run.end()
        return None
    rng.choice(run.processes).send_signal(signal.SIGKILL)
    codes = run.end()
    again = Run(phase.command(material, place), place, processes)
    done = again.end()
    return {
        "phase": name, "after": round(wait, 3), "codes": codes, "again": done, "said": again.said[-2000:] * any(done),
        "result": phase.result(place) if not any(done) else None,
    }  # fmt: skip


def make_material(folder):
    """Videos, prepared and built; a list of them; nothing where it is there already."""
    if (folder / "list.txt").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    generate.generate(folder / "videos", num_identities=14, num_frames=3, size=96, seed=0, workers=2)
    arguments = ["--root", str(folder / "videos"), f"--methods={METHODS}", "--landmarks=sidecar", "--num_frames=3"]
    assert prepare.main(["--layout=faceforensics", *arguments, "--size=96"]) == 0
    build.build("faceforensics", "toy", folder / "videos", folder / "tfds")
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in sorted((folder / "videos").rglob("*.mp4"))))


def measure(names, material, place, processes):
    """{phase: (seconds, result)} of commands that nobody kills, each run once for all its phases."""
    found = {}
    for command in dict.fromkeys(PHASES[name].command for name in names):
        mine = [name for name in names if PHASES[name].command is command]
        _begin(place, material, PHASES[mine[0]])
        run = Run(command(material, place), place, processes)
        lasted = _watch(run, mine, place)
        codes = run.end()
        if any(codes):
            raise SystemExit(f"{', '.join(mine)}: the command fails without any kill:\n{run.said[-2000:]}")
        found |= {name: (lasted[name], PHASES[name].result(place)) for name in mine}
        if command is _train:
            shutil.copytree(place / "run", material / "reference" / "run", dirs_exist_ok=True)
    return found


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--out", type=paths.expand, default="kills")
    args = parser.parse_args(argv)
    out, rng = pathlib.Path(args.out), random.Random(args.seed)
    names, material = args.phases.split(","), out / "material"
    make_material(material)
    place = pathlib.Path(tempfile.mkdtemp(dir=out))
    # What predicts needs a trained run first.
    trained = [name for name in PHASES if PHASES[name].command is _train and (name in names or "predicting" in names)]
    alone = measure([*trained, *(name for name in names if name not in trained)], material, place, args.processes)
    kills, tries = [], 0
    while len(kills) < args.kills and tries < 3 * args.kills:
        tries += 1
        name = names[len(kills) % len(names)]
        lasted, expected = alone[name]
        found = kill_once(name, material, place, lasted, rng, args.processes)
        if found is None:
            continue
        found["same"] = found.pop("result") == expected
        kills.append(found)
        print(f"{len(kills)}: {name}, {found['after']} s in: {'the same' if found['same'] else 'DIFFERS'}", flush=True)
    table = {}
    for name in names:
        mine = [kill["same"] for kill in kills if kill["phase"] == name]
        table[name] = {"kills": len(mine), "same": sum(mine), "seconds": round(alone[name][0], 2)}
        print(f"{name:14s} {sum(mine)} of {len(mine)} kills ended in the same; the phase lasts {alone[name][0]:.2f} s")
    about = {"processes": args.processes, "seed": args.seed, "too_late": tries - len(kills)}
    checkpoint.write_json(out / "kills.json", {"about": about, "phases": table, "kills": kills})
    shutil.rmtree(place)
    bad = [name for name in names if table[name]["kills"] == 0 or table[name]["same"] < table[name]["kills"]]
    if bad:
        sys.exit(f"not shown: {', '.join(bad)}; see {out / 'kills.json'}")


if __name__ == "__main__":
    main()
