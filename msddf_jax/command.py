"""What the commands of this package share: errors that a user can mend are one line, and the exit code is 1."""

import contextlib
import errno
import os
import pathlib
import shutil
import socket
import sys
import threading
import traceback
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


def describe(error, workdir=None) -> str:
    """The line that reports an error; of a full disk it says which disk of which machine, and what to do.

    workdir: of the run, or None where there is none.
    """
    # The checkpoint library turns the operating system's error into a ValueError of the same words.
    full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
    if not full or workdir is None:
        return f"{type(error).__name__}: {error}"
    there = next(path for path in (pathlib.Path(workdir), *pathlib.Path(workdir).parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**20
    return (
        f"the disk of {workdir} on {socket.gethostname()} is full ({free:.1f} MiB free). Free some of it, or move the "
        "workdir to another disk; then the same command resumes from the last checkpoint"
    )


def silence_writing_threads() -> None:
    """From now on threads that write checkpoints or TensorBoard's events print no traceback of an error of `ERRORS`.

    Both libraries raise the same error again where the trainer waits for a checkpoint or writes the next event, and
    there it is reported. `--verbosity=1` shows the threads' too.
    """
    usual = threading.excepthook

    def is_shown(record):
        again = "orbax" in record.pathname and record.exc_info and isinstance(record.exc_info[1], ERRORS)
        return not again or logging.get_verbosity() >= logging.DEBUG

    logging.get_absl_handler().addFilter(is_shown)

    def hook(found):
        files = [frame.filename for frame in traceback.extract_tb(found.exc_traceback)]
        again = any(library in file for library in ("orbax", "tensorboard") for file in files)
        if again and isinstance(found.exc_value, ERRORS) and logging.get_verbosity() < logging.DEBUG:
            return
        usual(found)

    threading.excepthook = hook


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
