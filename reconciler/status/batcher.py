"""The `StatusBatcher`: a block that records changes of a status, and writes them once at its end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, overload

from reconciler._core.durations import DurationLike, seconds_of
from reconciler.clock import Clock, current_clock
from reconciler.meta.metadata import uid_of
from reconciler.status.clients import ClientBinding, bind
from reconciler.status.documents import document_of, in_form_of, is_kind
from reconciler.status.drivers import AsyncDriver, BlockingDriver
from reconciler.status.errors import StatusNotOpen
from reconciler.status.fields import UNSET, fields_of
from reconciler.status.mutations import DECISIONS, Mutate, Mutation, PathLike
from reconciler.status.recording import StatusMetrics, StatusRecording, StatusStatistics, find_open
from reconciler.status.strategies import STRATEGIES, FlushPolicy, OnError, check_options
from reconciler.status.writer import StatusWriter, Strategy

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from reconciler._core.wire import JSONObject

    S = TypeVar("S", default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S")  # the default is for type checkers: at run time this package loads only the standard library

_RNG = random.SystemRandom()

_logger = logging.getLogger("reconciler.status")


class StatusBatcher(Generic[S]):
    """A block that records what happens to an object's status, and writes the result once.

    ::

        async with StatusBatcher(api, obj) as status:        # `with` over a blocking client
            for channel in channels:
                status.append("deliveryAttempts", await deliver(channel), keep_last=50)
                status.increment("totalAttempts")

    When the block ends, the new status is computed on the version that was read, compared by meaning, and sent as one
    patch that is conditional on that version. If nothing changed, nothing is sent. If another writer was faster, the
    mutations are replayed on the newer version, so that its fields survive and counters add up. **Per flush at most one
    write takes effect**, and one request is made unless the server refused it or its outcome is unknown.

    The exception of a block is never replaced by one of the write, which becomes a note on it. Cancellation waits for
    the write, `flush_timeout` seconds at most. A batcher inside another one for the same object, client and strategy
    joins it. If the process is killed between the work and the write, what was recorded is lost: docs/status-batcher.md
    shows two ways to handle that.

    A verb changes `current` at once, and the server at the end of the block. A path is ``"a.b"``, or a sequence of
    keys; names are wire names. A typed kind also accepts Python names, and refuses a field that its status model does
    not have with `UnknownStatusField`. Values may be models, dataclasses, enums and datetimes with a time zone; they
    are copied. A null means that the field is absent. Every verb may be called from any thread, and raises
    `StatusNotOpen` outside the block.

    Args:
        api: a `reconciler.Client`; an ApiClient or any ``*Api`` of kubernetes_asyncio or kubernetes.aio (``async
            with``) or of kubernetes (``with``); the ``patch`` of a kopf handler (either), with its ``body``; or your
            own `StatusWriter` or `SyncStatusWriter`.
        obj_or_kind: the object as it was read: a dict, a Resource, an Unstructured or a client's model. Or its kind:
            ``"example.com/v1/Database"``, or a Resource class. A kind, or an object without resourceVersion, costs one
            read at the start.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        strategy: ``"merge"`` (default): a merge patch. ``"update"``: a PUT of the whole status, which costs the API
            server a fifth less. The object must be as the server sent it, since fields missing in its status are
            removed, and for some built-in kinds labels and other metadata are taken from it too. ``"apply"``:
            server-side apply of all fields that this manager owns, for statuses that several managers share.
        on_error: what is written if the block ends with an exception. ``"flush"`` (default): everything recorded.
            ``"ledgers"``: everything except what `set`, `merge` and `remove` recorded, which may be incomplete.
            ``"discard"``: nothing.
        subresource: ``"status"`` (default). None writes the main resource, for kinds without the status subresource.
        join: whether to join a batcher that is open around this one. Default True.
        token: a path in the status where each write adds a random id. It shows whether a write with a lost response
            was applied, also for increments. Default: none.
        flush_timeout: the duration of one flush: seconds, a timedelta or ``"10s"``. Default 10 s; at most 2 once a
            controller of this library is stopping and has cancelled the reconcile. Each request may take two thirds of
            the remaining time; then its outcome counts as unknown and is read back. The attribute of this name may be
            lowered while the block runs.
        max_conflicts: how many writes, and how many reads, one flush makes at most. Default 5. Inside kopf, which tries
            once per event, it gives up after this many versions *and* `flush_timeout`; a burst of another writer's
            changes only costs attempts there.
        field_manager: the name that an official client's writes are recorded under. Default: the program's name, and in
            a reconcile of this library's controllers the controller's as well. Other clients have their own.
        clock: default: the current clock.
        rng: jitter of pauses, and ids. Default: that of the client; if it has none, seeded by the system.
        metrics: notified of each flush. Default: in a reconcile of this library's controllers, the controller's
            metrics; otherwise none.

    Raises:
        TypeError: the client or the object has an unsupported type; or ``with`` and ``async with`` are mixed up.
        ValueError: an option is out of range.
    """

    # So that `status.phase = "Ready"`, which would not be written, raises.
    __slots__ = (
        "__weakref__",
        "_api",
        "_binding",
        "_document",
        "_failure",
        "_fields",
        "_flush_timeout",
        "_given",
        "_policy",
        "_recorded_here",
        "_recording",
    )

    def __init__(
        self,
        api: Any,
        obj_or_kind: Any,
        *,
        name: str | None = None,
        namespace: str | None = None,
        strategy: Strategy = "merge",
        on_error: OnError = "flush",
        subresource: str | None = "status",
        join: bool = True,
        token: str | Sequence[str] | None = None,
        flush_timeout: DurationLike = 10.0,
        max_conflicts: int = 5,
        field_manager: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        metrics: StatusMetrics | None = None,
    ) -> None:
        check_options(strategy, on_error, subresource, max_conflicts)
        seconds = seconds_of("flush_timeout", flush_timeout)
        # Before the client sees it, whose error could not name the alternatives.
        document = None if is_kind(obj_or_kind) else document_of(obj_or_kind)
        binding = bind(
            api, obj_or_kind, document, name=name, namespace=namespace, field_manager=field_manager, timeout=seconds
        )
        if (reason := getattr(binding.writer, "unsupported", {}).get(strategy)) is not None:
            raise ValueError(f"strategy={strategy!r} {reason}")
        typed = obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind)
        policy = FlushPolicy(
            strategy=STRATEGIES[strategy],
            subresource=subresource,
            clock=clock or current_clock(),
            rng=rng or getattr(binding.writer, "rng", None) or _RNG,
            limit=max_conflicts,
            token=None if token is None else fields_of(typed, binding.writer.gvk).path(token),
            typed=typed,
            flush_timeout=seconds,
            on_error=on_error,
            join=join,
            metrics=metrics,
        )
        self._prepare(api, obj_or_kind, document, binding, policy)

    def _prepare(
        self, api: object, given: Any, document: Mapping[str, Any] | None, binding: ClientBinding, policy: FlushPolicy
    ) -> None:
        self._api = api
        self._given = given
        self._document = document
        self._binding = binding
        self._policy = policy
        self._flush_timeout = policy.flush_timeout
        self._fields = fields_of(policy.typed, binding.writer.gvk)
        self._failure: Exception | None = None
        self._recorded_here: list[Mutation] | None = None  # while joined; None if this batcher writes
        writer = binding.writer
        driver = AsyncDriver(writer) if binding.is_async else BlockingDriver(writer, policy.clock)
        self._recording = StatusRecording(binding, policy, driver)

    @property
    def flush_timeout(self) -> float:
        """Return the seconds for one flush; may be lowered while the block runs."""
        return self._flush_timeout

    @flush_timeout.setter
    def flush_timeout(self, duration: DurationLike) -> None:
        seconds = self._flush_timeout = seconds_of("flush_timeout", duration)
        if not self.joined:
            self._recording.flush_timeout = seconds

    # What callers read.

    @property
    def current(self) -> JSONObject:
        """Return a private copy of the status with everything recorded applied."""
        copied: JSONObject = self._recording.current()
        return copied

    def get(self, path: PathLike, default: Any = None) -> Any:
        """Return a private copy of one field of `current`, as it is on the wire.

        ::

            attempt = status.get("attempts", 0) + 1

        Args:
            path: as for `set`.
            default: returned if the path leads nowhere, or to null. Default None.

        Raises:
            StatusNotOpen: the block has not started.
            UnknownStatusField: the kind's status model has no such field.
            PathError: the path is empty.
        """
        found = self._recording.current(self._fields.path(path))
        return default if found is None else found

    @property
    def object(self) -> Any:
        """Return the object at the newest known version: the given one, later the one in the last response.

        It has the form that was given: a Resource, an Unstructured, otherwise a dict.
        """
        newest = self._recording.document
        if newest is not None:
            return in_form_of(self._given, newest)
        return self._given if self._document is not None else None

    @property
    def written(self) -> bool | None:
        """Return whether a write took effect; None before the end of the block, if its flush failed, and if joined.

        Inside kopf it is False if nothing changed, and otherwise None, since kopf writes later.
        """
        return None if self.joined else self._recording.written

    @property
    def failure(self) -> Exception | None:
        """Return the error of the flush after a block that raised an exception, which was raised instead; else None."""
        return self._failure

    @property
    def observed_generation(self) -> int | None:
        """Return the generation that was read, for ``status.observedGeneration``.

        It is None for kinds without a generation, and if the status is written to the main resource: each write raises
        the generation there, so a status that contains it would change in every reconcile.

        Raises:
            StatusNotOpen: the block has not started.
        """
        if not self._recording.is_started:
            raise self._recording.not_open()
        return None if self._policy.subresource is None else self._recording.tip.generation

    @property
    def joined(self) -> bool:
        """Return whether this batcher records into another one, which writes."""
        return self._recorded_here is not None

    def statistics(self) -> StatusStatistics:
        """Return what was counted so far; if joined, what the outer batcher counted."""
        return StatusStatistics(**self._recording.counts)

    # What callers record.

    @overload
    def set(self, model: S, /, *, overwrite: bool | None = None) -> None: ...
    @overload
    def set(self, path: PathLike, value: Any, /, *, overwrite: bool | None = None) -> None: ...
    @overload
    def set(self, /, *, overwrite: bool | None = None, **fields: Any) -> None: ...
    def set(self, target: Any = None, value: Any = UNSET, /, *, overwrite: bool | None = None, **fields: Any) -> None:
        """Set fields; each value is replaced as a whole.

        ::

            status.set(DatabaseStatus(phase="Ready"))      # the fields that were set in the model
            status.set(phase="Ready", total_size=3)
            status.set("storage.phase", "Bound")

        On replay, a field that another writer has changed since is not overwritten: `StatusContested` is raised
        instead. An ``observedGeneration`` never decreases.

        Args:
            target: a status model, a mapping, or a path.
            value: the value for a path.
            overwrite: True overwrites another writer's change, False never does. Default None: only if the batcher's
                own field manager owns the field, that is, made the change itself. A field called ``overwrite`` is set
                by its path.
            fields: values by name.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            PathError: the path leads through a value that is not an object.
            TypeError, ValueError: JSON cannot represent a value.
        """
        self.record(*self._fields.set(target, value, overwrite, fields))

    @overload
    def merge(self, document: Mapping[str, Any], /) -> None: ...
    @overload
    def merge(self, path: PathLike, document: Mapping[str, Any], /) -> None: ...
    @overload
    def merge(self, /, **fields: Any) -> None: ...
    def merge(self, target: Any = None, document: Any = None, /, **fields: Any) -> None:
        """Merge into the current value by RFC 7386: members replace members, lists replace lists, a null removes.

        ::

            status.merge("storage", {"phase": "Bound", "error": None})
            status.merge(storage={"phase": "Bound"})

        A member that another writer has changed since is contested, as in `set`.

        Args:
            target: a mapping to merge into the whole status, or a path.
            document: what to merge at the path.
            fields: members to merge into the whole status.

        Raises:
            UnknownStatusField, PathError, TypeError, ValueError: as `set`.
        """
        self.record(*self._fields.merge(target, document, fields))

    def append(
        self,
        path: PathLike,
        item: Any,
        /,
        *,
        keep_last: int | None = None,
        count_dropped: PathLike | None = None,
        key: PathLike | None = None,
    ) -> None:
        """Add an item to the end of a list, which is created if it does not exist.

        The items of two writers are both kept. After an unknown outcome only an append with `key` can be repeated.

        Args:
            path: of the list.
            item: the item.
            keep_last: how many entries to keep; the oldest are dropped, counted in ``statistics().trimmed``. Default:
                all. Set this, or another bound: an object is limited to about 1.5 MiB. Do not derive a limit of
                attempts from such a list; keep a counter beside it.
            count_dropped: path of a number in the status that is increased by the number of dropped entries, so that
                readers of the object see that the list is not complete. Default: none.
            key: one or more members that identify an item (``"attempt"``, or ``["channel", "attempt"]``). If the list
                has an item with the same values, nothing is added.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: the current value is not a list, or not a number; or the item does not have the key.
            ValueError: keep_last is less than 1, or missing with `count_dropped`.
        """
        self.record(self._fields.append(path, item, keep_last, count_dropped, key))

    def upsert(self, path: PathLike, item: Any, /, *, key: PathLike) -> None:
        """Replace the list item that has the same key in place, or add the item to the end.

        Args:
            path: of the list.
            item: the whole item.
            key: one or more members that identify an item.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: the current value is not a list, or the item does not have the key.
        """
        self.record(self._fields.upsert(path, item, key))

    def increment(self, path: PathLike, /, by: float = 1) -> None:
        """Add to a number; a missing one counts as 0. The additions of two writers add up.

        After an unknown outcome it cannot be repeated (`StatusOutcomeUnknown`), unless the batcher has a ``token=``.

        Args:
            path: of the number.
            by: what to add, which may be negative. Default 1.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: the current value, or `by`, is not a number.
            ValueError: `by` is not finite.
        """
        self.record(self._fields.increment(path, by))

    def remove(self, path: PathLike, /, *, item: Mapping[str, Any] | None = None) -> None:
        """Remove a field, or items of a list, if they exist.

        ::

            status.remove("error")
            status.remove("channels", item={"name": "mail"})
            status.remove("conditions", item={"type": "Degraded"})

        The removal of a field is contested like `set`; that of items does not affect other writers' items.

        Args:
            path: of the field, or of the list.
            item: members and their values; every list item that has them is removed. Default: the whole field.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: with `item`, the current value is not a list.
            ValueError: `item` is empty.
        """
        self.record(self._fields.remove(path, item))

    def has_recorded(self, wanted: Callable[[Mutation], bool]) -> bool:
        """Return whether a mutation that was recorded and not written yet fits; for frameworks."""
        return self._recording.has_recorded(wanted)

    def set_condition(
        self, type: str, status: bool | str, *, reason: str, message: str = "", path: PathLike = "conditions"
    ) -> None:
        """Set one of ``conditions`` by the rules of metav1.Condition.

        ``lastTransitionTime`` changes only with the condition's status. ``observedGeneration`` is that of the version
        read, also if the condition is replayed on a newer one, and never decreases.

        Args:
            type: the condition's type, unique in the list.
            status: a bool, or ``"True"``, ``"False"``, ``"Unknown"``.
            reason: a CamelCase word for programs.
            message: a sentence for people. Default: empty.
            path: of the list of conditions. Default ``"conditions"``.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: the current value is not a list of objects.
            ValueError: the status is invalid, or the reason is empty; or, for a kind whose class has conditions of the
                library's class `Condition`, the API server would refuse the type, the reason or the message.
        """
        self.record(
            self._fields.set_condition(
                type,
                status,
                reason=reason,
                message=message,
                path=path,
                generation=self.observed_generation,
                now=self._policy.clock.now(),
            )
        )

    def mutate(self, function: Callable[[JSONObject], Any], /) -> None:
        """Change the status by a function of it.

        ::

            status.mutate(lambda s: s["queue"].pop(0))

        The function gets a private copy of the whole status and changes it in place; its return value is ignored. It
        runs at once, and again on every newer version that is tried, so it must depend on its argument alone and do no
        I/O. After an unknown outcome it cannot be repeated.

        Raises:
            TypeError: it is a coroutine function, or sets a value that JSON cannot represent.
        """
        self.record(Mutate.by(function))

    def record(self, *mutations: Mutation) -> None:
        """Record existing mutations: those in `StatusError.unsaved`, once the cause of the error is fixed.

        Those that a failed checkpoint of this batcher left recorded are not recorded twice. If one cannot be applied,
        those before it are recorded.
        """
        strategy = self._policy.strategy
        if strategy.is_owned and self._recording.is_started:
            for mutation in mutations:
                strategy.check(mutation, self._recording.tip.managed_fields)
        try:
            self._recording.record(mutations, self._recorded_here)
        except StatusNotOpen:
            if not self.joined:
                raise
            # The outer block has ended, but this one, in a task of its own, has not: continue alone.
            self._recorded_here = None
            self._recording = self._recording.continued(self._binding, self._policy, self._flush_timeout)
            self._recording.record(mutations)

    # Writing.

    def flush(self) -> Awaitable[None]:
        """Write now what is recorded: a checkpoint, in the middle of the block.

        It is conditional on the version that was read, or written by the last checkpoint, and never replays, since it
        was decided on that version. Over a blocking client it has ended when it returns; otherwise await it. In a
        joined batcher it is the outer batcher's checkpoint.

        What it could not save stays recorded, because other tasks may have recorded a part of it: the next checkpoint
        tries again, and the end of the block replays it on a newer version. Record what corrects it, or record it in a
        joined batcher with ``on_error="discard"``, which withdraws it if its block raises the error. The exception is
        what may have been applied and must not be applied twice (after `StatusOutcomeUnknown` without a ``token=``): it
        is only in the error's ``unsaved``, for `record`. Of an object that is gone nothing is kept.

        Cancellation waits for the write, `flush_timeout` seconds at most.

        Raises:
            StatusConflict: the object is newer; nothing was written.
            StatusError: the write failed.
        """
        return self._recording.checkpoint()

    async def __aenter__(self) -> Self:
        if self._binding.is_async is False:
            raise TypeError(f"{self._client()} is a blocking client: write 'with StatusBatcher(…)', without async")
        if not self._enter():
            self._open(await self._binding.writer.read(), reads=1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recording = self._close(error)
        if recording is None:
            return
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            await recording.driver.flush(recording, checkpoint=False, cancelled=cancelled)
        except Exception as failure:  # noqa: BLE001 - raised again, or reported
            self._failed(error, failure)
        else:
            recording.written = bool(recording.written)

    def __enter__(self) -> Self:
        if self._binding.is_async is True:
            raise TypeError(f"{self._client()} is an asynchronous client: write 'async with StatusBatcher(…)'")
        if not self._enter():
            self._open(self._binding.writer.read(), reads=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recording = self._close(error)
        if recording is None:
            return
        try:
            recording.driver.flush(recording, checkpoint=False)
        except Exception as failure:  # noqa: BLE001 - raised again, or reported
            self._failed(error, failure)
        else:
            recording.written = bool(recording.written)

    def _enter(self) -> bool:
        """Open or join without I/O; return False if the object must be read first."""
        if self._recorded_here is not None or self._recording.is_started:
            raise RuntimeError("a StatusBatcher can be entered only once; create another one")
        document = self._document if self._binding.kopf is None else self._binding.kopf.document()
        outer = find_open(self._recording, document or {}) if self._policy.join else None
        if outer is not None:
            self._recorded_here, self._recording = [], outer
        else:
            return document is not None and self._open(document)
        return True

    def _open(self, document: Mapping[str, Any], *, reads: int = 0) -> bool:
        """Open on a document, which so many reads have returned; return False if it has no version and was not read."""
        recording, given = self._recording, document is self._document
        private = given and hasattr(self._given, "status_model")  # a Resource: its metadata is a copy
        tip = self._policy.snapshot(document, private=private)
        if not tip.version and not reads:
            return False
        recording.counts["reads"] += reads
        if not given:
            recording.document = dict(document)
        recording.open(tip, "" if given else uid_of(self._document or {}))
        return True

    def _close(self, error: BaseException | None) -> StatusRecording | None:
        """End the recording; return it if this batcher must flush it."""
        recording, on_error = self._recording, self._policy.on_error
        if not recording.is_started:
            raise recording.not_open()
        if error is not None and on_error != "flush":
            own = None if self._recorded_here is None else set(map(id, self._recorded_here))
            kinds = Mutation if on_error == "discard" else DECISIONS
            recording.withdraw(lambda each: (own is None or id(each) in own) and isinstance(each, kinds))
        if self._recorded_here is not None:
            return None
        recording.close()
        if self._binding.kopf is not None:
            if mutations := recording.hand_over():
                self._binding.kopf.take(mutations, recording.target, self._policy, recording.counts)
            return None
        return recording

    def _failed(self, error: BaseException | None, failure: Exception) -> None:
        """Raise a failure of the flush, or add it as a note to the exception of the block."""
        if error is None:
            raise failure
        self._failure = failure
        text = f"the status could not be written either: {failure}"
        error.add_note(text)
        _logger.warning("%s", text)

    def _client(self) -> str:
        return f"{type(self._api).__module__}.{type(self._api).__qualname__}"


def prepared_batcher(
    writer: StatusWriter, obj: Any, document: Mapping[str, Any], policy: FlushPolicy
) -> StatusBatcher[Any]:
    """Return a batcher as a controller opens one in each reconcile: what its arguments decide was decided before.

    Args:
        writer: reads the object and writes its status.
        obj: the object.
        document: the document that it was read from.
        policy: the options, which were checked.
    """
    batcher: StatusBatcher[Any] = StatusBatcher.__new__(StatusBatcher)
    batcher._prepare(writer, obj, document, ClientBinding(writer, is_async=True), policy)  # noqa: SLF001
    return batcher
