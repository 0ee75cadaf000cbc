"""Know which batchers are open around the running code, so that one inside another can join it.

The record is a context variable: tasks and ``asyncio.to_thread`` see what was open where they were made. A batcher that
was closed meanwhile is never found, and none is kept alive by the record.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from reconciler.meta import uid_of
from reconciler.status.flush.session import Session

__all__ = ["Joint", "enter", "find", "leave"]


class Joint(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Be what an inner batcher holds of an outer one.

    Attributes:
        key: what both must have in common: server, client, field manager, object's name, whether it is applied.
        session: where to record.
        flush: writes it now.
    """

    key: Hashable
    session: Session
    flush: Callable[[], Awaitable[None]]


_open: ContextVar[tuple[weakref.ref[Joint], ...]] = ContextVar("open_status_batchers", default=())


def enter(joint: Joint) -> None:
    """Note that a batcher is open for the code that this context runs from now on."""
    _open.set((*_open.get(), weakref.ref(joint)))


def leave(joint: Joint) -> None:
    """Note that it is not any more."""
    _open.set(tuple(ref for ref in _open.get() if ref() is not None and ref() is not joint))


def find(key: Hashable, document: Mapping[str, Any]) -> Joint | None:
    """Return the innermost open batcher for the same object, or None.

    Args:
        key: see `Joint`.
        document: the object; ``{}`` when it was named without being read, which fits any of that name.
    """
    for ref in reversed(_open.get()):
        joint = ref()
        if joint is None or joint.key != key or not joint.session.is_open:
            continue
        if uid_of(document) in ("", joint.session.uid):
            return joint
    return None
