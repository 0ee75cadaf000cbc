"""Be what a person types: ``reconciler demo | run | crd | manifests | routes | apiserver | envtest``.

Exit codes: 0 done, 1 it failed (one line on standard error says what and what to do), 2 the command line was wrong, 130
interrupted. Each command imports what it needs, so that one without extras still works.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from reconciler.errors import MissingExtra, ReconcilerError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: what follows the program's name; None takes `sys.argv`.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        sys.exit(_dispatch(arguments))
    except ReconcilerError as error:
        print(f"reconciler: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _dispatch(arguments: Sequence[str] | None) -> int:
    try:
        import cyclopts
    except ModuleNotFoundError as error:
        raise MissingExtra("cyclopts", extra="cli", purpose="the command line") from error
    from reconciler.cli.app import app, configured_by

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app.config = configured_by(given)
        result = app(
            given,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        print(f"reconciler: {error} (see: reconciler --help)", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0
