"""Make the requests of one flush, within their number, and say what went wrong with them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from reconciler.backoff import retry_after_delay
from reconciler.errors import (
    APIError,
    Conflict,
    NotFound,
    NotServed,
    ServerError,
    TooManyRequests,
    TransportError,
)
from reconciler.status.errors import StatusConflict, StatusError, StatusOutcomeUnknown, StatusUnavailable
from reconciler.status.flush.desired import Wish
from reconciler.status.flush.effects import BACKOFF, Effect, Policy, Read, Sleep, Target, Write
from reconciler.status.flush.refusals import refusal
from reconciler.status.record.mutations import Mutation

__all__ = ["Attempts"]

_MAY_COUNT_TWICE = "Repeating it could count twice."


class Attempts:
    """Count the requests of one flush, pause between them, and name its failure.

    Args:
        target: the object and the client.
        policy: how to send.
        counts: counters to add to.
        mutations: what the flush is to write, for errors.
    """

    def __init__(self, target: Target, policy: Policy, counts: dict[str, int], mutations: Sequence[Mutation]) -> None:
        self.mutations = tuple(mutations)
        self._target = target
        self._policy = policy
        self._counts = counts
        self._writes = 0
        self._reads = 0
        self._uncertain = False  # a send of this flush ended unknown
        self._in_flight = False
        self._last: Exception | None = None
        self._subresource = self._first_subresource()

    def abandoned(self) -> StatusError:
        """Return the error for a flush whose time is up."""
        if self._is_unknown:
            return self._unknown("no answer came in time")
        return self._unavailable("in time")

    def may_repeat(self, mutation: Mutation) -> bool:
        """Say whether a later flush may apply a mutation of this one without counting it twice."""
        return mutation.may_be_repeated() or not self._is_unknown

    @property
    def _is_unknown(self) -> bool:
        return self._in_flight or self._uncertain

    def _first_subresource(self) -> str | None:
        if self._policy.subresource != "auto":
            return self._policy.subresource
        return None if self._target.memory.lacks_subresource(self._target.gvk) else "status"

    def _write(self, wish: Wish) -> Generator[Effect, Any, dict[str, Any]]:
        if self._writes >= self._policy.limit:
            raise self._exhausted()
        self._writes += 1
        self._counts["attempts"] += 1
        self._in_flight = True
        try:
            answer: dict[str, Any] = yield Write(wish.body, wish.strategy, None if wish.to_main else self._subresource)
        except Exception:  # and no other: what closes or cancels this generator leaves the request in flight
            self._in_flight = False
            raise
        self._in_flight = False
        return answer

    def _read(self, wish: Wish) -> Generator[Effect, Any, dict[str, Any] | None]:
        """Read the object; None when it is not there."""
        while self._reads < self._policy.limit:
            self._reads += 1
            self._counts["reads"] += 1
            try:
                document: dict[str, Any] = yield Read()
            except NotServed as error:
                raise self._refused(wish, error, reading=True) from error
            except NotFound:
                return None
            except (TransportError, ServerError, TooManyRequests, OSError) as error:
                self._last = error
                yield from self._pause(error)
            except APIError as error:
                if self._uncertain:
                    raise self._unknown("it could not be read back") from error
                raise self._refused(wish, error, reading=True) from error
            else:
                return document
        raise self._exhausted()

    def _pause(self, error: Exception) -> Generator[Effect, Any, None]:
        delay = self._policy.backoff.delay(max(self._writes, self._reads) - 1, self._policy.rng)
        wanted = getattr(error, "retry_after", None) or 0.0
        # A server that sheds load is obeyed. After a failure the read back is due soon: the outcome hangs on it.
        yield Sleep(max(delay, wanted if isinstance(error, TooManyRequests) else min(wanted, BACKOFF.maximum)))

    def _heed(self, error: Exception) -> Generator[Effect, Any, None]:
        """Wait as long as the server asked to when it failed, before a write that may be repeated is."""
        asked = retry_after_delay(getattr(error, "retry_after", None), self._policy.rng)
        if asked > BACKOFF.maximum:
            yield Sleep(asked)

    def _refused(self, wish: Wish, error: APIError, *, reading: bool = False) -> StatusError:
        if self._uncertain and not all(map(self.may_repeat, self.mutations)):
            # What must not be repeated is not kept for the next reconcile either, so the caller has to know.
            return self._unknown("an earlier request may still be applied, and its repetition was refused")
        verb = "get" if reading else "update" if wish.strategy == "update" else "patch"
        main = reading or wish.to_main or self._subresource is None
        what = "the main resource" if main else f"the {self._subresource} subresource"
        return refusal(error, str(self._target), wish.computed, self.mutations, need=f"{verb} {what}")

    def _conflict(self, why: str) -> StatusConflict:
        return StatusConflict(
            f"{self._target} was changed by another writer after it was read, and {why}.", unsaved=self.mutations
        )

    def _unknown(self, why: str) -> StatusOutcomeUnknown:
        error = StatusOutcomeUnknown(
            f"whether the status of {self._target} was written cannot be told: {why} ({self._why()}). "
            + ("Repeating it is harmless." if all(map(self.may_repeat, self.mutations)) else _MAY_COUNT_TWICE),
            unsaved=self.mutations,
        )
        error.retry_after = getattr(self._last, "retry_after", None)
        return error

    def _exhausted(self) -> StatusError:
        tries = f"after {self._writes} writes and {self._reads} reads"
        if self._uncertain:
            return self._unknown(f"no usable answer {tries}")
        if isinstance(self._last, Conflict):
            return self._conflict(f"again each time, {tries}")
        return self._unavailable(tries)

    def _unavailable(self, how: str) -> StatusUnavailable:
        error = StatusUnavailable(
            f"the status of {self._target} was not written {how}: {self._why()}.", unsaved=self.mutations
        )
        error.retry_after = getattr(self._last, "retry_after", None)
        return error

    def _why(self) -> str:
        if self._last is None:
            return "nothing was answered"
        return f"{type(self._last).__name__}: {self._last}"
