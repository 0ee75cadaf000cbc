"""Be the batcher: a block that records, and writes once at its end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Generator, Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from reconciler.clock import Clock, current_clock
from reconciler.meta import current_cycle, uid_of, version_of
from reconciler.status import joining as _joining
from reconciler.status.clients.binding import bind
from reconciler.status.errors import StatusNotOpen
from reconciler.status.flush.apply import refuse_for_apply
from reconciler.status.flush.effects import Policy, Target
from reconciler.status.flush.memory import memory_of
from reconciler.status.flush.runner import AsyncFlusher, BlockingFlusher
from reconciler.status.flush.session import Session
from reconciler.status.joining import Joint
from reconciler.status.options import OnError, check_client, check_options
from reconciler.status.record.documents import document_of, is_kind, presented
from reconciler.status.record.fields import StatusFields
from reconciler.status.record.forms import StatusForms
from reconciler.status.record.mutations import DECISIONS, Mutation
from reconciler.status.record.recorder import PathLike, Recorder, S
from reconciler.status.statistics import StatusMetrics, StatusStatistics, counters
from reconciler.status.writer import Strategy

__all__ = ["StatusBatcher"]

_RNG = random.SystemRandom()

_logger = logging.getLogger("reconciler.status")


class StatusBatcher(Recorder[S]):
    """Collect what a piece of work says about an object's status, and write it once.

    ::

        async with StatusBatcher(api, obj) as status:        # `with` over a blocking client
            for channel in channels:
                status.append("deliveryAttempts", await deliver(channel), keep_last=50)
                status.increment("totalAttempts")

    When the block ends, the new status is computed on the version that was read, compared by meaning, and sent as one
    patch that is conditional on that version; nothing is sent if nothing changed. If somebody else wrote meanwhile, the
    mutations are replayed on the newer version, so that their fields survive and counters add up. **Per flush at most
    one write takes effect**, and one request is made unless the server refused it or its outcome is unknown.

    The block's exception never hides behind one of the write: it carries a note of it. Cancellation waits for the
    write, `flush_timeout` seconds at most. A batcher inside another one for the same object, client and strategy joins
    it. When the process is killed between the work and the write, what was recorded is lost: see
    docs/status-batcher.md for the two ways to live with that.

    Args:
        api: a `reconciler.Client`; an ApiClient or any ``*Api`` of kubernetes_asyncio or kubernetes.aio (``async
            with``) or of kubernetes (``with``); the ``patch`` of a kopf handler (either), with its ``body``; or a
            `StatusWriter` or `SyncStatusWriter` of one's own.
        obj_or_kind: the object as it was read: a dict, a Resource, an Unstructured or a client's model. Or its kind:
            ``"example.com/v1/Database"``, or the class of a Resource. A kind, or an object without resourceVersion,
            costs one read at the beginning.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        strategy: ``"merge"`` (default), a merge patch. ``"update"``, a PUT of the whole status, which costs the API
            server a fifth less; the object must be as the server sent it, since what its status lacks is removed, and
            some built-in kinds take labels and the like from it too. ``"apply"``, server-side apply of all fields that
            this manager owns, for statuses that several managers share.
        on_error: what a block that ends with an exception writes. ``"flush"`` (default): everything recorded.
            ``"ledgers"``: not what `set`, `merge` and `remove` recorded, which may be half a truth. ``"discard"``:
            nothing.
        subresource: ``"status"`` (default). ``"auto"`` writes the main resource of a kind that is served without it.
            None always does.
        join: whether to join a batcher that is open around this one. Default True.
        conditional: whether a write is refused when the object is newer than the version that was read. Default True.
            False overwrites other writers' changes of the fields that are written, without a word; takes only `set`,
            `merge` and `remove`, since what depends on what is there needs the condition; and may write into an object
            of the same name that was made meanwhile. In a controller its event is never taken for an echo.
        token: a path of the status where each write leaves a random id, so that a write whose answer was lost can be
            told from one that was not applied, also for increments. Default: none.
        flush_timeout: seconds for one flush. Default 10; 2 at most once a controller of this library that is to stop
            has cancelled the reconcile. Each request may take two thirds of the time that is left; after that its
            outcome counts as unknown and is read back. The attribute of this name may be lowered while the block runs.
        max_conflicts: how many write requests one flush makes at most, and how many reads. Default 5. Inside kopf, that
            tries once an event, it gives up after more versions than this *and* `flush_timeout`: a burst of
            another writer's changes costs nothing there but tries.
        field_manager: under which name an official client's writes are recorded. Default: the program's name, and in
            a reconcile of this library's controllers the controller's as well. Other writers have their own.
        clock: default: the clock in force.
        rng: spreads pauses and makes ids. Default: seeded by the system.
        metrics: hears of each flush. Default: in a reconcile of this library's controllers, the controller's metrics;
            else nobody.

    Raises:
        TypeError: the client or the object is of no known form; or ``with`` and ``async with`` are exchanged.
        ValueError: an option is out of its range.
    """

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
        conditional: bool = True,
        token: str | Sequence[str] | None = None,
        flush_timeout: float = 10.0,
        max_conflicts: int = 5,
        field_manager: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        metrics: StatusMetrics | None = None,
    ) -> None:
        check_options(strategy, on_error, subresource, flush_timeout, max_conflicts, conditional=conditional)
        self.flush_timeout = flush_timeout
        self._api = api
        self._given = obj_or_kind
        self._document = None if is_kind(obj_or_kind) else document_of(obj_or_kind)
        self._binding = bind(
            api,
            obj_or_kind,
            name=name,
            namespace=namespace,
            field_manager=field_manager,
            timeout=flush_timeout,
        )
        check_client(self._binding, strategy, conditional=conditional)
        writer = self._binding.writer
        self._clock = clock or current_clock()
        self._fields = StatusFields.of(obj_or_kind, writer.gvk)
        self._policy = Policy(
            strategy=strategy,
            subresource=subresource,
            limit=max_conflicts,
            token=None if token is None else self._fields.path(token),
            clock=self._clock,
            rng=rng or _RNG,
            conditional=conditional,
            forms=StatusForms.of(obj_or_kind),
            patience=flush_timeout,
        )
        self._target = Target(
            writer.gvk,
            writer.request,
            writer.identity,
            str(getattr(writer, "field_manager", "") or ""),
            str(getattr(writer, "former_field_manager", "") or ""),
            lambda: getattr(writer, "warnings", ()),
            memory_of(getattr(writer, "client", writer)),
        )
        self._on_error = on_error
        self._join = join
        self._metrics = metrics
        self._session: Session | None = None
        self._joint: Joint | None = None  # of this batcher, or of the one it joined
        self._joined = False
        self._failure: Exception | None = None
        self._mine: list[Mutation] = []  # recorded here while joined
        self._flusher = AsyncFlusher(writer)
        self._blocking_flusher = BlockingFlusher(writer, self._clock)

    # What callers read.

    @property
    def current(self) -> dict[str, Any]:
        """Return a private copy of the status, with everything recorded laid over it."""
        return self._opened().current()

    def get(self, path: PathLike, default: Any = None) -> Any:
        """Return a private copy of one field as it is on the wire, with everything recorded laid over it.

        ::

            attempt = status.get("attempts", 0) + 1

        Args:
            path: as for `set`.
            default: returned where the path leads nowhere, or to null. None by default.

        Raises:
            StatusNotOpen: the block has not begun.
            UnknownStatusField: the kind's status model has no such field.
            PathError: the path is empty.
        """
        found = self._opened().get(self._fields.path(path))
        return default if found is None else found

    @property
    def object(self) -> Any:
        """Return the object at the newest version known: the one given, then the one in the last answer.

        It has the form that was given: a Resource, an Unstructured, else a dict.
        """
        session = self._session
        if session is not None and session.document is not None:
            return presented(session.document, self._given)
        return self._given if self._document is not None else None

    @property
    def written(self) -> bool | None:
        """Say whether a write took effect: None before the end of the block, when that failed, and when joined.

        Inside kopf it is False if nothing changed, and else None, since kopf writes later.
        """
        return None if self._session is None or self._joined else self._session.written

    @property
    def failure(self) -> Exception | None:
        """Return what failed when the status was to be written after the block had raised, which was raised on."""
        return self._failure

    @property
    def observed_generation(self) -> int | None:
        """Return the generation that was read, for a status that says what it has observed.

        None for kinds without one, and where the status is written to the main resource: each write raises it there, so
        that a status which named it would never come to rest.
        """
        return self._opened().generation

    @property
    def joined(self) -> bool:
        """Say whether this batcher records into another one, which writes."""
        return self._joined

    def statistics(self) -> StatusStatistics:
        """Return what was counted so far; when joined, what the outer batcher counted."""
        return StatusStatistics.of(self._session.counts if self._session is not None else {})

    def flush(self) -> Awaitable[None]:
        """Write now what is recorded: a checkpoint, in the middle of the block.

        It is conditional on the version read, or written by the last checkpoint, and never replays: what it says was
        decided on that version. Over a blocking client it has ended when it returns; else await it. In a joined batcher
        it is the outer's checkpoint.

        Cancellation waits for the write, `flush_timeout` seconds at most.

        Raises:
            StatusConflict: the object is newer. What was recorded is not written, also not at the end of the block; it
                is in the error's ``unsaved``, for `record`.
            StatusError: the write failed; the same holds.
        """
        session = self._opened()
        if not session.is_open:
            raise StatusNotOpen(f"the status of {self._target} was flushed when the batcher's block ended.")
        if self._joint is not None and self._joined:
            return self._joint.flush()
        if self._binding.kopf is not None:
            raise TypeError(
                "inside kopf nothing is written before the handlers of the cycle have ended: for a checkpoint open "
                "the batcher over a client, with the same body"
            )
        if self._binding.is_async:
            return self._flusher.flush(session, self.flush_timeout, checkpoint=True)
        self._blocking_flusher.flush(session, self.flush_timeout, checkpoint=True)
        return _Done()

    # Entering and leaving.

    async def __aenter__(self) -> Self:
        if self._binding.is_async is False:
            raise TypeError(f"{self._client()} is a blocking client: write 'with StatusBatcher(…)', without async")
        if not self._enter():
            self._begin(await self._binding.writer.read(), counters(reads=1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._leave(error)
        if session is None:
            return
        try:
            cancelled = isinstance(error, asyncio.CancelledError)
            await self._flusher.flush(session, self.flush_timeout, checkpoint=False, cancelled=cancelled)
        except Exception as failure:
            if error is None:
                raise
            self._note(error, failure)
        else:
            session.written = bool(session.written)
        finally:
            if error is not None:
                session.keep_failed()

    def __enter__(self) -> Self:
        if self._binding.is_async is True:
            raise TypeError(f"{self._client()} is an asynchronous client: write 'async with StatusBatcher(…)'")
        if not self._enter():
            self._begin(self._binding.writer.read(), counters(reads=1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._leave(error)
        if session is None:
            return
        try:
            self._blocking_flusher.flush(session, self.flush_timeout, checkpoint=False)
        except Exception as failure:
            if error is None:
                raise
            self._note(error, failure)
        else:
            session.written = bool(session.written)
        finally:
            if error is not None:
                session.keep_failed()

    def _enter(self) -> bool:
        """Begin without I/O; False when the object has to be read first."""
        if self._session is not None:
            raise RuntimeError("a StatusBatcher is entered once; make another one")
        document = self._document if self._binding.kopf is None else self._binding.kopf.document()
        outer = _joining.find(self._join_key(), document or {}) if self._join else None
        if outer is not None:
            self._joint, self._session, self._joined = outer, outer.session, True
            return True
        if document is None or not version_of(document):
            return False
        self._begin(document, counters())
        return True

    def _begin(self, document: Mapping[str, Any], counts: dict[str, int]) -> None:
        given = document is self._document  # then its snapshot tells the uid
        session = self._new_session("" if given else uid_of(self._document or {}), counts)
        if not given:
            session.document = dict(document)
        session.open(self._policy.snapshot(document))
        self._go_alone(session)

    def _new_session(self, uid: str, counts: dict[str, int]) -> Session:
        cycle, metrics = current_cycle.get(), self._metrics
        if metrics is None and cycle is not None:
            metrics = cycle.status_metrics
        return Session(self._target, self._policy, metrics=metrics, uid=uid, counts=counts)

    def _go_alone(self, session: Session) -> None:
        self._session = session
        self._joint = Joint(self._join_key(), session, self.flush)
        self._joined, self._mine = False, []
        _joining.enter(self._joint)

    def _join_key(self) -> Hashable:
        policy, target = self._policy, self._target
        identity = target.identity, target.gvk, target.request
        return self._binding.is_async, identity, policy.strategy == "apply", policy.subresource, policy.conditional

    def _leave(self, error: BaseException | None) -> Session | None:
        """End the recording; return the session if this batcher has to flush it."""
        session = self._opened()
        if error is not None and self._on_error != "flush":
            session.withdraw(self._is_unwanted)
        if self._joined:
            return None
        session.close(in_error=error is not None)
        if self._joint is not None:
            _joining.leave(self._joint)
            self._joint = None  # it refers back to this batcher, and nobody finds it any more
        if self._binding.kopf is not None:
            if mutations := session.hand_over():
                self._binding.kopf.take(mutations, self._target, self._policy, session.counts)
            return None
        return session

    def _is_unwanted(self, mutation: Mutation) -> bool:
        if self._joined and not any(mutation is own for own in self._mine):
            return False
        return self._on_error == "discard" or isinstance(mutation, DECISIONS)

    def _record(self, mutation: Mutation) -> None:
        session = self._opened()
        if self._policy.strategy == "apply":
            refuse_for_apply(mutation, session.managed_fields)
        if not self._policy.conditional and not isinstance(mutation, DECISIONS):
            raise TypeError(
                f"{mutation.verb} depends on what is there, so its write must be conditional: a batcher with "
                "conditional=False takes set, merge and remove of fields only"
            )
        try:
            session.record(mutation)
        except StatusNotOpen:
            if not self._joined:
                raise
            # The outer block has ended while this one, in a task of its own, has not: go on alone.
            alone = self._new_session(session.uid, counters())
            alone.follow(session)
            self._go_alone(alone)
            alone.record(mutation)
        else:
            if self._joined:
                self._mine.append(mutation)

    def _generation(self) -> int | None:
        return self.observed_generation

    def _opened(self) -> Session:
        if self._session is None:
            raise StatusNotOpen(f"the status of {self._target} is recorded inside the batcher's block only.")
        return self._session

    def _note(self, error: BaseException, failure: Exception) -> None:
        """Attach the failure of the flush to the block's own error, which goes on."""
        self._failure = failure
        text = f"the status could not be written either: {failure}"
        error.add_note(text)
        _logger.warning("%s", text)

    def _client(self) -> str:
        return f"{type(self._api).__module__}.{type(self._api).__qualname__}"


class _Done:
    """Be awaitable, and have nothing left to wait for."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()
