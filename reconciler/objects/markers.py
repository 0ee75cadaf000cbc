"""Additions to a schema, like the markers of kubebuilder: CEL rules, list and map types, printer columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from pydantic.config import JsonDict

from reconciler._core.wire import JSONObject

_Reason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


@dataclass(frozen=True, slots=True)
class CELRule:
    """A CEL rule: ``rule("self.minimum <= self.maximum", message="minimum must not exceed maximum")``.

    Attributes:
        expression: true if the value is valid. ``self`` is the value that has the rule; a rule that mentions
            ``oldSelf`` is checked on updates only.
        message: the server's message if the rule fails. Defaults to the rule itself.
        message_expression: CEL that computes the message; takes precedence over `message`. Format numbers with
            ``'%d'.format([self.size])``; the server refuses a concatenation of ``string(…)`` as too expensive.
        reason: the machine-readable cause. The server's default is FieldValueInvalid.
        field_path: the field to report, relative to the value (``".minimum"``).
        optional_old_self: also check on creation, with ``oldSelf`` an optional.

    Raises:
        ValueError: the expression is empty, the message has several lines, or the reason or the path is invalid.
    """

    expression: str
    _: KW_ONLY
    message: str | None = None
    message_expression: str | None = None
    reason: _Reason | None = None
    field_path: str | None = None
    optional_old_self: bool | None = None

    def __post_init__(self) -> None:
        expression, message = self.expression.strip(), self.message
        if not expression:
            raise ValueError("a rule needs a CEL expression: rule('self.size <= 100')")
        if message is not None and (not message.strip() or "\n" in message):
            raise ValueError(f"rule {expression!r}: message must be one line of text")
        if message is None and "\n" in expression:
            raise ValueError(f"rule {expression!r}: a rule of several lines needs a message=")
        if self.reason is not None and self.reason not in get_args(_Reason):
            raise ValueError(
                f"rule {expression!r}: reason={self.reason!r} must be one of {', '.join(get_args(_Reason))}"
            )
        if self.field_path is not None and not self.field_path.startswith((".", "[")):
            raise ValueError(f"rule {expression!r}: field_path={self.field_path!r} must start with a dot, like '.size'")

    def to_dict(self) -> JsonDict:
        """Return the rule as an entry of ``x-kubernetes-validations``."""
        entry: JsonDict = {
            "rule": self.expression,
            "message": self.message,
            "messageExpression": self.message_expression,
            "reason": self.reason,
            "fieldPath": self.field_path,
            "optionalOldSelf": self.optional_old_self,
        }
        return {key: value for key, value in entry.items() if value is not None}


rule = CELRule


def schema_extra(
    *,
    rules: Sequence[CELRule] = (),
    immutable: bool = False,
    list_type: Literal["atomic", "set", "map"] | None = None,
    list_map_keys: Sequence[str] = (),
    map_type: Literal["atomic", "granular"] | None = None,
    preserve_unknown_fields: bool = False,
    embedded_resource: bool = False,
    format: str | None = None,
) -> JsonDict:
    """Return the ``json_schema_extra`` of a field, or of a model's configuration.

    ::

        ports: list[Port] = Field(json_schema_extra=schema_extra(list_type="map", list_map_keys=["name"]))
        model_config = ConfigDict(json_schema_extra=schema_extra(rules=[rule("self.minimum <= self.maximum")]))

    Args:
        rules: CEL rules on the value.
        immutable: reject every change once the value is set, its removal too; short for rules.
        list_type: how apply merges a list. The server's default is atomic: replaced as a whole.
        list_map_keys: wire names of the fields that identify an item; only with ``list_type="map"``.
        map_type: how apply merges an object. The server's default is granular.
        preserve_unknown_fields: keep fields that the schema does not name.
        embedded_resource: the value is a whole object with apiVersion, kind and metadata.
        format: such as ``"int32"``.

    Raises:
        TypeError: `rules` is not a sequence of rules.
        ValueError: `list_map_keys` is given without ``list_type="map"``, or the other way round.
    """
    if bool(list_map_keys) != (list_type == "map"):
        raise ValueError('list_type="map" and list_map_keys go together: name the fields that identify an item')
    if isinstance(rules, (str, CELRule)) or any(not isinstance(one, CELRule) for one in rules):
        raise TypeError("rules must be a sequence of rules: rules=[rule('self.size <= 100')]")
    every = [*rules, *([CELRule("self == oldSelf", message="is immutable")] if immutable else [])]
    extra: JsonDict = {
        "x-kubernetes-validations": [one.to_dict() for one in every],
        "x-kubernetes-list-type": list_type,
        "x-kubernetes-list-map-keys": list(list_map_keys),
        "x-kubernetes-map-type": map_type,
        "x-kubernetes-preserve-unknown-fields": preserve_unknown_fields,
        "x-kubernetes-embedded-resource": embedded_resource,
        "format": format,
    }
    return {key: value for key, value in extra.items() if value}


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """A column of ``kubectl get``.

    Attributes:
        name: the heading.
        path: JSONPath from the object (``".status.phase"``).
        type: ``"string"``, ``"integer"``, ``"number"``, ``"boolean"`` or ``"date"``. Defaults to the schema's type for
            `path`, or ``"string"`` if it has none.
        format: such as ``"int32"``; None for the type's own.
        description: a description for people.
        priority: 0 is always printed; a higher number only with ``-o wide``.
    """

    name: str
    path: str
    type: Literal["string", "integer", "number", "boolean", "date"] | None = None
    format: str | None = None
    description: str | None = None
    priority: int = 0

    def to_dict(self, type_of_path: str) -> JSONObject:
        """Return the column as an entry of ``additionalPrinterColumns``; `type_of_path` is the default type."""
        column = {
            "name": self.name,
            "jsonPath": self.path,
            "type": self.type or type_of_path,
            "format": self.format,
            "description": self.description,
            "priority": self.priority or None,
        }
        return {key: value for key, value in column.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale subresource of a kind.

    Attributes:
        spec_replicas: JSONPath of the desired number, an integer (``".spec.replicas"``).
        status_replicas: JSONPath of the observed number, an integer.
        selector: JSONPath of the label selector of the pods as a string; None if there is none. A
            HorizontalPodAutoscaler needs it.
    """

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str | None = None

    def to_dict(self) -> JSONObject:
        """Return the entry of ``subresources``."""
        paths: JSONObject = {"specReplicasPath": self.spec_replicas, "statusReplicasPath": self.status_replicas}
        return paths | ({"labelSelectorPath": self.selector} if self.selector else {})
