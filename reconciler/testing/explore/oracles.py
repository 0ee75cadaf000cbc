"""Oracles: what must be true of every run, each with a name, without any code of the user."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.controller.effects import effects_of
from reconciler.controller.wake import reasons
from reconciler.errors import ReconcilerError, describe_error
from reconciler.testing.differences import ObjectKey, compare_states, describe_key, key_of
from reconciler.testing.explore.disturbances import CHANGED, TOUCHED
from reconciler.testing.explore.run import Run
from reconciler.testing.trace import StateChange, TraceEvent, WorldTrace
from reconciler.testing.world import NotSettled

_NOT_COMPARED = frozenset({"Event", "Event.events.k8s.io", "Lease.coordination.k8s.io"})
_TEMPLATES = frozenset({"Deployment.apps", "StatefulSet.apps", "DaemonSet.apps"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not happen.

    Attributes:
        oracle: the name of the oracle that found it.
        text: what it found, for people; several lines for a difference.
    """

    oracle: str
    text: str

    def __str__(self) -> str:
        return f"{self.oracle}: {self.text}"


@dataclass(slots=True)
class Judgement:
    """What the oracles compare: a run, and the reference run if it is another one.

    Attributes:
        run: the run.
        reference: the reference run; the run itself while that is judged.
        varies: the fields that differ between two runs with different seeds, by object and path.
    """

    run: Run
    reference: Run
    varies: Collection[tuple[ObjectKey, str]] = ()
    disturbed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.disturbed = self.run is not self.reference


def comparable(objects: list[JSONObject]) -> list[JSONObject]:
    """Return the objects that are compared, without what somebody else has written on them."""
    return [_without_touch(each) for each in objects if key_of(each)[0] not in _NOT_COMPARED]


def _without_touch(document: JSONObject) -> JSONObject:
    annotations = document["metadata"].get("annotations") or {}
    if TOUCHED not in annotations:
        return document
    metadata = dict(document["metadata"])
    metadata["annotations"] = {name: value for name, value in annotations.items() if name != TOUCHED}
    if not metadata["annotations"]:
        del metadata["annotations"]
    return {**document, "metadata": metadata}


def _final_state(judgement: Judgement) -> Iterator[str]:
    if not judgement.disturbed:
        return
    somebodys = {
        _uid(change.document)
        for event in judgement.run.trace.writes("somebody")
        for change in event.changes
        if change.before is None
    }
    last, told = max(judgement.reference.rests, default=(0, 0)), set[str]()
    for (step, wait), objects in judgement.reference.rests.items():
        found = judgement.run.rests.get((step, wait))
        if found is None:
            continue
        for text in _differences(objects, found, set(judgement.varies), somebodys):
            if text not in told:
                yield text if (step, wait) == last else f"after step {step}: {text}"
            told.add(text)


def _differences(
    before: list[JSONObject],
    after: list[JSONObject],
    varies: Collection[tuple[ObjectKey, str]],
    somebodys: Collection[str],
) -> Iterator[str]:
    compared = compare_states(comparable(before), comparable(after), varies=lambda key, path: (key, path) in varies)
    for difference in compared:
        if difference.before is None and difference.after is not None and _uid(difference.after) in somebodys:
            continue
        if difference.what != "changed" or not all(_is_foreign(each.after, each.before) for each in difference.fields):
            yield str(difference)


def _uid(document: JSONObject) -> str:
    return str(document["metadata"]["uid"])


def _is_foreign(after: object, before: object) -> bool:
    """Return whether a value is what somebody wrote: an operator need not own every field."""
    return after == CHANGED or (type(after) is int and type(before) is int and after == before + 1)


def _stable(judgement: Judgement) -> Iterator[str]:
    for event in WorldTrace(judgement.run.again).writes():
        is_timed = event.run is not None and event.run.reasons == {reasons.REQUEUE_AFTER}
        if event.request is not None and not is_timed:  # the time of a timer may have come meanwhile
            yield f"nothing had changed, and yet a further reconcile wrote: {event.request.summary()}{_at(event)}"


def _counts(judgement: Judgement) -> Iterator[str]:
    if not judgement.disturbed:
        return
    most, found = _tally(judgement.reference, judgement.varies), _tally(judgement.run, judgement.varies)
    excused = Counter[str]()
    for event in judgement.run.trace.writes("somebody"):
        for change in event.changes:
            excused[key_of(change.document)[0]] += 1
    for what, count in found.items():
        done, kind, where = what
        if count > most[what] + excused[kind]:
            name = kind.partition(".")[0]
            usual = "never" if not most[what] else f"{most[what]} times" if most[what] > 1 else "once"
            yield f"{name} {done} {count} times for {where}, where the undisturbed run did so {usual}"


