"""Field types with the wire forms of Kubernetes: quantities, durations, references to other objects."""

from reconciler.objects.fields.duration import Duration, format_duration, parse_duration
from reconciler.objects.fields.quantity import Quantity
from reconciler.objects.fields.references import (
    ConfigMapKeySelector,
    LocalObjectReference,
    SecretKeySelector,
    TypedObjectReference,
)

__all__ = [
    "ConfigMapKeySelector",
    "Duration",
    "LocalObjectReference",
    "Quantity",
    "SecretKeySelector",
    "TypedObjectReference",
    "format_duration",
    "parse_duration",
]
