"""The exit codes of commands, and one line for each error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from reconciler.errors import ReconcilerError

__all__ = ["exit_with"]


def exit_with(command: Callable[[], int]) -> None:
    """Run a command and exit with its result, or with one line for an error.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        sys.exit(command())
    except ReconcilerError as error:
        print(f"reconciler: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