def _tally(run: Run, varies: Collection[tuple[ObjectKey, str]]) -> Counter[tuple[str, str, str]]:
    """Count what the operator created, deleted, restarted and drew anew, for each incarnation of the owner."""
    found: Counter[tuple[str, str, str]] = Counter()
    incarnations = _Incarnations()
    paths: defaultdict[ObjectKey, list[str]] = defaultdict(list)
    for key, path in varies:
        paths[key].append(path)
    for event in run.trace:
        for change in event.changes:
            incarnations.record(change)
            key = key_of(change.document)
            if event.author != "operator" or key[0] in _NOT_COMPARED or incarnations.is_collected(change.document):
                continue
            owner = incarnations.owner_of(change.document) or _key_text(event)
            if change.before is None:
                found["was created", key[0], owner] += 1
            elif change.after is None or _begins_deletion(change):
                found["was deleted", key[0], owner] += 1
            elif key[0] in _TEMPLATES and _get(change.before, "/spec/template") != _get(change.after, "/spec/template"):
                found["was restarted", key[0], owner] += 1
            for path in paths.get(key, ()):
                old = None if change.before is None else _get(change.before, path)
                new = None if change.after is None else _get(change.after, path)
                if new is not None and old != new:
                    found[f"got a new value at {path}", key[0], owner] += 1
    return found


def _begins_deletion(change: StateChange) -> bool:
    after, before = change.after or {}, change.before or {}
    return "deletionTimestamp" in after.get("metadata", {}) and "deletionTimestamp" not in before.get("metadata", {})


class _Incarnations:
    """Which incarnation of an object a uid is, such as the second."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self._counts: Counter[ObjectKey] = Counter()
        self._gone: set[str] = set()

    def record(self, change: StateChange) -> None:
        """Record a created or removed object."""
        if change.after is None:
            self._gone.add(_uid(change.document))
        if change.before is None:
            key = key_of(change.document)
            self._counts[key] += 1
            number = f" (incarnation {self._counts[key]})" if self._counts[key] > 1 else ""
            self._numbers[change.document["metadata"]["uid"]] = f"{describe_key(key)}{number}"

    def is_collected(self, document: JSONObject) -> bool:
        """Return whether all owners of an object are gone, so that the garbage collector removes it."""
        owners = {reference["uid"] for reference in document["metadata"].get("ownerReferences") or ()}
        return bool(owners) and owners <= self._gone

    def owner_of(self, document: JSONObject) -> str:
        """Return the controller of an object and its incarnation; ``""`` if it has none."""
        for reference in document["metadata"].get("ownerReferences") or ():
            if reference.get("controller"):
                return self._numbers.get(reference["uid"], f"{reference['kind']} {reference['name']}")
        return ""


def _key_text(event: TraceEvent) -> str:
    return "no object" if event.run is None else str(event.run.request)


def _get(document: JSONObject, path: str) -> Any:
    value: Any = document
    for part in path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _others(judgement: Judgement) -> Iterator[str]:
    somebodys: set[str] = set()
    usual = {key_of(event.changes[0].document) for event in judgement.reference.trace.writes() if event.changes}
    for event in judgement.run.trace:
        for change in event.changes:
            if change.before is None and event.author == "somebody":
                somebodys.add(change.document["metadata"]["uid"])
        entry = event.request
        if event.author != "operator" or entry is None or not event.changes or event.changes[0].before is None:
            continue
        document = event.changes[0].before
        references = document["metadata"].get("ownerReferences") or ()
        if document["metadata"]["uid"] in somebodys and not references:
            yield f"{entry.summary()}: the object belongs to somebody else{_at(event)}"
        other = next((each for each in references if each.get("controller") and _is_other(each, event)), None)
        if other is not None and (not judgement.disturbed or key_of(document) not in usual):
            yield f"{entry.summary()}: the object belongs to {other['kind']} {other['name']}{_at(event)}"


def _is_other(reference: Mapping[str, Any], event: TraceEvent) -> bool:
    """Return whether an owner is of the kind that is reconciled, and another object."""
    run = event.run
    return run is not None and reference["kind"].lower() == run.controller and reference["name"] != run.request.name


def _left_behind(judgement: Judgement) -> Iterator[str]:
    run = judgement.run
    alive = {each["metadata"]["uid"] for each in run.objects}
    for document in run.objects:
        key = key_of(document)
        if "deletionTimestamp" in document["metadata"]:
            finalizers = ", ".join(document["metadata"].get("finalizers") or ()) or "none"
            yield f"{describe_key(key)} is being deleted and does not go: its finalizers are {finalizers}"
    gone = _gone_primaries(run)
    for event in run.trace.writes():
        for change in event.changes:
            key = key_of(change.document)
            uid = change.document["metadata"]["uid"]
            if change.before is not None or uid not in alive or key[0] in _NOT_COMPARED or event.run is None:
                continue
            if (event.run.controller, event.run.request) in gone and not _owned_by_living(run, uid, alive):
                yield f"{describe_key(key)} is left behind by {event.run.request}, which is gone{_at(event)}"
            alive.discard(uid)


def _gone_primaries(run: Run) -> set[tuple[str, Any]]:
    """Return the controllers and keys whose object was there, and is gone at the end."""
    last: dict[tuple[str, Any], bool] = {}
    for event in run.trace:
        if event.what == "done" and event.run is not None:
            last[event.run.controller, event.run.request] = event.basis is None
    return {found for found, absent in last.items() if absent}


def _owned_by_living(run: Run, uid: str, alive: Collection[str]) -> bool:
    document = next(each for each in run.objects if each["metadata"]["uid"] == uid)
    return any(each["uid"] in alive for each in document["metadata"].get("ownerReferences") or ())


def _effects(judgement: Judgement) -> Iterator[str]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for event in judgement.run.trace:
        call = event.effect
        if call is not None and call.declaration.once:
            identity = call.name, call.key, _uid_of(call.arguments)
            counts[identity] += 1
            if counts[identity] == 2:
                yield f"{call.name}({call.key}) happened again, and is declared to happen once{_at(event)}"
    outstanding, usual = _outstanding(judgement.run), _outstanding(judgement.reference)
    for (name, key), undo in outstanding.items():
        if (name, key) not in usual if judgement.disturbed else not _is_left(judgement.run, key):
            yield f"{name}({key}) is not undone: {undo}({key}) does not follow it"
    for name, key in usual.keys() - outstanding.keys() if judgement.disturbed else ():
        yield f"{name}({key}) is undone or missing, unlike in the undisturbed run"


def _uid_of(arguments: Mapping[str, Any]) -> str:
    first = next(iter(arguments.values()), None)
    metadata = first.get("metadata") if isinstance(first, dict) else getattr(first, "metadata", None)
    uid = metadata.get("uid") if isinstance(metadata, dict) else getattr(metadata, "uid", None)
    return str(uid or "")


def _outstanding(run: Run) -> dict[tuple[str, str], str]:
    """Return the effects that are not undone, with the names of those that would undo them."""
    calls = [event.effect for event in run.trace if event.effect is not None]
    declarations = [each for call in calls for each in (call.declaration, *effects_of(call.reconciler).values())]
    undoes = {each.undoes: each.name for each in declarations if each.undoes}
    found: dict[tuple[str, str], str] = {}
    for call in calls:
        found.pop((call.declaration.undoes, call.key), None)
        if call.name in undoes:
            found[call.name, call.key] = undoes[call.name]
    return found


def _is_left(run: Run, key: str) -> bool:
    """Return whether an object that still exists is named by an effect's key, or has it in its spec or status."""
    names = {str(value) for each in run.objects for value in (each["metadata"]["uid"], each["metadata"]["name"])}
    content = msgspec.json.encode([(each.get("spec"), each.get("status")) for each in run.objects])
    return key in names or key.rpartition("/")[2] in names or msgspec.json.encode(key) in content


