"""Watches: which other kinds wake a controller, and the mappers from their objects to the keys to enqueue.

A mapper turns a watched object into requests. `controller_owner` and `every_owner` read the owner references and do not
decode the object; any other mapper is a function of the object, plain or ``async``. Both the old and the new object of
an update are mapped, so that keys which the old object named are enqueued too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from reconciler.cache import CachedObject
from reconciler.controller.wake.predicates import EventFilter
from reconciler.meta import Request
from reconciler.meta.reference import ResourceType
from reconciler.objects import Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike

__all__ = ["Mapper", "OwnerMapper", "Requests", "Watch", "check_requests", "controller_owner", "every_owner"]

R = TypeVar("R", bound=TypedObject)

Requests = Iterable[Request] | Awaitable[Iterable[Request]]
"""What a mapper returns, plain or ``async``."""

Mapper = Callable[[Any], Requests]
"""Returns the keys to enqueue for an object of the watched kind: an instance of its class, or an Unstructured."""


class OwnerMapper:
    """A mapper to the owners of an object that are of the controller's kind.

    The API version of the owner is not compared, because owner references keep the one they were written with.

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
"""Maps an object to the owner that is marked as controller; the mapper of ``owns=``."""

every_owner = OwnerMapper(every=True)
"""Maps an object to every owner of the controller's kind, marked as controller or not."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch on another kind whose changes enqueue keys of the controller.

    Attributes:
        kind: ``"v1/ConfigMap"``, a GroupVersionKind or a Resource class.
        mapper: from an object to the keys to enqueue. None: the key of the same name and namespace. A plain function is
            called on the event loop and must be quick: it blocks the whole process. An ``async`` one may read through
            the client and is called for ten objects at a time. Either is called again when it fails, with backoff from
            0.1 s to 60 s, for as long as the object exists; a deleted object is given up after ten minutes. An object
            that does not fit its class is read leniently; see `Resource.from_dict`.
        mapper_timeout: seconds for a call of an ``async`` mapper, after which it is cancelled and counts as failed.
            Default 30.
        predicates: each gets the `CacheEvent` and returns whether it matters; all must. Default: every event matters.
        metadata_only: fetch and store no spec, status or data, which saves most of the memory. The mapper gets an
            Unstructured with the metadata, and the watch does not make the kind readable from the cache. Default False.
    """

    kind: KindLike
    _: KW_ONLY
    mapper: Mapper | OwnerMapper | None = None
    mapper_timeout: float = 30.0
    predicates: Sequence[EventFilter] = ()
    metadata_only: bool = False

    if TYPE_CHECKING:  # the kind states what the mapper gets

        @overload
        def __init__(
            self,
            kind: type[R],
            *,
            mapper: Callable[[R], Requests] | OwnerMapper | None = None,
            mapper_timeout: float = 30.0,
            predicates: Sequence[EventFilter] = (),
            metadata_only: Literal[False] = False,
        ) -> None: ...
        @overload
        def __init__(
            self,
            kind: KindLike,
            *,
            mapper: Callable[[Unstructured], Requests] | OwnerMapper | None = None,
            mapper_timeout: float = 30.0,
            predicates: Sequence[EventFilter] = (),
            metadata_only: bool = False,
        ) -> None: ...
        def __init__(self, kind: KindLike, *, mapper: Any = None, **options: Any) -> None: ...


def check_requests(requests: object, primary: ResourceType, *, giver: str = "a mapper") -> list[Request]:
    """Return the distinct requests that a mapper or a source gave.

    Args:
        requests: what it gave.
        primary: the controller's kind.
        giver: who gave them, for error messages.

    Raises:
        TypeError: it is not an iterable of requests.
        ValueError: a request has a namespace although the primary kind is cluster-scoped, or the other way round.
    """
    if isinstance(requests, (str, Request)) or not isinstance(requests, Iterable):
        raise TypeError(
            f"{giver} must return a list, such as [Request(name, namespace)], not {type(requests).__name__}"
        )
    found = list(requests)
    for request in found:
        if not isinstance(request, Request):
            raise TypeError(f"{giver} must return Request(name, namespace), not {type(request).__name__}")
        if bool(request.namespace) != primary.namespaced:
            raise ValueError(
                f"{giver} gave {request!r}, but {primary.gvk.kind} is "
                + ("namespaced" if primary.namespaced else "cluster-scoped")
            )
    return list(dict.fromkeys(found))
