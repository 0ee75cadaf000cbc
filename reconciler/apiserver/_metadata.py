"""Check and stamp `metadata`, by the rules that hold for every kind."""

from __future__ import annotations

import re
from typing import Any

from reconciler.apiserver._kinds import KindInfo
from reconciler.apiserver._status import FieldError

__all__ = ["RANDOM_LETTERS", "check_metadata", "check_metadata_update", "is_label", "is_subdomain"]

RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of generated names."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_PART_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_MAX_ANNOTATIONS = 256 * 1024


def is_label(text: str) -> bool:
    """Tell whether a text is an RFC 1123 label."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Tell whether a text is an RFC 1123 subdomain."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def name_problems(info: KindInfo, name: str) -> list[str]:
    """Return what is wrong with a name, in the real server's words."""
    if info.path_names:
        return _path_name_problems(name)
    if info.label_names:
        problems = [] if len(name) <= 63 else ["must be no more than 63 bytes"]
        return problems if _LABEL.fullmatch(name) else [*problems, _LABEL_MESSAGE]
    problems = [] if len(name) <= 253 else ["must be no more than 253 bytes"]
    return problems if _SUBDOMAIN.fullmatch(name) else [*problems, _SUBDOMAIN_MESSAGE]


def _path_name_problems(name: str) -> list[str]:
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in name]


def _qualified_problems(key: str) -> list[str]:
    parts = key.split("/")
    if len(parts) > 2:
        return [
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    problems: list[str] = []
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            problems.append("prefix part must be non-empty")
        elif not is_subdomain(prefix):
            problems.append(f"prefix part {_SUBDOMAIN_MESSAGE}")
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _NAME_PART.fullmatch(name):
        problems.append(_NAME_PART_MESSAGE)
    return problems


def check_metadata(info: KindInfo, metadata: dict[str, Any]) -> list[FieldError]:
    """Return what is wrong with the metadata of an object about to be created."""
    name = metadata.get("name", "")
    errors: list[FieldError] = []
    if not name:
        errors.append(
            FieldError("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
        )
    else:
        errors += [
            FieldError("metadata.name", f'Invalid value: "{name}": {problem}') for problem in name_problems(info, name)
        ]
    return errors + _check_maps(metadata)


def _check_maps(metadata: dict[str, Any]) -> list[FieldError]:
    return [
        *_check_labels(metadata.get("labels") or {}),
        *_check_annotations(metadata.get("annotations") or {}),
        *_check_owners(metadata.get("ownerReferences") or []),
        *_check_finalizers(metadata.get("finalizers") or []),
    ]


def _check_labels(labels: dict[str, str]) -> list[FieldError]:
    errors = []
    for key, value in labels.items():
        errors += [
            FieldError("metadata.labels", f'Invalid value: "{key}": {problem}') for problem in _qualified_problems(key)
        ]
        if len(value) > 63:
            errors.append(FieldError("metadata.labels", f'Invalid value: "{value}": must be no more than 63 bytes'))
        if not _LABEL_VALUE.fullmatch(value):
            errors.append(FieldError("metadata.labels", f'Invalid value: "{value}": {_LABEL_VALUE_MESSAGE}'))
    return errors


def _check_annotations(annotations: dict[str, str]) -> list[FieldError]:
    errors = []
    size = 0
    for key, value in annotations.items():
        errors += [
            FieldError("metadata.annotations", f'Invalid value: "{key}": {problem}')
            for problem in _qualified_problems(key.lower())
        ]
        size += len(key) + len(value)
    if size > _MAX_ANNOTATIONS:
        errors.append(
            FieldError(
                "metadata.annotations", f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes", "FieldValueTooLong"
            )
        )
    return errors


def _check_owners(owners: list[dict[str, Any]]) -> list[FieldError]:
    errors = []
    controllers = [owner for owner in owners if owner.get("controller")]
    for index, owner in enumerate(owners):
        for key, shown in (("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")):
            if not owner.get(key):
                field = (
                    f"metadata.ownerReferences[{index}].{key}"
                    if key != "apiVersion"
                    else f"metadata.ownerReferences[{index}].apiVersion"
                )
                errors.append(FieldError(field, f'Invalid value: "": {shown} must not be empty'))
    if len(controllers) > 1:
        errors.append(
            FieldError(
                "metadata.ownerReferences",
                "Invalid value: null: Only one reference can have Controller set to true. Found "
                f'"true" in references for {controllers[0].get("kind")}/{controllers[0].get("name")} and '
                f"{controllers[1].get('kind')}/{controllers[1].get('name')}",
            )
        )
    return errors


_STANDARD_FINALIZERS = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


def _check_finalizers(finalizers: list[str]) -> list[FieldError]:
    errors = []
    for finalizer in finalizers:
        errors += [
            FieldError("metadata.finalizers", f'Invalid value: "{finalizer}": {problem}')
            for problem in _qualified_problems(finalizer)
        ]
        if not errors and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            errors.append(
                FieldError(
                    "metadata.finalizers",
                    f'Invalid value: "{finalizer}": name is neither a standard finalizer name nor is it fully qualified',
                )
            )
    return errors


def check_metadata_update(info: KindInfo, metadata: dict[str, Any], before: dict[str, Any]) -> list[FieldError]:
    """Return what is wrong with a change of metadata."""
    errors: list[FieldError] = []
    if not metadata.get("resourceVersion") and not info.unconditional:
        errors.append(FieldError("metadata.resourceVersion", "Invalid value: 0: must be specified for an update"))
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if metadata.get(key) != before.get(key):
            errors.append(
                FieldError(f"metadata.{key}", f'Invalid value: "{metadata.get(key) or ""}": field is immutable')
            )
    if before.get("deletionTimestamp"):
        added = [name for name in metadata.get("finalizers") or [] if name not in (before.get("finalizers") or [])]
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            errors.append(
                FieldError(
                    "metadata.finalizers",
                    "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{listed}}}",
                    "FieldValueForbidden",
                )
            )
    changed = {key: value for key, value in metadata.items() if value is not before.get(key)}
    return errors + _check_maps(changed)
