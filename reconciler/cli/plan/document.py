"""The document of a plan, as JSON and as text, and the comparison of two plans on the same fork."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import yaml

from reconciler._core.redaction import redact
from reconciler._core.wire import JSONObject
from reconciler.apiserver.state import ForkReport
from reconciler.client.requests import SERVER_METADATA
from reconciler.meta.documents import human_duration, merge_patch
from reconciler.testing.differences import compare_states, describe_key

Action = Literal["created", "changed", "deleted"]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MASK = "***"


class PlannedBy(msgspec.Struct, frozen=True, rename="camel"):
    """The reconcile that did something.

    Attributes:
        controller: the name of the controller.
        kind: the kind that it reconciles.
        object: the key.
        reasons: why it ran.
    """

    controller: str
    kind: str
    object: str
    reasons: list[str]

    def __str__(self) -> str:
        return f"{self.kind} {self.object} of {self.controller} ({', '.join(self.reasons) or 'no reason'})"


class PlannedObject(msgspec.Struct, rename="camel", omit_defaults=True):
    """An object that is not afterwards as it was before.

    Attributes:
        api_version: the version in which it is shown.
        kind: its kind.
        namespace: its namespace; empty for none.
        name: its name.
        action: what happened to it, all in all.
        before: the document before, without what the server sets and with Secrets masked; None if it is created.
        after: the document afterwards, likewise; None if it is deleted.
        diff: the lines that differ, as ``kubectl diff`` prints them.
        by: the reconciles that did it; empty for what the cluster itself does, such as garbage collection.
        waits_for: the finalizers that a deletion waits for.
        refused: why the cluster would refuse the change; empty if it was not asked, or allows it.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    action: Action
    before: JSONObject | None = None
    after: JSONObject | None = None
    diff: str = ""
    by: list[PlannedBy] = msgspec.field(default_factory=list)
    waits_for: list[str] = msgspec.field(default_factory=list)
    refused: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies the object: group, kind, namespace and name."""
        return self.api_version.rpartition("/")[0], self.kind, self.namespace, self.name

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


class PlannedError(msgspec.Struct, frozen=True, rename="camel"):
    """A key whose last reconcile failed.

    Attributes:
        controller: the name of the controller.
        object: the key.
        error: the type and the message of the exception.
        place: file, line and function.
    """

    controller: str
    object: str
    error: str
    place: str = ""


class PlannedCall(msgspec.Struct, frozen=True, rename="camel"):
    """A call that would leave the cluster, and was not made.

    Attributes:
        name: the declared effect; or the method and URL of a request of another library.
        key: what the effect concerns; or the line that sends the request.
        controller: the controller whose reconcile calls it; empty outside of reconciles.
        lasting: whether it counts as a change: the effect must happen once, or undoes another one. All others may be
            called again at each reconcile.
        calls: how often.
        objects: the keys whose reconciles called it.
    """

    name: str
    key: str
    controller: str
    lasting: bool
    calls: int
    objects: list[str] = msgspec.field(default_factory=list)


class Unrest(msgspec.Struct, frozen=True, rename="camel"):
    """Objects of a kind that change again at each reconcile.

    Attributes:
        controller: the controller.
        kind: the kind of the objects that change.
        objects: how many.
        fields: JSON pointers of what changes each time.
        example: one of the objects.
    """

    controller: str
    kind: str
    objects: int
    fields: list[str]
    example: str


class PlannedTimer(msgspec.Struct, frozen=True, rename="camel"):
    """Objects that are reconciled again after a time.

    Attributes:
        controller: the controller.
        objects: how many.
        seconds: from now, at the earliest.
    """

    controller: str
    objects: int
    seconds: float


class OperatorPlan(msgspec.Struct, rename="camel"):
    """What an operator would do to the objects of a cluster.

    Attributes:
        target: the operator.
        fork: what the plan knows of the cluster.
        objects: the objects that it would create, change and delete.
        errors: the keys whose last reconcile failed.
        effects: the declared effects, which were not called.
        outside: requests of other libraries, which were not sent.
        unrest: what never comes to rest.
        timers: what is reconciled again later.
        incomplete: what ended the plan although the operator still worked, and at what; empty if it came to its end.
        notes: what limits the plan.
        reconciles: how many there were.
        events: how many Events they recorded.
    """

    target: str
    fork: ForkReport
    objects: list[PlannedObject] = msgspec.field(default_factory=list)
    errors: list[PlannedError] = msgspec.field(default_factory=list)
    effects: list[PlannedCall] = msgspec.field(default_factory=list)
    outside: list[PlannedCall] = msgspec.field(default_factory=list)
    unrest: list[Unrest] = msgspec.field(default_factory=list)
    timers: list[PlannedTimer] = msgspec.field(default_factory=list)
    incomplete: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    reconciles: int = 0
    events: int = 0

    @property
    def problems(self) -> list[str]:
        """Why what the plan says may be too little; empty if it came to its end."""
        return [f"{self.incomplete}; more may change"] if self.incomplete else []

    @property
    def exit_code(self) -> int:
        """0 if nothing would happen, 2 if something would, 1 if something failed or the plan is incomplete."""
        if self.incomplete or self.errors or self.outside or any(each.refused for each in self.objects):
            return 1
        return 2 if self.objects or self.unrest or any(each.lasting for each in self.effects) else 0

    def lines(self, *, color: bool) -> Iterator[str]:
        """Yield the plan as text; diffs have the colors of ``kubectl diff``."""
        return _plan_lines(self, color=color)


def planned_object(before: JSONObject | None, after: JSONObject | None) -> PlannedObject | None:
    """Return what a plan shows of an object; None if nothing differs but what the server sets.

    The values of Secrets are masked, and so is text that looks like a secret.
    """
    document: JSONObject = after or before or {}
    metadata = document["metadata"]
    dying = (
        after is not None
        and metadata.get("deletionTimestamp")
        and not (before or after)["metadata"].get("deletionTimestamp")
    )
    action: Action = "created" if before is None else "deleted" if after is None or dying else "changed"
    if before is None and after is not None:
        after = _as_applied(after)
    shown = [None if before is None else _shown(before), None if after is None else _shown(after)]
    if shown[0] == shown[1]:
        return None
    masked = [
        None if shown[0] is None else _masked(shown[0], shown[1], "before"),
        None if shown[1] is None else _masked(shown[1], shown[0], "after"),
    ]
    found = PlannedObject(
        api_version=str(document.get("apiVersion", "")),
        kind=str(document.get("kind", "")),
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata["name"]),
        action=action,
        before=masked[0],
        after=masked[1],
        waits_for=list(metadata.get("finalizers") or ()) if dying else [],
    )
    found.diff = unified_diff(str(found), masked[0], masked[1], ("before", "after"))
    return found


def unified_diff(subject: str, before: JSONObject | None, after: JSONObject | None, labels: tuple[str, str]) -> str:
    """Return the difference of two documents as YAML, in unified form."""
    old, new = ([] if each is None else _yaml(each) for each in (before, after))
    lines = difflib.unified_diff(old, new, f"{labels[0]}/{subject}", f"{labels[1]}/{subject}", lineterm="")
    return "\n".join(lines) or "  (only values that are masked differ)"


def _yaml(document: JSONObject) -> list[str]:
    return yaml.safe_dump(document, allow_unicode=True, width=1000).splitlines()


def _shown(document: JSONObject) -> JSONObject:
    """Return a document without what only the server writes; a deletion has an effect of its own."""
    metadata = {key: value for key, value in document["metadata"].items() if key not in SERVER_METADATA}
    owners = metadata.get("ownerReferences")
    if owners:
        metadata["ownerReferences"] = [{key: each[key] for key in each if key != "uid"} for each in owners]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    if document["metadata"].get("deletionTimestamp"):
        metadata["deletionTimestamp"] = "set"
    return {**document, "metadata": metadata}


def _as_applied(document: JSONObject) -> JSONObject:
    """Return a document without the fields that nobody applied: the server's defaults.

    Objects that were created otherwise are returned as they are, since their managed fields include the defaults.
    """
    entries = document["metadata"].get("managedFields") or []
    if not entries or any(each.get("operation") != "Apply" for each in entries):
        return document
    owned: JSONObject = {"f:apiVersion": {}, "f:kind": {}, "f:metadata": {"f:name": {}, "f:namespace": {}}}
    for each in entries:
        owned = merge_patch(owned, each.get("fieldsV1") or {})
    return dict(_owned(document, owned))


def _owned(value: Any, fields: JSONObject) -> Any:
    if isinstance(value, dict) and fields:
        return {key: _owned(member, fields[f"f:{key}"]) for key, member in value.items() if f"f:{key}" in fields}
    if isinstance(value, list) and any(name.startswith("k:") for name in fields):
        return [_owned(item, found) for item in value if (found := _of_item(item, fields)) is not None]
    return value


def _of_item(item: Any, fields: JSONObject) -> JSONObject | None:
    """Return the fields of an item of a list that are owned; None if none is."""
    for name, found in fields.items():
        keys = msgspec.json.decode(name[2:]) if name.startswith("k:") else None
        if keys is not None and all(item.get(key) == value for key, value in keys.items()):
            return {member: below for member, below in found.items() if member != "."}
    return None


def _masked(document: JSONObject, other: JSONObject | None, side: str) -> JSONObject:
    """Return a document without secrets; values that differ from those of the other side are marked, as by kubectl."""
    if document.get("kind") == "Secret" and document.get("apiVersion") == "v1":
        for name in ("data", "stringData"):
            others = (other or {}).get(name) or {}
            masked = {
                key: _MASK if value == others.get(key, value) else f"{_MASK} ({side})"
                for key, value in (document.get(name) or {}).items()
            }
            document = {**document, name: masked} if masked else document
    text = msgspec.json.encode(document).decode()
    clean = redact(text)
    return document if clean == text else msgspec.json.decode(clean, type=dict[str, Any])


_COLORS = {"-": "31", "+": "32", "@": "36"}
_SIGNS = {"created": "+", "changed": "~", "deleted": "-"}
_MOST = 3
_MANY = 20


def _plan_lines(plan: OperatorPlan, *, color: bool) -> Iterator[str]:
    for each in plan.objects:
        yield from _object_lines(each, color=color)
    yield from _section(
        "Errors", [f"{each.controller} {each.object}: {each.error}{_at(each.place)}" for each in plan.errors]
    )
    effects = [f"{each.controller}: {each.name} {each.key}{_times(each.calls)}" for each in plan.effects]
    yield from _section("Effects outside of the cluster, which were not called", effects)
    outside = [
        f"{each.controller or 'operator'}: {each.name}{_times(each.calls)}{_at(each.key)}" for each in plan.outside
    ]
    yield from _section("Requests of other libraries, which were not sent; a fork cannot stand in for them", outside)
    yield from _section("Never at rest", [_unrest_line(each) for each in plan.unrest])
    yield from _section("Timers", [_timer_line(each) for each in plan.timers])
    yield from _section("Incomplete", plan.problems)
    yield from _section("Note", plan.notes)
    yield summary(plan)


def _object_lines(planned: PlannedObject, *, color: bool) -> Iterator[str]:
    yield _paint(f"{_SIGNS[planned.action]} {planned} is {planned.action}", "1", color=color)
    shown = [str(each) for each in planned.by[:_MOST]] + [f"{len(planned.by) - _MOST} more"] * (len(planned.by) > _MOST)
    yield f"  by {', '.join(shown) or 'the cluster itself, which follows a change of another object'}"
    if planned.waits_for:
        yield f"  its deletion waits for the finalizers {', '.join(planned.waits_for)}"
    if planned.refused:
        yield _paint(f"  the cluster refuses this: {planned.refused}", "31", color=color)
    if planned.diff and planned.action != "deleted":
        yield from _painted(planned.diff, color=color)
    yield ""


def _unrest_line(each: Unrest) -> str:
    what = f"{_count(each.objects, each.kind)} {_verb('change', each.objects)} again at each reconcile"
    return f"{what} of {each.controller}: {', '.join(map(_dotted, each.fields))} ({each.example})"


def _timer_line(each: PlannedTimer) -> str:
    act = _verb("act", each.objects)
    return f"{_count(each.objects, 'object')} of {each.controller} {act} again in {human_duration(each.seconds)}"


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {line}" for line in lines[:_MANY])
        if len(lines) > _MANY:
            yield f"  and {len(lines) - _MANY} more"
        yield ""


def summary(plan: OperatorPlan) -> str:
    """Return the last line of a plan."""
    counts = [f"{sum(each.action == action for each in plan.objects)} {action}" for action in _SIGNS]
    refused = sum(bool(each.refused) for each in plan.objects)
    more = [(len(plan.errors), "error"), (len(plan.effects), "effect"), (plan.events, "Event"), (refused, "refusal")]
    counts += [_count(number, name) for number, name in more if number]
    title = "Incomplete plan" if plan.incomplete else "Plan"
    return f"{title}: {', '.join(counts)}; {_count(plan.reconciles, 'reconcile')}."


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _verb(name: str, number: int) -> str:
    return f"{name}s" if number == 1 else name


def _times(calls: int) -> str:
    return "" if calls == 1 else f", {calls} times"


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _dotted(pointer: str) -> str:
    return pointer.removeprefix("/").replace("/", ".")


def _painted(diff: str, *, color: bool) -> Iterator[str]:
    return (_paint(line, _COLORS.get(line[:1], "0"), color=color) for line in diff.splitlines())


def _paint(text: str, code: str, *, color: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if color and code != "0" else text


class ObjectComparison(msgspec.Struct, frozen=True, rename="camel"):
    """An object that two plans leave differently.

    Attributes:
        object: kind, namespace and name.
        diff: what differs, from the other plan to this one.
    """

    object: str
    diff: str


class Comparison(msgspec.Struct, frozen=True, rename="camel"):
    """What differs between two plans.

    Attributes:
        target: the operator.
        other: the operator that it is compared with.
        objects: the objects that they leave differently.
        only: errors, effects, unrest and timers of this operator alone.
        only_other: those of the other alone.
        both: what fails in both.
        incomplete: which of the plans did not come to its end, and why.
        failed: the operators whose plans failed or are incomplete.
    """

    target: str
    other: str
    objects: list[ObjectComparison]
    only: list[str]
    only_other: list[str]
    both: list[str]
    incomplete: list[str]
    failed: list[str]

    @property
    def exit_code(self) -> int:
        """1 if a plan failed or is incomplete; otherwise 0 if nothing differs, and 2 if something does."""
        return 1 if self.failed else 2 if self.objects or self.only or self.only_other else 0

    def lines(self, *, color: bool) -> Iterator[str]:
        """Yield the comparison as text."""
        for each in self.objects:
            yield each.object
            yield from _painted(each.diff, color=color)
            yield ""
        yield from _section(f"Only {self.target}", self.only)
        yield from _section(f"Only {self.other}", self.only_other)
        yield from _section("Both", self.both)
        yield from _section("Incomplete", self.incomplete)
        number = len(self.objects)
        differ = f"{_count(number, 'object')} {_verb('differ', number)}"
        whose = "both plans" if len(self.failed) == 2 else " ".join(f"the plan of {each}" for each in self.failed)
        failed = f", and {whose} failed" if whose else ""
        yield f"Comparison of {self.target} with {self.other}: {differ}{failed}."


def compare(plan: OperatorPlan, other: OperatorPlan) -> Comparison:
    """Return what a plan does differently from another one."""
    own, others = ({each.key: each for each in one.objects} for one in (plan, other))
    keys = own.keys() | others.keys()
    states = [
        [found for key in keys if (found := _left(one.get(key), another.get(key))) is not None]
        for one, another in ((others, own), (own, others))
    ]
    objects = [
        ObjectComparison(
            f"{describe_key(each.key)}",
            unified_diff(describe_key(each.key), each.before, each.after, (other.target, plan.target)),
        )
        for each in compare_states(*states)
    ]
    said = [set(_sayings(one)) for one in (plan, other)]
    return Comparison(
        plan.target,
        other.target,
        objects,
        sorted(said[0] - said[1]),
        sorted(said[1] - said[0]),
        sorted(set(_failures(plan)) & set(_failures(other))),
        [f"{one.target}: {problem}" for one in (plan, other) for problem in one.problems],
        failed=[one.target for one in (plan, other) if one.exit_code == 1],
    )


def _left(planned: PlannedObject | None, other: PlannedObject | None) -> JSONObject | None:
    """Return how a plan leaves an object: as it was, if only the other plan changes it."""
    if planned is not None:
        return None if planned.action == "deleted" else planned.after
    return None if other is None else other.before


def _failures(plan: OperatorPlan) -> Iterator[str]:
    for error in plan.errors:
        yield f"error of {error.controller} {error.object}: {error.error}"
    for each in plan.objects:
        if each.refused:
            yield f"refused by the cluster: {each}: {each.refused}"
    for call in plan.outside:  # whose lines differ between versions of the code
        yield f"request of {call.controller or 'operator'}, not sent: {call.name}"


def _sayings(plan: OperatorPlan) -> Iterator[str]:
    yield from _failures(plan)
    for call in plan.effects:
        yield f"effect of {call.controller}: {call.name} {call.key}"
    for unrest in plan.unrest:
        yield f"never at rest: {unrest.objects} {unrest.kind} ({', '.join(unrest.fields)})"
    for timer in plan.timers:
        yield f"{timer.objects} objects of {timer.controller} act again in {human_duration(timer.seconds)}"
