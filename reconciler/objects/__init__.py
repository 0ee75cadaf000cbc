"""Your own kinds as classes, all other objects as documents, and CustomResourceDefinitions from both.

`Resource` is an object of your own kind: subclass it with two pydantic models. It keeps the document it was read from,
so that writing it back preserves fields that the models do not know. `Unstructured` is any other object.
"""

import importlib
from typing import TYPE_CHECKING

from reconciler.objects.builtin import TypedObject, is_built_in_object
from reconciler.objects.crd import generate_crd
from reconciler.objects.declaration import Definition
from reconciler.objects.duration import Duration, format_duration, parse_duration
from reconciler.objects.kinds import (
    KindLike,
    documents_to_compare,
    from_document,
    gvk_from,
    is_built_in,
    kind_argument,
    original_document,
    presumed_resource_type,
    resource_type_from,
    to_document,
)
from reconciler.objects.markers import PrinterColumn, Rule, Scale, rule, schema_extra
from reconciler.objects.model import (
    Condition,
    ConditionedStatus,
    ConfigMapKeySelector,
    LocalObjectReference,
    Model,
    ObjectMeta,
    OwnerReference,
    SecretKeySelector,
    TypedObjectReference,
)
from reconciler.objects.quantity import Quantity
from reconciler.objects.resource import AnyResource, InvalidObject, Resource
from reconciler.objects.schema_checks import SchemaError
from reconciler.objects.unstructured import Unstructured

if TYPE_CHECKING:
    from reconciler.objects.compatibility import CRDChange, compare_crds

__all__ = [
    "AnyResource",
    "CRDChange",
    "Condition",
    "ConditionedStatus",
    "ConfigMapKeySelector",
    "Definition",
    "Duration",
    "InvalidObject",
    "KindLike",
    "LocalObjectReference",
    "Model",
    "ObjectMeta",
    "OwnerReference",
    "PrinterColumn",
    "Quantity",
    "Resource",
    "Rule",
    "Scale",
    "SchemaError",
    "SecretKeySelector",
    "TypedObject",
    "TypedObjectReference",
    "Unstructured",
    "compare_crds",
    "documents_to_compare",
    "format_duration",
    "from_document",
    "generate_crd",
    "gvk_from",
    "is_built_in",
    "is_built_in_object",
    "kind_argument",
    "original_document",
    "parse_duration",
    "presumed_resource_type",
    "resource_type_from",
    "rule",
    "schema_extra",
    "to_document",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        if name in __all__:  # the comparison of definitions, which a controller does not need
            return getattr(importlib.import_module("reconciler.objects.compatibility"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
