"""Cancellation of the current task, as opposed to a CancelledError that the code in it raised itself."""

from __future__ import annotations

import asyncio

FAILURES = (Exception, asyncio.CancelledError)
"""What counts as a failure of user code, for ``except``.

Nobody can cancel a call that does not await, so a CancelledError that comes from one is a failure like any other.
Around an ``await``, check `is_cancelled` first.
"""


def is_cancelled() -> bool:
    """Return whether the current task was cancelled; False for a CancelledError that the code in it raised itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
