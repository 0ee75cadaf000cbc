"""Say what a controller needs to know where several processes share the objects of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from reconciler.cache import CachedObject
from reconciler.controller.permissions.permissions import Permission
from reconciler.meta import Request

__all__ = ["Everything", "Responsibility"]


class Responsibility(Protocol):
    """Decide which keys a controller of this process may reconcile.

    Attributes:
        permissions: what it does to the objects itself.
        shared: whether other processes answer for some of the objects.
    """

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return what it does to the objects itself."""
        ...

    @property
    def shared(self) -> bool:
        """Say whether other processes answer for some of the objects."""
        ...

    def owns(self, labels: Mapping[str, str], /) -> bool:
        """Say whether an object with these labels is this process's."""
        ...

    def insists(self, cached: CachedObject, /) -> bool:
        """Say whether an event of this object wakes its key, whatever predicates and the echo rule say."""
        ...

    async def admits(self, request: Request, /) -> bool:
        """Say whether this process answers for a key; called before each reconcile, with the key in hand.

        False lets go of it: no reconcile, no retry, no timer. Cancellation may leave a handing over half done, which
        the next call for the key finishes.

        Raises:
            Exception: it cannot be told; the key is tried again with back-off.
        """
        ...


class Everything:
    """Be the responsibility of a process that shares with nobody."""

    permissions: Sequence[Permission] = ()
    shared = False

    def owns(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - every object is
        """Return True."""
        return True

    def insists(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - there is nothing to insist on
        """Return False."""
        return False

    async def admits(self, request: Request, /) -> bool:  # noqa: ARG002 - every key is
        """Return True."""
        return True
