"""Models shared by all kinds, and the base class for the parts of your own."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from reconciler.meta import CONDITION_STRINGS
from reconciler.objects.markers import PrinterColumn, schema_extra
from reconciler.wire import JSONObject

__all__ = ["Condition", "ConditionedStatus", "Model", "ObjectMeta", "OwnerReference"]


def _without_own_description(schema: JsonDict, model: type[BaseModel]) -> None:
    """Remove the docstrings of this module from a schema: what is generated from it describes a user's kind."""
    if model.__module__ == __name__:
        schema.pop("description", None)


def _wire_name(name: str) -> str:
    return to_camel(name.rstrip("_"))


class Model(BaseModel):
    """The base of ``spec``, ``status`` and their parts: snake_case in Python, camelCase on the wire.

    A trailing underscore is dropped: ``from_`` is ``from`` on the wire. Unknown fields are kept, so that a program with
    an older model loses nothing. They are not part of the generated schema. Floats must be finite, since JSON has no
    other.
    """

    model_config = ConfigDict(
        alias_generator=_wire_name,
        populate_by_name=True,
        extra="allow",
        allow_inf_nan=False,
        json_schema_extra=_without_own_description,
    )


class OwnerReference(Model):
    """A reference to an object's owner; the garbage collector deletes an object that has lost all its owners."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """An object's ``metadata``. A field that was neither read nor given has an empty default, and is not sent.

    Attributes:
        name: unique per kind and namespace.
        generate_name: prefix from which the server generates a name if `name` is empty.
        namespace: None for cluster-scoped objects.
        uid: the server's id of this incarnation.
        resource_version: the stored version; opaque, sent back as a precondition.
        generation: counts changes of the desired state; None for kinds that have none.
        labels: for selectors.
        annotations: for all other uses.
        finalizers: what holds up the object's deletion.
        owner_references: see `OwnerReference`.
        creation_timestamp: when it was created, UTC.
        deletion_timestamp: when its deletion was requested; None if it is not being deleted.
        deletion_grace_period_seconds: the grace period of the deletion, in seconds.
        managed_fields: which manager owns which field, maintained by the server.
    """

    name: str = ""
    generate_name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    managed_fields: list[JSONObject] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


_CONDITION_SCHEMA: JsonSchemaValue = {
    "type": "object",
    "description": "One aspect of the object's state, in the form of metav1.Condition.",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "type": CONDITION_STRINGS["type"],
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": CONDITION_STRINGS["reason"],
        "message": CONDITION_STRINGS["message"],
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
    },
}


class Condition(Model):
    """An entry of ``status.conditions`` (metav1.Condition); its generated schema is the API's own.

    Attributes:
        type: unique in the list.
        status: ``"True"``, ``"False"`` or ``"Unknown"``.
        reason: a machine-readable CamelCase word.
        message: a sentence for people.
        last_transition_time: when `status` last changed, UTC.
        observed_generation: the generation that the condition describes.
    """

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if cls is Condition:
            return _CONDITION_SCHEMA
        return handler(core_schema)


class ConditionedStatus(Model):
    """The default status of a kind, and the base of richer ones.

    It brings the columns Ready, Reason and Age; a subclass that has other conditions sets its own `printer_columns`.

    Attributes:
        observed_generation: the generation that this status describes; None before the first reconcile.
        conditions: one per type.
    """

    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        PrinterColumn("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    )

    observed_generation: int | None = Field(default=None, description="The generation that this status describes.")
    conditions: list[Condition] = Field(
        default_factory=list, json_schema_extra=schema_extra(list_type="map", list_map_keys=("type",))
    )

    def find_condition(self, type: str) -> Condition | None:
        """Return the condition of a type, or None."""
        return next((condition for condition in self.conditions if condition.type == type), None)

    def condition_is_true(self, type: str) -> bool:
        """Return whether the condition of a type exists and is ``"True"``."""
        condition = self.find_condition(type)
        return condition is not None and condition.status == "True"
