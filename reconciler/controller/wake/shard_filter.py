"""The protocol by which a controller learns which keys its process reconciles, where several processes share a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from reconciler.cache import CachedObject
from reconciler.controller.permissions import Permission
from reconciler.meta import Request

__all__ = ["ShardFilter", "Unsharded"]


class ShardFilter(Protocol):
    """A filter of the keys that a controller of this process reconciles.

    Attributes:
        permissions: what it does to the objects itself.
        sharded: whether other processes reconcile some of the objects.
    """

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return what it does to the objects itself."""
        ...

    @property
    def sharded(self) -> bool:
        """Return whether other processes reconcile some of the objects."""
        ...

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this process."""
        ...

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over, so that its events ignore predicates and the echo rule."""
        ...

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether this process reconciles a key; called before each reconcile, while the key is in progress.

        If False, the key is dropped: no reconcile, no retry, no timer. If True, `ended` follows. Cancellation may leave
        a handover unfinished, which the next call for the key completes.

        Raises:
            Exception: it could not find out; the key is retried with backoff.
        """
        ...

    def ended(self, request: Request, /) -> None:
        """Called when a reconcile that `may_reconcile` allowed has ended, whatever its outcome."""
        ...


class Unsharded:
    """The filter of a process that reconciles every object."""

    permissions: Sequence[Permission] = ()
    sharded = False

    def matches(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - every object belongs to it
        """Return True."""
        return True

    def must_drain(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        """Return False."""
        return False

    async def may_reconcile(self, request: Request, /) -> bool:  # noqa: ARG002 - every key belongs to it
        """Return True."""
        return True

    def ended(self, request: Request, /) -> None:
        """Do nothing."""
