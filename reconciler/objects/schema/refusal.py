"""`SchemaError`, and the form of its messages."""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = ["SchemaError", "refusal"]


class SchemaError(ReconcilerError, TypeError):
    """A field that the API cannot express; the message has ``Model.field``, the reason, and what to write instead."""


def refusal(where: str, what: str, instead: str) -> SchemaError:
    """Return the error for a field: where it is, what is wrong, and what to write instead."""
    return SchemaError(f"{where} {what}: {instead}")
