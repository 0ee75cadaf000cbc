"""The contents of a custom kind in one version: pruning, defaults, validation and CEL rules."""

from __future__ import annotations

import functools

import msgspec

from reconciler.apiserver.builtin.decoding import Decoding
from reconciler.apiserver.cel.rules import RuleSet
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.shape import Node, compile_schema, prune, prune_and_default
from reconciler.apiserver.schema.validation import SchemaValidator, duplicates, untouched
from reconciler.wire import JSONObject

__all__ = ["BLOCKING", "CustomContents", "contents_of"]


BLOCKING = frozenset(
    {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
"""Reasons of findings after which CEL rules are not evaluated."""
_NOT_EVALUATED = FieldError(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)


class CustomContents:
    """The schema of one served version of a custom kind, compiled: prunes, completes and validates its documents.

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
        """Return why the CEL rules are rejected, or which defaults violate them; the paths begin with `path`."""
        return self._rules.compile_errors(path) or self._rules.default_errors(path)

    def decode(self, found: JSONObject, before: JSONObject | None, decoding: Decoding) -> JSONObject:
        """Return a document without unknown fields, which are recorded, and with its defaults."""
        decoded: JSONObject = prune_and_default(found, self.node, "", decoding.unknown, before)
        return decoded

    def pruned(self, doc: JSONObject) -> JSONObject:
        """Return a document of another version without the fields that this version's schema lacks."""
        kept: JSONObject = prune(doc, self.node)
        return kept

    def check(self, doc: JSONObject, before: JSONObject | None, subresource: str, *, blocked: bool) -> list[FieldError]:
        """Return the validation errors of a document; errors that were found already may block the evaluation of rules.

        Errors of values that an update leaves unchanged are ignored (ratcheting).
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
            # Rules are evaluated only on values of the right types.
            return [*errors, _NOT_EVALUATED]
        return errors + self._rules.errors(doc, before)


def contents_of(schema: JSONObject) -> CustomContents:
    """Return the compiled contents of a schema, as `CustomContents`; servers with the same schema share them."""
    return _compiled(msgspec.json.encode(schema))


@functools.lru_cache(maxsize=256)
def _compiled(schema: bytes) -> CustomContents:
    return CustomContents(msgspec.json.decode(schema))
