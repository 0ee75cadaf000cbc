"""Let requests fail on demand: refused, delayed, lost, applied without an answer."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.faults.chaos import Chaos, let_loose
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

__all__ = ["EventOrder", "Fault", "Faults", "Strike"]

OneOrMore = str | Collection[str]

EventOrder = Literal["before", "after", "late", "seeded"]
"""When the event of a write is told to watches; see `Faults.add`."""

_REASONS = {
    400: ("BadRequest", "the server rejected our request for an unknown reason"),
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden: a fault was injected"),
    404: ("NotFound", "the server could not find the requested resource"),
    405: ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
    409: ("Conflict", "the object has been modified; please apply your changes to the latest version and try again"),
    410: ("Expired", "The resourceVersion for the provided watch is too old."),
    413: ("RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
    422: ("Invalid", "the server rejected our request due to an error in our request"),
    429: ("TooManyRequests", "The request is throttled; please try again later."),
    500: ("InternalError", "an error on the server has prevented the request from succeeding"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "the server was unable to return a response in the time allotted, but may still be processing it"),
}


@dataclass(slots=True, eq=False)
class Fault:
    """Hold one fault and count how often it struck. Made by `Faults.add`, whose arguments the attributes repeat.

    Attributes:
        hits: how many requests it struck.
    """

    faults: Faults = field(repr=False)
    match: Mapping[str, Any]
    status: int | None = None
    reason: str | None = None
    message: str | None = None
    times: int | None = 1
    probability: float = 1.0
    latency: float | tuple[float, float] = 0.0
    retry_after: float | None = None
    after_commit: bool = False
    lost: bool = False
    stall: bool = False
    expired: bool = False
    cut_watches: bool = False
    stall_watches: bool = False
    stale: float | None = None
    event_order: EventOrder | None = None
    rng: random.Random | None = field(default=None, repr=False)
    hits: int = 0

    def remove(self) -> None:
        """Take the fault away; harmless when it is used up."""
        self.faults.discard(self)

    @property
    def active(self) -> bool:
        """Tell whether it will still strike."""
        return self.faults.holds(self)

    @property
    def refuses(self) -> bool:
        """Tell whether the answer is replaced by a failure."""
        return self.status is not None or self.expired

    @property
    def answers(self) -> bool:
        """Tell whether it answers in the server's place, be it with silence."""
        return self.refuses or self.lost or self.stall

    def refusal(self, call: Call | None) -> Refusal:
        """Return the failure to answer with."""
        code = 410 if self.expired and self.status is None else self.status or 500
        reason, message = _REASONS.get(code, ("InternalError", "a fault was injected"))
        details: dict[str, Any] = {}
        if call is not None:
            info = call.endpoint.info
            details = {"name": call.name, "group": info.group, "kind": info.plural}
            if code == 409:
                name = f"{info.plural}.{info.group}" if info.group else info.plural
                message = f'Operation cannot be fulfilled on {name} "{call.name}": {message}'
        details = {key: value for key, value in details.items() if value}
        if self.retry_after is not None:
            details["retryAfterSeconds"] = int(self.retry_after)
        return Refusal(
            code,
            reason if self.reason is None else self.reason,
            message if self.message is None else self.message,
            details=details or None,
        )

    @property
    def effect(self) -> str:
        """Return what it does to a request, in few words."""
        said = []
        if self.latency:
            said.append("delayed")
        if self.refuses:
            said.append(str(self.status or 410) + (" after it took effect" if self.after_commit else ""))
        if self.lost:
            said.append("answer lost" + (" after it took effect" if self.after_commit else ""))
        said += [word for word in _EFFECTS if getattr(self, word.replace(" ", "_"))]
        if self.stale is not None:
            said.append(f"{self.stale} s stale")
        if self.event_order == "seeded":
            said.append("event at any time")
        elif self.event_order is not None:
            said.append(f"event {self.event_order} the answer" if self.event_order != "late" else "event late")
        return ", ".join(said)

    def strikes(self, call: Call | None, request: HTTPRequest) -> bool:
        """Tell whether a request is one of those that it is meant for."""
        for key, wanted in self.match.items():
            if key == "user_agent":
                if not any(part in request.headers.get("user-agent", "") for part in _several(wanted)):
                    return False
            elif key == "method":
                if request.method not in _several(wanted):
                    return False
            elif key == "path":
                if not any(fnmatchcase(request.path, pattern) for pattern in _several(wanted)):
                    return False
            elif call is None or _read(call, key) not in _several(wanted):
                return False
        return True


