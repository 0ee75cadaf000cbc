"""Serve ``/scale``: the number of replicas of an object as a document of its own."""

from __future__ import annotations

from typing import Any

from reconciler.apiserver.builtin.decoding import BuiltInContents, Malformed
from reconciler.apiserver.builtin.types import metadata_node
from reconciler.apiserver.encoding.refusals import (
    FieldError,
    Refusal,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from reconciler.apiserver.encoding.text import go_json, go_value, quoted
from reconciler.apiserver.requests.bodies import (
    APPLY_PATCH,
    STRATEGIC_PATCH,
    check_options,
    decode,
    media_type,
    patch_type,
    read_object,
)
from reconciler.apiserver.requests.metadata_reading import read_metadata
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.registry import Endpoint, ScalePaths
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.subresources.option_kinds import scalar, struct
from reconciler.apiserver.subresources.scale_owners import scaled_entries
from reconciler.apiserver.verbs.documents import in_order_of, no_metadata, worst
from reconciler.apiserver.verbs.json_patch import merge_patch
from reconciler.apiserver.verbs.patch import patched
from reconciler.apiserver.verbs.write import Writer, Written
from reconciler.apiserver.verbs.write_rules import check_named, check_place, entries_of, uid_problem

__all__ = ["Scaler", "read_scale"]

_VERSION = "autoscaling/v1"

_UNKNOWN = 'no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"'
"""How a custom kind's server refuses any Scale that it cannot read."""

_UNSET = -(2**31)
"""What a Scale shows to a patch where a custom object says nothing of replicas, as the real server has it."""


_COUNT, _TEXT = scalar("integer", "int32", "int32"), scalar("string", "string")
_TYPE = struct(
    "Scale",
    apiVersion=_TEXT,
    kind=_TEXT,
    metadata=metadata_node(),
    spec=struct("ScaleSpec", replicas=_COUNT),
    status=struct("ScaleStatus", replicas=_COUNT, selector=_TEXT),
)
_CONTENTS = BuiltInContents(_TYPE)

_BUILT_IN = ScalePaths(".spec.replicas", ".status.replicas", "")


def _paths(endpoint: Endpoint) -> ScalePaths:
    return endpoint.scale or _BUILT_IN


def _get(doc: Any, path: str) -> Any:
    for part in path.lstrip(".").split("."):
        doc = doc.get(part) if isinstance(doc, dict) else None
    return doc


def _put(doc: dict[str, Any], parts: list[str], value: Any) -> dict[str, Any]:
    inner = doc.get(parts[0])
    if len(parts) > 1:
        value = _put(inner if isinstance(inner, dict) else {}, parts[1:], value)
    return {**doc, parts[0]: value}


def scale_of(endpoint: Endpoint, stored: Stored) -> dict[str, Any]:
    """Return the Scale of a stored object."""
    doc, paths = stored.doc, _paths(endpoint)
    metadata = {
        key: doc["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in doc["metadata"]
    }
    status: dict[str, Any] = {"replicas": _get(doc, paths.status) or 0}
    selector = _get(doc, paths.selector) if paths.selector else _selector(doc)
    if selector:
        status["selector"] = selector
    replicas = _get(doc, paths.spec)
    spec = {} if not replicas else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def read_scale(endpoint: Endpoint, stored: Stored) -> dict[str, Any]:
    """Return the Scale of a stored object to who asks for it.

    Raises:
        Refusal: 500 for a custom object that says nothing of replicas, as the real server has it.
    """
    path = _paths(endpoint).spec
    if endpoint.resource.custom and _get(stored.doc, path) is None:
        problem = f'the spec replicas field "{path}" does not exist'
        causes = {"causes": [{"message": problem}]}
        raise Refusal(500, "InternalError", f"Internal error occurred: {problem}", details=causes)
    return scale_of(endpoint, stored)


def _selector(doc: dict[str, Any]) -> str:
    selector = (doc.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str))


class Scaler:
    """Write Scales.

    Args:
        writer: writes the objects behind them.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, call: Call) -> Written:
        """Update or patch a Scale.

        Raises:
            Refusal: 400, 404, 409 or 422 as for the object itself.
        """
        endpoint, info = call.endpoint, call.endpoint.info
        if call.verb == "patch":
            patch_type(call)
        dry_run = check_options(call)
        sent = _sent(call) if call.verb == "update" else None
        old = self._writer.find(call)
        if old is None:
            raise not_found(info.plural, info.group, call.name)
        current = scale_of(endpoint, old)
        if endpoint.resource.custom and _get(old.doc, _paths(endpoint).spec) is None:
            current["spec"]["replicas"] = _UNSET
        scale = _patched(call, current) if sent is None else sent
        replicas, warnings = _read(call, scale)
        _check_object(call, scale, old)
        if replicas == _UNSET and endpoint.resource.custom:
            raise bad_request(f'the spec replicas field "{_paths(endpoint).spec}" cannot be empty')
        if replicas < 0 and not endpoint.resource.custom:
            words = f"Invalid value: {replicas}: must be greater than or equal to 0"
            raise invalid("Scale", "autoscaling", call.name, [FieldError("spec.replicas", words)])
        doc = _put(endpoint.show(old.doc), _paths(endpoint).spec.lstrip(".").split("."), replicas)
        version = (scale.get("metadata") or {}).get("resourceVersion") or str(old.rv)
        doc["metadata"] = {**doc["metadata"], "resourceVersion": version}
        negative = replicas < 0 and call.endpoint.resource.custom
        problem = f"Invalid value: {replicas}: should be a non-negative integer"
        errors = [FieldError(_paths(endpoint).spec, problem)] if negative else []
        entries = scaled_entries(
            call,
            entries_of(old),
            path=_paths(endpoint).spec,
            before=current["spec"].get("replicas", 0),
            after=replicas,
        )
        written = self._writer.change(call, old, doc, warnings, dry_run=dry_run, entries=entries, findings=errors)
        if written.stored is not None:
            written.document, written.stored = scale_of(endpoint, written.stored), None
        return written


def _sent(call: Call) -> dict[str, Any]:
    """Return the Scale that an update carries."""
    try:
        scale = read_object(call.request, "Scale")
    except Refusal as refusal:
        raise bad_request(_UNKNOWN) if refusal.code == 400 and call.endpoint.resource.custom else refusal from None
    version, kind = str(scale.get("apiVersion") or _VERSION), str(scale.get("kind") or "Scale")
    if (version, kind) != (_VERSION, "Scale"):
        problem = f'no kind "{kind}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
        raise _unfit(call, {**scale, "apiVersion": version, "kind": kind}, problem)
    _read(call, scale)
    _check_place(call, scale)
    return scale


def _patched(call: Call, current: dict[str, Any]) -> dict[str, Any]:
    """Return what a patch makes of a Scale."""
    kind = media_type(call.request)
    found = merge_patch(current, decode(call.request.body)) if kind == APPLY_PATCH else patched(call, kind, current)
    if not isinstance(found, dict):
        raise bad_request("the patch leaves no Scale")
    if kind not in (APPLY_PATCH, STRATEGIC_PATCH) and (found.get("apiVersion"), found.get("kind")) != (
        _VERSION,
        "Scale",
    ):
        version, name = found.get("apiVersion") or "", found.get("kind") or ""
        problem = f'no kind "{name}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
        raise _unfit(call, found, problem)
    return found


def _check_place(call: Call, scale: dict[str, Any]) -> None:
    metadata = dict(scale.get("metadata") or {})
    check_named(call, metadata)
    check_place(call, metadata)


def _check_object(call: Call, scale: dict[str, Any], old: Stored) -> None:
    """Refuse a Scale that is of another object."""
    _check_place(call, scale)
    info, uid = call.endpoint.info, (scale.get("metadata") or {}).get("uid")
    if not uid or uid == old.uid:
        return
    if call.verb == "update":
        raise conflict(info.plural, info.group, call.name, uid_problem(call, uid, old.uid))
    if not call.endpoint.resource.custom:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
        raise conflict(f"{info.plural}/scale", info.group, call.name, why)


def _read(call: Call, scale: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the replicas that a Scale asks for, and warnings of members that no Scale has.

    Raises:
        Refusal: 400 or 422 for what cannot be read as a Scale, or has such members when the request is strict.
    """
    restored = call.verb == "patch" and media_type(call.request) == STRATEGIC_PATCH
    found = dict(sorted(scale.items())) if call.verb == "patch" else scale
    unknown: list[str] = []
    malformed: dict[str, Malformed] = {}
    try:
        read_metadata(found.get("metadata"), unknown, where="metadata.", restored=restored)
    except Malformed as problem:
        malformed["metadata"] = no_metadata(found["metadata"], "Scale", problem)
    document: dict[str, Any] = {}
    try:
        document = _CONTENTS.decode(found, None, unknown, restored=restored)
    except Malformed as problem:
        malformed[problem.member] = problem
    if malformed:
        order = None if restored else list(found)
        raise _unfit(call, found, worst(found, malformed, _TYPE.properties, order=order), restored=restored)
    problems = [f"unknown field {quoted(path)}" for path in in_order_of(found, unknown)]
    validation = call.query.get("fieldValidation", "")
    if problems and validation == "Strict":
        raise _unfit(call, found, f"strict decoding error: {', '.join(problems)}", restored=restored)
    call.noted = [] if validation == "Ignore" else problems
    return (document.get("spec") or {}).get("replicas") or 0, list(call.noted)


def _unfit(call: Call, scale: dict[str, Any], problem: str, *, restored: bool = False) -> Refusal:
    """Make the refusal of what cannot be read as a Scale."""
    if call.verb == "update" and call.endpoint.resource.custom:
        return bad_request(_UNKNOWN)
    if call.verb == "update":
        kind, version = scale.get("kind") or "Scale", str(scale.get("apiVersion") or "v1").rpartition("/")[2]
        return bad_request(f'{kind} in version "{version}" cannot be handled as a Scale: {problem}')
    shown = quoted(go_value(decode(call.request.body))) if restored else go_json(go_json(scale))
    return invalid("", "", "", [FieldError("patch", f"Invalid value: {shown}: {problem}")])
