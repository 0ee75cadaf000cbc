"""A world: an API server with an operator on it, in virtual time, whose process can end and start again."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Self

import msgspec

from reconciler._core.durations import DurationLike, optional_seconds, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.apiserver.serving.request_log import LoggedRequest
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Reconciler
from reconciler.controller.effects import EffectCall, EffectDeclaration, EffectHandler
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons
from reconciler.errors import ConfigurationError, ReconcilerError, describe_error
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager import Manager
from reconciler.manager.setup import setup_function
from reconciler.meta import GroupVersionKind, Request, request_of
from reconciler.meta.documents import human_duration
from reconciler.meta.metadata import gvk_of
from reconciler.objects import Resource
from reconciler.objects.kinds import KindLike, from_document, gvk_from, to_document
from reconciler.recording.collector import current_trace
from reconciler.testing.operator_process import (
    Interference,
    OperatorFailed,
    OperatorProcess,
    Sender,
    current_process,
    current_sender,
    is_declared,
    sent_by,
)
from reconciler.testing.trace import (
    Author,
    StateChange,
    TraceEvent,
    WorldTrace,
    is_bookkeeping,
)


class NotSettled(ReconcilerError):
    """The operator still works after the bounds of `World.settle`. The message says what still runs, and why.

    Attributes:
        bound: the bound, such as ``"1000 reconciles"``.
    """

    def __init__(self, bound: str, still: str) -> None:
        super().__init__(f"the operator still works after {bound}: {still}")
        self.bound = bound


class _PersonsTransport:
    """The connection of a user, or of somebody else."""

    def __init__(self, world: World, author: Author) -> None:
        self._world = world
        self._author: Author = author

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        of_user = self._author == "user"
        if of_user and request.method == "GET" and _names_objects(request.path):
            await self._world.interference.before_read()
        response = await self._send(request)
        if of_user and response.status in (404, 409) and await self._world.interference.after_refusal():
            return await self._send(request)  # the user waits for the operator, and tries once more
        return response

    async def _send(self, request: HTTPRequest) -> HTTPResponse:
        with sent_by(self._author):
            return await self._world.server.send(request)


def _names_objects(path: str) -> bool:
    """Return whether a path is that of objects, not of discovery."""
    first, *parts = path.strip("/").split("/")
    return len(parts) > {"api": 1, "apis": 2}.get(first, len(parts))


class World:
    """An embedded API server with an operator on it, in virtual time. The operator's process can end and start again.

    Use it with ``async with``, inside `virtual_time`. The operator starts at the first step, or by `start`.

    Args:
        operator: a Reconciler class, several, or a function that takes a Manager and adds controllers to it. Each
            process of the operator makes new instances.
        server: the server. By default a new one, which the world closes.
        snapshot: the state to begin with, from `APIServer.snapshot`. Default: an empty server, or what `server` has.
        definitions: CustomResourceDefinitions and other objects to apply first: classes, documents or paths. The kinds
            of the operator's controllers need not be among them.
        seed: the seed of everything random. Default 0.
        name: the user agent of the operator. Default ``"operator"``.
        manager_options: options of its Manager. Default: none.
        effects: handles the operator's effects. Default None: they are called.
        roles: whether the operator may do only what the roles of ``reconciler manifests`` allow. Without
            `Reconciler.permissions` of each reconciler they say nothing, and are not used. Default False.
        options: options of its controllers, such as ``owns=``.

    Attributes:
        lag: how many seconds the watches lag that a disturbance holds at one moment.
        quiet: how many seconds nothing must happen, until nothing happens any more.
        owns_interrupts: whether a KeyboardInterrupt in code of the operator ends its process only.
        server: the server.
        client: the client of the user.
        connection: how the operator reaches the server.
        somebody: a client of somebody else, who interferes.
        interference: what happens around the steps of the user.
        failed_check: how a check of `always` failed; None if none did.
        final_checks: the checks of `finally_`.
        trace: what happened.
        processes: the processes of the operator, oldest first.
        failures: how the latest reconcile failed, for each controller and key where it did.

    Raises:
        ConfigurationError: the operator is something else, or an instance, which could not lose its memory.
    """

    lag = 30.0
    quiet = 1.0
    owns_interrupts = False

    def __init__(
        self,
        operator: object,
        *,
        server: APIServer | None = None,
        snapshot: bytes | None = None,
        definitions: Sequence[object] = (),
        seed: int = 0,
        name: str = "operator",
        manager_options: Mapping[str, Any] | None = None,
        effects: EffectHandler | None = None,
        roles: bool = False,
        **options: Any,
    ) -> None:
        for each in operator if isinstance(operator, (list, tuple)) else [operator]:
            if isinstance(each, Reconciler):
                raise ConfigurationError(
                    f"pass the class {type(each).__name__}, or a function that takes the Manager, not an instance: "
                    "each process of the operator starts with empty memory"
                )
        self._operator, self._options = operator, options
        self._new_setup()  # raises for what is not an operator
        self.server = server or self._new_server(seed, rbac=roles)
        self.seed = seed
        self.name = name
        self.manager_options = dict(manager_options or {})
        self.connection: Transport = self.server
        self._roles = roles
        self.effects = effects
        self.trace = WorldTrace()
        self.processes: list[OperatorProcess] = []
        self.interference = Interference()
        self.failed_check: Exception | None = None
        self.final_checks: list[Callable[[], object]] = []
        self._checks: list[Callable[[], object]] = []
        self._steps = 0
        self._pending: set[asyncio.Task[None]] = set()
        self._own_server = server is None
        self._snapshot = snapshot
        self._definitions = definitions
        self.failures: dict[tuple[str, Request], Exception] = {}
        self._reconciled: dict[tuple[str, Request], int] = {}
        self._effects_seen: set[tuple[str, str]] = set()
        self._activity = self._changed_at = self._reconciles = self._activity_before = 0
        self._most_reconciles: int | None = None
        self._enough: asyncio.Future[str] | None = None

    async def __aenter__(self) -> Self:
        """Start the server. Cancellation closes it.

        Raises:
            ConfigurationError: time is not virtual; the snapshot or a definition is invalid.
        """
        self._check_time()
        self._began = asyncio.get_running_loop().time()
        self._context = contextvars.copy_context()
        if self._own_server:
            await self.server.__aenter__()
        self.client = Client(_PersonsTransport(self, "user"), user_agent="user")
        self.somebody = Client(_PersonsTransport(self, "somebody"), user_agent="somebody")
        self.server.log.follow(self._record_request)
        self.server.follow_changes(self._record_change)
        if self._snapshot is not None:
            await self.server.restore(self._snapshot)
        await self.server.apply(*self._definitions)
        return self

    def _check_time(self) -> None:
        if not getattr(current_clock(), "virtual", False):
            raise ConfigurationError(
                "a World needs virtual time: run it inside 'with virtual_time():', or mark the test "
                "@pytest.mark.virtual_time"
            )

    def _new_server(self, seed: int, *, rbac: bool) -> APIServer:
        return APIServer(seed=seed, rbac=rbac)

    def _new_process(self) -> OperatorProcess:
        return OperatorProcess(len(self.processes) + 1, self)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill the operator, close its coroutines without effects, and close the server, even if cancelled."""
        for task in self._pending:
            task.cancel()
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.life.close()
        if self._own_server:
            await self.server.close()

    @property
    def now(self) -> float:
        """Return the virtual seconds since the world began."""
        return asyncio.get_running_loop().time() - self._began

    # The operator

    @property
    def process(self) -> OperatorProcess | None:
        """Return the newest process of the operator, if one runs."""
        return next((each for each in reversed(self.processes) if each.running), None)

    async def start(self) -> OperatorProcess:
        """Start a process of the operator with empty memory, beside those that run, and return it.

        Returns when its controllers have started. Cancellation kills it.

        Raises:
            OperatorFailed: it did not start; the cause is what it raised.
        """
        process = self._new_process()
        self.processes.append(process)
        self.happened(TraceEvent(what="started", at=self.now, process=process.number))
        try:
            await process.start()
        except BaseException:
            process.kill()
            raise
        return process

    async def ensure_started(self) -> None:
        """Start the operator, unless it has been started before. Cancellation kills it."""
        if not self.processes:
            await self.start()

    async def ensure_running(self) -> None:
        """Start the operator, unless a process of it runs. Cancellation kills it."""
        if self.process is None:
            await self.start()

    def crash(self, *, restart_after: DurationLike | None = None) -> None:
        """Kill the processes of the operator, as SIGKILL does: nothing of them runs again.

        Args:
            restart_after: the duration (seconds, a timedelta or ``"1m"``) until the next process starts; `settle`
                waits for it. Default None: never.
        """
        for process in self.processes:
            process.kill()
        if restart_after is not None:
            self.later(restart_after, self.ensure_running)

    async def reconcile_all(self) -> None:
        """Let the operator reconcile each of its objects once more. Cancellation leaves out the rest."""
        process = self.process
        for controller in process.controllers if process is not None else ():
            for document in self.server.objects():
                gvk = gvk_of(document)
                if (gvk.group, gvk.kind) == (controller.kind.group, controller.kind.kind):
                    controller.enqueue(request_of(document), _ONCE_MORE)

    def stop(self, *, restart_after: DurationLike | None = None) -> None:
        """Stop the processes of the operator, as SIGTERM does: they drain. Returns before they have ended.

        Args:
            restart_after: the duration from their end until the next process starts. Default None: never.
        """
        pause = optional_seconds("restart_after", restart_after, zero=True)

        async def stop_all() -> None:
            for process in self.processes:
                await process.stop()
            if pause is not None:
                await asyncio.sleep(pause)
                await self.ensure_running()

        self.later(0.0, stop_all)

    def later(self, seconds: DurationLike, act: Callable[[], Awaitable[object]]) -> None:
        """Call `act` after a duration: seconds, a timedelta or ``"1m"``; `settle` waits for it."""
        delay = seconds_of("seconds", seconds, zero=True)

        async def wait_and_act() -> None:
            await asyncio.sleep(delay)
            await act()

        task = asyncio.get_running_loop().create_task(wait_and_act(), context=self._context.copy())
        self._pending.add(task)

    def _new_setup(self) -> Callable[[Manager], Awaitable[None]]:
        return setup_function(
            self._operator, getattr(self._operator, "__name__", repr(self._operator)), **self._options
        )

    async def set_up(self, manager: Manager) -> None:
        """Add new controllers of the operator to a manager, and apply the definitions that the server lacks.

        Cancellation leaves out the rest.
        """
        await self._new_setup()(manager)
        for controller in manager.controllers:
            for kind in controller.kinds:
                if isinstance(kind, type) and hasattr(kind, "crd") and kind not in self._definitions:
                    self._definitions = (*self._definitions, kind)
                    await self.server.apply(_definition_of(kind))
        if self._roles and all(each.reconciler.permissions is not None for each in manager.controllers):
            await self.server.apply(*manager.rbac(self.name))
            self.connection = self.server.service_account(self.name)

    async def serve(self, request: HTTPRequest, sender: Sender) -> HTTPResponse:
        """Handle a request of a process in a task of the server, so that the end of the process does not stop it.

        Cancellation does not stop it, either.
        """
        context = self._context.copy()
        context.run(current_sender.set, sender)
        task = asyncio.get_running_loop().create_task(self.connection.send(request), context=context)
        task.add_done_callback(_retrieve, context=self._context)
        return await task

    # The user

    async def create(self, obj: Any) -> Any:
        """Create an object as a user does, and return it as stored.

        Cancellation leaves it open whether it was created.

        Raises:
            APIError: the server refused it.
        """
        async with self._step(f"create {_described(obj)}") as goes:
            return await self.client.create(obj) if goes else obj

    async def patch(self, obj: Any, patch: Mapping[str, Any], *, subresource: str | None = None) -> Any:
        """Send a merge patch of an object as a user does, and return the object as stored.

        Cancellation leaves it open whether it took effect.

        Args:
            obj: an object with kind and name; its version is not compared.
            patch: the members to set, and None for those to remove.
            subresource: such as ``"status"``. Default: the object itself.

        Raises:
            APIError: the server refused it.
        """
        async with self._step(f"patch {_described(obj)} with {msgspec.json.encode(patch).decode()}") as goes:
            key = request_of(obj)
            kind = type(obj) if isinstance(obj, Resource) else _gvk(obj)
            options: dict[str, Any] = {"patch": patch, "subresource": subresource}
            return await self.client.patch(kind, key.name, key.namespace, **options) if goes else obj

    async def delete(self, obj: Any) -> None:
        """Delete an object as a user does; finalizers keep it.

        Cancellation leaves it open whether it was deleted.

        Raises:
            APIError: the server refused it, or it does not exist.
        """
        async with self._step(f"delete {_described(obj)}") as goes:
            if goes:
                key = request_of(obj)
                await self.client.delete(_gvk(obj), key.name, key.namespace)

    @contextlib.asynccontextmanager
    async def _step(self, text: str) -> AsyncIterator[bool]:
        await self.ensure_started()
        self._steps += 1
        number = self._steps
        goes = await self.interference.before_step(number)
        if goes:
            self.happened(TraceEvent(what="step", at=self.now, author="user", text=text))
        yield goes
        if goes:
            await self.interference.after_step(number)

    def always(self, check: Callable[[], object]) -> None:
        """Call `check` after each change of an object; it fails by raising, or by returning False or nothing found.

        Read the state in it with `objects`, which does not wait.
        """
        self._checks.append(check)

    def finally_(self, check: Callable[[], object]) -> None:
        """Call `check` at the end, when nothing happens any more; it fails as one of `always` does."""
        self.final_checks.append(check)

    def objects(self, kind: KindLike, namespace: str | None = None) -> list[Any]:
        """Return the objects of a kind as they are stored now.

        Args:
            kind: as for `Client.list`.
            namespace: their namespace. Default: all.
        """
        gvk = gvk_from(kind)
        return [
            from_document(kind, dict(each))
            for each in self.server.objects()
            if gvk_of(each) == gvk and namespace in (None, each["metadata"].get("namespace"))
        ]

    def effect(self, name: str, key: str = "", *, once: bool = False, undoes: str = "") -> None:
        """Record an effect outside the cluster, such as a call of a stand-in service; see `reconciler.effect`."""

        async def nothing() -> None:
            """Return: the effect has happened."""

        declaration = EffectDeclaration(name, once, undoes)
        call = EffectCall(declaration, self, {"key": key}, nothing)
        sender = current_process.get()
        process = 0 if sender is None else sender.number
        self.happened(TraceEvent(what="effect", at=self.now, process=process, reconcile=current_trace(), effect=call))

    async def settle(
        self, *, horizon: DurationLike | None = 60.0, limit: DurationLike = 3600.0, reconciles: int | None = 1000
    ) -> None:
        """Wait until nothing happens any more but declared timers.

        Cancellation ends the waiting.

        Nothing happens if no reconcile, request or effect occurs for a second, and no key is in progress, ready or
        waits for a retry. A timer of a key (``requeue_after``) is waited for if it is due within the horizon, until a
        reconcile that one caused after the last change changes nothing.

        Args:
            horizon: how long ahead, in virtual time, timers and retries are waited for; None: up to the limit. Default
                60.
            limit: the longest virtual time: seconds, a timedelta or ``"1h"``. Default 3600.
            reconciles: the highest number of reconciles; None for any. Default 1000.

        Raises:
            NotSettled: a bound is exceeded; the message says what still runs, and why.
        """
        horizon, limit = optional_seconds("horizon", horizon, zero=True), seconds_of("limit", limit)
        await self.ensure_started()
        until = self.now + limit
        ahead = await self.interference.before_wait(limit if horizon is None else horizon)
        if ahead is None:
            return
        self._most_reconciles = reconciles
        self._reconciles, self._activity_before = 0, self._activity
        self._enough = asyncio.get_running_loop().create_future()
        pause = self.quiet
        try:
            while True:
                activity = self._activity
                await asyncio.wait({self._enough}, timeout=pause)
                self._take_over_failures()
                running = [process for process in self.processes if process.running]
                if not running and not self._pending:
                    return
                if horizon is None:
                    ahead = until - self.now
                unfinished = [each for process in running for each in process.unfinished(ahead)]
                unfinished += [(0.0, "something was to happen later")] * bool(self._pending)
                if activity == self._activity and not unfinished:
                    await self.interference.after_wait()
                    return
                if self._enough.done() or self.now >= until:
                    bound = self._enough.result() if self._enough.done() else f"{human_duration(limit)} of virtual time"
                    raise NotSettled(bound, self._described_work([text for _, text in unfinished]))
                pause = self._pause([due for due, _ in unfinished])
        finally:
            self._enough = None

    def _pause(self, dues: Sequence[float]) -> float:  # noqa: ARG002 - for overrides
        """Return after how many seconds it is looked again whether something happens.

        Args:
            dues: in how many seconds what is waited for happens.
        """
        return self.quiet

    def _exceeded_bound(self) -> str:
        """Return the bound of `settle` that what has happened exceeds; ``""`` for none."""
        most = self._most_reconciles
        if most is None or (self._reconciles < most and self._activity - self._activity_before < most * _PER_RECONCILE):
            return ""
        return f"{most} reconciles"

    def _take_over_failures(self) -> None:
        """Raise what ended a process, unless another one runs, and what was raised later."""
        done = {task for task in self._pending if task.done()}
        self._pending -= done
        self._activity += len(done)  # what they have caused happens after this
        for task in done:
            task.result()
        failure = self.processes[-1].failure
        if failure is not None and self.process is None and not self._pending:
            if isinstance(failure, OperatorFailed):
                raise failure
            raise OperatorFailed(f"the operator's process ended by itself: {describe_error(failure)}") from failure

    def _described_work(self, unfinished: list[str]) -> str:
        last = self.trace.writes()[-3:]
        still = "; ".join(unfinished[:5]) or "requests or effects outside of reconciles"
        writes = "; ".join(event.request.summary() for event in last if event.request is not None)
        return f"{still}. Its latest writes: {writes or 'none'}"

    # What happens, as it happens

    def happened(self, event: TraceEvent) -> None:
        """Add an event to the trace."""
        self.trace.add(event)
        self._reconciles += event.what == "begun"
        if event.what in ("begun", "effect") or (event.request is not None and self._is_activity(event.request)):
            self._activity += 1
        if event.effect is not None and (named := (event.effect.name, event.effect.key)) not in self._effects_seen:
            self._effects_seen.add(named)
            self._changed_at = self._activity
        self.check_bounds()

    def check_bounds(self) -> None:
        """End `settle` if one of its bounds is exceeded."""
        if self._enough is not None and not self._enough.done() and (bound := self._exceeded_bound()):
            self._enough.set_result(bound)

    def _is_activity(self, entry: LoggedRequest) -> bool:
        return not is_bookkeeping(entry)

    def _record_request(self, entry: LoggedRequest) -> None:
        if entry.effective and not is_bookkeeping(entry):
            self._changed_at = self._activity + 1
        sender = current_sender.get()
        if sender is not None:
            changes, sender.changes = tuple(sender.changes), []
            event = TraceEvent(
                what="request",
                at=self.now,
                author=sender.author,
                process=sender.process,
                reconcile=sender.reconcile,
                line=sender.line,
                text=sender.text,
                request=entry,
                changes=changes,
            )
            self.happened(event)

    def _record_change(self, before: JSONObject | None, after: JSONObject | None) -> None:
        sender = current_sender.get()
        if sender is not None:
            sender.changes.append(StateChange(before, after))
        if self.failed_check is None:
            self.failed_check = first_failure(self._checks)

    def begun(self, reconcile: Reconcile) -> None:
        """Record which change a reconcile can have seen, if it is one after which its key can be idle."""
        if self.can_be_idle_after(reconcile.run):
            self._reconciled[reconcile.run.controller, reconcile.request] = self._activity

    def ended(self, reconcile: Reconcile, error: Exception | None) -> None:
        """Record how the latest reconcile of a key failed, if it did."""
        named = (reconcile.run.controller, reconcile.request)
        if error is None:
            self.failures.pop(named, None)
        else:
            self.failures[named] = error

    def can_be_idle_after(self, run: ReconcileRun) -> bool:
        """Return whether a timer caused a reconcile: any other may be too early for what the timer is for."""
        return any(map(is_declared, run.reasons - {reasons.detailed(reasons.ENQUEUE, _ONCE_MORE)}))

    def is_idle(self, controller: str, key: Request, waits_for: Collection[str]) -> bool:
        """Return whether a key waits for a declared timer only, and nothing changed since a reconcile of it."""
        return all(map(is_declared, waits_for)) and self._reconciled.get((controller, key), -1) >= self._changed_at

    def waits_for(self, controller: str, key: Request) -> bool:  # noqa: ARG002 - for overrides
        """Return whether `settle` waits for a key that is reconciled, or soon will be."""
        return True

    def failure_of(self, controller: str, key: Request) -> str:
        """Return how the latest reconcile of a key failed, for a message; ``""`` if it did not."""
        error = self.failures.get((controller, key))
        return "" if error is None else f", failed: {describe_error(error)}"


_ONCE_MORE = "once more"
_PER_RECONCILE = 20
"""How many requests and effects are expected at most for each reconcile, while a world settles."""


def first_failure(checks: Sequence[Callable[[], object]]) -> Exception | None:
    """Call checks, and return how the first one that fails does: what it raises, or what false value it returned."""
    for check in checks:
        try:
            result = check()
            if result is not None and not result:
                return AssertionError(f"{getattr(check, '__name__', 'a check')} returned {result!r}")
        except Exception as error:  # noqa: BLE001 - a check fails by raising
            return error
    return None


@functools.lru_cache(maxsize=256)
def _definition_of(kind: Any) -> JSONObject:
    """Return the definition of a kind, which is generated once for all worlds."""
    return dict(kind.crd())


def _retrieve(task: asyncio.Task[HTTPResponse]) -> None:
    """Take note of the exception of a request whose sender has been killed, which asyncio would report otherwise."""
    if not task.cancelled():
        task.exception()


def _described(obj: Any) -> str:
    document = to_document(obj)
    return f"{document.get('kind', '')} {request_of(document)}"


def _gvk(obj: Any) -> GroupVersionKind:
    return gvk_of(to_document(obj))