_EFFECTS = ("stall", "cut watches", "stall watches")


def _several(wanted: OneOrMore) -> Collection[str]:
    return (wanted,) if isinstance(wanted, str) else wanted


def _read(call: Call, key: str) -> Any:
    if key == "resource":
        return call.endpoint.info.plural
    if key == "kind":
        return call.endpoint.info.kind
    if key == "group":
        return call.endpoint.info.group
    return getattr(call, key)


class Faults:
    """Hold the faults of a server.

    All faults that match a request strike it together: latency adds up; of those that answer in the server's place one
    strikes.

    Args:
        rng: decides about faults with a probability.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._active: list[Fault] = []

    def add(
        self,
        *,
        status: int | None = None,
        reason: str | None = None,
        message: str | None = None,
        times: int | None = 1,
        probability: float = 1.0,
        verb: OneOrMore | None = None,
        resource: OneOrMore | None = None,
        kind: OneOrMore | None = None,
        group: OneOrMore | None = None,
        name: OneOrMore | None = None,
        namespace: OneOrMore | None = None,
        subresource: OneOrMore | None = None,
        method: OneOrMore | None = None,
        path: OneOrMore | None = None,
        user_agent: OneOrMore | None = None,
        latency: float | tuple[float, float] = 0.0,
        retry_after: float | None = None,
        after_commit: bool = False,
        lost: bool = False,
        stall: bool = False,
        expired: bool = False,
        cut_watches: bool = False,
        stall_watches: bool = False,
        stale: float | None = None,
        event_order: EventOrder | None = None,
        rng: random.Random | None = None,
    ) -> Fault:
        """Strike the next requests that match.

        Which requests (None matches all; a set, list or tuple matches any of its items):

        Args:
            verb: get, list, watch, create, update, patch, delete or deletecollection.
            resource: the plural name.
            kind: the kind.
            group: the API group.
            name: the object's name.
            namespace: the namespace.
            subresource: ``"status"``; ``""`` for requests to the object itself.
            method: the HTTP method; with it or `path` alone, paths that belong to no kind are struck as well.
            path: the path without query, as a shell pattern: ``"/apis/example.com/*"``.
            user_agent: a part of the User-Agent header.
            times: how many requests are struck, 1 by default; None for all until `Fault.remove`.
            probability: of striking a request that matches, drawn from the server's seeded generator.
            status: answer with this HTTP status. Reason and message default to the usual ones.
            reason: the reason of the Status.
            message: the message of the Status.
            retry_after: seconds for the Retry-After header and ``retryAfterSeconds``.
            latency: seconds to wait before the request is handled; a pair draws from that span.
            after_commit: handle the request first, so that a write takes effect, and then let its answer fail.
            lost: give no answer: in process `OutcomeUnknown` is raised, over sockets the connection is cut.
            stall: never answer (a client's timeout applies); a watch opens and stays silent.
            expired: 410; for a watch as an ERROR event, as the real server does.
            cut_watches: after the request was handled, break off all watches of its kind.
            stall_watches: after the request was handled, let all watches of its kind stay open and say nothing more.
            stale: for reads at resourceVersion "0": answer with the state this many seconds ago, as a lagging replica
                does.
            event_order: whether watches see the event of a write before its answer is given, after it, or late
                (50 ms later); "seeded" draws one for each write.
            rng: what `probability` is drawn from instead.
        """
        match = {
            "verb": verb,
            "resource": resource,
            "kind": kind,
            "group": group,
            "name": name,
            "namespace": namespace,
            "subresource": subresource,
            "method": method,
            "path": path,
            "user_agent": user_agent,
        }
        fault = Fault(
            self,
            {key: value for key, value in match.items() if value is not None},
            status=status,
            reason=reason,
            message=message,
            times=times,
            probability=probability,
            latency=latency,
            retry_after=retry_after,
            after_commit=after_commit,
            lost=lost,
            stall=stall,
            expired=expired,
            cut_watches=cut_watches,
            stall_watches=stall_watches,
            stale=stale,
            event_order=event_order,
            rng=rng,
        )
        self._active.append(fault)
        return fault

    def chaos(
        self, *, seed: int = 0, rate: float = 0.1, latency: float = 0.0, without: Sequence[str] = (), **match: Any
    ) -> Chaos:
        """Let anything go wrong by chance, until `Chaos.stop` or the end of a ``with`` block.

        About `rate` of the requests are refused (409, 429, 500, 503), lost, answered with a failure after the write has
        landed, or take their watchers' streams away; a watch may begin with 410. Twice as often a read at version "0"
        is up to two seconds stale, and the event of a write comes before its answer or 50 ms after it.

        Args:
            seed: of all that is drawn; 0 by default.
            rate: the share of the requests, from 0 to 1; 0.1 by default.
            latency: half of the requests take up to so many seconds longer; 0 by default.
            without: what is not to happen: "409", "410", "429", "500", "503", "lost", "500 after the write",
                "lost after the write", "cut watches", "stale", "event order", "latency".
            match: which requests may be struck, as for `add`: ``user_agent="my-operator"`` spares the test's client.

        Raises:
            ValueError: for a rate that is no share, or for something in `without` that chaos does not have.
        """
        return let_loose(self, seed=seed, rate=rate, latency=latency, without=without, match=match)

    def clear(self) -> None:
        """Take all faults away."""
        self._active.clear()

    def discard(self, fault: Fault) -> None:
        """Take one fault away; harmless when it is gone."""
        if fault in self._active:
            self._active.remove(fault)

    def holds(self, fault: Fault) -> bool:
        """Tell whether a fault is in force."""
        return fault in self._active

    def strike(self, call: Call | None, request: HTTPRequest) -> Strike | None:
        """Return what strikes a request and count the hits; None in most cases.

        Of the faults that answer in the server's place the first one that matches strikes; the others wait.
        """
        if not self._active:
            return None
        found: list[Fault] = []
        answering: Fault | None = None
        for fault in list(self._active):
            if (answering is not None and fault.answers) or not fault.strikes(call, request):
                continue
            if fault.probability < 1.0 and (fault.rng or self._rng).random() >= fault.probability:
                continue
            fault.hits += 1
            if fault.times is not None and fault.hits >= fault.times:
                self._active.remove(fault)
            found.append(fault)
            if fault.answers:
                answering = fault
        return Strike(found, answering, self._rng) if found else None


class Strike:
    """Hold what one request is struck by: the effects of all its faults together.

    Args:
        faults: the faults.
        answering: the one among them that answers in the server's place, or None.
        rng: draws latencies.
    """

    __slots__ = ("answering", "cut_watches", "effect", "event_order", "latency", "stale", "stall_watches")

    def __init__(self, faults: list[Fault], answering: Fault | None, rng: random.Random) -> None:
        self.answering = answering
        self.latency = sum(
            (fault.rng or rng).uniform(*fault.latency) if isinstance(fault.latency, tuple) else fault.latency
            for fault in faults
        )
        self.cut_watches = any(fault.cut_watches for fault in faults)
        self.stall_watches = any(fault.stall_watches for fault in faults)
        self.stale = next((fault.stale for fault in faults if fault.stale is not None), None)
        self.event_order: EventOrder | None = next(
            (fault.event_order for fault in faults if fault.event_order is not None), None
        )
        self.effect = ", ".join(fault.effect for fault in faults)
