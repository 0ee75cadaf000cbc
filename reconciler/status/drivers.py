"""The drivers that perform the effects of a flush: one for the event loop, one for blocking clients.

The flushes of a batcher run one after the other, shielded from cancellation, each within its time. That time is divided
among the requests: a request may use two thirds of what is left. So a stalled write is cut off while there is time to
read it back and to send it again; this also applies to a stalled read.

Only time in which the process ran counts. A pause, of a stopped process, a suspended machine or a blocked event loop,
says nothing about the server: the response is often there when it ends, and if not, the write must be read back.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Generator
from time import sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reconciler.clock import Clock
from reconciler.errors import OutcomeUnknown
from reconciler.meta.cycle import current_cycle
from reconciler.status.flush import Flush
from reconciler.status.recording import StatusRecording
from reconciler.status.requests import Pause, ReadObject, WriteStatus
from reconciler.status.writer import StatusWriter

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a flush has left once its controller is stopping and has cancelled the reconcile."""

SHARE = 2 / 3
"""The share of the remaining time that a request may use. Of 10 s a write has 6.7 s and the read back 2.2 s: an API
server usually answers within 1 s, and one that is slow but alive is waited for."""


TICKS = 10
"""Parts of a `RunningTimeout`; a pause of the process counts as one of them at most."""


class RunningTimeout:
    """A timeout of a block of a task's code that counts only time in which the process ran.

    After a pause (a stopped process, a suspended machine, a blocked event loop), a response may have arrived that
    nobody has read yet. `asyncio.timeout` would cancel the wait for it. Here the time is counted in ticks. A tick that
    comes late follows a pause, and does not end the block. An event loop that is late each time doubles the time at
    most. Cancellation by others is told from the timeout's own as in `asyncio.timeout`.

    Args:
        seconds: how long the block may take. After that it is cancelled, and ends with a TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        self._step = seconds / TICKS
        self._ticks = TICKS
        self._counted = 0.0
        self._expired = False

    @property
    def spent(self) -> float:
        """Return the seconds counted so far."""
        return self._counted + min(self._step, self._loop.time() - self._started)

    def expired(self) -> bool:
        """Return whether the block was cancelled by this timeout."""
        return self._expired

    def shorten(self, seconds: float) -> None:
        """Leave no more than these seconds from now on."""
        if seconds < self._step * self._ticks:
            self._counted, self._step, self._ticks = self.spent, seconds / TICKS, TICKS
            self._handle.cancel()
            self._start_tick()

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a request is sent by one
        self._task, self._cancelling = task, task.cancelling()
        self._start_tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _start_tick(self) -> None:
        self._started = self._loop.time()
        self._handle: asyncio.Handle = self._loop.call_later(self._step, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        is_late = now - self._started > self._step * 5 / 4
        self._counted, self._started = self._counted + self._step, now
        self._ticks -= 1
        if self._ticks > 0 or (is_late and self._ticks > -TICKS):
            self._start_tick()
        else:  # a response that has been read meanwhile is passed on first
            self._handle = self._loop.call_soon(self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


class _Budget:
    """The time that one flush may take; it can be shortened while the flush runs.

    Args:
        seconds: how long the flush may take.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._request: RunningTimeout | None = None  # the request in progress

    def spend(self, seconds: float) -> None:
        """Count time that was used."""
        self._left -= seconds

    def allows(self, pause: float = 0.0) -> bool:
        """Return whether time is left after a pause."""
        return pause < self._left

    def share(self) -> float:
        """Return the seconds that a request may take."""
        return max(0.0, self._left) * SHARE

    def start_request(self) -> RunningTimeout:
        """Begin a request on the running event loop, and return its timeout."""
        self._request = RunningTimeout(self.share())
        return self._request

    def end_request(self) -> None:
        """Count the time of the request."""
        if self._request is not None:
            self._left -= self._request.spent
            self._request = None

    def shorten(self, seconds: float) -> None:
        """Leave no more than these seconds, and its share of them to the request in progress."""
        spent = 0.0 if self._request is None else self._request.spent
        self._left = min(self._left, spent + seconds)
        if self._request is not None:
            self._request.shorten((self._left - spent) * SHARE)


