"""``metadata`` as a client sent it: its decoding, the warnings about it, and its validation."""

from __future__ import annotations

from collections import Counter
from typing import Any

from reconciler._core.wire import JSONObject, JSONValue
from reconciler.apiserver.builtin.decoding import Decoding, Malformed, Place, restoring_problem
from reconciler.apiserver.builtin.kinds import KindInfo, metadata_node
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.encoding.formats import name_problems
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_type, quoted

OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
"""The fields of an owner reference, in the order of Go's struct."""
_MAX_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_CHECKED = frozenset({"annotations", "finalizers", "labels", "ownerReferences"})


def decode_metadata(found: JSONValue, decoding: Decoding, *, kind: str = "", lenient: bool = False) -> JSONObject:
    """Return a private copy of metadata with known fields only; empty fields are left out.

    Args:
        found: the value of ``metadata`` in the document.
        decoding: how it is decoded; records the unknown fields and the errors.
        kind: the built-in kind of the document, in whose errors fields are parts of it; empty for a custom one.
        lenient: leave out times and numbers that cannot be read.
    """
    if found is None:
        return {}
    if not isinstance(found, dict):
        target = f"Go struct field {kind}.metadata" if kind else "Go value"
        problem = f"json: cannot unmarshal {go_type(found)} into {target} of type v1.ObjectMeta"
        decoding.problems.append(Malformed(problem, restoring_problem(found, metadata_node())))
        decoding.problems[-1].member = "metadata"
        return {}
    metadata: JSONObject = {}
    for key, value in found.items():
        node = metadata_node().properties.get(key)
        if node is None:
            decoding.unknown.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        kept: Any = value
        # The content of managedFields is checked when it is used.
        if key != "managedFields" or type(value) is not list or any(type(entry) is not dict for entry in value):
            place = Place(decoding, f"metadata.{key}", f"metadata.{key}" if kind else key, "ObjectMeta")
            known = len(decoding.problems)
            kept = decoding.read_member("metadata", value, node, place)
            if lenient and (node.format == "date-time" or node.type == "integer"):
                del decoding.problems[known:]
        if key == "ownerReferences" and not decoding.problems:
            kept = _owners(kept)
        # An empty managedFields resets ownership; a missing one does not.
        if kept or kept == 0 or key == "managedFields":
            metadata[key] = kept
    return metadata


def _owners(owners: list[JSONObject]) -> list[JSONObject]:
    """Return the owners without duplicates, with the required fields filled in."""
    kept: dict[frozenset[tuple[str, object]], JSONObject] = {}
    for owner in owners:
        cleaned = {key: owner[key] for key in OWNER_FIELDS if owner.get(key) is not None}
        for key in ("apiVersion", "kind", "name", "uid"):
            cleaned.setdefault(key, "")
        kept.setdefault(frozenset(cleaned.items()), cleaned)
    found = list(kept.values())
    return owners if found == owners else found


def metadata_warnings(found: JSONObject, before: JSONObject, *, custom: bool) -> list[str]:
    """Return the warnings about metadata as a client sent it; finalizers are checked only for custom kinds."""
    warnings = []
    finalizers = found.get("finalizers")
    if custom and isinstance(finalizers, list):
        added = {name for name in finalizers if isinstance(name, str)} - set(before.get("finalizers") or ())
        warnings += [
            f"metadata.finalizers: {quoted(name)}: prefer a domain-qualified finalizer name"
            f"{' including a path (/)' if '.' in name else ''} to avoid accidental conflicts with other finalizer "
            "writers"
            for name in sorted(added)
            if "/" not in name and name not in ("orphan", "foregroundDeletion")
        ]
    owners = found.get("ownerReferences")
    if isinstance(owners, list) and len(owners) > 1:
        uids = Counter(str(owner.get("uid")) for owner in owners if isinstance(owner, dict))
        twice = sorted(uid for uid, count in uids.items() if count > 1)
        if twice:
            warnings.append(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, "
                "and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
                + ", ".join(twice)
            )
    return warnings


def validate_metadata(info: KindInfo, metadata: JSONObject) -> list[FieldError]:
    """Return what is wrong with the metadata of an object to be created."""
    name, errors = metadata.get("name", ""), _validate_prefix(metadata, info.names)
    if not name:
        errors.append(FieldError.required("metadata.name", "name or generateName is required"))
    else:
        errors += (FieldError.invalid("metadata.name", name, problem) for problem in name_problems(name, info.names))
    return errors + _validate_maps(metadata)


