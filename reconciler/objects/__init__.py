"""Your own kinds as classes, all other objects as documents, and CustomResourceDefinitions from both.

`Resource` is an object of your own kind: subclass it with two pydantic models. It keeps the document it was read from,
so that writing it back preserves fields that the models do not know. `Unstructured` is any other object.
"""

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
    "format_duration",
    "generate_crd",
    "parse_duration",
    "rule",
    "schema_extra",
]
