"""Train a detector and evaluate it: `python -m msddf_jax.main --config configs/msddf.py --workdir DIR`."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, for example configs/msddf.py or configs/msddf.py:demo.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and results.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Call jax.distributed.initialize() first: one process a host, started by the launch scripts."
)
_ALLOW_LEAKAGE = flags.DEFINE_bool(
    "allow_leakage",
    False,
    "Run although training or selection meets a test split; the workdir's versions.json says so.",
)


def main(argv):
    """Run one experiment. Exit code 0 also after SIGTERM with a checkpoint; 1 with one line on a known error."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    import jax

    from msddf_jax import train

    # The checkpoint library reports every save over twenty lines; --verbosity=0 shows them.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    print(
        f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}; processes: {jax.process_count()}", flush=True
    )
    try:
        train.train_and_evaluate(_CONFIG.value, _WORKDIR.value, _ALLOW_LEAKAGE.value)
    except (FileNotFoundError, ValueError, OSError, FloatingPointError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s (--verbosity=1 shows where)", type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
