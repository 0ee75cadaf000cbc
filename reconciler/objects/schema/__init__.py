"""Structural schemas: what a CustomResourceDefinition says about the fields of a kind."""

from reconciler.objects.schema.converter import first_paragraph, structural_schema
from reconciler.objects.schema.paths import InvalidPath, schema_at
from reconciler.objects.schema.refusal import SchemaError

__all__ = ["InvalidPath", "SchemaError", "first_paragraph", "schema_at", "structural_schema"]
