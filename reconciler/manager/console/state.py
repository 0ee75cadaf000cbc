"""The state of a process as plain JSON: everything that the console shows, with the recent history for its charts."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from reconciler._core.wire import JSONObject
from reconciler._version import __version__
from reconciler.cache.informer import Informer
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.election import Elector
from reconciler.manager.endpoints.keys import ReportedProcess, read_document
from reconciler.meta.documents import format_micro_time

PERIOD = 2.0
"""Seconds between two samples."""

SECONDS = 300
"""Seconds that the charts show."""

_KEPT = int(SECONDS / PERIOD)


class _Sample(NamedTuple):
    at: float
    ready: int
    active: int
    reconciles: int
    errors: int


class Samples:
    """Samples of all controllers, and of when the informers last received something, while `run` runs."""

    def __init__(
        self, controllers: Callable[[], Sequence[Controller]], informers: Callable[[], Sequence[Informer]], clock: Clock
    ) -> None:
        self._controllers = controllers
        self._informers = informers
        self._clock = clock
        self._samples: dict[str, deque[_Sample]] = {}
        self._received: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.take()
            await asyncio.sleep(PERIOD)

    def take(self) -> None:
        """Take one sample."""
        now = self._clock.monotonic()
        for each in self._controllers():
            figures = each.statistics()
            sample = _Sample(now, figures.queue.ready, figures.active, figures.reconciles, figures.results["error"])
            self._samples.setdefault(each.name, deque(maxlen=_KEPT + 1)).append(sample)
        for informer in self._informers():
            scope, counts = str(informer.scope), informer.statistics().reflectors
            number = counts.events + counts.lists
            if self._received.get(scope, (0, 0.0))[0] != number:
                self._received[scope] = (number, now)

    def charts(self, controller: str) -> JSONObject:
        """Return the series of a controller, oldest value first, one value per sample.

        ``ready`` and ``active`` are numbers at the time of the sample; ``reconciles`` and ``errors`` are per minute.
        """
        samples = list(self._samples.get(controller, ()))
        pairs = list(itertools.pairwise(samples))
        return {
            "ready": [each.ready for each in samples],
            "active": [each.active for each in samples],
            "reconciles": [_per_minute(new.reconciles - old.reconciles, new.at - old.at) for old, new in pairs],
            "errors": [_per_minute(new.errors - old.errors, new.at - old.at) for old, new in pairs],
        }

    def silence(self, scope: str) -> float | None:
        """Return the seconds since an informer received something, 2 s too many at most; None if it never did."""
        if scope not in self._received:
            return None
        return self._clock.monotonic() - self._received[scope][1]


def _per_minute(count: int, seconds: float) -> float:
    return round(60 * count / max(seconds, PERIOD / 2), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a manager that the console reads.

    Attributes:
        cluster: the address of the API server.
        namespaces: the watched namespaces; None for all.
        process: the parts that `read_document` reads.
        informers: returns the informers.
        elector: the participant in the leader election; None without one.
        identity: its identity; None without one.
    """

    cluster: str
    namespaces: Sequence[str] | None
    process: ReportedProcess
    informers: Callable[[], Sequence[Informer]]
    elector: Elector | None
    identity: str | None


def read_state(
    parts: Parts, samples: Samples, query: Mapping[str, str], *, limit: int, redact: Callable[[str], str]
) -> JSONObject:
    """Collect the state of a process. The query is that of `read_document`; with a limit of 0 it has no controllers.

    Of objects only values of changed fields appear, and none that may be a secret; `redact` removes further ones.
    """
    process = parts.process if limit else replace(parts.process, controllers=list)
    document = {"shard": None, "waits": []} | msgspec.to_builtins(read_document(process, query, limit=limit))
    for wait in document["waits"]:
        wait["text"] = redact(wait["text"])
    for each in document["controllers"]:
        each["charts"] = samples.charts(each["name"])
        for key in each["keys"]:
            _redact_key(key, redact)
    return {
        **document,
        "version": __version__,
        "cluster": parts.cluster,
        "namespaces": None if parts.namespaces is None else list(parts.namespaces),
        "lease": None if parts.elector is None else _lease(parts.elector, parts.identity),
        "informers": [_informer(each, samples, redact) for each in parts.informers()],
    }


def _redact_key(key: JSONObject, redact: Callable[[str], str]) -> None:
    changes = [*key.get("current_changes", ()), *key.get("next_changes", ())]
    for run in key["runs"]:
        changes += run.get("changes", ())
        if "message" in run.get("error", ()):
            run["error"]["message"] = redact(run["error"]["message"])
    key["attention"] = [redact(each) for each in key.get("attention", [])]
    if "status" in key:
        key["status"] = msgspec.json.decode(redact(msgspec.json.encode(key["status"]).decode()))
    for change in changes:
        for field in change["fields"]:
            field.update({name: redact(field[name]) for name in ("before", "after") if name in field})


def _lease(elector: Elector, identity: str | None) -> JSONObject:
    until = elector.held_until
    return {
        "name": elector.lease,
        "identity": identity,
        "holder": elector.holder or None,
        "leading": elector.leading,
        "held_until": None if until is None else format_micro_time(until),
    }


def _informer(informer: Informer, samples: Samples, redact: Callable[[str], str]) -> JSONObject:
    figures = informer.statistics()
    return {
        "scope": figures.scope,
        "synced": figures.synced,
        "objects": figures.store.objects,
        "bytes": figures.store.bytes,
        "held_bytes": figures.store.held,
        "unreadable": figures.store.unreadable,
        "version": informer.version() or None,
        "silent_seconds": samples.silence(figures.scope),
        "unconfirmed_writes": figures.overlay.entries,
        "events": figures.reflectors.events,
        "lists": figures.reflectors.lists,
        "failures": figures.reflectors.failures,
        "error": None if figures.last_error is None else redact(figures.last_error),
    }
