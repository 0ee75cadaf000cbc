"""Hold what one served version demands of its documents: shape, values, rules."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from reconciler.apiserver.cel.rules import RuleSet
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.shape import Node, compile_schema, prune, prune_and_default
from reconciler.apiserver.schema.validation import SchemaValidator, duplicates, untouched
from reconciler.wire import JSONObject

__all__ = ["BLOCKING", "Contents", "contents_of"]


BLOCKING = frozenset(
    {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
"""Findings after which rules are not asked any more."""


class Contents:
    """Prune, complete and validate documents of one served version of a custom kind.

    Args:
        schema: the ``openAPIV3Schema``.

    Raises:
        MissingExtra: a library that the schema needs is not installed.
        ValueError: a pattern or rule cannot be compiled.
    """

    def __init__(self, schema: JSONObject) -> None:
        self.schema = schema
        self.node: Node = compile_schema(schema, root=True)
        self._validator = SchemaValidator(schema)
        status = (schema.get("properties") or {}).get("status")
        self._status_validator = SchemaValidator(status) if status else None
        self._rules = RuleSet(self.node)

    def rule_errors(self, path: str) -> list[FieldError]:
        """Return why rules cannot be accepted, or which defaults they forbid; the paths begin with `path`."""
        return self._rules.compile_errors(path) or self._rules.default_errors(path)

    def decode(
        self,
        found: dict[str, Any],
        before: dict[str, Any] | None,
        unknown: list[str],
        *,
        restored: bool = False,  # noqa: ARG002 - custom kinds stay untyped
    ) -> dict[str, Any]:
        """Return a document without what the schema does not know and with its defaults."""
        decoded: dict[str, Any] = prune_and_default(found, self.node, "", unknown, before)
        return decoded

    def pruned(self, doc: dict[str, Any]) -> dict[str, Any]:
        """Return a document of another version without what the schema does not know."""
        kept: dict[str, Any] = prune(doc, self.node)
        return kept

    def check(
        self, doc: dict[str, Any], before: dict[str, Any] | None, subresource: str, *, blocked: bool
    ) -> list[FieldError]:
        """Return what is wrong with a document.

        Values that an update leaves as they were are not held against it.

        Args:
            doc: the decoded document.
            before: the stored document on an update.
            subresource: the subresource that was written, or empty.
            blocked: enough is wrong with it already to leave rules aside.
        """
        if subresource == "status":
            status = doc.get("status")
            validator = self._status_validator if "status" in doc else None
            findings = [] if validator is None else validator.findings(status, "status")
            findings = [type(found)(("status", *found.path), found.error) for found in findings]
            findings += duplicates({"status": status}, self.node)
        else:
            findings = self._validator.findings(doc)
            findings += duplicates(doc, self.node)
        errors = [
            found.error for found in findings if before is None or not untouched(found.path, doc, before, self.node)
        ]
        if not self._rules:
            return errors
        if blocked or any(error.reason in BLOCKING for error in errors):
            # Rules are asked only about values that have the right shape.
            return [*errors, _NOT_ASKED]
        return errors + self._rules.errors(doc, before)


def contents_of(schema: JSONObject) -> Contents:
    """Return what a schema demands; servers that are given the same schema share what was compiled of it.

    Raises:
        MissingExtra: a library that the schema needs is not installed.
        ValueError: a pattern or rule cannot be compiled.
    """
    return _compiled(msgspec.json.encode(schema))


@functools.lru_cache(maxsize=256)
def _compiled(schema: bytes) -> Contents:
    return Contents(msgspec.json.decode(schema))


_NOT_ASKED = FieldError(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)
