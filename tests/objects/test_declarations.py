"""Refusals of the class line: class, field, what is wrong, what to write instead."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, computed_field

from reconciler.objects import (
    ConditionedStatus,
    Model,
    PrinterColumn,
    Quantity,
    Resource,
    Scale,
    SchemaError,
    rule,
    schema_extra,
)
from reconciler.objects.crd import structural_schema


class Part(Model):
    number: int = 1


class Spec(Model):
    size: int = 1
    replicas: int = 1
    parts: list[Part] = []
    labels: dict[str, str] = {}
    part: Part = Part()
    free: Any = None


class Status(ConditionedStatus):
    phase: str | None = None
    replicas: int = 0
    selector: str = ""


def declare(**keywords: Any) -> type[Resource[Any, Any]]:
    class Made(Resource[Spec, Status], group="example.com", version="v1", **keywords):  # type: ignore[misc]
        pass

    return Made


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            PrinterColumn(".status.phase", "Phase"),
            (
                "Made: printer column '.status.phase' has name and path 'Phase' swapped: "
                "write PrinterColumn('Phase', '.status.phase')"
            ),
        ),
        (
            PrinterColumn("Phase", ".status.phse"),
            "Made: printer column 'Phase': .status has no field 'phse': did you mean .status.phase?",
        ),
        (
            PrinterColumn("X", ".spec.xyz"),
            "Made: printer column 'X': .spec has no field 'xyz': its fields are size, replicas, parts, labels",
        ),
        (
            PrinterColumn("X", "status.phase"),
            "'status.phase' is not a JSONPath: it starts with a dot",
        ),
        (PrinterColumn("X", ".spec..size"), "'.spec..size' is not a JSONPath: '..size' is not a name or an index"),
        (PrinterColumn("X", "."), "'.' is not a JSONPath"),
        (
            PrinterColumn("X", ".spec.parts.number"),
            ".spec.parts is a list: write .spec.parts[0].number or .spec.parts[*]",
        ),
        (PrinterColumn("X", ".spec.size[0]"), ".spec.size is not a list"),
        (PrinterColumn("X", ".spec.size.unit"), ".spec.size has no fields, and so no 'unit'"),
        (PrinterColumn("X", ".sttus.phase"), "the object has no field 'sttus': did you mean .status?"),
        (PrinterColumn("X", ".metadata.creationTime"), "did you mean .metadata.creationTimestamp?"),
        (PrinterColumn("X", ".spec.part.nmber"), "did you mean .spec.part.number?"),
        (PrinterColumn("X", ".status.conditions[0].sttus"), "did you mean .status.conditions[0].status?"),
    ],
    ids=lambda value: value.path if isinstance(value, PrinterColumn) else "",
)
def test_a_column_whose_path_is_not_in_the_models(column: PrinterColumn, message: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(message)):
        declare(printer_columns=[column])


def test_columns_of_every_form_of_path() -> None:
    paths = [
        ".metadata.labels.app",
        r".metadata.annotations.example\.com/x",
        ".metadata.annotations['example.com/x']",
        ".spec.parts[0].number",
        ".spec.parts[*].number",
        ".spec.parts[-1:].number",
        ".spec.labels.any",
        ".spec.free.any[0].thing",
        '.status.conditions[?(@.type=="Ready")].message',
        ".kind",
    ]
    made = declare(printer_columns=[PrinterColumn("Any", path) for path in paths])
    columns = made.crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [column["type"] for column in columns[:4]] == ["string", "string", "string", "integer"]


def columns_of(kind: type[Resource[Any, Any]]) -> list[tuple[str, str]]:
    columns = kind.crd()["spec"]["versions"][0].get("additionalPrinterColumns", [])
    return [(column["name"], column["jsonPath"]) for column in columns]


READY = ("Ready", '.status.conditions[?(@.type=="Ready")].status')
REASON = ("Reason", '.status.conditions[?(@.type=="Ready")].reason')
AGE = ("Age", ".metadata.creationTimestamp")


def test_conditioned_status_brings_ready_reason_and_age() -> None:
    assert columns_of(declare()) == [READY, REASON, AGE]
    phase = PrinterColumn("Phase", ".status.phase")
    assert columns_of(declare(printer_columns=[phase])) == [("Phase", ".status.phase"), READY, REASON, AGE]
    own = PrinterColumn("REASON", ".status.phase")
    assert columns_of(declare(printer_columns=[own])) == [("REASON", ".status.phase"), READY, AGE]

    class Bare(ConditionedStatus):
        printer_columns = ()

    class Quiet(Resource[Spec, Bare], group="example.com", version="v1"):
        pass

    class Plain(Resource[Spec, Part], group="example.com", version="v1"):
        pass

    assert columns_of(Quiet) == columns_of(Plain) == []
    assert "printerColumns" not in str(structural_schema(ConditionedStatus))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"selectable_fields": [".spec.sze"]},
            "Made: selectable field '.spec.sze': .spec has no field 'sze': did you mean",
        ),
        (
            {"selectable_fields": [".spec.part"]},
            "selectable field '.spec.part' is not a string, a boolean or an integer",
        ),
        ({"selectable_fields": [".metadata.name"]}, "selectable field '.metadata.name': .metadata has no fields"),
        ({"selectable_fields": [".spec.size"] * 9}, "Made: selectable_fields has more than eight paths"),
        (
            {"scale": Scale(".spec.replica")},
            "Made: scale path '.spec.replica': .spec has no field 'replica': did you mean",
        ),
        ({"scale": Scale(".status.replicas")}, "scale path '.status.replicas' is not a field below .spec."),
        ({"scale": Scale(status_replicas=".status.phase")}, "scale path '.status.phase' is not of type integer"),
        ({"scale": Scale(selector=".status.replicas")}, "scale path '.status.replicas' is not of type string"),
        ({"short_names": ("DB",)}, "Made: short_names='DB' must be words in lower case, like 'db'"),
        ({"categories": ("All",)}, "Made: categories='All' must be words in lower case"),
        ({"singular": "A b"}, "Made: singular='A b' must be a word in lower case"),
        ({"plural": "a" * 64}, "must have at most 63 characters"),
        ({"deprecated": "two\nlines"}, "Made: deprecated must be True or a warning in one line"),
        ({"deprecated": 1}, "Made: deprecated must be True or a warning, not 1"),
        (
            {"printer_columns": [{}]},
            "Made: printer_columns contains {}, not a PrinterColumn: write Printer",
        ),
        (
            {"printer_columns": PrinterColumn("A", ".a")},
            "Made: printer_columns must be a sequence: write ",
        ),
        (
            {"printer_columns": [PrinterColumn("A", ".spec.size", "text")]},
            "'A' has no name, or the type 'text': types are",
        ),  # type: ignore[arg-type]
        (
            {"printer_columns": [PrinterColumn("", ".spec.size")]},
            "Made: printer column '' has no name, or the",
        ),
        (
            {"rules": ["self.spec.size > 0"]},
            "Made: rules contains 'self.spec.size > 0', not a CELRule: write rule(",
        ),
        ({"rules": "self.spec.size > 0"}, "Made: rules must be a sequence: write rules=(rule('self.spec.size > 0'),)"),
        ({"scale": ".spec.replicas"}, "Made: scale must be a Scale, not '.spec.replicas': write scale=Scale("),
        ({"deprecated": ""}, "Made: deprecated must be True or a warning in one line"),
    ],
    ids=str,
)
def test_keywords_of_the_class_line(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        declare(**keywords)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expression": " "}, "a rule needs a CEL expression"),
        ({"expression": "a\nb"}, "a rule of several lines needs a message="),
        ({"expression": "a", "message": "a\nb"}, "rule 'a': message must be one line of text"),
        ({"expression": "a", "message": ""}, "message must be one line of text"),
        (
            {"expression": "a", "reason": "Wrong"},
            "reason='Wrong' must be one of FieldValueInvalid, FieldValueForbidden",
        ),
        ({"expression": "a", "field_path": "size"}, "field_path='size' must start with a dot, like '.size'"),
    ],
)
def test_rules(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        rule(**arguments)


def test_rules_of_a_field_are_rules() -> None:
    for wrong in ("self > 0", ["self > 0"]):
        with pytest.raises(TypeError, match="rules must be a sequence of rules"):
            schema_extra(rules=wrong)  # type: ignore[arg-type]


def field(annotation: Any, default: Any = ..., **options: Any) -> type[BaseModel]:
    namespace = {"__annotations__": {"field": annotation}, "field": Field(default, **options), "__module__": __name__}
    return type(Model)("Holder", (Model,), namespace)


class Same(Model):
    foo_bar: int = 1
    fooBar: int = 2


class Split(Model):
    one: int = Field(default=1, validation_alias="in", serialization_alias="out")


class Computed(Model):
    one: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def two(self) -> int:
        return 2


class Tagged(Model):
    kind: Literal["a"]
    size: int = 1


class OtherTagged(Model):
    kind: Literal["b"]
    size: str = ""


class Numbered(Model):
    kind: Literal[1]


class OtherNumbered(Model):
    kind: Literal[2]


class Keyless(Model):
    name: str | None = None


class Tree(Model):
    children: list[Tree] = []


def keyed(*keys: str) -> Any:
    return schema_extra(list_type="map", list_map_keys=keys)


PYTHON_RE = ConfigDict(regex_engine="python-re")


def regex(pattern: str) -> type[BaseModel]:
    namespace = {
        "__annotations__": {"field": str},
        "field": Field(pattern=pattern),
        "__module__": __name__,
        "model_config": PYTHON_RE,
    }
    return type(Model)("Holder", (Model,), namespace)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Same, "Same.fooBar has the wire name 'fooBar' of foo_bar: set another alias="),
        (lambda: Split, "Split.one is read as 'in' and written as 'out': a field has one wire name"),
        (lambda: Computed, "Computed.two is a computed field, which the server would remove: make it a property"),
        (lambda: field(int, 5, ge=10), "Holder.field has a default that does not fit (input should be greater than"),
        (lambda: field(Literal["a"], "b"), "Holder.field has a default that does not fit"),
        (lambda: field(str, "Abc", pattern="^[a-z]+$"), "Holder.field has a default that does not fit"),
        (lambda: field(list[Part], [Part(number=1)], max_length=0), "Holder.field has a default that does not fit"),
        (lambda: field(int, 2**63), "Holder.field has a default beyond 64 bits, which the server cannot read"),
        (lambda: field(dict[str, Any], {"a": [2**70]}), "Holder.field has a default beyond 64 bits"),
        (
            lambda: type(BaseModel)(
                "Holder", (BaseModel,), {"__annotations__": {"f": float}, "f": float("nan"), "__module__": __name__}
            ),
            "Holder.f has the default nan, which JSON cannot express: set a finite default, or None",
        ),
        (lambda: field(datetime, datetime(2026, 1, 1)), "Holder.field has a default without a time zone: write"),  # noqa: DTZ001
        (
            lambda: field(Annotated[int, PlainSerializer(str)], 1),
            "Holder.field has the type integer, and a default that is written as str: add pydantic.WithJsonSchema",
        ),
        (lambda: field(Callable[[], int]), "Holder.field has a type without a JSON form (core_schema.CallableSchema)"),
        (lambda: field(Quantity | bool), "Holder.field is a union (int | str | boolean)"),
        (lambda: field(bytes), "Holder.field is bytes, which JSON does not have: use pydantic.Base64Bytes"),
        (lambda: field(Tagged | OtherTagged), "Holder.field is a union (Tagged | OtherTagged): add a Literal field"),
        (
            lambda: field(Tagged | OtherTagged, discriminator="kind"),
            "Holder.field is a union whose models have different fields 'size' (b and another)",
        ),
        (
            lambda: field(Numbered | OtherNumbered, discriminator="kind"),
            "Holder.field is a union told apart by 'kind', which is not a string: use Literal strings",
        ),
        (lambda: field(bool | str), "Holder.field is a union (boolean | string)"),
        (lambda: field(Tree), "Tree.children[] contains Tree again: a schema cannot be recursive"),
        (
            lambda: field(list[Part], [], json_schema_extra=keyed("nme")),
            "Holder.field has the list key 'nme', which its items do not have: its fields are number",
        ),
        (
            lambda: field(list[Keyless], [], json_schema_extra=keyed("name")),
            "Holder.field has the list key 'name', which an item may lack: make it required, or give it a default",
        ),
        (
            lambda: field(list[str], [], json_schema_extra=keyed("name")),
            "Holder.field has the list key 'name', which its items do not have: its items must be a model",
        ),
        (
            lambda: field(list[Part], [], json_schema_extra=schema_extra(list_type="set")),
            'Holder.field is a set of lists or objects: use list_type="map", with list_map_keys=',
        ),
        (
            lambda: field(list[Annotated[str, Field(json_schema_extra=schema_extra(immutable=True))]]),
            "Holder.field[] has a rule with oldSelf (or is immutable) inside Holder.field, whose items",
        ),
        (
            lambda: field(Quantity, multiple_of=5),
            "Holder.field needs 'multiple_of' of JSON Schema",
        ),
        (
            lambda: field(Decimal, max_digits=5),
            "Holder.field needs 'max_digits' of JSON Schema, which the API does not",
        ),
        (lambda: regex("(?=a)b"), "Holder.field has a pattern with a lookahead, which RE2, the server's engine"),
        (lambda: regex("(?<!a)b"), "a pattern with a lookbehind"),
        (lambda: regex(r"(a)\1"), r"a pattern with the backreference \1"),
        (lambda: regex("(?>a)"), "a pattern with an atomic group"),
        (lambda: regex("a++"), "a pattern with the possessive quantifier ++"),
        (lambda: regex(r"a\Z"), r"Holder.field has a pattern with \Z, which RE2 calls \z: end the pattern with $"),
    ],
)
def test_models_that_the_api_cannot_express(model: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(message)):
        structural_schema(model())


@pytest.mark.parametrize(
    "pattern", [r"^[(?=]+$", r"\\1", r"(?:a)(?i:b)", r"(?P<n>a)", r"[]a++]", r"\(\?=", "a+", r"\.+"]
)
def test_patterns_that_re2_has(pattern: str) -> None:
    re2 = pytest.importorskip("re2")
    re2.compile(pattern)
    assert structural_schema(regex(pattern))["properties"]["field"]["pattern"] == pattern


def test_deep_models() -> None:
    model: type[BaseModel] = Part
    for depth in range(30):
        model = type(Model)(f"L{depth}", (Model,), {"__annotations__": {"child": model}, "__module__": __name__})
    assert structural_schema(model)["required"] == ["child"]
    for depth in range(200):
        model = type(Model)(f"D{depth}", (Model,), {"__annotations__": {"child": model}, "__module__": __name__})
    with pytest.raises(SchemaError, match="is nested too deeply: use Any or dict for the inner levels"):
        structural_schema(model)


def test_names_that_clash_with_python_or_pydantic() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Names(Model):
            from_: str = "x"
            class_: int = 1
            schema_: str = "s"
            kind: str = "k"
            api_version: str = "a"
            metadata: dict[str, str] = {}
            status: str = ""
            model_name: str = ""
            cluster_ip: str = Field(default="", alias="clusterIP")

    wire = ["from", "class", "schema", "kind", "apiVersion", "metadata", "status", "modelName", "clusterIP"]
    assert list(structural_schema(Names)["properties"]) == wire
    assert Names.model_validate({"from": "y", "class": 2}).from_ == "y"
    assert set(Names().model_dump(by_alias=True)) == set(wire)


def test_a_model_refuses_floats_that_json_does_not_have() -> None:
    class Ratio(Model):
        ratio: float = 1

    with pytest.raises(ValueError, match="finite"):
        Ratio(ratio=float("inf"))


def test_models_that_refer_to_later_classes_are_checked_when_the_crd_is_generated() -> None:
    class Early(Model):
        later: Later | None = None  # type: ignore[name-defined]

    class Kind(
        Resource[Early], group="example.com", version="v1", printer_columns=[PrinterColumn("X", ".spec.latr.size")]
    ):
        pass

    class Later(Model):
        size: int = 1

    Early.model_rebuild(_types_namespace={"Later": Later})
    with pytest.raises(SchemaError, match=re.escape("did you mean .spec.later?")):
        Kind.crd()