def _validate_prefix(metadata: JSONObject, rule: str) -> list[FieldError]:
    """Return what is wrong with a name prefix; a trailing dash is allowed, because a suffix follows it."""
    prefix = metadata.get("generateName", "")
    begun = f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
    found = name_problems(begun, rule) if prefix else []
    return [FieldError.invalid("metadata.generateName", prefix, problem) for problem in found]


def validate_built_in_metadata(
    info: KindInfo, metadata: JSONObject, subresource: str, *, new: bool
) -> list[FieldError]:
    """Return what is wrong with metadata by the rules of a built-in kind, which apply besides those of every kind."""
    if new:
        return _validate_standard_finalizers(info, metadata, subresource)
    errors = [] if info.validated_once else _validate_standard_finalizers(info, metadata, subresource)
    if not subresource and info.validated_as_new:
        errors += _validate_prefix(metadata, info.names)
        errors += _validate_maps(metadata) + _validate_standard_finalizers(info, metadata, subresource)
    return errors


def _validate_standard_finalizers(info: KindInfo, metadata: JSONObject, subresource: str) -> list[FieldError]:
    if {"", subresource} & {*info.free_finalizers}:
        return []
    message = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        FieldError.invalid(f"metadata.finalizers[{index}]", name, message)
        for index, name in enumerate(metadata.get("finalizers") or ())
        if "/" not in name and name not in _STANDARD_FINALIZERS
    ]


def _validate_maps(metadata: JSONObject) -> list[FieldError]:
    if metadata.keys().isdisjoint(_CHECKED):
        return []
    errors = violations("meta.v1.ObjectMeta", metadata, None, "metadata")
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        errors.append(FieldError("metadata.annotations", message, "FieldValueTooLong"))
    return errors + _validate_owners(metadata.get("ownerReferences") or [])


def _validate_owners(owners: list[JSONObject]) -> list[FieldError]:
    field = "metadata.ownerReferences"
    errors = []
    for owner in owners:
        if owner.get("kind") == "Event" and owner.get("apiVersion") in ("v1", "events.k8s.io/v1"):
            group, _, version = owner["apiVersion"].rpartition("/")
            message = f"{group}/{version}, Kind=Event is disallowed from being an owner"
            errors.append(FieldError.invalid_struct(field, _in_order(owner), message))
    controllers = [f"{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        found = f'Found "true" in references for {controllers[0]} and {controllers[1]}'
        message = f"Only one reference can have Controller set to true. {found}"
        errors.append(FieldError.invalid_struct(field, [_in_order(owner) for owner in owners], message))
    return errors


def _in_order(owner: JSONObject) -> JSONObject:
    return {key: owner[key] for key in OWNER_FIELDS if key in owner}


def validate_metadata_update(info: KindInfo, metadata: JSONObject, before: JSONObject) -> list[FieldError]:
    """Return what is wrong with a change of metadata; fields of the server that the client omits count as unchanged.

    The real server validates metadata more than once, and reports its findings each time.
    """
    errors = [
        FieldError.invalid(f"metadata.{key}", metadata.get(key, ""), "field is immutable")
        for key in ("name", "uid", "deletionTimestamp")
        if (metadata.get(key) or key == "name") and metadata.get(key) != before.get(key)
    ]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is not None and grace != before.get("deletionGracePeriodSeconds"):
        errors.append(FieldError.invalid("metadata.deletionGracePeriodSeconds", grace, "field is immutable"))
    if before.get("deletionTimestamp"):
        known = before.get("finalizers") or []
        added = [f'"{name}"' for name in metadata.get("finalizers") or [] if name not in known]
        if added:
            message = "no new finalizers can be added if the object is being deleted, found new finalizers []string"
            errors.append(FieldError.forbidden("metadata.finalizers", f"{message}{{{', '.join(added)}}}"))
    prefix = _validate_prefix(metadata, "path")
    maps = _validate_maps({key: value for key, value in metadata.items() if value is not before.get(key)})
    return [*prefix, *maps, *(errors + maps) * (1 if info.validated_once else 2)]