class AsyncDriver:
    """A driver for the flushes of one batcher over an asynchronous client.

    Args:
        writer: the client's writer.
    """

    def __init__(self, writer: StatusWriter) -> None:
        self._writer = writer
        self._running: asyncio.Task[None] | None = None  # or the last one that waits for its turn
        self._budget: _Budget | None = None  # of the flush in progress
        self._is_short_of_time = False

    async def flush(self, recording: StatusRecording, *, checkpoint: bool, cancelled: bool = False) -> None:
        """Write what was recorded. Cancellation waits for the write, and is raised afterwards.

        Args:
            recording: the batcher's recording; its `flush_timeout` is the time for the flush.
            checkpoint: raise on a conflict instead of replaying.
            cancelled: whether the block ended with a cancellation.

        Raises:
            StatusError: it failed.
        """
        if cancelled:
            self._shorten_on_shutdown()
        if self._running is not None and not self._running.done():
            after = self._flush_after(self._running, recording, checkpoint=checkpoint)
            self._running = task = asyncio.create_task(after)
            await _wait_shielded(task, on_cancel=self._shorten_on_shutdown)
            return
        flush = recording.begin(checkpoint=checkpoint)
        if flush is not None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            self._running = loop.create_task(self._send(recording, flush, ended))
            await _wait_shielded(self._running, on_cancel=self._shorten_on_shutdown, ended=ended)

    async def _flush_after(self, previous: asyncio.Task[None], recording: StatusRecording, *, checkpoint: bool) -> None:
        await asyncio.wait([previous])
        flush = recording.begin(checkpoint=checkpoint)
        if flush is not None:
            await self._send(recording, flush)

    async def _send(self, recording: StatusRecording, flush: Flush, ended: asyncio.Future[None] | None = None) -> None:
        seconds = recording.flush_timeout
        self._budget = budget = _Budget(min(seconds, SHUTDOWN_TIMEOUT) if self._is_short_of_time else seconds)
        answer: JSONObject | None
        error: Exception | None
        try:
            while True:  # cancellation leaves the request in flight, with an unknown outcome
                answer = error = None
                try:
                    answer = await self._perform(flush, budget)
                except Exception as failure:  # noqa: BLE001 - the flush decides what it means, and raises it if it is unknown
                    error = failure
                if not flush.resume(answer, error):
                    break
        except BaseException as failure:
            recording.fail(flush, failure)
            raise
        finally:
            self._budget = None
            if self._running is asyncio.current_task():
                self._running = None
            if ended is not None and not ended.done():
                ended.set_result(None)
        recording.finish(flush)

    async def _perform(self, flush: Flush, budget: _Budget) -> JSONObject | None:
        effect = flush.effect
        if isinstance(effect, Pause):
            if not budget.allows(effect.seconds):
                raise flush.attempts.abandoned()
            await asyncio.sleep(effect.seconds)
            budget.spend(effect.seconds)
            return None
        limit = budget.start_request()
        try:
            with limit:
                answer: JSONObject = await _start(self._writer, effect)
                return answer
        except TimeoutError:
            if limit.expired():
                raise OutcomeUnknown("no response within the request's share of the time for the flush") from None
            raise
        finally:
            budget.end_request()

    def _shorten_on_shutdown(self) -> None:
        """Shorten the time of the flush if the cancellation comes from a controller that is stopping."""
        cycle = current_cycle.get()
        if cycle is None or not cycle.stopping or self._is_short_of_time:
            return
        self._is_short_of_time = True
        if self._budget is not None:
            self._budget.shorten(SHUTDOWN_TIMEOUT)


