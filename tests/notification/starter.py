"""A script that starts ``reconciler run`` repeatedly in new processes without importing it again.

Run as a script: for each line on standard input it forks a process that runs the command, and prints its number; when
that has ended it prints how.
"""

from __future__ import annotations

import os
import sys
import traceback

import reconciler.cli.app
import reconciler.cli.run
import reconciler.notification  # noqa: F401 - imported for the processes to come
from reconciler.cli import main


def start(arguments: list[str]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        main(arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 - a forked process must not go on with its parent's work
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    for _ in sys.stdin:
        process = start(sys.argv[1:])
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()
        _, status = os.waitpid(process, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
