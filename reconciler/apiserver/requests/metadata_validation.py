"""Validation of ``metadata``: the rules of every kind, and those of built-in kinds."""

from __future__ import annotations

import functools
from collections.abc import Callable

from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.requests.metadata_decoding import OWNER_FIELDS
from reconciler.apiserver.schema.names import name_problems, path_name_problems
from reconciler.wire import JSONObject

__all__ = ["validate_built_in_metadata", "validate_metadata", "validate_metadata_update"]

_MAX_ANNOTATIONS = 256 * 1024


def validate_metadata(info: KindInfo, metadata: JSONObject) -> list[FieldError]:
    """Return what is wrong with the metadata of an object to be created."""
    name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
    errors = _validate_prefix(prefix, functools.partial(name_problems, rule=info.names))
    if not name:
        errors.append(FieldError.required("metadata.name", "name or generateName is required"))
    else:
        errors += (FieldError.invalid("metadata.name", name, problem) for problem in name_problems(name, info.names))
    return errors + _validate_maps(metadata)


def _validate_prefix(prefix: str, problems: Callable[[str], list[str]]) -> list[FieldError]:
    """Return what is wrong with a name prefix; a trailing dash is allowed, because a suffix follows it."""
    begun = f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
    found = problems(begun) if prefix else []
    return [FieldError.invalid("metadata.generateName", prefix, problem) for problem in found]


def validate_built_in_metadata(
    info: KindInfo, metadata: JSONObject, subresource: str, *, new: bool
) -> list[FieldError]:
    """Return what is wrong with metadata by the rules of a built-in kind, which apply besides those of every kind."""
    if new:
        return _validate_standard_finalizers(info, metadata, subresource)
    errors = [] if info.validated_once else _validate_standard_finalizers(info, metadata, subresource)
    if not subresource and info.validated_as_new:
        errors += _validate_prefix(metadata.get("generateName", ""), functools.partial(name_problems, rule=info.names))
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


_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def _validate_maps(metadata: JSONObject) -> list[FieldError]:
    if metadata.keys().isdisjoint(_CHECKED):
        return []
    errors = violations("meta.v1.ObjectMeta", metadata, None, "metadata")
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        errors.append(FieldError("metadata.annotations", message, "FieldValueTooLong"))
    return errors + _validate_owners(metadata.get("ownerReferences") or [])


_CHECKED = frozenset({"annotations", "finalizers", "labels", "ownerReferences"})


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
    prefix = _validate_prefix(metadata.get("generateName", ""), path_name_problems)
    maps = _validate_maps({key: value for key, value in metadata.items() if value is not before.get(key)})
    return [*prefix, *maps, *(errors + maps) * (1 if info.validated_once else 2)]
