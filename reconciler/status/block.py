"""The block of a batcher: opened on its own, or joined to a batcher of the same object that is open around it.

The open batchers around the running code are in a context variable: tasks and ``asyncio.to_thread`` see what was open
where they were created. A batcher that has been closed since is never found, and the variable keeps none alive.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping
from contextvars import ContextVar
from typing import Any

from reconciler._core.cycle import current_cycle
from reconciler.meta.metadata import uid_of, version_of
from reconciler.status.clients.binding import Binding
from reconciler.status.errors import StatusNotOpen
from reconciler.status.flush.desired import check_can_apply
from reconciler.status.flush.drivers import AsyncDriver, BlockingDriver
from reconciler.status.flush.effects import Target
from reconciler.status.flush.session import Session
from reconciler.status.options import Policy
from reconciler.status.record.mutations import DECISIONS, Mutation
from reconciler.status.statistics import StatusMetrics, counters

__all__ = ["Block"]

_logger = logging.getLogger("reconciler.status")


_open_blocks: ContextVar[tuple[weakref.ref[Block], ...]] = ContextVar("open_status_blocks", default=())


class Block:
    """The block of one batcher.

    Args:
        target: the object and the client.
        policy: how to send.
        binding: the client.
        document: the object that the batcher was given; None for a kind.
        private: nobody else can change that document's metadata.
        metrics: notified of each flush; None for those of the running reconcile.

    Attributes:
        session: the state of the batcher, or of the joined one; None before the block.
        joined: the block of the batcher that this one records into; None if it writes by itself.
        failure: the error of the flush, if the block itself raised an exception.
        flush_timeout: seconds for one flush.
        driver: performs the flushes, one after the other.
    """

    def __init__(
        self,
        target: Target,
        policy: Policy,
        binding: Binding,
        *,
        document: Mapping[str, Any] | None,
        private: bool,
        metrics: StatusMetrics | None,
    ) -> None:
        self.session: Session | None = None
        self.joined: Block | None = None
        self.failure: Exception | None = None
        self.flush_timeout = policy.flush_timeout
        self._target = target
        self._policy = policy
        self._binding = binding
        self._document = document
        self._private = private
        self._metrics = metrics
        self._recorded_here: list[Mutation] = []  # while joined
        self.driver = AsyncDriver(binding.writer) if binding.is_async else BlockingDriver(binding.writer, policy.clock)

    def enter(self) -> bool:
        """Open or join without I/O; return False if the object must be read first."""
        if self.session is not None:
            raise RuntimeError("a StatusBatcher can be entered only once; create another one")
        document = self._document if self._binding.kopf is None else self._binding.kopf.document()
        outer = self._outer(document or {}) if self._policy.join else None
        if outer is not None:
            self.joined, self.session = outer, outer.session
            return True
        if document is None or not version_of(document):
            return False
        self.open(document, counters())
        return True

    def open(self, document: Mapping[str, Any], counts: dict[str, int]) -> None:
        """Open on a document, with counters that reading it has increased."""
        given = document is self._document  # then its snapshot has the uid
        session = self._new_session("" if given else uid_of(self._document or {}), counts)
        if not given:
            session.document = dict(document)
        session.open(self._policy.snapshot(document, private=given and self._private))
        self._start_alone(session)

    def require_session(self) -> Session:
        """Return the session.

        Raises:
            StatusNotOpen: the block has not started.
        """
        if self.session is None:
            raise StatusNotOpen(
                f"the status of {self._target} can be recorded only inside the `with` block of its batcher."
            )
        return self.session

    def record(self, *mutations: Mutation) -> None:
        """Record mutations.

        Raises:
            StatusNotOpen: the block has not started, or has ended.
            PathError, TypeError: one cannot be applied; the others before it are recorded.
            ValueError: an apply would take over a list that several managers share.
        """
        for mutation in mutations:
            session = self.require_session()
            if self._policy.strategy == "apply":
                check_can_apply(mutation, session.managed_fields)
            try:
                session.record(mutation)
            except StatusNotOpen:
                if self.joined is None:
                    raise
                # The outer block has ended, but this one, in a task of its own, has not: continue alone.
                alone = self._new_session(session.uid, counters())
                alone.continue_from(session)
                self.driver = self.joined.driver  # its last flush may be in progress
                self._start_alone(alone)
                alone.record(mutation)
            else:
                if self.joined is not None:
                    self._recorded_here.append(mutation)

    def checkpoint(self) -> Awaitable[None]:
        """Write now what is recorded; see `StatusBatcher.flush`."""
        session = self.require_session()
        if not session.is_open:
            raise StatusNotOpen(f"the status of {self._target} was flushed when the batcher's block ended.")
        if self.joined is not None:
            return self.joined.checkpoint()
        if self._binding.kopf is not None:
            raise TypeError(
                "inside kopf nothing is written before the handlers of the cycle have ended: for a checkpoint open "
                "the batcher over a client, with the same body"
            )
        if isinstance(self.driver, AsyncDriver):
            return self.driver.flush(session, self.flush_timeout, checkpoint=True)
        self.driver.flush(session, self.flush_timeout, checkpoint=True)
        return _Completed()

    async def end_async(self, error: BaseException | None) -> None:
        """End the recording, and write it over an asynchronous client.

        Cancellation waits for the write, `flush_timeout` seconds at most.
        """
        session = self._close(error)
        if session is None:
            return
        assert isinstance(self.driver, AsyncDriver)  # noqa: S101 - the batcher has checked the kind of block
        cancelled = isinstance(error, asyncio.CancelledError)
        failure: BaseException | None = None
        try:
            await self.driver.flush(session, self.flush_timeout, checkpoint=False, cancelled=cancelled)
        except BaseException as raised:  # noqa: BLE001 - raised again by `_finish`
            failure = raised
        self._finish(session, error, failure)

    def end(self, error: BaseException | None) -> None:
        """End the recording, and write it over a blocking client."""
        session = self._close(error)
        if session is None:
            return
        assert isinstance(self.driver, BlockingDriver)  # noqa: S101 - the batcher has checked the kind of block
        failure: BaseException | None = None
        try:
            self.driver.flush(session, self.flush_timeout, checkpoint=False)
        except BaseException as raised:  # noqa: BLE001 - raised again by `_finish`
            failure = raised
        self._finish(session, error, failure)

    def _close(self, error: BaseException | None) -> Session | None:
        """End the recording; return the session if this batcher must flush it."""
        session = self.require_session()
        if error is not None and self._policy.on_error != "flush":
            session.withdraw(self._unwanted())
        if self.joined is not None:
            return None
        session.close()
        if self._binding.kopf is not None:
            if mutations := session.hand_over():
                self._binding.kopf.take(mutations, self._target, self._policy, session.counts)
            return None
        return session

    def _finish(self, session: Session, error: BaseException | None, failure: BaseException | None) -> None:
        """End the block after its flush; a failure of the flush becomes a note on the block's own exception."""
        if failure is None:
            session.written = bool(session.written)
        elif error is None or not isinstance(failure, Exception):
            raise failure
        else:
            self.failure = failure
            text = f"the status could not be written either: {failure}"
            error.add_note(text)
            _logger.warning("%s", text)

    def _unwanted(self) -> Callable[[Mutation], bool]:
        """Return whether `on_error` leaves out a mutation; of a joined batcher only its own."""
        own = None if self.joined is None else set(map(id, self._recorded_here))
        kinds = Mutation if self._policy.on_error == "discard" else DECISIONS
        return lambda mutation: (own is None or id(mutation) in own) and isinstance(mutation, kinds)

    def _new_session(self, uid: str, counts: dict[str, int]) -> Session:
        cycle, metrics = current_cycle.get(), self._metrics
        if metrics is None and cycle is not None:
            metrics = cycle.status_metrics
        return Session(self._target, self._policy, metrics=metrics, uid=uid, counts=counts)

    def _start_alone(self, session: Session) -> None:
        self.session, self.joined, self._recorded_here = session, None, []
        _open_blocks.set((*filter(_is_open, _open_blocks.get()), weakref.ref(self)))

    def _outer(self, document: Mapping[str, Any]) -> Block | None:
        """Return the block of the innermost open batcher for the same object; None if there is none.

        Args:
            document: the object; ``{}`` if it was named without being read, which matches any object of that name.
        """
        for ref in filter(_is_open, reversed(_open_blocks.get())):
            block = ref()
            if block is None or block.join_key() != self.join_key():
                continue
            if uid_of(document) in ("", block.require_session().uid):
                return block
        return None

    def join_key(self) -> Hashable:
        """Return what batchers that join have in common: server, client, field manager, object, how it is written."""
        policy, target = self._policy, self._target
        identity = target.writer.identity, target.gvk, target.request
        return self._binding.is_async, identity, policy.strategy == "apply", policy.subresource


def _is_open(ref: weakref.ref[Block]) -> bool:
    block = ref()
    return block is not None and block.session is not None and block.session.is_open


class _Completed:
    """An awaitable that has already completed."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()
