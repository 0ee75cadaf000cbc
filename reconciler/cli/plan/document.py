"""The document of a plan, which ``reconciler plan --output json`` prints and ``--compare`` reads."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import msgspec
import yaml

from reconciler._core.redaction import redact
from reconciler._core.wire import JSONObject
from reconciler.apiserver.state import ForkReport
from reconciler.client.requests import SERVER_METADATA
from reconciler.meta.documents import merge_patch

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
    """

    name: str
    key: str
    controller: str
    lasting: bool
    calls: int


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
    notes: list[str] = msgspec.field(default_factory=list)
    reconciles: int = 0
    events: int = 0

    @property
    def exit_code(self) -> int:
        """0 if nothing would happen, 2 if something would, 1 if something failed."""
        if self.errors or self.outside or any(each.refused for each in self.objects):
            return 1
        return 2 if self.objects or self.unrest or any(each.lasting for each in self.effects) else 0


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
