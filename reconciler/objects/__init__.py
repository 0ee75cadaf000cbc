"""Your own kinds as classes, all other objects as documents, and CustomResourceDefinitions from both.

`Resource` is an object of your own kind: subclass it with two pydantic models. It keeps the document it was read from,
so that writing it back preserves fields that the models do not know. `Unstructured` is any other object.
"""

from typing import TYPE_CHECKING

from reconciler._core import lazy_names as _lazy_names
from reconciler._core.durations import parse_duration
from reconciler.objects.crd import generate_crd
from reconciler.objects.fields import Duration, Quantity, format_duration
from reconciler.objects.markers import PrinterColumn, Scale, rule, schema_extra
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
from reconciler.objects.resource import AnyResource, InvalidObject, Resource
from reconciler.objects.schema_checks import SchemaError
from reconciler.objects.unstructured import Unstructured

if TYPE_CHECKING:
    from reconciler.objects.compatibility import compare_crds

__all__ = [
    "AnyResource",
    "Condition",
    "ConditionedStatus",
    "ConfigMapKeySelector",
    "Duration",
    "InvalidObject",
    "LocalObjectReference",
    "Model",
    "ObjectMeta",
    "OwnerReference",
    "PrinterColumn",
    "Quantity",
    "Resource",
    "Scale",
    "SchemaError",
    "SecretKeySelector",
    "TypedObjectReference",
    "Unstructured",
    "compare_crds",
    "format_duration",
    "generate_crd",
    "parse_duration",
    "rule",
    "schema_extra",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name
    # A controller does not compare definitions.
    __getattr__ = _lazy_names(__name__, {"compatibility": "compare_crds"})
