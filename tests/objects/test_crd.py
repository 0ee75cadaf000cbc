"""The generated CustomResourceDefinition: pydantic models as structural schemas."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema

from reconciler.client import Client
from reconciler.errors import Invalid
from reconciler.objects import (
    ConditionedStatus,
    Model,
    ObjectMeta,
    OwnerReference,
    PrinterColumn,
    Resource,
    SchemaError,
    generate_crd,
    rule,
    schema_extra,
)
from reconciler.objects.crd import structural_schema
from tests.objects.serving import serve


class Color(enum.Enum):
    """A color."""

    RED = "red"
    BLUE = "blue"


class Port(Model):
    """One port."""

    port_name: str
    number: int = Field(gt=0, lt=65536, json_schema_extra=schema_extra(format="int32"))
    protocol: Literal["TCP", "UDP"] = "TCP"


def schema_of(annotation: Any, default: Any = ..., **field: Any) -> dict[str, Any]:
    """Return the schema of one field."""
    namespace = {"__annotations__": {"field": annotation}, "field": Field(default, **field), "__module__": __name__}
    model = type(BaseModel)("Holder", (BaseModel,), namespace)
    found: dict[str, Any] = structural_schema(model)["properties"]["field"]
    return found


STRING = {"type": "string"}
INT = {"type": "integer", "format": "int64"}
ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (str, ..., STRING),
        (str, "a", STRING | {"default": "a"}),
        (int, ..., INT),
        (float, ..., {"type": "number", "format": "double"}),
        (bool, True, {"type": "boolean", "default": True}),
        (Base64Bytes, ..., STRING | {"format": "byte"}),
        (datetime, ..., {"type": "string", "format": "date-time"}),
        (date, ..., {"type": "string", "format": "date"}),
        (timedelta, ..., STRING),
        (uuid.UUID, ..., {"type": "string", "format": "uuid"}),
        (str | None, None, STRING),
        (Literal["a", "b"], ..., {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], "a", {"type": "string", "enum": ["a"], "default": "a"}),
        (Literal["a", None], None, {"type": "string", "enum": ["a"]}),  # noqa: PYI061 - what is tested
        (Literal[1, 2], 1, INT | {"enum": [1, 2], "default": 1}),
        (Color, Color.RED, {"type": "string", "enum": ["red", "blue"], "default": "red", "description": "A color."}),
        (Color | None, None, {"type": "string", "enum": ["red", "blue"], "description": "A color."}),
        (int | str, 5, {"x-kubernetes-int-or-string": True, "default": 5}),
        (int | str | None, None, {"x-kubernetes-int-or-string": True}),
        (
            Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern="^[0-9]+%$")],
            ...,
            {"x-kubernetes-int-or-string": True, "minimum": 0, "pattern": "^[0-9]+%$"},
        ),
        (list[str], ..., {"type": "array", "items": STRING}),
        (list[int | None], ..., {"type": "array", "items": INT | {"nullable": True}}),
        (set[str], ..., {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"}),
        (tuple[str, ...], ..., {"type": "array", "items": STRING}),
        (list[Any], ..., {"type": "array", "items": ANYTHING}),
        (dict[str, str], ..., {"type": "object", "additionalProperties": STRING}),
        (dict[str, int | None], ..., {"type": "object", "additionalProperties": INT | {"nullable": True}}),
        (dict[str, Any], ..., {"type": "object"} | ANYTHING),
        (dict, ..., {"type": "object"} | ANYTHING),
        (Any, ..., ANYTHING),
        (Any, None, ANYTHING),
        (Model, ..., {"type": "object"} | ANYTHING),
    ],
    ids=str,
)
def test_types(annotation: Any, default: Any, expected: dict[str, Any]) -> None:
    found = schema_of(annotation, default)
    assert found == expected


@pytest.mark.parametrize(
    ("annotation", "constraints", "expected"),
    [
        (int, {"ge": 1, "le": 9}, INT | {"minimum": 1, "maximum": 9}),
        (int, {"gt": 1}, INT | {"minimum": 1, "exclusiveMinimum": True}),
        (int, {"lt": 9}, INT | {"maximum": 9, "exclusiveMaximum": True}),
        (int, {"gt": 1, "ge": 5}, INT | {"minimum": 5}),
        (int, {"lt": 9, "le": 9}, INT | {"maximum": 9, "exclusiveMaximum": True}),
        (int, {"ge": -(2**63), "le": 2**63 - 1}, INT),
        (int, {"multiple_of": 5}, INT | {"multipleOf": 5}),
        (str, {"min_length": 1, "max_length": 9}, STRING | {"minLength": 1, "maxLength": 9}),
        (str, {"pattern": "^a$"}, STRING | {"pattern": "^a$"}),
        (list[str], {"max_length": 3}, {"type": "array", "items": STRING, "maxItems": 3}),
        (dict[str, str], {"max_length": 3}, {"type": "object", "additionalProperties": STRING, "maxProperties": 3}),
        (str, {"description": "  What.\n  More."}, STRING | {"description": "What.\nMore."}),
        (str, {"examples": ["a"], "title": "T", "deprecated": True}, STRING),
    ],
    ids=str,
)
def test_constraints(annotation: Any, constraints: dict[str, Any], expected: dict[str, Any]) -> None:
    assert schema_of(annotation, **constraints) == expected


def test_models_inside_are_inlined_with_their_wire_names() -> None:
    port = {
        "type": "object",
        "description": "One port.",
        "required": ["portName", "number"],
        "properties": {
            "portName": STRING,
            "number": {
                "type": "integer",
                "format": "int32",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 65536,
                "exclusiveMaximum": True,
            },
            "protocol": {"type": "string", "enum": ["TCP", "UDP"], "default": "TCP"},
        },
    }
    assert schema_of(Port) == port
    assert schema_of(Port, description="The main one.") == port | {"description": "The main one."}
    assert schema_of(Port | None, None) == port
    assert schema_of(list[Port]) == {"type": "array", "items": port}
    assert schema_of(dict[str, Port]) == {"type": "object", "additionalProperties": port}
    default = Port(port_name="http", number=80)
    assert schema_of(Port, default)["default"] == {"portName": "http", "number": 80, "protocol": "TCP"}


def test_a_default_contains_no_nulls() -> None:
    class Limits(Model):
        lower: int | None = None
        upper: int = 3

    assert schema_of(Limits, Limits())["default"] == {"upper": 3}


class Node(BaseModel):
    child: Node | None = None


class Inner(BaseModel):
    choice: str | list[str]


SET = Field(json_schema_extra=schema_extra(list_type="set"))
ATOMIC = Field(json_schema_extra=schema_extra(map_type="atomic"))
ALL_OF = Annotated[dict[str, Any], WithJsonSchema({"allOf": [{"type": "object"}]})]


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]
    name: str


@pytest.mark.parametrize(
    ("annotation", "default", "message"),
    [
        (str | list[str], ..., r"Holder\.field is a union \(string \| array\): only X \| None, int \| str"),
        (Cat | Dog, ..., r"Holder\.field is a union \(Cat \| Dog\): add a Literal field to each model"),
        (bytes, ..., r"Holder\.field is bytes, which JSON does not have: use pydantic\.Base64Bytes"),
        (list[str | list[str]], ..., r"Holder\.field\[\] is a union"),
        (dict[str, str | list[str]], ..., r"Holder\.field\[\*\] is a union"),
        (Inner, ..., r"Inner\.choice is a union"),
        (float | str, ..., r"Holder\.field is a union \(number \| string\)"),
        (tuple[int, str], ..., r"Holder\.field needs 'prefixItems' .*: use a model, or a list of one type"),
        (dict[Literal["a"], str], ..., r"Holder\.field needs 'propertyNames' .*: use dict\[str, …\]"),
        (Node, ..., r"Node\.child contains Node again: a schema cannot be recursive"),
        (SecretStr, ..., r"Holder\.field needs 'writeOnly' .*: pydantic serializes a secret as asterisks"),
        (ALL_OF, ..., r"Holder\.field needs 'allOf' .*: write one model with all fields"),
        (Literal["a", 1], ..., r"Holder\.field takes values of several types \(integer, string\)"),
        (None, ..., r"Holder\.field can only be null"),
        (int | None, ..., r"Holder\.field may be null without being None by default: set the default None"),
        (int | None, 5, r"Holder\.field may be null without being None by default"),
        (Extra, ..., r"Extra has fields and typed extra fields"),
        (Annotated[str, SET], ..., r"Holder\.field has list_type= and the type string: only an array can have it"),
        (Annotated[list[int], ATOMIC], ..., r"Holder\.field has map_type= and the type array: only an object can"),
    ],
    ids=str,
)
def test_a_type_the_api_cannot_express_is_rejected_with_model_and_field(
    annotation: Any, default: Any, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        schema_of(annotation, default)


def test_extras_of_a_field() -> None:
    assert schema_of(
        list[Port], json_schema_extra=schema_extra(list_type="map", list_map_keys=["portName"]), default_factory=list
    )["x-kubernetes-list-map-keys"] == ["portName"]
    assert schema_of(str, json_schema_extra=schema_extra(immutable=True)) == STRING | {
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]
    }
    assert schema_of(
        dict[str, str], json_schema_extra=schema_extra(map_type="atomic", rules=[rule("size(self) < 3")])
    ) == {
        "type": "object",
        "additionalProperties": STRING,
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-validations": [{"rule": "size(self) < 3"}],
    }
    assert (
        schema_of(dict[str, Any], json_schema_extra=schema_extra(embedded_resource=True, preserve_unknown_fields=True))
        == {"type": "object", "x-kubernetes-embedded-resource": True} | ANYTHING
    )


def test_list_map_keys_and_list_type_map_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        schema_extra(list_type="map")
    with pytest.raises(ValueError, match="go together"):
        schema_extra(list_map_keys=["name"])


def test_every_part_of_a_rule_is_written() -> None:
    made = rule(
        "self.a == oldSelf.a",
        message="m",
        message_expression="'m'",
        reason="FieldValueForbidden",
        field_path=".a",
        optional_old_self=True,
    )
    assert made.to_dict() == {
        "rule": "self.a == oldSelf.a",
        "message": "m",
        "messageExpression": "'m'",
        "reason": "FieldValueForbidden",
        "fieldPath": ".a",
        "optionalOldSelf": True,
    }


class Range(BaseModel):
    """Bounds."""

    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            rules=[rule("self.minimum <= self.maximum", message="minimum must not exceed maximum")]
        )
    )
    minimum: int = 0
    maximum: int = 10


def test_rules_of_a_model_apply_wherever_it_is_used() -> None:
    expected = [{"rule": "self.minimum <= self.maximum", "message": "minimum must not exceed maximum"}]
    assert schema_of(Range)["x-kubernetes-validations"] == expected
    assert schema_of(list[Range])["items"]["x-kubernetes-validations"] == expected


class RichSpec(Model):
    """The desired state."""

    size: int = Field(ge=1, le=100)
    ratio: float = Field(default=0.5, gt=0, lt=1)
    color: Color = Color.RED
    other_color: Color | None = None
    start: datetime | None = None
    wait: timedelta | None = None
    ports: list[Port] = Field(
        default_factory=list, json_schema_extra=schema_extra(list_type="map", list_map_keys=["portName"])
    )
    labels: dict[str, str] = Field(default_factory=dict, max_length=5)
    by_name: dict[str, Port] = Field(default_factory=dict)
    anything: Any = None
    free: dict[str, Any] = Field(default_factory=dict)
    tags: set[str] = Field(default_factory=set, max_length=3)
    bounds: Range = Range(minimum=1, maximum=3)
    surge: int | str = "25%"
    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z]+$", json_schema_extra=schema_extra(immutable=True))
    numbers: list[int | None] = [1, 2]
    mixed: list[Any] = Field(default_factory=list)
    raw: Model | None = None
    template: dict[str, Any] | None = Field(default=None, json_schema_extra=schema_extra(embedded_resource=True))


class RichStatus(BaseModel):
    phase: Literal["A", "B"] | None = None
    attempts: int = 0


class Rich(
    Resource[RichSpec, RichStatus],
    group="example.com",
    version="v1",
    short_names=("ri",),
    categories=("all",),
    printer_columns=(
        PrinterColumn("Size", ".spec.size", description="How big"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Start", ".spec.start", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp"),
        PrinterColumn("Port", ".spec.ports[0].number", "integer", format="int32"),
    ),
    selectable_fields=(".spec.name",),
    rules=(rule("self.metadata.name != 'forbidden'", message="forbidden name"),),
):
    """A kind that uses everything.

    In two paragraphs.
    """


class EmptySpec(BaseModel):
    size: int = 1


class Small(Resource[EmptySpec], group="example.com", version="v1", scope="Cluster"):
    pass


def version_of(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    found: dict[str, Any] = version
    return found


def test_names_and_scope() -> None:
    crd = Rich.crd()
    assert crd["apiVersion"] == "apiextensions.k8s.io/v1"
    assert crd["kind"] == "CustomResourceDefinition"
    assert crd["metadata"] == {"name": "riches.example.com"}
    assert crd["spec"]["group"] == "example.com"
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"] == {
        "plural": "riches",
        "singular": "rich",
        "kind": "Rich",
        "listKind": "RichList",
        "shortNames": ["ri"],
        "categories": ["all"],
    }
    assert Small.crd()["spec"]["scope"] == "Cluster"


def test_the_version() -> None:
    version = version_of(Rich.crd())
    schema = version["schema"]["openAPIV3Schema"]
    assert (version["name"], version["served"], version["storage"]) == ("v1", True, True)
    assert version["subresources"] == {"status": {}}
    assert version["selectableFields"] == [{"jsonPath": ".spec.name"}]
    assert schema["description"] == "A kind that uses everything."
    assert schema["required"] == ["spec"]
    assert schema["properties"]["spec"]["description"] == "The desired state."
    assert schema["x-kubernetes-validations"] == [
        {"rule": "self.metadata.name != 'forbidden'", "message": "forbidden name"}
    ]


def test_printer_columns_take_their_type_from_the_schema() -> None:
    assert version_of(Rich.crd())["additionalPrinterColumns"] == [
        {"name": "Size", "jsonPath": ".spec.size", "type": "integer", "description": "How big"},
        {"name": "Phase", "jsonPath": ".status.phase", "type": "string"},
        {"name": "Start", "jsonPath": ".spec.start", "type": "date", "priority": 1},
        {"name": "Age", "jsonPath": ".metadata.creationTimestamp", "type": "date"},
        {"name": "Port", "jsonPath": ".spec.ports[0].number", "type": "integer", "format": "int32"},
    ]


def test_a_spec_with_defaults_for_everything_may_be_omitted() -> None:
    schema = version_of(Small.crd())["schema"]["openAPIV3Schema"]
    assert "required" not in schema
    assert schema["properties"]["spec"]["default"] == {}


@pytest.mark.parametrize("kind", [Rich, Small])
def test_every_status_schema_has_observed_generation_and_conditions(kind: type[Resource[Any, Any]]) -> None:
    status = version_of(kind.crd())["schema"]["openAPIV3Schema"]["properties"]["status"]
    conditions = status["properties"]["conditions"]
    assert status["properties"]["observedGeneration"]["format"] == "int64"
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["required"] == ["lastTransitionTime", "message", "reason", "status", "type"]
    assert conditions["items"]["properties"]["status"] == {"type": "string", "enum": ["True", "False", "Unknown"]}
    assert conditions["items"]["properties"]["reason"]["minLength"] == 1


def test_a_status_schema_has_no_defaults_since_the_server_would_add_to_what_was_written() -> None:
    status = version_of(Rich.crd())["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert status["properties"]["attempts"] == INT
    assert status["properties"]["phase"] == {"type": "string", "enum": ["A", "B"]}


def test_several_versions_of_a_kind() -> None:
    class Old(Resource[EmptySpec], group="example.com", version="v1beta1", kind="Rich", storage=False, served=False):
        pass

    crd = generate_crd(Old, Rich)
    assert [(v["name"], v["served"], v["storage"]) for v in crd["spec"]["versions"]] == [
        ("v1beta1", False, False),
        ("v1", True, True),
    ]
    assert crd["spec"]["names"]["shortNames"] == ["ri"]


def test_classes_that_are_not_versions_of_one_kind_are_rejected() -> None:
    class Second(Resource[EmptySpec], group="example.com", version="v2", kind="Rich"):
        pass

    with pytest.raises(SchemaError, match="not versions of one kind"):
        generate_crd(Rich, Small)
    with pytest.raises(SchemaError, match="exactly one has storage=True"):
        generate_crd(Rich, Second)
    with pytest.raises(SchemaError, match="at least one version"):
        generate_crd()


def test_optional_and_union_spellings_agree() -> None:
    assert schema_of(Union[int, None], None) == schema_of(int | None, None)  # noqa: UP007 - the older spelling


def test_a_plain_model_s_field_names_are_the_wire_names() -> None:
    class Snake(BaseModel):
        storage_class: str

    assert list(structural_schema(Snake)["properties"]) == ["storage_class"]
    assert list(structural_schema(ConditionedStatus)["properties"]) == ["observedGeneration", "conditions"]


async def test_a_server_accepts_every_part_of_the_generated_crd(admin: Client) -> None:
    await serve(admin, Rich)
    await serve(admin, Small)
    spec = RichSpec(
        size=3,
        name="abc",
        ports=[Port(port_name="http", number=80)],
        tags={"a", "b"},
        start=datetime.fromisoformat("2026-01-01T00:00:00.5+00:00"),
        wait=timedelta(hours=1),
        free={"any": {"thing": [1, None]}},
        mixed=[1, "two", {"three": 3}],
        template={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}},
    )
    written = Rich(metadata=ObjectMeta(name="a", namespace="default"), spec=spec)
    read = await admin.create(written, field_validation="Strict")
    assert read.spec == spec
    assert read.status == RichStatus()

    minimal = {"apiVersion": "example.com/v1", "kind": "Rich", "metadata": {"name": "minimal", "namespace": "default"}}
    filled_in = await admin.create(minimal | {"spec": {"size": 1, "name": "x"}}, field_validation="Strict")
    assert filled_in["spec"] == {
        "size": 1,
        "name": "x",
        "ratio": 0.5,
        "color": "red",
        "bounds": {"minimum": 1, "maximum": 3},
        "surge": "25%",
        "numbers": [1, 2],
    }
    small = await admin.create({"apiVersion": "example.com/v1", "kind": "Small", "metadata": {"name": "a"}})
    assert small["spec"] == {"size": 1}

    bad = {"size": 1, "name": "x", "ratio": 1.0, "bounds": {"minimum": 9, "maximum": 1}}
    with pytest.raises(Invalid) as caught:
        await admin.create(minimal | {"metadata": {"name": "forbidden", "namespace": "default"}, "spec": bad})
    for words in ("should be less than 1", "minimum must not exceed maximum", "forbidden name"):
        assert words in str(caught.value)
    with pytest.raises(Invalid, match="is immutable"):
        await admin.patch(Rich, "a", "default", patch={"spec": {"name": "other"}})

    found = await admin.list(Rich, "default", field_selector={"spec.name": "abc"})
    assert [one.name for one in found] == ["a"]

    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Up",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"phase": "A", "observedGeneration": 1, "conditions": [condition]}
    stored = await admin.patch("example.com/v1/Rich", "a", "default", patch={"status": status}, subresource="status")
    assert stored["status"] == status


async def test_a_typed_update_preserves_fields_unknown_to_the_model(admin: Client) -> None:
    class Known(BaseModel):
        size: int

    class Newer(BaseModel):
        size: int
        unknown: dict[str, Any] = {}

    class NewerKind(Resource[Newer], group="example.com", version="v1", kind="Evolving"):
        pass

    class OlderKind(Resource[Known], group="example.com", version="v1", kind="Evolving"):
        pass

    await serve(admin, NewerKind)
    made = NewerKind(metadata=ObjectMeta(name="a", namespace="default"), spec=Newer(size=1, unknown={"a": {"b": 1}}))
    await admin.create(made)
    old = await admin.get(OlderKind, "a", "default")
    old.spec.size = 2
    old.metadata.labels["touched"] = "yes"
    await admin.update(old)
    assert (await admin.get(NewerKind, "a", "default")).spec == Newer(size=2, unknown={"a": {"b": 1}})


def descriptions(schema: Any) -> list[str]:
    """Return every description of a schema, at any depth."""
    if isinstance(schema, list):
        return [text for item in schema for text in descriptions(item)]
    if not isinstance(schema, dict):
        return []
    found = [value for key, value in schema.items() if key == "description" and isinstance(value, str)]
    return found + [text for value in schema.values() for text in descriptions(value)]


STATUS_DESCRIPTIONS = [
    "The generation that this status describes.",
    "One aspect of the object's state, in the form of metav1.Condition.",
]


def test_a_kind_without_docstrings_explains_nothing_about_this_library() -> None:
    class Shade(enum.StrEnum):
        DARK = "dark"

    class Part(Model):
        shade: Shade = Shade.DARK

    class BareSpec(Model):
        part: Part
        parts: list[Part]
        owner: OwnerReference | None = None
        template: ObjectMeta | None = None
        more: Model | None = None

    class BareStatus(ConditionedStatus):
        phase: str | None = None

    class Bare(Resource[BareSpec, BareStatus], group="example.com", version="v1"):
        pass

    class Default(Resource[Model], group="example.com", version="v1"):
        pass

    class Any_(Resource, group="example.com", version="v1", kind="Any"):  # type: ignore[type-arg]
        pass

    for kind in (Bare, Default, Any_):
        assert descriptions(kind.crd()) == STATUS_DESCRIPTIONS, kind


def test_a_docstring_is_not_inherited_and_a_description_of_the_field_takes_precedence() -> None:
    class Part(Model):
        """For developers of this model."""

    class Wheel(Part):
        size: int = 1

    class CarSpec(Model):
        wheel: Wheel = Wheel()
        part: Part = Field(default=Part(), description="Any part.")

    class Base(Resource[CarSpec, ConditionedStatus], group="example.com", version="v1"):
        """For developers of this kind."""

    class Car(Base, group="example.com", version="v1", kind="Car"):
        pass

    schema = generate_crd(Car)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]["properties"]
    assert [each.get("description") for each in (schema, spec["wheel"], spec["part"])] == [None, None, "Any part."]


def test_a_description_is_the_first_paragraph_of_a_docstring_without_its_sections() -> None:
    class Part(BaseModel):
        """A part.

        More about parts.
        """

        size: int = Field(description="Grams.\n\nRounded.")

    class ToldSpec(Model):
        """The desired state.

        Attributes:
            part: see `Part`.
        """

        part: Part

    class ToldStatus(ConditionedStatus):
        """Attributes:
        phase: a word.
        """

        phase: str | None = None

    class Told(Resource[ToldSpec, ToldStatus], group="example.com", version="v1"):
        """A thing, described
        on two lines.
        Attributes:
            spec: see `ToldSpec`.
        """

    told = ["A thing, described\non two lines.", "The desired state.", "A part.", "Grams.\n\nRounded."]
    assert descriptions(Told.crd()) == told + STATUS_DESCRIPTIONS


# generated once


def test_each_definition_belongs_to_its_caller() -> None:
    class OwnSpec(Model):
        size: int = 1
        colors: list[Color] = [Color.RED]

    class Owned(Resource[OwnSpec], group="example.com", version="v1"):
        pass

    expected, changed = Owned.crd(), Owned.crd()
    properties = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["properties"]["size"]["default"] = 2
    properties["spec"]["properties"]["colors"]["default"].append("blue")
    properties["status"]["properties"]["conditions"].clear()
    assert Owned.crd() == expected != changed


def test_a_definition_follows_a_model_that_is_rebuilt() -> None:
    class RebuiltSpec(Model):
        size: int = 1

    class Rebuilt(Resource[RebuiltSpec], group="example.com", version="v1"):
        pass

    def size() -> Any:
        schema = Rebuilt.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return schema["properties"]["spec"]["properties"]["size"]["default"]

    assert size() == 1
    RebuiltSpec.model_fields["size"].default = 2
    RebuiltSpec.model_rebuild(force=True)
    assert size() == 2


def test_each_parametrization_of_a_generic_model_has_its_own_schema() -> None:
    value = TypeVar("value")

    class HeldSpec(Model, Generic[value]):
        held: value

    schemas = [structural_schema(HeldSpec[kind])["properties"]["held"]["type"] for kind in (int, str, int)]  # type: ignore[valid-type]
    assert schemas == ["integer", "string", "integer"]
