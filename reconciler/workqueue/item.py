"""Hold a key for the length of a block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic

from reconciler.workqueue.entry import K

__all__ = ["QueueItem"]


class QueueItem(Generic[K]):
    """Take a key on entry and give it back on exit, whatever happens in the block; made by `WorkQueue.item`.

    Cancellation while it waits for a key leaves the queue as it was; inside the block it gives the key back.
    """

    __slots__ = ("_done", "_get", "_key")

    def __init__(self, get: Callable[[], Awaitable[K]], done: Callable[[K], None]) -> None:
        self._get = get
        self._done = done

    async def __aenter__(self) -> K:
        self._key = await self._get()
        return self._key

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done(self._key)
