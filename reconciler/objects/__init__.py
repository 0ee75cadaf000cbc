"""Your own kinds as classes, all other objects as documents, and CustomResourceDefinitions from both.

`Resource` is an object of your own kind: subclass it with two pydantic models. It keeps the document it was read from,
so that writing it back preserves fields that the models do not know. `Unstructured` is any other object.
"""

from reconciler.objects.compatibility import CRDChange, compare_crds
from reconciler.objects.convert import from_document, original_document, to_document
from reconciler.objects.crd import SchemaError, generate_crd
from reconciler.objects.declaration import Definition
from reconciler.objects.kinds import (
    KindLike,
    gvk_from,
    is_built_in,
    kind_argument,
    presumed_resource_type,
    resource_type_from,
)
from reconciler.objects.markers import PrinterColumn, Rule, rule, schema_extra
from reconciler.objects.model import Condition, ConditionedStatus, Model, ObjectMeta, OwnerReference
from reconciler.objects.resource import AnyResource, InvalidObject, Resource
from reconciler.objects.unstructured import Unstructured

__all__ = [
    "AnyResource",
    "CRDChange",
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
    "compare_crds",
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
