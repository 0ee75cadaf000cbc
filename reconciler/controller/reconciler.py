"""The `Reconciler` base class, and its binding to a controller."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from reconciler._core.user_code import check_hooks
from reconciler.controller.effects import current_effect_handler
from reconciler.controller.permissions import Permission
from reconciler.controller.reconcile.cycle import ReconcileRun, current_reconcile, current_run
from reconciler.controller.reconcile.threads import ReconcileThreads, ThreadBridge
from reconciler.controller.result import ControllerError, NotBound, Outcome
from reconciler.controller.wake.watches import discard
from reconciler.meta import Request
from reconciler.meta.metadata import ResourceType

if TYPE_CHECKING:
    from reconciler.cache import CachedClient
    from reconciler.clock import Clock
    from reconciler.events import EventRecorder
    from reconciler.objects.kinds import KindLike
    from reconciler.status.strategies import FlushPolicy

T = TypeVar("T")


@dataclass(slots=True)
class ControllerBinding:
    """The objects that a controller provides to its reconciler.

    Attributes:
        name: the controller's name.
        kind: the primary kind, as it was given.
        client: reads declared kinds from the cache, everything else from the server.
        events: records Kubernetes events.
        clock: source of time.
        workers: the highest number of concurrent reconciles.
        threads: run plain functions: one per worker, so that none ever waits for a thread.
        enqueue: enqueues a key, as `Controller.enqueue` does.
        policy: how a `ResourceReconciler` sends the status, and where to.
        check_leader: raises unless this process may act; None without leader election.
        resource: how the primary kind is served; None until the controller has discovered it.
        loop: the controller's event loop; None before it starts.
        status_checks: how many more reconciles are checked for an assignment to the status of the object.
    """

    name: str
    kind: KindLike
    client: CachedClient
    events: EventRecorder
    clock: Clock
    workers: int
    threads: ReconcileThreads
    enqueue: Callable[..., None]
    policy: FlushPolicy
    check_leader: Callable[[], None] | None = None
    resource: ResourceType | None = None
    loop: asyncio.AbstractEventLoop | None = None
    status_checks: int = 10

    def close(self) -> None:
        """Close the threads; the reconciler may belong to another controller afterwards."""
        self.threads.close()
        self.loop = None


class Reconciler(abc.ABC):
    """A reconciler of keys: subclass it and implement `reconcile`.

    A reconciler belongs to one controller, which calls it for several keys concurrently, but for each key one call at a
    time. It compares the desired and the actual state and is not told what changed: one call may follow several
    changes, or none.

    Attributes:
        permissions: what it does to objects beyond what its watches and its status need, as `Permission` objects. The
            roles of ``reconciler manifests`` include them, and a request that they do not cover is logged as a warning.
            Default None: nothing is declared, and requests are not checked.

    Raises:
        TypeError: where a subclass is defined: a method or an attribute looks like a misspelled one of those that the
            controller uses, or a method cannot be called with its arguments.
    """

    permissions: ClassVar[Sequence[Permission] | None] = None

    _binding: ControllerBinding | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        check_hooks(cls, Reconciler, {name: name for name in ("reconcile", "fair_by", "pool_size", "waits_for")})

    @abc.abstractmethod
    def reconcile(self, request: Request, /) -> Outcome | Awaitable[Outcome]:
        """Bring the actual state closer to the desired state of one object.

        Override it with ``async def``, or with a plain ``def``, which runs in a thread of the controller; there, `wait`
        runs an awaitable. When the timeout expires or the controller stops, an ``async`` reconcile is cancelled. A
        thread is told at its next `wait`, and its key stays in progress until the thread has ended. A thread that never
        ends does not keep the process alive: see `Controller.abandon`.

        Args:
            request: name and namespace of the object, which may no longer exist.

        Returns:
            None to wait for the next event, or a `Result`.

        Raises:
            TerminalError: a retry cannot help; the key's failures and timer are cleared, and only a change enqueues it.
            Exception: any other error is retried with exponential backoff.
        """

    def fair_by(self, request: Request, /) -> Hashable:  # noqa: ARG002 - for overrides
        """Return the group of a key, always the same one. Override it to let groups take turns at the workers.

        ``return request.namespace`` keeps a namespace with many objects from delaying the others. By default all keys
        are in one group.
        """
        return None

    def waits_for(self, request: Request, /) -> str | None:  # noqa: ARG002 - for overrides
        """Return what a key waits for that only the reconciler knows; None, the default, for nothing.

        ``reconciler explain`` and the console add it to what the controller knows. Override it in a reconciler that
        returns a delay because something refuses: name that, such as ``"the quota of team-a: 10 of 10 disks"``. It is
        called on the event loop when somebody looks, so it must be quick, and must not contain secrets.
        """
        return None

    def pool_size(self, workers: int, /) -> int:
        """Return how many keys may be in progress at a time, given the option ``workers``; by default, that number.

        It must be 1 or more. Override it in a reconciler that limits by itself how many keys wait for something slow,
        and needs free workers for the others.
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
        """Return the reconcile in progress: its reasons, its id, its attempt.

        Raises:
            NotBound: used outside a reconcile.
        """
        run = current_run()
        if run is None:
            raise NotBound(f"{type(self).__name__}.run is only available during a reconcile")
        return run

    @property
    def planning(self) -> bool:
        """Return whether this is ``reconciler plan``, where an `effect` is not called and returns `planned`.

        Ask it before a call that only looks at something outside the cluster, where the plan has nothing to look at.
        """
        handler = current_effect_handler()
        return handler is not None and handler.planning

    def check_leader(self) -> None:
        """Raise unless this process may act: it is the leader now, or its manager has no leader election.

        Call it right before an effect outside the cluster that two processes must not cause at the same time; writes of
        `client` are checked already. Thread-safe.

        Raises:
            NotLeader: this process is not the leader.
            NotBound: the reconciler does not belong to a controller yet.
        """
        check = binding_of(self, "check_leader").check_leader
        if check is not None:
            check()

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the controller's event loop and return its result, in a plain ``def`` reconcile.

        Raises:
            ControllerError: called on the event loop; use ``await`` there.
            ReconcileCancelled: the reconcile's timeout expired, or the controller stops.
            NotBound: the controller was not started.
        """
        cycle = current_reconcile()
        if cycle is not None:
            return cycle.bridge.wait(awaitable)
        loop = self._binding.loop if self._binding is not None else None
        if loop is None:
            discard(awaitable)
            raise NotBound(
                f"{type(self).__name__}.wait needs a started controller, whose event loop runs the awaitable"
            )
        return ThreadBridge(loop).wait(awaitable)


def binding_of(reconciler: Reconciler, attribute: str) -> ControllerBinding:
    """Return the binding of a reconciler.

    Args:
        reconciler: the reconciler.
        attribute: the attribute that was used, for the error message.

    Raises:
        NotBound: it does not belong to a controller.
    """
    if reconciler._binding is None:  # noqa: SLF001 - outside the class, so that subclasses can use all names but one
        kind = type(reconciler).__name__
        raise NotBound(
            f"{kind}.{attribute} is available once the reconciler belongs to a controller: "
            f"manager.add_controller({kind}())"
        )
    return reconciler._binding  # noqa: SLF001


def bind(reconciler: Reconciler, binding: ControllerBinding) -> None:
    """Bind a reconciler to a controller, in place of an earlier one that is not running.

    Raises:
        ControllerError: it belongs to a running controller.
    """
    held = reconciler._binding  # noqa: SLF001
    if held is not None and held.loop is not None:
        raise ControllerError(
            f"{type(reconciler).__name__} already belongs to the running controller {held.name!r}: "
            "create one instance per controller"
        )
    reconciler._binding = binding  # noqa: SLF001
