"""Validation of CustomResourceDefinitions, as apiextensions/v1 does it."""

from __future__ import annotations

import re
from typing import Any

from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.definitions.structural import check_schema
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.schema.names import form_problems
from reconciler.apiserver.storage.custom_contents import CustomContents, contents_of
from reconciler.wire import JSONObject

__all__ = ["check_definition"]

_VERSION = "apiextensions.v1.CustomResourceDefinitionVersion"
_COLUMN = "apiextensions.v1.CustomResourceColumnDefinition"
_SCALE = "apiextensions.v1.CustomResourceSubresourceScale"
_PROTECTED = re.compile(r"(^|\.)(k8s|kubernetes)\.io$")


def check_definition(doc: JSONObject, before: JSONObject | None) -> tuple[list[FieldError], dict[str, CustomContents]]:
    """Return the errors of a definition, and its compiled schemas by version.

    Raises:
        MissingExtra: a library that a schema needs is not installed; a definition is never enforced in part.
    """
    spec = doc["spec"]
    errors = violations("apiextensions.v1.CustomResourceDefinition", doc, before)
    errors += [] if before else _check_approval(doc, spec)
    errors += _check_versions(doc, spec)
    versions = [version for version in spec.get("versions") or () if isinstance(version, dict)]
    hoisted = _is_hoisted(versions)
    compiled: dict[str, CustomContents] = {}
    for index, version in enumerate(versions):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            errors.append(FieldError.required(f"spec.versions[{index}].schema.openAPIV3Schema"))
            continue
        path = "spec.validation" if hoisted else f"spec.versions[{index}].schema"
        found = check_schema(schema, f"{path}.openAPIV3Schema")
        place = "spec" if hoisted else f"spec.versions[{index}]"
        if not found:
            try:
                compiled[version.get("name", "")] = contents = contents_of(schema)
            except ValueError as error:
                errors.append(FieldError(f"{path}.openAPIV3Schema", f"Invalid value: {error}"))
                continue
            found = [*contents.rule_errors(f"{path}.openAPIV3Schema"), *_check_selectable(version, schema, place)]
        if version.get("selectableFields") and _alike(versions, "schema") and not _alike(versions, "selectableFields"):
            message = "may only be set when `version.schema.openAPIV3Schema` is not included"
            errors.append(FieldError.invalid(f"{place}.selectableFields", "", message))
        if index == 0 or not hoisted:
            errors += found
            for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
                errors += violations(_COLUMN, column, None, f"{place}.additionalPrinterColumns[{at}]")
            if isinstance(scale := (version.get("subresources") or {}).get("scale"), dict):
                errors += violations(_SCALE, scale, None, f"{place}.subresources.scale")
    return errors, compiled


def _is_hoisted(versions: list[JSONObject]) -> bool:
    """Return whether all versions are alike; the server's internal form then has their parts in one place."""
    return all(
        _alike(versions, part) for part in ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    )


def _alike(versions: list[JSONObject], part: str) -> bool:
    return all(version.get(part) == versions[0].get(part) for version in versions)


def _check_approval(doc: JSONObject, spec: JSONObject) -> Findings:
    annotation = "api-approved.kubernetes.io"
    if _PROTECTED.search(spec.get("group") or "") and annotation not in (doc["metadata"].get("annotations") or {}):
        link = "https://github.com/kubernetes/enhancements/pull/1111"
        message = f'protected groups must have approval annotation "{annotation}", see {link}'
        yield FieldError.required(f"metadata.annotations[{annotation}]", message)


def _check_versions(doc: JSONObject, spec: JSONObject) -> Findings:
    versions = spec.get("versions") or []
    shown = [_internal(version) for version in versions]
    names = [version.get("name") or "" for version in versions]
    seen = set(names)
    if len(seen) < len(names):
        yield FieldError.invalid_struct("spec.versions", shown, "must contain unique version names")
    for index, version in enumerate(versions):
        yield from violations(_VERSION, version, None, f"spec.versions[{index}]")
        if index == 0:
            yield from (
                FieldError.invalid("spec.version", names[0], each) for each in form_problems("label-1035", names[0])
            )
    storage = [version.get("name") for version in versions if version.get("storage")]
    if len(storage) != 1:
        message = "must have exactly one version marked as storage version"
        yield FieldError.invalid_struct("spec.versions", shown, message)
    stored = (doc.get("status") or {}).get("storedVersions") or []
    if not stored:
        yield FieldError.invalid("status.storedVersions", None, "must have at least one stored version")
    elif storage and storage[-1] not in stored:
        yield FieldError.invalid("status.storedVersions", stored, f"must have the storage version {storage[-1]}")
    for index, name in enumerate(stored):
        if versions and name not in seen:
            message = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            yield FieldError.invalid(f"status.storedVersions[{index}]", name, message)


def _internal(version: JSONObject) -> JSONObject:
    return {
        "Name": version.get("name", ""),
        "Served": bool(version.get("served")),
        "Storage": bool(version.get("storage")),
        "Deprecated": bool(version.get("deprecated")),
        "DeprecationWarning": version.get("deprecationWarning"),
        "Schema": None,
        "Subresources": None,
        "AdditionalPrinterColumns": None,
        "SelectableFields": None,
    }


def _check_selectable(version: JSONObject, schema: JSONObject, place: str) -> Findings:
    for index, field in enumerate(version.get("selectableFields") or ()):
        path = f"{place}.selectableFields[{index}].jsonPath"
        json_path = str(field.get("jsonPath") or "")
        if not json_path:
            yield FieldError.required(path)
            continue
        found: Any = schema
        for part in json_path.lstrip(".").split("."):
            found = (found.get("properties") or {}).get(part) if isinstance(found, dict) else None
        if found is None:
            yield FieldError.invalid(path, json_path, "is an invalid path: does not refer to a valid field")
        elif found.get("type") not in ("string", "boolean", "integer"):
            message = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            yield FieldError.invalid(path, json_path, message)
