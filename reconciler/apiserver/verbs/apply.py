"""Answer server-side apply: what a configuration makes of an object, and who owns what then."""

from __future__ import annotations

from typing import Any

from reconciler.apiserver.encoding.refusals import Refusal, apply_conflict, bad_request, internal_error, invalid
from reconciler.apiserver.encoding.text import go_type
from reconciler.apiserver.ownership.field_sets import FieldSet, compare, owned, paths, union
from reconciler.apiserver.ownership.managed_fields import (
    NO_RESET,
    Change,
    Entry,
    Key,
    Owners,
    Reset,
    content_of,
    key_for,
    reset_by,
)
from reconciler.apiserver.ownership.merge import merge, prune
from reconciler.apiserver.requests.bodies import read_yaml, yaml_problem
from reconciler.apiserver.requests.routing import Call, truthy
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node
from reconciler.apiserver.storage.custom_contents import Contents
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs.write_rules import check_version, is_converted, unfit

__all__ = ["apply_new", "apply_over", "read_configuration"]

_UNOWNED = "before-first-apply"
"""The manager of what was there before anybody's ownership was kept."""


def read_configuration(call: Call) -> dict[str, Any]:
    """Return the configuration that a request applies; it and its metadata are private.

    Raises:
        Refusal: 400 for what is no object of the kind, 500 for one that does not fit the schema.
    """
    info, endpoint = call.endpoint.info, call.endpoint
    try:
        found = read_yaml(call.request.body, call.doubled)
    except Refusal as problem:
        raise bad_request(f"error decoding YAML: {problem.message}") from None
    if call.doubled and call.query.get("fieldValidation") == "Strict":
        words = f"error converting YAML to JSON: {yaml_problem(call.doubled)}"
        raise bad_request(f"error strict decoding YAML: {words}")
    found = {} if found is None else found
    if not isinstance(found, dict):
        wanted = f"cannot unmarshal {go_type(found)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: json: {wanted}")
    version, kind = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
    if version != endpoint.api_version or kind != info.kind:
        raise bad_request(f"invalid object type: {version if '/' in version else f'/{version}'}, Kind={kind}")
    about = found.get("metadata")
    metadata = dict(about) if isinstance(about, dict) else {}
    entries = metadata.get("managedFields")
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        raise bad_request("metadata.managedFields must be nil")
    if entries is None:
        metadata.pop("managedFields", None)
    name = metadata.setdefault("name", call.name)
    # What is no text, or no object, does not fit the schema, which is said below.
    if (about and not isinstance(about, dict)) or (name is not None and not isinstance(name, str)):
        name = ""
    elif not name:
        words = f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
        raise bad_request(words)
    elif name != call.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")
    config = {**found, "metadata": metadata if isinstance(about, dict) or not about else about}
    if text := unfit(call, config):
        kind = (
            f"{info.group}/{endpoint.version}, Kind={info.kind}"
            if not info.group
            else f"{endpoint.api_version}, Kind={info.kind}"
        )
        namespace = metadata.get("namespace")
        place = f"{namespace if isinstance(namespace, str) else ''}/{name}"
        raise internal_error(f"failed to create typed patch object ({place}; {kind}): {text}")
    return config


def apply_new(call: Call, config: dict[str, Any], owners: Owners) -> list[Entry]:
    """Return the ownership of an object that an apply creates."""
    place, content = call.endpoint.place, content_of(call, config)
    owners.apply(key_for(call, "Apply"), _applied(content, place), Change({}, content), place)
    _check_nulls(call, content, config, None)
    return owners.entries()


def apply_over(call: Call, config: dict[str, Any], old: Stored, owners: Owners) -> dict[str, Any]:
    """Return what a configuration makes of an object, and write down in `owners` who owns what then.

    Raises:
        Refusal: 409 for fields that others own when the request does not force, and for a version that is not the
            stored one, 422 for what became null and may not, 500 for a stored object that cannot be converted.
    """
    place, before = call.endpoint.place, call.endpoint.show(old.doc)
    if is_converted(call, before) and (text := unfit(call, before)):
        raise internal_error(text)
    key = key_for(call, "Apply")
    live, content = content_of(call, before), content_of(call, config)
    if not owners.sets and not before["metadata"].get("managedFields"):
        unowned = {"manager": _UNOWNED, "operation": "Update", "apiVersion": call.endpoint.api_version}
        if there := compare(call.endpoint.skeleton, live, place)[0]:
            owners.sets[Key(unowned)] = there
    last = owners.sets.get(key, {})
    fields = _applied(content, place)
    managed = fields
    for other, theirs in owners.sets.items():
        if other != key:
            managed = union(managed, theirs)
    merged = prune(merge(live, content, place), last, managed, place) or {}
    if "metadata" in live and not merged.get("metadata"):
        merged["metadata"] = {}
    reset = _reset(call, config, before)
    if not truthy(call.query.get("force", "")):
        found = owners.conflicts(key, live, merged, place, reset)
        if found:
            raise apply_conflict(sorted((str(other), list(paths(theirs))) for other, theirs in found.items()))
    beside = _asks_for_more(config, before) or bool(reset.changed or reset.removed)
    owners.apply(key, fields, Change(live, merged, reset, beside), place)
    doc = _assembled(call, config, before, merged)
    # What became empty became null, which a schema may not allow.
    _check_nulls(call, merged, doc, old)
    return doc


