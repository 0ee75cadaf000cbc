"""Declare kinds as classes, hold any other object as it is, and generate CustomResourceDefinitions.

`Resource` is an object of a kind of one's own: subclass it with two pydantic models. It keeps the document that it was
read from, so that writing it back loses nothing that the models do not know. `Unstructured` is any other object.
"""

from reconciler.objects.arguments import kind_argument
from reconciler.objects.convert import (
    KindLike,
    from_document,
    gvk_from,
    original_document,
    resource_type_from,
    to_document,
)
from reconciler.objects.crd import generate_crd
from reconciler.objects.declaration import Definition
from reconciler.objects.extras import PrinterColumn, Rule, rule, schema_extra
from reconciler.objects.model import Condition, ConditionedStatus, Model, ObjectMeta, OwnerReference
from reconciler.objects.presumed import is_built_in, presumed_resource_type
from reconciler.objects.resource import AnyResource, InvalidObject, Resource
from reconciler.objects.schema import SchemaError
from reconciler.objects.unstructured import Unstructured

__all__ = [
    "AnyResource",
    "Condition",
    "ConditionedStatus",
    "Definition",
    "InvalidObject",
    "KindLike",
    "Model",
    "ObjectMeta",
    "OwnerReference",
    "PrinterColumn",
    "Resource",
    "Rule",
    "SchemaError",
    "Unstructured",
    "from_document",
    "generate_crd",
    "gvk_from",
    "is_built_in",
    "kind_argument",
    "original_document",
    "presumed_resource_type",
    "resource_type_from",
    "rule",
    "schema_extra",
    "to_document",
]
