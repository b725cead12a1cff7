"""What the commands of this package share: errors that a user can mend are one line, and the exit code is 1."""

import contextlib
import sys
from collections.abc import Iterator

from absl import app, flags, logging

ERRORS = (FileNotFoundError, ValueError, OSError)


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
