"""The health of a kind's objects, as their own conditions show it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from reconciler.cache import CachedObject
from reconciler.meta import Request
from reconciler.meta.documents import Version

_TYPES = {"Stalled": True, "Failed": True, "Degraded": True, "Ready": False, "Available": False}
"""Types of conditions, and whether an object is not healthy if the condition is true, or if it is not."""

_MAX_READ = 2_000
"""Objects whose conditions are read in one call at most: each takes microseconds, on the event loop."""


class ObjectCondition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A condition of an object."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.type} is {self.status}{reason}"


class _Status(msgspec.Struct, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()


class _Object(msgspec.Struct, frozen=True, gc=False):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Object).decode


class ObjectHealth:
    """The condition by which each object of a kind is not healthy; read when somebody looks, once per version.

    An object is not healthy if it is ``Stalled``, ``Failed`` or ``Degraded``, or is not ``Ready`` or ``Available``. One
    that is being deleted, or has no such condition, is healthy.

    Args:
        get: returns an object, or None.
        list_all: returns all objects.
        ready_condition: a further type that must be true; None for none.

    Attributes:
        get: as given.
        objects: their number when they were read last.
    """

    def __init__(
        self,
        get: Callable[[Request], CachedObject | None],
        list_all: Callable[[], Collection[CachedObject]],
        ready_condition: str | None,
    ) -> None:
        self.get = get
        self._list_all = list_all
        self._types = _TYPES if ready_condition is None else {ready_condition: False} | _TYPES
        self.objects = 0
        self._known: dict[Request, tuple[Version, ObjectCondition | None]] = {}

    def unhealthy(self) -> dict[Request, ObjectCondition]:
        """Return the condition of each object that is not healthy, as far as the conditions were read.

        Of very many objects whose versions are new, the next calls read further ones.
        """
        objects = self._list_all()
        self.objects = len(objects)
        left, known = _MAX_READ, {}
        for each in objects:
            found = self._known.get(each.request)
            if found is None or found[0] != each.version:
                if not left:
                    continue
                left -= 1
                found = each.version, self._condition_of(each)
            known[each.request] = found
        self._known = known
        return {request: condition for request, (_, condition) in known.items() if condition is not None}

    def _condition_of(self, cached: CachedObject) -> ObjectCondition | None:
        if cached.deletion_timestamp is not None:
            return None
        try:
            conditions = {each.type: each for each in _decode(cached.data).status.conditions}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        for name, bad in self._types.items():
            found = conditions.get(name)
            if found is not None and (found.status == "True") is bad:
                return found
        return None
