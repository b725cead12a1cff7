"""What the commands of this package share: errors that a user can mend are one line, and the exit code is 1."""

import contextlib
import sys
from collections.abc import Iterator

from absl import app, flags, logging

from msddf_jax import paths, remote

ERRORS = (FileNotFoundError, ValueError, OSError)
# The flags defined here are those of the command that asks for them, also to --help.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
    """Text of a path, "~" replaced."""

    syntactic_help = "a path"

    def parse(self, argument):
        return paths.expand(argument)


class _WorkdirParser(flags.ArgumentParser):
    """Text of a path; that of a workdir in an object store is that of its local copy."""

    syntactic_help = "a path, or the address of a folder in an object store"

    def parse(self, argument):
        if not remote.is_url(argument):
            return paths.expand(argument)
        try:
            return str(remote.open_workdir(argument))
        except OSError as error:
            raise ValueError(str(error)) from error


def define_path(name, default, help, *, workdir=False, **keys) -> flags.FlagHolder:
    """`flags.DEFINE_string` of a path, which may start with "~".

    workdir: whether it is one of training, which may be in an object store (`remote`). keys: as of DEFINE_string.
    """
    parser = _WorkdirParser() if workdir else _PathParser()
    return flags.DEFINE(parser, name, default, help, serializer=flags.ArgumentSerializer(), **keys)


def define_paths(name, default, help, *, workdir=False, **keys) -> flags.FlagHolder:
    """`define_path` of a flag that may be given several times; its value is a list. A path may hold commas."""
    parser = _WorkdirParser() if workdir else _PathParser()
    return flags.DEFINE_multi(parser, flags.ArgumentSerializer(), name, default, help, **keys)


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
      errors: types that are reported in one line; `--verbosity=1` shows where they come from. All others pass.

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
        remote.push_opened()
    except errors as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