def _reset(call: Call, config: dict[str, Any], before: dict[str, Any]) -> Reset:
    if "status" not in config:
        return NO_RESET
    sent = merge(before.get("status"), config["status"], call.endpoint.place.child("status") or ANYTHING)
    return reset_by(call, before, {"status": sent})


def _check_nulls(call: Call, content: dict[str, Any], doc: dict[str, Any], old: Stored | None) -> None:
    """Refuse nulls where the schema has none; they are not pruned from what is applied."""
    info, contents = call.endpoint.info, call.endpoint.contents
    own = {key: value for key, value in content.items() if key != "metadata"}
    if _holds_null(own) and isinstance(contents, Contents) and _holds_null(_completed(own, contents.node)):
        if old is not None:
            check_version(call, old, doc["metadata"])
        before = None if old is None else call.endpoint.show(old.doc)
        errors = contents.check(_completed(doc, contents.node), before, call.subresource, blocked=True)
        if any(error.field != "<nil>" for error in errors):
            raise invalid(info.kind, info.group, call.name, errors)


def _asks_for_more(config: dict[str, Any], before: dict[str, Any]) -> bool:
    """Tell whether a configuration has other values than the object where only the server sets them."""
    asked, there = config["metadata"], before["metadata"]
    return any(key in asked and asked[key] != there.get(key) for key in _SERVERS_OWN)


_SERVERS_OWN = ("creationTimestamp", "generation", "selfLink")
"""The members of metadata that only the server sets, and nobody owns."""


def _applied(content: dict[str, Any], place: Node) -> FieldSet:
    """Return what a configuration owns."""
    return owned(_named(content), place, whole=False)


def _named(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "metadata" or value}


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(member is None or _holds_null(member) for member in value.values())
    return isinstance(value, list) and any(map(_holds_null, value))


def _completed(value: Any, node: Node) -> Any:
    """Return a value with the default, where there is one, in place of a null that may not be."""
    if isinstance(value, dict):
        return {key: _completed(member, node.child(key) or ANYTHING) for key, member in value.items()}
    if isinstance(value, list):
        return [_completed(item, node.items or ANYTHING) for item in value]
    return node.default if value is None and not node.nullable and node.default is not NO_DEFAULT else value


def _assembled(call: Call, config: dict[str, Any], before: dict[str, Any], merged: dict[str, Any]) -> dict[str, Any]:
    if call.subresource == "status" and call.endpoint.resource.custom:
        kept = {key: value for key, value in before.items() if key != "status"}
        return {**kept, **merged, "metadata": {**before["metadata"], **_identity(config)}}
    owned_metadata = content_of(call, before).get("metadata", {})
    metadata = {key: value for key, value in before["metadata"].items() if key not in owned_metadata}
    doc = {**merged, "apiVersion": before["apiVersion"], "kind": before["kind"]}
    if call.subresource == "status":
        doc = {key: value for key, value in before.items() if key != "status"} | doc
    elif "status" in call.endpoint.subresources and "status" in before:
        doc["status"] = before["status"]
    asked = {} if call.endpoint.resource.custom else {key: config["metadata"].get(key) for key in _SERVERS_OWN}
    # Built-in kinds are read as a whole, with what then stays as it was.
    unread = {key: value for key, value in asked.items() if value is not None}
    doc["metadata"] = {**metadata, **merged.get("metadata", {}), **_identity(config), **unread}
    return doc


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says about which object it means."""
    metadata = config["metadata"]
    found = {key: metadata[key] for key in ("uid", "namespace") if metadata.get(key)}
    if metadata.get("resourceVersion") is not None:
        found["resourceVersion"] = metadata["resourceVersion"]
    return found
