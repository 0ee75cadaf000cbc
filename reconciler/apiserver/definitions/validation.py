"""Validation of CustomResourceDefinitions, as apiextensions/v1 does it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.names import DNS_LABEL_1035_MESSAGE, SUBDOMAIN_MESSAGE, is_label_1035, is_subdomain
from reconciler.apiserver.schema.structural import check_schema
from reconciler.apiserver.storage.custom_contents import CustomContents, contents_of
from reconciler.wire import JSONObject

__all__ = ["check_definition"]

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_PROTECTED = re.compile(r"(^|\.)(k8s|kubernetes)\.io$")


def check_definition(doc: JSONObject, before: JSONObject | None) -> tuple[list[FieldError], dict[str, CustomContents]]:
    """Return the errors of a definition, and its compiled schemas by version.

    Raises:
        MissingExtra: a library that a schema needs is not installed; a definition is never enforced in part.
    """
    spec = doc["spec"]
    errors = [*_check_names(spec), *_check_versions(doc, spec), *_check_conversion(spec)]
    if before is None:
        errors = [*_check_name(doc, spec), *_check_group(doc, spec.get("group") or ""), *errors]
    else:
        errors += _check_changes(spec, before["spec"])
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
            errors += [*found, *_check_columns(version, place), *_check_scale(version, place)]
    return errors, compiled


def _is_hoisted(versions: list[JSONObject]) -> bool:
    """Return whether all versions are alike; the server's internal form then has their parts in one place."""
    return all(
        _alike(versions, part) for part in ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    )


def _alike(versions: list[JSONObject], part: str) -> bool:
    return all(version.get(part) == versions[0].get(part) for version in versions)


def _check_name(doc: JSONObject, spec: JSONObject) -> Iterator[FieldError]:
    names, name = spec.get("names") or {}, doc["metadata"].get("name", "")
    if name != f"{names.get('plural') or ''}.{spec.get('group') or ''}":
        yield FieldError.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')


def _check_names(spec: JSONObject) -> Iterator[FieldError]:
    names = spec.get("names") or {}
    yield from _check_scope(spec)
    for key in ("plural", "singular", "kind", "listKind"):
        yield from _check_word(key, names.get(key) or "")
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield FieldError.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")
    for key in ("shortNames", "categories"):
        for index, text in enumerate(names.get(key) or ()):
            if not is_label_1035(text):
                yield FieldError.invalid(f"spec.names.{key}[{index}]", text, DNS_LABEL_1035_MESSAGE)


def _check_group(doc: JSONObject, group: str) -> Iterator[FieldError]:
    annotation = "api-approved.kubernetes.io"
    if not group:
        yield FieldError.required("spec.group")
    elif not is_subdomain(group):
        yield FieldError.invalid("spec.group", group, SUBDOMAIN_MESSAGE)
    elif "." not in group:
        yield FieldError.invalid("spec.group", group, "should be a domain with at least one dot")
    elif _PROTECTED.search(group) and annotation not in (doc["metadata"].get("annotations") or {}):
        link = "https://github.com/kubernetes/enhancements/pull/1111"
        message = f'protected groups must have approval annotation "{annotation}", see {link}'
        yield FieldError.required(f"metadata.annotations[{annotation}]", message)


def _check_scope(spec: JSONObject) -> Iterator[FieldError]:
    scope = spec.get("scope")
    if not scope:
        yield FieldError.required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield FieldError.not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    if spec.get("preserveUnknownFields"):
        instead = "set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield FieldError.invalid("spec.preserveUnknownFields", True, f"cannot set to true, {instead}")


def _check_word(key: str, text: str) -> Iterator[FieldError]:
    if not text:
        yield FieldError.required(f"spec.names.{key}")
    elif not is_label_1035(text.lower() if "ind" in key else text):
        message = DNS_LABEL_1035_MESSAGE
        if "ind" in key:
            message = f"may have mixed case, but should otherwise match: {message}"
        yield FieldError.invalid(f"spec.names.{key}", text, message)


def _check_versions(doc: JSONObject, spec: JSONObject) -> Iterator[FieldError]:
    versions = spec.get("versions") or []
    shown = [_internal(version) for version in versions]
    names = [version.get("name") or "" for version in versions]
    seen = set(names)
    if len(seen) < len(names):
        yield FieldError.invalid_struct("spec.versions", shown, "must contain unique version names")
    for index, version in enumerate(versions):
        name = names[index]
        if version.get("deprecationWarning") and not version.get("deprecated"):
            path, warning = f"spec.versions[{index}].deprecationWarning", version["deprecationWarning"]
            yield FieldError.invalid(path, warning, "can only be set for deprecated versions")
        if not is_label_1035(name):
            yield FieldError.invalid(f"spec.versions[{index}].name", name, DNS_LABEL_1035_MESSAGE)
            if index == 0:
                yield FieldError.invalid("spec.version", name, DNS_LABEL_1035_MESSAGE)
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


def _check_conversion(spec: JSONObject) -> Iterator[FieldError]:
    conversion = spec.get("conversion") or {}
    strategy = conversion.get("strategy")
    if strategy not in ("None", "Webhook"):
        yield FieldError.not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
    if strategy == "Webhook":
        webhook = conversion.get("webhook") or {}
        if not webhook.get("clientConfig"):
            yield FieldError.required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")
        if not webhook.get("conversionReviewVersions"):
            yield FieldError.required("spec.conversion.conversionReviewVersions")


def _check_changes(spec: JSONObject, before: JSONObject) -> Iterator[FieldError]:
    for path in ("group", "scope"):
        if spec.get(path) != before.get(path):
            yield FieldError.invalid(f"spec.{path}", spec.get(path), "field is immutable")
    for path in ("kind", "plural"):
        if spec["names"].get(path) != before["names"].get(path):
            yield FieldError.invalid(f"spec.names.{path}", spec["names"].get(path), "field is immutable")


def _check_selectable(version: JSONObject, schema: JSONObject, place: str) -> Iterator[FieldError]:
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


def _check_columns(version: JSONObject, place: str) -> Iterator[FieldError]:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        path = f"{place}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            yield FieldError.required(f"{path}.name")
        kind = column.get("type")
        if not kind:
            yield FieldError.required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}")
        elif kind not in _COLUMN_TYPES:
            yield FieldError.invalid(f"{path}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}")
        json_path = column.get("jsonPath") or ""
        if not json_path:
            yield FieldError.required(f"{path}.JSONPath")
        elif not json_path.startswith("."):
            yield FieldError.invalid(f"{path}.JSONPath", json_path, "must be a simple json path starting with .")


def _check_scale(version: JSONObject, place: str) -> Iterator[FieldError]:
    scale = (version.get("subresources") or {}).get("scale")
    if not isinstance(scale, dict):
        return
    for key, root in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", "")):
        path, text = f"{place}.subresources.scale.{key}", scale.get(key) or ""
        if not text:
            if root:
                yield FieldError.required(path)
        elif not text.startswith("."):
            yield FieldError.invalid(path, text, "must be a simple json path starting with .")
        elif not text.startswith((f"{root}.",) if root else (".spec.", ".status.")):
            under = root or ".status or .spec"
            yield FieldError.invalid(path, text, f"should be a json path under {under}")
