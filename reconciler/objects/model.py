"""Models shared by all kinds, references to other objects, and the base class for the parts of your own.

A document that does not fit its model is parsed as far as possible: valid fields typed, others as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    RootModel,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from reconciler._core.wire import JSONObject
from reconciler.meta.metadata import CONDITION_STRINGS
from reconciler.objects.fields import describe_built_in_models
from reconciler.objects.markers import PrinterColumn, schema_extra


def read_leniently(annotation: Any, data: Any) -> Any:
    """Parse data as an annotation; if that fails, parse its parts, and keep those that fail as they are.

    A model gets each field that is valid on its own. A missing or null field gets its default, or None if it is
    required. Validators of the model as a whole are skipped.
    """
    try:
        return _adapter(annotation).validate_python(data)
    except Exception:  # noqa: BLE001 - a user's validator may raise anything
        return _by_parts(annotation, data)


def _by_parts(annotation: Any, data: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _by_parts(arguments[0], data)
    if origin in (Union, UnionType):
        models = [argument for argument in arguments if argument is not type(None)]
        return _by_parts(models[0], data) if len(models) == 1 else data
    if isinstance(data, list) and origin is list:
        return [read_leniently(arguments[0], item) for item in data]
    if isinstance(data, Mapping) and origin is dict:
        return {key: read_leniently(arguments[1], item) for key, item in data.items()}
    if isinstance(data, Mapping) and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return data if issubclass(annotation, RootModel) else _model(annotation, data)
    return data


def _model(model: type[BaseModel], data: Mapping[str, Any]) -> BaseModel:
    refused = _refused(model, data)
    values: dict[str, Any] = {}
    known: set[str] = set()
    for name, field in model.model_fields.items():
        names = _names(model, name, field)
        known.update(names)
        wire = next((each for each in names if data.get(each) is not None), None)
        if wire is not None:
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            values[name] = (_by_parts if refused.intersection(names) else read_leniently)(annotation, data[wire])
    result = model.model_construct(_fields_set=set(values))
    # Not through model_construct: it confuses a field's name with another field's equal alias.
    fields = vars(result)
    defaults = dict(fields)
    fields.clear()
    fields.update({name: values.get(name, defaults.get(name)) for name in model.model_fields})
    if result.__pydantic_extra__ is not None:
        result.__pydantic_extra__.update({key: value for key, value in data.items() if key not in known})
    return result


def _refused(model: type[BaseModel], data: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields that validation of the whole model rejects, some through its own validators."""
    try:
        _adapter(model).validate_python(data)
    except ValidationError as error:
        return {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
    except Exception:  # noqa: BLE001 - as above
        return set()
    return set()


def _names(model: type[BaseModel], name: str, field: FieldInfo) -> list[str]:
    """Return the keys that a field is read from, the wire name first."""
    alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
    by_name = alias is None or model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    return [each for each in (alias, name if by_name else None) if each is not None]


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # its metadata cannot be hashed
        return TypeAdapter(annotation)


@functools.lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _without_own_description(schema: JsonDict, model: type[BaseModel]) -> None:
    """Remove the docstrings of this module from a schema: what is generated from it describes a user's kind."""
    if model.__module__ == __name__:
        schema.pop("description", None)


def _wire_name(name: str) -> str:
    return to_camel(name.rstrip("_"))


class Model(BaseModel):
    """The base of ``spec``, ``status`` and their parts: snake_case in Python, camelCase on the wire.

    A trailing underscore is dropped: ``from_`` is ``from`` on the wire. Unknown fields are kept, so that a program with
    an older model loses nothing. They are not part of the generated schema. A field may be a part of a built-in kind: a
    class of ``lightkube.models``, such as ``JobTemplateSpec``. Floats must be finite, since JSON has no
    other.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        describe_built_in_models()  # before pydantic looks at the fields

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


# Replaced as a whole by server-side apply, as in the core API: half of two references is none.
_ATOMIC = ConfigDict(json_schema_extra=schema_extra(map_type="atomic"))


class LocalObjectReference(Model):
    """A reference to an object in the same namespace."""

    model_config = _ATOMIC

    name: str = Field(min_length=1, max_length=253, description="Name of the object.")


class SecretKeySelector(LocalObjectReference):
    """A key of a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the Secret.")
    key: str = Field(min_length=1, max_length=253, description="Key in the Secret.")
    optional: bool | None = Field(default=None, description="Whether the Secret or the key may be missing.")


class ConfigMapKeySelector(LocalObjectReference):
    """A key of a ConfigMap in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the ConfigMap.")
    key: str = Field(min_length=1, max_length=253, description="Key in the ConfigMap.")
    optional: bool | None = Field(default=None, description="Whether the ConfigMap or the key may be missing.")


class TypedObjectReference(LocalObjectReference):
    """A reference to an object of any kind."""

    api_group: str | None = Field(default=None, max_length=253, description="API group; absent for the core group.")
    kind: str = Field(min_length=1, max_length=63, description="Kind of the object.")
    name: str = Field(min_length=1, max_length=253, description="Name of the object.")
    namespace: str | None = Field(
        default=None, max_length=63, description="Namespace of the object; absent for the namespace of the referrer."
    )
