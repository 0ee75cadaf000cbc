"""The state of a process as plain JSON: everything that the console shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reconciler._core.wire import JSONObject
from reconciler._version import __version__
from reconciler.cache.informer import Informer
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.console.samples import Samples
from reconciler.manager.election.elector import Elector
from reconciler.manager.endpoints.keys import read_keys
from reconciler.manager.waiting import waits
from reconciler.meta.scalars import format_micro_time

__all__ = ["Parts", "read_state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a manager that the console reads.

    Attributes:
        cluster: the address of the API server.
        namespaces: the watched namespaces; None for all.
        role: returns ``"running"``, ``"standby"``, or the state of the manager.
        elector: the participant in the leader election; None without one.
        identity: its identity; None without one.
        shard: the shard of this process; None without sharding.
    """

    cluster: str
    namespaces: Sequence[str] | None
    role: Callable[[], str]
    controllers: Callable[[], Sequence[Controller]]
    informers: Callable[[], Sequence[Informer]]
    elector: Elector | None
    identity: str | None
    shard: JSONObject | None
    clock: Clock


def read_state(
    parts: Parts, samples: Samples, query: Mapping[str, str], *, limit: int, redact: Callable[[str], str]
) -> JSONObject:
    """Return the state of a process. The query is that of `read_keys`; with a limit of 0 it has no controllers.

    Of objects only values of changed fields appear, and none that may be a secret; `redact` removes further ones.
    """
    controllers = read_keys(parts.controllers() if limit else (), parts.clock, query, limit=limit, trusted=True)
    for each in controllers:
        each["charts"] = samples.charts(each["name"])
        for key in each["keys"]:
            _redact_key(key, redact)
    return {
        "now": format_micro_time(parts.clock.now()),
        "version": __version__,
        "role": parts.role(),
        "cluster": parts.cluster,
        "namespaces": None if parts.namespaces is None else list(parts.namespaces),
        "lease": None if parts.elector is None else _lease(parts.elector, parts.identity),
        "shard": parts.shard,
        "waits": [
            {"text": redact(wait.text), "normal": wait.normal} for wait in waits(parts.informers(), parts.elector)
        ],
        "controllers": controllers,
        "informers": [_informer(each, samples, redact) for each in parts.informers()],
    }


def _redact_key(key: JSONObject, redact: Callable[[str], str]) -> None:
    changes = [*key.get("current_changes", ()), *key.get("next_changes", ())]
    for run in key["runs"]:
        changes += run.get("changes", ())
        if "message" in run.get("error", ()):
            run["error"]["message"] = redact(run["error"]["message"])
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
        "unreadable": figures.store.unreadable,
        "version": informer.version() or None,
        "silent_seconds": samples.silence(figures.scope),
        "unconfirmed_writes": figures.overlay.entries,
        "events": figures.reflectors.events,
        "lists": figures.reflectors.lists,
        "failures": figures.reflectors.failures,
        "error": None if figures.last_error is None else redact(figures.last_error),
    }
