"""Read, check and compare `metadata`, by the rules that hold for every kind."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from reconciler.apiserver._built_in import metadata_node, read_value
from reconciler.apiserver._kinds import KindInfo
from reconciler.apiserver._names import (
    LABEL_VALUE_MESSAGE,
    is_label_value,
    name_problems,
    path_name_problems,
    qualified_name_problems,
)
from reconciler.apiserver._scalars import Malformed, Place, read_time, restoring_problem
from reconciler.apiserver._status import FieldError
from reconciler.apiserver._text import go_json, go_type

__all__ = [
    "FIXED_BESIDE_STATUS",
    "check_built_in_metadata",
    "check_metadata",
    "check_metadata_update",
    "metadata_beside_status",
    "metadata_warnings",
    "read_metadata",
]

_MAX_ANNOTATIONS = 256 * 1024

_STRINGS = frozenset(
    {
        "creationTimestamp",
        "deletionTimestamp",
        "generateName",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_NUMBERS = frozenset({"deletionGracePeriodSeconds", "generation"})
_MAPS = frozenset({"annotations", "labels"})
_TIMES = frozenset({"creationTimestamp", "deletionTimestamp"})
_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")


def read_metadata(
    found: Any, unknown: list[str], *, where: str = "", restored: bool = False, lenient: bool = False
) -> dict[str, Any]:
    """Return a private copy of metadata with nothing in it but what belongs there; empty members are left out.

    Args:
        found: what the document has under ``metadata``.
        unknown: collects the paths of members that do not belong there.
        where: the path of the members in complaints, ending with a dot.
        restored: the metadata is restored from untyped values, as `read_value` has it.
        lenient: leave out times and numbers that cannot be read.

    Raises:
        Malformed: a member has the wrong type.
    """
    if found is None:
        return {}
    if not isinstance(found, dict):
        problem = f"json: cannot unmarshal {go_type(found)} into Go value of type v1.ObjectMeta"
        raise Malformed(problem, restoring_problem(found, metadata_node()))
    metadata: dict[str, Any] = {}
    members = metadata_node().properties
    for key, value in found.items():
        if key not in members:
            unknown.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        kept, plain = value, _PLAIN.get(key)
        if plain is None or not plain(value):
            try:
                kept = read_value(
                    value, members[key], Place(f"metadata.{key}", where + key, "ObjectMeta", restored), unknown
                )
            except Malformed:
                if lenient and key in _TIMES | _NUMBERS:
                    continue
                raise
        if key == "ownerReferences":
            kept = _owners(kept)
        # No owners at all can be asked for, which is something else than saying nothing of them.
        if kept or kept == 0 or key == "managedFields":
            metadata[key] = kept
    return metadata


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_number(value: Any) -> bool:
    return type(value) is int


def _is_time(value: Any) -> bool:
    with contextlib.suppress(Malformed):
        return type(value) is str and bool(read_time(value, "date-time"))
    return False


def _are_named_texts(value: Any) -> bool:
    return type(value) is dict and all(map(_is_text, value.values()))


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _are_entries(value: Any) -> bool:
    # What the entries hold is looked at when they are used.
    return type(value) is list and all(type(entry) is dict for entry in value)


_PLAIN: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_STRINGS - _TIMES, _is_text),
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys(_TIMES, _is_time),
    **dict.fromkeys(_MAPS, _are_named_texts),
    "finalizers": _are_texts,
    "managedFields": _are_entries,
}
"""Tells of a member whether it is what it is most often, and so can be taken as it is."""


def _owners(owners: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return owners each once, with what every one has."""
    kept: list[dict[str, Any]] = []
    for owner in owners:
        cleaned = {key: owner[key] for key in _OWNER_FIELDS if owner.get(key) is not None}
        for key in ("apiVersion", "kind", "name", "uid"):
            cleaned.setdefault(key, "")
        if cleaned not in kept:
            kept.append(cleaned)
    return owners if kept == owners else kept


