"""The annotation of client-side apply, which a server-side apply of kubectl follows."""

from __future__ import annotations

from typing import Any

from reconciler.apiserver.encoding.json_documents import InvalidJSON, read_json
from reconciler.apiserver.encoding.text import go_json
from reconciler.apiserver.ownership.field_sets import FieldSet, compare, difference, fields_of
from reconciler.apiserver.ownership.managed_fields import ManagerKey, ownable_content
from reconciler.apiserver.requests.routing import Call
from reconciler.wire import JSONObject

__all__ = ["left_to_kubectl", "record_last_applied"]

_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
"""The field manager of ``kubectl apply --server-side``; other managers leave the annotation alone."""


def _annotation(doc: JSONObject) -> Any:
    return (doc["metadata"].get("annotations") or {}).get(_ANNOTATION)


def left_to_kubectl(
    call: Call, key: ManagerKey, before: JSONObject, conflicts: dict[ManagerKey, FieldSet]
) -> dict[ManagerKey, FieldSet]:
    """Return the conflicts that remain: kubectl may take over what it has applied on the client's side."""
    text = _annotation(before)
    if key.manager != _KUBECTL or not text:
        return conflicts
    try:
        applied = read_json(str(text).encode())
    except InvalidJSON:
        return conflicts
    if not isinstance(applied, dict) or applied.get("apiVersion") != call.endpoint.api_version:
        return conflicts
    schema, content = call.endpoint.schema, ownable_content(call, applied)
    changed, removed = compare(content, ownable_content(call, before), schema)
    allowed = difference(difference(fields_of(content, schema, whole=False), changed), removed)
    left = {other: difference(fields, allowed) for other, fields in conflicts.items()}
    return {other: fields for other, fields in left.items() if fields}


def record_last_applied(key: ManagerKey, config: JSONObject, doc: JSONObject) -> None:
    """Update the annotation of an object that kubectl has applied; without the annotation, do nothing."""
    if key.manager != _KUBECTL or not _annotation(doc):
        return
    metadata = dict(config["metadata"])
    if metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in metadata["annotations"].items() if key != _ANNOTATION}
    text = go_json({**config, "metadata": metadata}) + "\n"
    doc["metadata"]["annotations"] = {**doc["metadata"]["annotations"], _ANNOTATION: text}
