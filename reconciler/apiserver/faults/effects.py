"""The effects of a fault on a request, each a frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.requests.routing import Call
from reconciler.wire import JSONObject

__all__ = [
    "CutWatches",
    "Delay",
    "Effect",
    "EventOrder",
    "Lose",
    "Refuse",
    "ReorderEvents",
    "Stale",
    "Stall",
    "StallWatches",
]

EventOrder = Literal["before", "after", "late", "seeded"]
"""When watches receive the event of a write, relative to its response; see `ReorderEvents`."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is answered with an error.

    Attributes:
        status: the HTTP status.
        reason: the reason of the Status; by default the usual one.
        message: the message of the Status; by default the usual one.
        retry_after: seconds for the Retry-After header and ``retryAfterSeconds``.
        after_commit: handle the request first, so that a write takes effect, and then answer with the error.
        as_event: let a watch start, and send it the error as an ERROR event, as the real server does with 410.
    """

    status: int
    reason: str | None = None
    message: str | None = None
    retry_after: float | None = None
    after_commit: bool = False
    as_event: bool = False

    def __str__(self) -> str:
        return f"{self.status}{_WHEN[self.after_commit]}"

    def refusal(self, call: Call | None) -> Refusal:
        """Return the error response to a request."""
        known = recorded("faults/statuses.json")
        reason, message = known.get(str(self.status), ("InternalError", "a fault was injected"))
        details: JSONObject = {}
        if call is not None:
            info = call.endpoint.info
            named = {"name": call.name, "group": info.group, "kind": info.plural}
            details = {key: value for key, value in named.items() if value}
            if self.status == 409:
                name = qualified(info.plural, info.group)
                message = f'Operation cannot be fulfilled on {name} "{call.name}": {message}'
        if self.retry_after is not None:
            details["retryAfterSeconds"] = int(self.retry_after)
        return Refusal(
            self.status,
            reason if self.reason is None else self.reason,
            message if self.message is None else self.message,
            details=details or None,
        )


@dataclass(frozen=True, slots=True)
class Lose:
    """The request gets no response: in process `OutcomeUnknown` is raised, over sockets the connection is closed.

    Attributes:
        after_commit: handle the request first, so that a write takes effect.
    """

    after_commit: bool = False

    def __str__(self) -> str:
        return f"response lost{_WHEN[self.after_commit]}"


@dataclass(frozen=True, slots=True)
class Stall:
    """The request is never handled nor answered; the client's timeout applies. A watch starts and stays silent."""

    def __str__(self) -> str:
        return "stall"


@dataclass(frozen=True, slots=True)
class Delay:
    """The request waits before it is handled.

    Attributes:
        seconds: how long; a pair is a range to draw from.
    """

    seconds: float | tuple[float, float]

    def __str__(self) -> str:
        return "delayed"


@dataclass(frozen=True, slots=True)
class CutWatches:
    """All watches of the request's kind are broken off after the request was handled."""

    def __str__(self) -> str:
        return "cut watches"


@dataclass(frozen=True, slots=True)
class StallWatches:
    """All watches of the request's kind stay open after the request was handled, and receive nothing more."""

    def __str__(self) -> str:
        return "stall watches"


@dataclass(frozen=True, slots=True)
class Stale:
    """A read at resourceVersion "0" shows an earlier state, as a lagging replica does.

    Attributes:
        seconds: the age of that state.
    """

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds} s stale"


@dataclass(frozen=True, slots=True)
class ReorderEvents:
    """The event of a write reaches watches in another order relative to the response.

    Attributes:
        order: ``"before"`` the response, ``"after"`` it, ``"late"`` (50 ms after it), or ``"seeded"``: one of these,
            drawn for each write.
    """

    order: EventOrder

    def __str__(self) -> str:
        if self.order == "seeded":
            return "event at any time"
        return "event late" if self.order == "late" else f"event {self.order} the response"


_WHEN = {False: "", True: " after it took effect"}

Effect: TypeAlias = Refuse | Lose | Stall | Delay | CutWatches | StallWatches | Stale | ReorderEvents
"""What a fault does to a request or a watch."""