def metadata_warnings(found: dict[str, Any], before: dict[str, Any], *, custom: bool) -> list[str]:
    """Return what the API server warns of in metadata as a client sent it.

    Args:
        found: the metadata.
        before: the stored metadata, or nothing.
        custom: it is written to an object of a custom kind, whose finalizers are looked at.
    """
    warnings = []
    finalizers = found.get("finalizers")
    if custom and isinstance(finalizers, list):
        added = {name for name in finalizers if isinstance(name, str)} - set(before.get("finalizers") or ())
        warnings += [
            f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name to avoid accidental conflicts '
            "with other finalizer writers"
            for name in sorted(added)
            if "/" not in name and name not in ("orphan", "foregroundDeletion")
        ]
    owners = found.get("ownerReferences")
    if isinstance(owners, list) and len(owners) > 1:
        uids = [owner.get("uid") for owner in owners if isinstance(owner, dict)]
        twice = sorted({str(uid) for uid in uids if uids.count(uid) > 1})
        if twice:
            warnings.append(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, "
                "and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
                + ", ".join(twice)
            )
    return warnings


def check_metadata(info: KindInfo, metadata: dict[str, Any]) -> list[FieldError]:
    """Return what is wrong with the metadata of an object about to be created."""
    name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
    errors = _check_prefix(prefix, functools.partial(name_problems, info))
    if not name:
        message = "Required value: name or generateName is required"
        errors.append(FieldError("metadata.name", message, "FieldValueRequired"))
    else:
        errors += [
            FieldError("metadata.name", f'Invalid value: "{name}": {problem}') for problem in name_problems(info, name)
        ]
    return errors + _check_maps(metadata)


def _check_prefix(prefix: str, problems: Callable[[str], list[str]]) -> list[FieldError]:
    """Return what is wrong with a name's beginning: a dash at the end is none of the name that is made of it."""
    begun = f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
    found = problems(begun) if prefix else []
    return [FieldError("metadata.generateName", f'Invalid value: "{prefix}": {problem}') for problem in found]