def _errors(judgement: Judgement) -> Iterator[str]:
    usual = {type(event.error) for event in judgement.reference.trace if event.what == "done" and event.error}
    seen: set[str] = set()
    for event in [*judgement.run.trace, *judgement.run.again]:
        error = event.error
        if error is None or event.what != "done":
            continue
        if judgement.disturbed and (isinstance(error, ReconcilerError | TimeoutError) or type(error) in usual):
            continue
        text = f"the reconcile of {event.key} failed: {describe_error(error)}"
        if text not in seen:
            seen.add(text)
            yield text


def _permissions(judgement: Judgement) -> Iterator[str]:
    for event in judgement.run.trace:
        entry = event.request
        if entry is not None and event.author == "operator" and entry.status == 403 and not entry.fault:
            yield f"{entry.summary()}: the roles of 'reconciler manifests' do not allow it{_at(event)}"


def _settles(judgement: Judgement) -> Iterator[str]:
    error = judgement.run.error
    if isinstance(error, NotSettled):
        yield str(error)


def _asserted(judgement: Judgement) -> Iterator[str]:
    error = judgement.run.error
    if error is not None and not isinstance(error, NotSettled):
        yield f"the scenario failed: {describe_error(error)}"
    if judgement.run.check is not None:
        yield f"a check of the scenario failed: {describe_error(judgement.run.check)}"


def _at(event: TraceEvent) -> str:
    return f" ({event.line})" if event.line else ""


ORACLES: Mapping[str, Callable[[Judgement], Iterator[str]]] = {
    "settles": _settles,
    "asserted": _asserted,
    "effects": _effects,
    "counts": _counts,
    "others": _others,
    "left-behind": _left_behind,
    "final-state": _final_state,
    "stable": _stable,
    "permissions": _permissions,
    "errors": _errors,
}
"""The oracles by their names, in the order in which they are asked."""


def judge(judgement: Judgement, oracles: Collection[str]) -> list[Finding]:
    """Return what the oracles find. If the operator does not come to rest, or the scenario fails, only that counts."""
    early = [name for name in ("settles", "asserted") if name in oracles and judgement.run.error is not None]
    chosen = early or [name for name in ORACLES if name in oracles and judgement.run.error is None]
    return [Finding(name, text) for name in chosen for text in ORACLES[name](judgement)]
