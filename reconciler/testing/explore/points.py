"""The points of a reference run that a disturbance can strike: requests that change something, and effects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from reconciler._core.wire import JSONObject
from reconciler.apiserver import LoggedRequest
from reconciler.apiserver.faults import RequestMatch
from reconciler.testing.differences import ObjectKey, key_of
from reconciler.testing.explore.run import Run
from reconciler.testing.trace import TraceEvent, WorldTrace, is_bookkeeping


@dataclass(frozen=True, slots=True)
class Point:
    """A request of the operator, or an effect: the n-th one of its kind.

    Attributes:
        verb: the verb of the request; ``"effect"`` for an effect.
        resource: the plural name; the name of an effect.
        namespace: the namespace; ``""`` for none.
        name: the name of the object, ``""`` if it was created; the key of an effect.
        subresource: such as ``"status"``.
        nth: which one of those that are alike, counted from 1.
    """

    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    nth: int

    def match(self, user_agent: str) -> RequestMatch:
        """Return the requests that are alike."""
        return RequestMatch(
            verb=self.verb,
            resource=self.resource,
            namespace=self.namespace or None,
            name=self.name or None,
            subresource=self.subresource,
            user_agent=user_agent,
        )

    def __str__(self) -> str:
        """Return a form for `parse`, without spaces."""
        return ",".join([self.verb, self.resource, self.namespace, self.name, self.subresource, str(self.nth)])

    @classmethod
    def parse(cls, text: str) -> Point:
        """Return the point that `str` gave.

        Raises:
            ValueError: it is something else.
        """
        verb, resource, namespace, name, subresource, nth = text.split(",")
        return cls(verb, resource, namespace, name, subresource, int(nth))

    def find(self, trace: WorldTrace) -> TraceEvent | None:
        """Return what happened at this point of a run; None if it did not get there."""
        count = 0
        for event in trace:
            entry, call = event.request, event.effect
            if self.verb == "effect":
                count += call is not None and (call.name, call.key) == (self.resource, self.name)
            elif entry is not None and event.author == "operator":
                count += self._is_like(entry)
            if count == self.nth:
                return event
        return None

    def _is_like(self, entry: LoggedRequest) -> bool:
        found = (entry.verb, entry.resource, entry.namespace or "", entry.subresource)
        wanted = (self.verb, self.resource, self.namespace, self.subresource)
        return found == wanted and self.name in ("", entry.name)

    def describe(self) -> str:
        """Return the request for people."""
        if self.verb == "effect":
            return f"the effect {self.resource}({self.name})" + f", call {self.nth}" * (self.nth > 1)
        what = "/".join(part for part in (self.resource, self.name, self.subresource) if part)
        return f"{self.verb} {what}" + f", request {self.nth} of this kind" * (self.nth > 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of a reference run, and what makes a disturbance there telling.

    Attributes:
        point: the point.
        step: the number of the user's step before it.
        telling: higher, if the history says that more depends on it.
        target: the object of the request; None for an effect.
        owned: whether the operator created the object.
        deletes: whether the request deletes an object.
    """

    point: Point
    step: int
    telling: int
    target: ObjectKey | None
    owned: bool
    deletes: bool


def moments_of(run: Run) -> list[Moment]:
    """Return the points of a run, in order."""
    found: list[Moment] = []
    counts: Counter[tuple[str, ...]] = Counter()
    history = _ObjectHistory()
    steps = 0
    for event in run.trace:
        steps += event.what == "step"
        moment = None
        if event.author == "operator" and event.request is not None:
            moment = _of_request(event, counts, steps, history)
        elif event.effect is not None and event.process:
            parts = ("effect", event.effect.name, "", event.effect.key, "")
            counts[parts] += 1
            moment = Moment(Point(*parts, counts[parts]), steps, history.telling(event) + 2, None, False, False)
        if moment is not None:
            found.append(moment)
        history.record(event)
    return found


def _of_request(
    event: TraceEvent, counts: Counter[tuple[str, ...]], steps: int, history: _ObjectHistory
) -> Moment | None:
    entry = event.request
    if entry is None or not entry.writes or is_bookkeeping(entry):
        return None
    name = "" if entry.verb in ("create", "deletecollection") else entry.name
    parts = (entry.verb, entry.resource, entry.namespace or "", name, entry.subresource)
    counts[parts] += 1
    if not entry.effective:
        return None
    target = key_of(event.changes[0].document) if event.changes else None
    created = bool(event.changes) and event.changes[0].before is None
    deletes = entry.verb in ("delete", "deletecollection")
    telling = history.telling(event) + 2 * created + 3 * deletes + (entry.subresource == "status")
    owned = created or (target in history.created)
    return Moment(Point(*parts, counts[parts]), steps, telling, target, owned, deletes)


class _ObjectHistory:
    """What has happened to the objects so far, as far as it makes a moment telling."""

    def __init__(self) -> None:
        self.created: set[ObjectKey] = set()
        self._incarnations: Counter[ObjectKey] = Counter()
        self._documents: dict[ObjectKey, JSONObject] = {}
        self._fresh: set[tuple[str, str]] = set()
        self._seen: Counter[str] = Counter()

    def record(self, event: TraceEvent) -> None:
        """Record what an event changed."""
        for change in event.changes:
            key = key_of(change.document)
            if change.before is None:
                self._incarnations[key] += 1
                if event.author == "operator":
                    self.created.add(key)
            if change.after is None:
                self._documents.pop(key, None)
            else:
                self._documents[key] = change.after
            if event.author == "user":
                self._fresh.add((key[1], key[2]))

    def telling(self, event: TraceEvent) -> int:
        """Return how much an event depends on the history of the object that is reconciled."""
        if event.run is None:
            return 0
        self._seen[event.run.reconcile_id] += 1
        key = event.run.request
        mine = [each for each in self._documents if (each[1], each[2]) == (key.namespace or "", key.name)]
        deleted = any("deletionTimestamp" in self._documents[each]["metadata"] for each in mine) or not mine
        later = any(self._incarnations[each] > 1 for each in mine)
        changed = (key.namespace or "", key.name) in self._fresh and self._seen[event.run.reconcile_id] == 1
        return 3 * deleted + 3 * later + 2 * changed
