"""Generate CustomResourceDefinitions."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from reconciler.objects.model import ConditionedStatus
from reconciler.objects.resource import AnyResource
from reconciler.objects.schema import SchemaError, structural_schema

__all__ = ["generate_crd"]


def generate_crd(*versions: type[AnyResource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind as a document.

    Args:
        versions: the classes of the kind, one a version; usually one. Names and scope are those of the stored one.

    Raises:
        SchemaError: a field's type cannot be described, or the classes are not the versions of one kind.
    """
    stored = _stored(versions)
    resource, definition = stored.resource_type, stored.definition
    names = {
        "plural": resource.plural,
        "singular": definition.singular,
        "kind": resource.gvk.kind,
        "listKind": f"{resource.gvk.kind}List",
        "shortNames": list(definition.short_names),
        "categories": list(definition.categories),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.gvk.group}"},
        "spec": {
            "group": resource.gvk.group,
            "names": {key: value for key, value in names.items() if value},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [_version(cls) for cls in versions],
        },
    }


def _stored(versions: tuple[type[AnyResource], ...]) -> type[AnyResource]:
    if not versions:
        raise SchemaError("a CustomResourceDefinition needs at least one version: give the class of a Resource")
    kinds = {(cls.gvk.group, cls.gvk.kind, cls.resource_type.plural, cls.resource_type.namespaced) for cls in versions}
    stored = [cls for cls in versions if cls.definition.storage]
    names = ", ".join(str(cls.gvk) for cls in versions)
    if len(kinds) != 1:
        raise SchemaError(f"{names} are not versions of one kind: group, kind, plural and scope must agree")
    if len(stored) != 1 or len({cls.gvk.version for cls in versions}) != len(versions):
        raise SchemaError(f"{names}: versions must differ, and exactly one has storage=True")
    return stored[0]


def _version(cls: type[AnyResource]) -> dict[str, Any]:
    schema = _object_schema(cls)
    definition = cls.definition
    version: dict[str, Any] = {
        "name": cls.gvk.version,
        "served": definition.served,
        "storage": definition.storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    if definition.printer_columns:
        version["additionalPrinterColumns"] = [
            column.to_dict(_column_type(schema, column.path)) for column in definition.printer_columns
        ]
    if definition.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable_fields]
    return version


def _object_schema(cls: type[AnyResource]) -> dict[str, Any]:
    spec = structural_schema(cls.spec_model)
    if not spec.get("required"):
        # Defaults inside of an absent object are not filled in.
        spec.setdefault("default", {})
    schema: dict[str, Any] = {"type": "object"}
    if cls.definition.description:
        schema["description"] = cleandoc(cls.definition.description)
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
        "status": _status_schema(cls),
    }
    if spec.get("required"):
        schema["required"] = ["spec"]
    if cls.definition.rules:
        schema["x-kubernetes-validations"] = [rule.to_dict() for rule in cls.definition.rules]
    return schema


def _status_schema(cls: type[AnyResource]) -> dict[str, Any]:
    """Return the schema of the status, always with observedGeneration and conditions.

    A server drops what the schema does not name, and a controller that records conditions would write them for ever.
    """
    status = structural_schema(cls.status_model, defaults=False)
    common = structural_schema(ConditionedStatus, defaults=False)["properties"]
    status["properties"] = common | status.get("properties", {})
    return status


def _column_type(schema: dict[str, Any], path: str) -> str:
    """Return the type of a column from the schema of what it shows; string where the path is more than names."""
    if path.startswith(".metadata.") and path.endswith("Timestamp"):
        return "date"
    node: dict[str, Any] = schema
    for name in path.strip(".").split("."):
        node = node.get("properties", {}).get(name, {})
    if node.get("format") == "date-time":
        return "date"
    kind = str(node.get("type", "string"))
    return kind if kind in {"integer", "number", "boolean"} else "string"
