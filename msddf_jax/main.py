"""Train a detector and evaluate it: `python -m msddf_jax.main --config configs/msddf.py`.

On a built set of your own: `--config configs/msddf.py:folder/mine`. Other sets than the config's: `--train
faceforensics/c23,dfdc/full --test celebdf/v2,dfdc/full:validation --methods deepfakes,faceswap --frames_per_video 8`.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from msddf_jax import cluster, command, config_sets, experiments, remote

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, for example configs/msddf.py or configs/msddf.py:demo.", lock_config=True
)
_WORKDIR = command.define_path(
    "workdir",
    None,
    "Folder for checkpoints, logs and results, here or in an object store; runs/<name of the config> by default.",
    workdir=True,
)
_TRAIN = flags.DEFINE_list("train", None, "Data sets to train on, <set>/<config>[:split], in place of the config's.")
_OWN = flags.DEFINE_string(
    "own",
    None,
    "A built set, <set>/<config>, whose own splits train, choose and test; behind a config's name: "
    "configs/msddf.py:folder/mine.",
)
_TEST = flags.DEFINE_list("test", None, "Data sets to test on, <set>/<config>[:split], in place of the config's.")
_METHODS = flags.DEFINE_list("methods", None, "Manipulations to train on, names of msddf_jax/data/methods.py.")
_FRAMES = flags.DEFINE_integer("frames_per_video", None, "Frames of each video, at most.", lower_bound=1)
_ALLOW_LEAKAGE = flags.DEFINE_bool(
    "allow_leakage",
    False,
    "Run although training or selection meets a test split; the workdir's versions.json says so.",
)
_PROFILE = command.define_path(
    "profile", None, "Folder for a profile of steps 10 to 15 of this start; TensorBoard's profile plugin opens it."
)
cluster.define_flags()


def default_workdir(spec) -> str:
    """The workdir of a config named "configs/<name>.py" or "...:argument": runs/<name>[-<argument>], _ for / and :."""
    path, _, argument = spec.partition(":")
    parts = pathlib.Path(path).with_suffix("").parts
    # Folders below configs/ tell apart what has one name.
    parts = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return str(
        pathlib.Path("runs") / "-".join([*parts, *([argument] if argument else [])]).replace("/", "_").replace(":", "_")
    )


def find_config(argv) -> list[str]:
    """The command line with the file of --config where it is: of the working directory, else of the project itself.

    A built set behind it becomes the flag --own.
    """
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" in argv[:-1]:
        place = argv.index("--config") + 1
        spec, own = experiments.split_set(argv[place])
        path, argument = experiments.find(spec)
        argv[place] = ":".join([str(path), *argument])
        if own is not None:
            argv.insert(place + 1, f"--own={own}")
    return argv


def main(argv) -> None:
    """Run one experiment. Exit code 0 also after SIGTERM with a checkpoint; 1 with one line on a known error."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    import jax

    from msddf_jax import train

    # The checkpoint library reports every save over twenty lines; --verbosity=0 shows them.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    spec = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = _WORKDIR.value or default_workdir(":".join([spec, *([_OWN.value] if _OWN.value else [])]))
    command.silence_writing_threads()
    try:
        with cluster.joined():
            print(
                f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}; processes: {jax.process_count()}; "
                f"workdir: {remote.store_of(workdir) or workdir}",
                flush=True,
            )
            sets = {"train": _TRAIN.value, "test": _TEST.value, "methods": _METHODS.value}
            config, asked = _CONFIG.value, any(word.startswith("--config.steps") for word in sys.argv)
            if _OWN.value is not None:
                config = config_sets.fill_own(config, _OWN.value, keep_steps=asked)
            config = config_sets.fill_sets(config, **sets, frames_per_video=_FRAMES.value)
            train.train_and_evaluate(config, workdir, _ALLOW_LEAKAGE.value, profile=_PROFILE.value)
    except (FileNotFoundError, ValueError, OSError, FloatingPointError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s (--verbosity=1 shows where)", command.describe(error, workdir))
        sys.exit(1)


if __name__ == "__main__":
    # Config files import their neighbours by the name of their folder, wherever this is run from.
    experiments.make_importable()
    flags.mark_flags_as_required(["config"])
    try:
        words = find_config(sys.argv)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    app.run(main, argv=words)