def metadata_beside_status(info: KindInfo, metadata: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that a write to the status of a built-in kind leaves; private to the caller."""
    kept = dict(metadata)
    for key in FIXED_BESIDE_STATUS.get((info.group, info.plural), ()):
        kept.pop(key, None)
        if key in before:
            kept[key] = before[key]
    return kept


FIXED_BESIDE_STATUS = {("", "pods"): ("ownerReferences",), ("apps", "deployments"): ("labels",)}
"""What writes to the status of a kind do not change in metadata."""


def check_built_in_metadata(
    info: KindInfo, metadata: dict[str, Any], subresource: str, *, new: bool
) -> list[FieldError]:
    """Return what is wrong with metadata by the rules of a built-in kind, which hold beside those of every kind."""
    if new:
        return _check_standard_finalizers(info, metadata, subresource)
    errors = [] if info.plural in _READ_ONCE else _check_standard_finalizers(info, metadata, subresource)
    if not subresource and info.plural in _READ_AGAIN:
        errors += _check_prefix(metadata.get("generateName", ""), functools.partial(name_problems, info))
        errors += _check_maps(metadata) + _check_standard_finalizers(info, metadata, subresource)
    return errors


def _check_standard_finalizers(info: KindInfo, metadata: dict[str, Any], subresource: str) -> list[FieldError]:
    if (info.plural, "") in _ANY_FINALIZERS or (info.plural, subresource) in _ANY_FINALIZERS:
        return []
    message = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        FieldError(f"metadata.finalizers[{index}]", f'Invalid value: "{name}": {message}')
        for index, name in enumerate(metadata.get("finalizers") or ())
        if "/" not in name and name not in _STANDARD_FINALIZERS
    ]


_ANY_FINALIZERS = frozenset(
    {
        ("cronjobs", "status"),
        ("customresourcedefinitions", ""),
        ("events", ""),
        ("leases", ""),
        ("poddisruptionbudgets", ""),
    }
)
"""The kinds, or their subresources, that take any finalizer."""

_READ_ONCE = frozenset({"endpointslices", "events", "limitranges", "poddisruptionbudgets"})
"""The kinds whose own rules for updates are not about metadata, so that the rules of every kind are all there are."""

_READ_AGAIN = frozenset(
    {
        "clusterrolebindings",
        "clusterroles",
        "configmaps",
        "controllerrevisions",
        "endpoints",
        "endpointslices",
        "ingressclasses",
        "ingresses",
        "jobs",
        "limitranges",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "rolebindings",
        "roles",
        "secrets",
        "serviceaccounts",
        "storageclasses",
    }
)
"""The kinds that are checked on an update as if they were new, too."""
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def _check_maps(metadata: dict[str, Any]) -> list[FieldError]:
    if metadata.keys() <= _UNCHECKED:
        return []
    return [
        *_check_labels(metadata.get("labels") or {}),
        *_check_annotations(metadata.get("annotations") or {}),
        *_check_owners(metadata.get("ownerReferences") or []),
        *_check_finalizers(metadata.get("finalizers") or []),
    ]


_UNCHECKED = (_STRINGS | _NUMBERS) | {"managedFields"}


def _check_labels(labels: dict[str, str]) -> list[FieldError]:
    errors = []
    for key, value in labels.items():
        problems = [f'"{key}": {problem}' for problem in qualified_name_problems(key)]
        if len(value) > 63:
            problems.append(f'"{value}": must be no more than 63 bytes')
        if not is_label_value(value):
            problems.append(f'"{value}": {LABEL_VALUE_MESSAGE}')
        errors += [FieldError("metadata.labels", f"Invalid value: {problem}") for problem in problems]
    return errors


def _check_annotations(annotations: dict[str, str]) -> list[FieldError]:
    field = "metadata.annotations"
    errors = [
        FieldError(field, f'Invalid value: "{key}": {problem}')
        for key in annotations
        for problem in qualified_name_problems(key.lower())
    ]
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        errors.append(FieldError(field, message, "FieldValueTooLong"))
    return errors


def _check_owners(owners: list[dict[str, Any]]) -> list[FieldError]:
    field = "metadata.ownerReferences"
    errors = []
    for owner in owners:
        errors += [
            FieldError(f"{field}.{key}", f'Invalid value: "": {words}')
            for key, words in _OWNER_NEEDS.items()
            if not owner.get(key)
        ]
        if str(owner.get("apiVersion", "")).count("/") > 1:
            message = f'Invalid value: "{owner["apiVersion"]}": {_OWNER_NEEDS["apiVersion"]}'
            errors.append(FieldError(f"{field}.apiVersion", message))
        if owner.get("kind") == "Event" and owner.get("apiVersion") in ("v1", "events.k8s.io/v1"):
            group, _, version = owner["apiVersion"].rpartition("/")
            shown = go_json(_in_order(owner), sort=False)
            message = f"Invalid value: {shown}: {group}/{version}, Kind=Event is disallowed from being an owner"
            errors.append(FieldError(field, message))
    controllers = [f"{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        shown = f"[{','.join(go_json(_in_order(owner), sort=False) for owner in owners)}]"
        message = (
            f"Invalid value: {shown}: Only one reference can have Controller set to true. Found "
            f'"true" in references for {controllers[0]} and {controllers[1]}'
        )
        errors.append(FieldError(field, message))
    return errors


_OWNER_NEEDS = {
    "apiVersion": "version must not be empty",
    "kind": "must not be empty",
    "name": "must not be empty",
    "uid": "must not be empty",
}


def _in_order(owner: dict[str, Any]) -> dict[str, Any]:
    return {key: owner[key] for key in _OWNER_FIELDS if key in owner}


def _check_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = [
        FieldError("metadata.finalizers", f'Invalid value: "{finalizer}": {problem}')
        for finalizer in finalizers
        for problem in qualified_name_problems(finalizer)
    ]
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        message = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(FieldError("metadata.finalizers", f"Invalid value: {go_json(finalizers)}: {message}"))
    return errors


def check_metadata_update(info: KindInfo, metadata: dict[str, Any], before: dict[str, Any]) -> list[FieldError]:
    """Return what is wrong with a change of metadata; what the server owns and the client left out is no change.

    The real server checks metadata more than once, and lists what it finds each time.
    """
    errors = [
        FieldError(f"metadata.{key}", f'Invalid value: "{metadata[key]}": field is immutable')
        for key in ("uid", "deletionTimestamp")
        if metadata.get(key) and metadata[key] != before.get(key)
    ]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is not None and grace != before.get("deletionGracePeriodSeconds"):
        message = f"Invalid value: {grace}: field is immutable"
        errors.append(FieldError("metadata.deletionGracePeriodSeconds", message))
    if before.get("deletionTimestamp"):
        known = before.get("finalizers") or []
        added = [f'"{name}"' for name in metadata.get("finalizers") or [] if name not in known]
        if added:
            message = (
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{', '.join(added)}}}"
            )
            errors.append(FieldError("metadata.finalizers", message, "FieldValueForbidden"))
    prefix = _check_prefix(metadata.get("generateName", ""), path_name_problems)
    maps = _check_maps({key: value for key, value in metadata.items() if value is not before.get(key)})
    return [*prefix, *maps, *(errors + maps) * (1 if info.plural in _READ_ONCE else 2)]
