"""The requests of one flush: bounded in number, with pauses in between, and the errors that they end in.

A flush yields its requests as effects, which a driver performs.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

import msgspec

from reconciler._core.backoff import retry_after_delay
from reconciler.errors import (
    APIError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotSent,
    NotServed,
    RequestTooLarge,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.meta.documents import Version, parse_version
from reconciler.status.errors import (
    StatusConflict,
    StatusError,
    StatusInvalid,
    StatusOutcomeUnknown,
    StatusRejected,
    StatusTooLarge,
    StatusUnavailable,
    cut,
    listed,
)
from reconciler.status.mutations import Path
from reconciler.status.strategies import BACKOFF, FlushPolicy, ObjectVersion
from reconciler.status.writer import SentWrite, Strategy, Target

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject
    from reconciler.status.mutations import Mutation
    from reconciler.status.strategies import DesiredStatus


class ReadObject(msgspec.Struct, frozen=True):
    """A request for a consistent read of the whole object."""


class WriteStatus(msgspec.Struct, frozen=True):
    """A request to send a body once.

    Attributes:
        body: the body.
        strategy: how it is sent.
        subresource: where it is sent; None is the main resource.
    """

    body: JSONObject
    strategy: Strategy
    subresource: str | None


class Pause(msgspec.Struct, frozen=True):
    """A request for a pause, in seconds."""

    seconds: float


Effect = ReadObject | WriteStatus | Pause


class WriteReport(NamedTuple):
    """A write that was applied and answered, as it is reported to the reconcile; see `reconciler.meta.Cycle.wrote`."""

    before: Version
    after: Version
    exact: bool


Outcome = Literal["written", "unchanged", "ignored", "gone"]
"""A write took effect; there was nothing to write; the server stored nothing of what was sent; the object is gone."""


class FlushResult(msgspec.Struct, frozen=True):
    """The result of a flush that did not fail.

    Attributes:
        outcome: see `Outcome`.
        document: the whole object at the newest known version; None if that is still the given one.
        tip: that version.
        base: the status that the body continues from; it differs from what the body saw by the body's own changes only.
        reports: one for each write from which the reconcile can conclude something.
        fields: paths that the write contained.
        trimmed: list entries that ``keep_last`` dropped.
    """

    outcome: Outcome
    document: JSONObject | None
    tip: ObjectVersion
    base: JSONObject
    reports: tuple[WriteReport, ...] = ()
    fields: Sequence[Path] = ()
    trimmed: int = 0


Effects = Generator[Effect, Any, FlushResult]


NO_REPLAY = "a checkpoint does not replay"

_FINAL_MESSAGES = (
    "request is too large",
    "failed to create typed patch object",
    "field not declared in schema",
    "strconv.ParseUint",
)
"""In 5xx responses that mean that nothing was stored, and that a retry gets the same response (seen on kube-apiserver
1.36)."""

_DENIED_BY_WEBHOOK = 'admission webhook "'
_WEBHOOK_FAILED = 'failed calling webhook "'
"""An admission webhook with ``failurePolicy: Fail`` was not reached, or did not answer in time."""

_MAX_SIZES = 3


def is_final(error: Exception) -> TypeGuard[APIError]:
    """Return whether the server certainly stored nothing of a write, and would refuse it at once again.

    Admission comes before storage. A webhook chooses the status of its denial, and a failed call of one is a 500; so
    the message takes precedence over the status.
    """
    if not isinstance(error, APIError):
        return False
    if error.message.startswith(_DENIED_BY_WEBHOOK) or _WEBHOOK_FAILED in error.message:
        return True
    if isinstance(error, ServerError):
        return any(text in error.message for text in _FINAL_MESSAGES)
    return error.status >= 300 and not isinstance(error, (Conflict, NotFound, TooManyRequests))


def is_refusal(error: Exception) -> bool:
    """Return whether a write that ended with this error was certainly not applied."""
    if isinstance(error, APIError):
        return is_final(error) if isinstance(error, ServerError) else error.status >= 300
    return isinstance(error, NotSent)


@functools.lru_cache(maxsize=256)  # ten thousand writes are remembered, and a program writes few sets of fields
def _members(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


class FlushRequests:
    """The requests of one flush, and the errors that it can end in.

    Args:
        target: the object and the client.
        policy: how to send.
        counts: counters to add to.
        mutations: what the flush must write.

    Attributes:
        mutations: what is still to write; named in errors.
        uncertain: whether a write of this flush ended with an unknown outcome that has not been resolved since.
        last: the last failure.
        sent: the last write, as other flushes see it; None before the first.
        memory: what was learned over the client.
    """

    def __init__(
        self, target: Target, policy: FlushPolicy, counts: dict[str, int], mutations: Sequence[Mutation]
    ) -> None:
        self.mutations = tuple(mutations)
        self.uncertain = False
        self.last: Exception | None = None
        self.sent: SentWrite | None = None
        self.memory = target.memory
        self._sender = object()
        self._target = target
        self._policy = policy
        self._counts = counts
        self._writes = 0
        self._reads = 0
        self._in_flight = False

    @property
    def is_unknown(self) -> bool:
        """Return whether a write may have been applied without a response."""
        return self._in_flight or self.uncertain

    @property
    def can_write(self) -> bool:
        """Return whether another write is allowed."""
        return self._writes < self._policy.limit

    def may_repeat(self, mutation: Mutation) -> bool:
        """Return whether a later flush may apply a mutation of this one without counting it twice."""
        return mutation.may_be_repeated() or not self.is_unknown

    # Requests.

    def write(self, desired: DesiredStatus) -> Generator[Effect, Any, JSONObject]:
        """Send the body of a desired status once, and return the response."""
        if self._writes >= self._policy.limit:
            raise self.exhausted()
        self._writes += 1
        self._counts["attempts"] += 1
        self._in_flight = True
        subresource = None if desired.strategy.is_to_main else self._policy.subresource
        tip, body = desired.tip, desired.strategy.body(self._target, desired)
        sent = self.sent = SentWrite(self._sender, tip.uid, parse_version(tip.version), _members(tuple(desired.diff)))
        self.memory.sent(sent)
        try:
            answer: JSONObject = yield WriteStatus(body, desired.strategy.name, subresource)
        except Exception as error:  # only these: closing or cancelling this generator leaves the request in flight
            self._in_flight = False
            if is_refusal(error):
                self.memory.refused(sent)
            raise
        self._in_flight = False
        return answer

    def read(self, desired: DesiredStatus) -> Generator[Effect, Any, JSONObject | None]:
        """Read the object, with retries; None if it does not exist."""
        while self._reads < self._policy.limit:
            self._reads += 1
            self._counts["reads"] += 1
            try:
                document: JSONObject = yield ReadObject()
            except NotServed as error:
                raise self.refused(desired, error, reading=True) from error
            except NotFound:
                return None
            except (TransportError, ServerError, TooManyRequests, OSError) as error:
                self.last = error
                yield from self.pause(error)
            except APIError as error:
                if self.uncertain:
                    raise self.unknown("it could not be read back") from error
                raise self.refused(desired, error, reading=True) from error
            else:
                return document
        raise self.exhausted()

    def pause(self, error: Exception) -> Generator[Effect, Any, None]:
        """Wait before the next request."""
        delay = BACKOFF.delay(max(self._writes, self._reads) - 1, self._policy.rng)
        wanted = getattr(error, "retry_after", None) or 0.0
        # A Retry-After of a server that sheds load is obeyed. After any other failure it is capped, because the outcome
        # is read back next and everything depends on it.
        yield Pause(max(delay, wanted if isinstance(error, TooManyRequests) else min(wanted, BACKOFF.maximum)))

    def obey_retry_after(self, error: Exception) -> Generator[Effect, Any, None]:
        """Wait as long as the server requested when it failed, before the write is repeated."""
        requested = retry_after_delay(getattr(error, "retry_after", None), self._policy.rng)
        if requested > BACKOFF.maximum:
            yield Pause(requested)

    # Errors.

    def abandoned(self) -> StatusError:
        """Return the error of a flush whose time is up."""
        if self.is_unknown:
            return self.unknown("no response came in time")
        return self._unavailable("in time")

    def exhausted(self) -> StatusError:
        """Return the error of a flush that has used all its requests."""
        tries = f"after {self._writes} writes and {self._reads} reads"
        if self.uncertain:
            return self.unknown(f"no usable response {tries}")
        if isinstance(self.last, Conflict):
            return self.conflict(f"again each time, {tries}")
        return self._unavailable(tries)

    def conflict(self, why: str = NO_REPLAY) -> StatusConflict:
        """Return the error for an object that is newer."""
        return StatusConflict(
            f"{self._target} was changed by another writer after it was read, and {why}.", unsaved=self.mutations
        )

    def unknown(self, why: str) -> StatusOutcomeUnknown:
        """Return the error for a write whose outcome stays unknown."""
        harmless = all(map(self.may_repeat, self.mutations))
        error = StatusOutcomeUnknown(
            f"it is unknown whether the status of {self._target} was written: {why} ({self._why()}). "
            + ("Repeating it is harmless." if harmless else "Repeating it could count twice."),
            unsaved=self.mutations,
        )
        error.retry_after = getattr(self.last, "retry_after", None)
        return error

    def refused(self, desired: DesiredStatus, error: APIError, *, reading: bool = False) -> StatusError:
        """Return the error for a request that the server refused."""
        if self.uncertain and not all(map(self.may_repeat, self.mutations)):
            # What must not be repeated is not kept for the next reconcile either, so the caller must know.
            return self.unknown("an earlier request may still be applied, and its repetition was refused")
        verb = "get" if reading else desired.strategy.verb
        main = reading or desired.strategy.is_to_main or self._policy.subresource is None
        need = f"{verb} {'the main resource' if main else f'the {self._policy.subresource} subresource'}"
        tried = f"the request to {need} of {self._target} was refused with {error.status}"
        if error.reason:
            tried += f" {error.reason}"
        if _WEBHOOK_FAILED in error.message:
            rejected = StatusRejected(
                f"{tried}: {cut(error.message)}. It can be written when the webhook answers again.",
                unsaved=self.mutations,
            )
            rejected.retryable = True
            return rejected
        if isinstance(error, Invalid):
            fields = tuple(cause.field for cause in error.causes if cause.field)
            what = f"these fields do not match the schema: {listed(fields)}" if fields else error.message
            return StatusInvalid(
                f"{tried}: {what}. Correct what is recorded, or the CRD.", fields=fields, unsaved=self.mutations
            )
        if isinstance(error, RequestTooLarge):
            return StatusTooLarge(
                f"{tried}: the object is over the limit of about 1.5 MiB. The largest fields of its status are "
                f"{_sizes(desired.computed)}: bound lists with keep_last=, and keep counters outside them.",
                unsaved=self.mutations,
            )
        return StatusRejected(f"{tried}: {cut(error.message)}. {_advice(error, need)}", unsaved=self.mutations)

    def _unavailable(self, how: str) -> StatusUnavailable:
        error = StatusUnavailable(
            f"the status of {self._target} was not written {how}: {self._why()}.", unsaved=self.mutations
        )
        error.retry_after = getattr(self.last, "retry_after", None)
        return error

    def _why(self) -> str:
        if self.last is None:
            return "there was no response"
        return cut(f"{type(self.last).__name__}: {self.last}")


def _advice(error: APIError, need: str) -> str:
    if isinstance(error, Unauthorized):
        return "The credentials were not accepted."
    if isinstance(error, Forbidden):
        return f"The role must allow to {need}."
    if isinstance(error, NotServed):
        return "The server does not serve this kind: install its CRD, and check group and version."
    return "A retry cannot help."


def _sizes(status: Mapping[str, Any]) -> str:
    sizes = sorted(((len(msgspec.json.encode(value)), key) for key, value in status.items()), reverse=True)
    return ", ".join(f"{key} ({size / 1024:.0f} KiB)" for size, key in sizes[:_MAX_SIZES]) or "none"
