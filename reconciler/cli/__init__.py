"""The command line: ``reconciler demo | new | dev | run | crd | manifests | explain | apiserver | …``.

Exit codes: 0 for success, 1 for a failure (one line on standard error says what failed and what to do), 2 for a usage
error, 130 after SIGINT, 143 after SIGTERM. Each command imports only what it needs, so it works without the extras of
the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli.output import ThreadsLeft, end_at_signals, exit_with
from reconciler.errors import importing

if TYPE_CHECKING:
    from cyclopts import CycloptsError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: the arguments after the program name. Default: `sys.argv`.

    Raises:
        SystemExit: always, with the exit code.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the process ends
    if arguments is None:  # the process is the command's own
        end_at_signals()
    try:
        exit_with(lambda: _dispatch(arguments))
    except ThreadsLeft as left:
        if arguments is None:
            sys.stdout.flush()
            os._exit(int(str(left.code)))
        raise


def _dispatch(arguments: Sequence[str] | None) -> int:
    with importing(extra="cli", purpose="the command line"):
        import cyclopts
    from reconciler.cli.app import app, config_sources, import_commands
    from reconciler.cli.options import with_console_address

    given = with_console_address(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in app.help_flags:
        import_commands()
    try:
        app.config = config_sources(given)
        result = app(
            given,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        print(f"reconciler: {_usage_error(error, given)}", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def _usage_error(error: CycloptsError, given: Sequence[str]) -> str:
    """Return one line that names what is wrong and the command whose help tells more."""
    from cyclopts import MissingArgumentError, UnknownCommandError, UnusedCliTokensError

    command = " ".join(["reconciler", *(error.command_chain or ())])
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        text = f"{name} needs a value" if name in given else f"missing argument {name.removeprefix('--')}"
    elif isinstance(error, UnknownCommandError):  # cyclopts lists some of the commands, in any order
        text = "u" + str(error).partition(" Available commands:")[0][1:].rstrip(".")
    elif isinstance(error, UnusedCliTokensError):
        text = f"unexpected argument: {' '.join(error.unused_tokens or ())}"
    else:
        text = str(error).rstrip(".")
        text = text[:1].lower() + text[1:]
    return f"{text}{'' if text.endswith('?') else '.'} See '{command} --help'"
