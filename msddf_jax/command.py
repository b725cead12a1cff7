"""What the commands of this package share: errors that a user can mend are one line, and the exit code is 1."""

import contextlib
import sys
from collections.abc import Iterator

from absl import app, flags, logging

from msddf_jax import paths

ERRORS = (FileNotFoundError, ValueError, OSError)
# The flags defined here are those of the command that asks for them, also to --help.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
    """Text of a path, "~" replaced."""

    syntactic_help = "a path"

    def parse(self, argument):
        return paths.expand(argument)


def define_path(name, default, help, **keys) -> flags.FlagHolder:
    """`flags.DEFINE_string` of a path, which may start with "~". keys: as of DEFINE_string."""
    return flags.DEFINE(_PathParser(), name, default, help, serializer=flags.ArgumentSerializer(), **keys)


def define_paths(name, default, help, **keys) -> flags.FlagHolder:
    """`define_path` of a flag that may be given several times; its value is a list. A path may hold commas."""
    return flags.DEFINE_multi(_PathParser(), flags.ArgumentSerializer(), name, default, help, **keys)


def check_devices() -> None:
    """Raise ValueError, in one line, where JAX has no device of a kind that JAX_PLATFORMS names.

    To be called before anything else asks JAX for a device.
    """
    import jax  # the flags do without

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second for cuda where its plugin is not installed
        asked = jax.config.jax_platforms
        if not asked:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"JAX_PLATFORMS={asked}, but JAX finds no such device: unset it, set it to cpu, or install what drives "
            f"the device (pip install 'jax[cuda13]' or 'jax[tpu]'){reason and f'. JAX says: {reason}'}"
        ) from error


@contextlib.contextmanager
def errors_in_one_line(argv, errors=ERRORS) -> Iterator[None]:
    """Runs the work of a command.

    Args:
      argv: what absl left of the command line, the program's name first.
      errors: types that are told in one line; `--verbosity=1` shows where they come from. All others pass.

    Raises:
      app.UsageError: arguments that are no flags. SystemExit: one of `errors`, with exit code 1.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    # The checkpoint library reports every step of a restore; --verbosity=0 shows them.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        yield
    except errors as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
