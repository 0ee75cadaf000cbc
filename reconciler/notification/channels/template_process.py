"""The process that renders templates, started by `Template`: a template can exhaust this process only.

The engine counts instructions. One instruction can take any memory or time, such as the text of a list that contains
itself a billion times. Each line of the input is a request, each line of the output its response, in JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from pathlib import Path
from typing import Any

FUEL = 100_000
"""Maximum instructions for one rendering; stops an endless template within milliseconds."""

OUTPUT_LIMIT = 1_048_576
"""Maximum characters in a rendering."""

MEMORY_LIMIT = 256 * 2**20
"""Maximum bytes of address space of the process; it starts with about 30 MiB."""

CPU_SECONDS = 0.25
"""Maximum CPU time for one rendering."""

LIMIT_EXCEEDED = 3
"""The exit code of a process that ran out of memory. The engine aborts then, or Python raises MemoryError."""


def main() -> None:
    """Answer requests until the input ends."""
    import resource

    import minijinja  # noqa: F401 - loaded before memory is limited

    with contextlib.suppress(OSError):  # if memory runs out, this process ends and not the operator
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for line in sys.stdin.buffer:
        # The signal ends the process, whatever the engine does.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        response = json.dumps(_render(**json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{response}\n")
        sys.stdout.flush()


def _render(source: str, name: str, document: dict[str, Any]) -> dict[str, str]:
    import minijinja

    try:
        text = _environment(source, name).render_template(name, **document)
    except minijinja.TemplateError as error:
        # The further lines of the text are the template, which may contain a token, as does a traceback.
        return {"error": error.kind, "message": str(error).partition("\n")[0]}
    if len(text) > OUTPUT_LIMIT:
        return {"error": f"more than {OUTPUT_LIMIT} characters", "message": ""}
    return {"text": text}


@functools.lru_cache(maxsize=8)
def _environment(source: str, name: str) -> Any:
    import minijinja

    return minijinja.Environment(
        templates={name: source},
        fuel=FUEL,
        undefined_behavior="chainable",
        auto_escape_callback=lambda _name: False,
    )


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        sys.exit(LIMIT_EXCEEDED)
