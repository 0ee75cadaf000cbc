"""Say which objects beside the primary ones wake a controller, and which keys they wake.

A mapper turns a watched object into requests. `controller_owner` and `every_owner` read the owner references and need
not decode the object; any other mapper is a function of the object, plain or ``async``. Both the old and the new object
of an update are mapped, so that who was left is woken as well as who was joined.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from reconciler.cache import CachedObject, CacheEvent
from reconciler.meta import Request, ResourceType
from reconciler.objects import KindLike

__all__ = ["Mapper", "OwnerMapper", "Watch", "check_requests", "controller_owner", "every_owner"]

Mapper = Callable[[Any], Iterable[Request] | Awaitable[Iterable[Request]]]
"""Returns the keys to wake for an object of the watched kind: an instance of the Resource class, or an Unstructured."""


class OwnerMapper:
    """Wake the owners of an object that are of the controller's kind.

    The version of the owner's API is not compared: references keep the one they were written with.

    Args:
        every: all owners of the kind, or only the one that is marked as controller.
    """

    def __init__(self, *, every: bool) -> None:
        self._every = every

    def map(self, obj: CachedObject, primary: ResourceType) -> list[Request]:
        """Return the keys of an object's owners of the primary kind; a cluster-scoped owner has no namespace."""
        namespace = obj.namespace if primary.namespaced else None
        return [
            Request(reference.name, namespace)
            for reference in obj.owner_references
            if reference.kind == primary.gvk.kind
            and reference.group == primary.gvk.group
            and (self._every or reference.controller)
        ]

    def __repr__(self) -> str:
        return "every_owner" if self._every else "controller_owner"


controller_owner = OwnerMapper(every=False)
"""Wake the owner that is marked as controller: what ``owns=`` does."""

every_owner = OwnerMapper(every=True)
"""Wake every owner of the controller's kind, marked as controller or not."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Wake the controller for changes of another kind.

    Attributes:
        kind: ``"v1/ConfigMap"``, a GroupVersionKind or a Resource class.
        mapper: from an object to the keys to wake. None: the key of the same name and namespace. A plain function is
            called on the event loop and must be quick: while it blocks, the process stands still. An ``async`` one may
            read through the client and is called for ten objects at a time. Either is called again when it fails, with
            backoff from 0.1 s to 60 s. An object that it has failed on for ten minutes is given up until it changes.
            It gets an object that does not fit its class as far as that can be read; see `Resource.from_dict`.
        mapper_timeout: seconds for a call of an ``async`` mapper, after which it is cancelled and counts as failed.
            Default 30.
        predicates: each gets the `CacheEvent` and says whether it matters; all must. Default: everything matters.
        metadata_only: fetch and hold no spec, status or data, which saves most of the memory. The mapper gets an
            Unstructured with the metadata, and the kind cannot be read from the cache by it. Default False.
    """

    kind: KindLike
    _: KW_ONLY
    mapper: Mapper | OwnerMapper | None = None
    mapper_timeout: float = 30.0
    predicates: Sequence[Callable[[CacheEvent], bool]] = ()
    metadata_only: bool = False


def check_requests(requests: object, primary: ResourceType, *, who: str = "a mapper") -> list[Request]:
    """Return what a mapper, or whoever else, gave, each once.

    Raises:
        TypeError: it gave something else than requests.
        ValueError: a request has a namespace and the primary kind none, or the other way round.
    """
    if isinstance(requests, (str, Request)) or not isinstance(requests, Iterable):
        raise TypeError(f"{who} returns an iterable of Request(name, namespace), not {type(requests).__name__}")
    found = list(requests)
    for request in found:
        if not isinstance(request, Request):
            raise TypeError(f"{who} gives Request(name, namespace), not {type(request).__name__}")
        if bool(request.namespace) != primary.namespaced:
            raise ValueError(
                f"{who} gave {request!r}, but objects of kind {primary.gvk.kind} "
                + ("live in namespaces" if primary.namespaced else "have no namespace")
            )
    return list(dict.fromkeys(found))
