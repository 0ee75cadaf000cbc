"""Be what a user subclasses: make the world as one object says, and say what is to happen next."""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from reconciler.controller.errors import ControllerError, NotBound
from reconciler.controller.permissions.permissions import Permission
from reconciler.controller.reconcile.cycle import ReconcileCycle, ReconcileRun, current_run
from reconciler.controller.reconcile.threads import ReconcileThreads, ThreadBridge, discard
from reconciler.controller.result import Outcome
from reconciler.meta import Request, ResourceType, current_cycle

if TYPE_CHECKING:
    from reconciler.cache import CachedClient
    from reconciler.clock import Clock
    from reconciler.events import EventRecorder
    from reconciler.objects import KindLike
    from reconciler.status import StatusMetrics

__all__ = ["Binding", "Reconciler", "bind", "binding_of", "call"]

T = TypeVar("T")


@dataclass(slots=True)
class Binding:
    """Be what a controller gives its reconciler.

    Attributes:
        name: the controller's name.
        kind: the primary kind, as it was given.
        client: reads of declared kinds from the cache, everything else from the server.
        events: records Kubernetes events.
        clock: source of time.
        resource: how the primary kind is served; None until the controller has found out.
        loop: the controller's event loop; None before it starts.
        threads: run plain functions: one a worker, so that none ever waits for one.
        workers: how many threads there may be.
        status_metrics: hears of each flush of the cycles' batchers.
        check_leader: raises unless this process may act; None where nobody else could.
        enqueue: runs a key, as `Controller.enqueue` does.
    """

    name: str
    kind: KindLike
    client: CachedClient
    events: EventRecorder
    clock: Clock
    workers: int
    enqueue: Callable[..., None]
    status_metrics: StatusMetrics | None = None
    check_leader: Callable[[], None] | None = None
    resource: ResourceType | None = None
    loop: asyncio.AbstractEventLoop | None = None
    threads: ReconcileThreads = field(init=False)

    def __post_init__(self) -> None:
        self.threads = ReconcileThreads(self.workers, f"{self.name}-reconcile")

    def close(self) -> None:
        """Let the threads go; the reconciler is free for another controller."""
        self.threads.close()
        self.loop = None