def _start(writer: Any, effect: ReadObject | WriteStatus) -> Any:
    """Start the request of an effect; return the response, or for a `StatusWriter` an awaitable of it."""
    if isinstance(effect, ReadObject):
        return writer.read()
    return writer.write(effect.body, strategy=effect.strategy, subresource=effect.subresource)


async def _wait_shielded(
    task: asyncio.Task[None], *, on_cancel: Callable[[], None], ended: asyncio.Future[None] | None = None
) -> None:
    """Wait for a task that is not cancelled with the caller, then raise the caller's cancellation, if there was one.

    The task must limit its own time; `on_cancel` may shorten it. Raises what the task raised.

    Args:
        task: the task.
        on_cancel: called for each cancellation.
        ended: resolved by the task in its last step, which wakes the caller one loop iteration before the task's end
            would. A task that is cancelled before its first step never resolves it, but its end wakes the caller, too.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        if ended is None or ended.done():
            ended = asyncio.get_running_loop().create_future()  # what asyncio.wait does, for a single task
        task.add_done_callback(lambda _, ended=ended: ended.done() or ended.set_result(None))  # type: ignore[misc]
        try:
            await ended
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            on_cancel()
    if cancelled is None:
        task.result()
        return
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        cancelled.add_note(f"the status could not be written either: {failure}")
    raise cancelled


class BlockingDriver:
    """A driver for the flushes of one batcher over a blocking client; threads take turns.

    Args:
        writer: the client's `SyncStatusWriter`.
        clock: the clock of the time limits.
    """

    def __init__(self, writer: Any, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._lock = threading.Lock()
        self._ended = threading.Event()  # set after the last flush of the block

    def flush(self, recording: StatusRecording, *, checkpoint: bool) -> Awaitable[None]:
        """Write what was recorded; what is returned has completed. No request starts once the time is up.

        A request ends within its share of the time if the writer has a ``request_timeout``.

        Raises:
            StatusError: it failed.
        """
        if recording.earlier is not None:
            self._ended.wait(recording.flush_timeout)
        try:
            with self._lock:
                flush = recording.begin(checkpoint=checkpoint)
                if flush is not None:
                    self._send(recording, flush)
        finally:
            if not checkpoint:
                self._ended.set()
        return _Completed()

    def _send(self, recording: StatusRecording, flush: Flush) -> None:
        budget = _Budget(recording.flush_timeout)
        cycle, is_short_of_time = current_cycle.get(), False
        answer: JSONObject | None
        error: Exception | None
        try:
            while True:
                # No cancellation reaches a thread that waits for a request, so the controller is asked before each one.
                if cycle is not None and cycle.stopping and not is_short_of_time:
                    is_short_of_time = True
                    budget.shorten(SHUTDOWN_TIMEOUT)
                answer = error = None
                try:
                    answer = self._perform(flush, budget)
                except Exception as failure:  # noqa: BLE001 - the flush decides what it means, and raises it if it is unknown
                    error = failure
                if not flush.resume(answer, error):
                    break
        except BaseException as failure:
            recording.fail(flush, failure)
            raise
        recording.finish(flush)

    def _perform(self, flush: Flush, budget: _Budget) -> JSONObject | None:
        effect = flush.effect
        pause = effect.seconds if isinstance(effect, Pause) else 0.0
        if not budget.allows(pause):
            raise flush.attempts.abandoned()
        if isinstance(effect, Pause):
            sleep(pause)
            budget.spend(pause)
            return None
        began, limit = self._clock.monotonic(), math.inf
        if hasattr(self._writer, "request_timeout"):
            self._writer.request_timeout = limit = budget.share()
        try:
            answer: JSONObject = _start(self._writer, effect)
            return answer
        finally:
            # A request that the writer limits ends in time, so the process was stopped if it took longer.
            budget.spend(min(limit, self._clock.monotonic() - began))


class _Completed:
    """An awaitable that has already completed."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()