class Reconciler(abc.ABC):
    """Reconcile by key: subclass it and implement `reconcile`.

    A reconciler belongs to one controller, which calls it for one key at a time and for several keys side by side. It
    looks at the state there is, not at what happened: it may be called without a change, and once for several.

    Attributes:
        permissions: what it does to objects beyond what its watches and its status need, each a `Permission`. The roles
            of ``reconciler manifests`` hold them, and a request that they do not cover is warned of when it is made.
            Default None: nothing is declared, and nothing is compared.
    """

    permissions: ClassVar[Sequence[Permission] | None] = None

    _binding: Binding | None = None

    @abc.abstractmethod
    def reconcile(self, request: Request, /) -> Outcome | Awaitable[Outcome]:
        """Make the world as the object says.

        Override it with ``async def``, or with a plain ``def``, which runs in a thread of the controller's own; there,
        `wait` runs an awaitable. When its time is up or the controller stops, an ``async`` one is cancelled; a thread
        hears of it at its next `wait`, and its key stays in hand until it has ended. A thread that does not end does
        not keep the process: see `Controller.abandon`.

        Args:
            request: name and namespace of the object, which may not exist any more.

        Returns:
            None to wait for the next event, or a `Result`.

        Raises:
            TerminalError: retrying cannot help; the key's failures and timer are cleared, and only a change runs it.
            Exception: anything else runs the key again with exponential back-off.
        """

    def fair_by(self, request: Request, /) -> Hashable:  # noqa: ARG002 - overridden by those that need it
        """Return the group of a key, always the same one. Override it to have groups take turns at the workers.

        ``return request.namespace`` keeps a namespace with many objects from delaying the others. By default all keys
        are one group.
        """
        return None

    def pool_size(self, workers: int, /) -> int:
        """Return how many keys may be in progress at a time, for the option ``workers``: by default so many.

        Override it in a reconciler that bounds by itself how many keys wait for something slow, and keeps workers for
        the others.
        """
        return workers

    @property
    def client(self) -> CachedClient:
        """Return the client: reads of declared kinds come from the cache, writes and ``client.live`` go to the server.

        Raises:
            NotBound: the reconciler does not belong to a controller yet.
        """
        return binding_of(self, "client").client

    @property
    def events(self) -> EventRecorder:
        """Return the recorder of Kubernetes events.

        Raises:
            NotBound: the reconciler does not belong to a controller yet.
        """
        return binding_of(self, "events").events

    @property
    def name(self) -> str:
        """Return the controller's name.

        Raises:
            NotBound: the reconciler does not belong to a controller yet.
        """
        return binding_of(self, "name").name

    @property
    def run(self) -> ReconcileRun:
        """Return the run in progress: its reasons, its id, which attempt it is.

        Raises:
            NotBound: used outside a reconcile.
        """
        run = current_run()
        if run is None:
            raise NotBound(f"{type(self).__name__}.run is there during a reconcile only")
        return run

    def check_leader(self) -> None:
        """Return if this process may act: it leads at this moment, or its manager has no leader election.

        Call it right before an effect outside the cluster that two processes must not have at once; writes of `client`
        are checked already. From any thread.

        Raises:
            NotLeader: it may not.
            NotBound: the reconciler does not belong to a controller yet.
        """
        check = binding_of(self, "check_leader").check_leader
        if check is not None:
            check()

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the controller's event loop and return its result, in a plain ``def`` reconcile.

        Raises:
            ControllerError: called on the event loop, where ``await`` does it.
            ReconcileCancelled: the reconcile's time is up, or the controller stops.
            NotBound: the controller was not started.
        """
        cycle = current_cycle.get()
        if isinstance(cycle, ReconcileCycle):
            return cycle.bridge.wait(awaitable)
        loop = self._binding.loop if self._binding is not None else None
        if loop is None:
            discard(awaitable)
            raise NotBound(f"{type(self).__name__}.wait needs a started controller, whose loop runs the awaitable")
        return ThreadBridge(loop).wait(awaitable)


def binding_of(reconciler: Reconciler, what: str) -> Binding:
    """Return what a reconciler was given.

    Raises:
        NotBound: it does not belong to a controller; the message names what was asked for.
    """
    if reconciler._binding is None:  # noqa: SLF001 - beside `Reconciler`, so that subclasses have all names but one
        kind = type(reconciler).__name__
        raise NotBound(
            f"{kind}.{what} is there once the reconciler belongs to a controller: manager.add_controller({kind}())"
        )
    return reconciler._binding  # noqa: SLF001


def bind(reconciler: Reconciler, binding: Binding) -> None:
    """Make a reconciler belong to a controller; to another one only while none is running it.

    Raises:
        ControllerError: it belongs to a running controller.
    """
    held = reconciler._binding  # noqa: SLF001
    if held is not None and held.loop is not None:
        raise ControllerError(
            f"{type(reconciler).__name__} belongs to the running controller {held.name!r} already: "
            "make an instance for each controller"
        )
    reconciler._binding = binding  # noqa: SLF001


_is_async = functools.lru_cache(maxsize=256)(inspect.iscoroutinefunction)
"""Asked twice in each cycle, about the same few functions."""


async def call(reconciler: Reconciler, override: Callable[..., Any], *args: Any) -> Any:
    """Call what a subclass defines, be it ``async`` or plain.

    Cancellation is raised when it has really ended, in a thread as well.
    """
    if _is_async(override.__func__ if isinstance(override, MethodType) else override):
        return await override(*args)
    cycle = current_cycle.get()
    bridge = cycle.bridge if isinstance(cycle, ReconcileCycle) else None
    result = await binding_of(reconciler, "reconcile").threads.run(bridge, override, *args)
    return await result if inspect.isawaitable(result) else result
