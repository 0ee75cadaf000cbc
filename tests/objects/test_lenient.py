"""Lenient reading of a document that does not fit its model."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, RootModel, field_validator, model_validator

from reconciler.objects import ConditionedStatus, InvalidObject, Model, Resource, Unstructured
from reconciler.objects.kinds import from_document


class Port(Model):
    port_number: int
    protocol: Literal["TCP", "UDP"] = "TCP"


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


class Spec(Model):
    size: int = Field(ge=1, le=100)
    owner_name: str
    until: datetime | None = None
    ports: list[Port] = Field(default_factory=list)
    by_name: dict[str, Port] = Field(default_factory=dict)
    main: Port | None = None
    pair: Annotated[int, AfterValidator(_even)] = 0
    mode: int = 0
    choice: int | Port = 1

    @field_validator("mode")
    @classmethod
    def _check(cls, value: int) -> int:
        if value > 7:
            raise ValueError("too high")
        return value


class Thing(Resource[Spec, ConditionedStatus], group="example.com", version="v1"):
    """A thing."""


VALID = {"size": 3, "ownerName": "me"}


def read(spec: Any = VALID, **parts: Any) -> Thing:
    document = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "ns"}}
    document |= {"spec": spec} | parts
    obj = Thing.from_dict(document, lenient=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert obj.to_dict() == document
    return obj


def test_a_valid_object_is_read_as_usual():
    obj = read()
    assert (obj.problems, obj.spec) == ((), Spec(size=3, owner_name="me"))
    obj.spec.size = 4
    assert obj.to_dict()["spec"]["size"] == 4


@pytest.mark.parametrize(
    ("field", "name", "value", "path"),
    [
        ("size", "size", 1000, "spec.size"),
        ("size", "size", "large", "spec.size"),
        ("size", "size", {"a": [1]}, "spec.size"),
        ("until", "until", "tomorrow", "spec.until"),
        ("ports", "ports", "none", "spec.ports"),
        ("byName", "by_name", [1], "spec.byName"),
        ("pair", "pair", 3, "spec.pair"),
        ("mode", "mode", 9, "spec.mode"),
        ("choice", "choice", "a", "spec.choice.int"),
    ],
)
def test_an_invalid_field_is_as_stored_and_the_others_are_typed(field, name, value, path):
    obj = read(VALID | {"until": "2030-01-01T00:00:00Z"} | {field: value})
    assert getattr(obj.spec, name) == value
    assert obj.problems[0][0] == path
    assert obj.spec.owner_name == "me"
    if name != "until":
        assert obj.spec.until == datetime(2030, 1, 1, tzinfo=UTC)


def test_missing_fields_get_their_defaults_or_none():
    obj = read({"size": None, "ports": None})
    assert (obj.spec.size, obj.spec.owner_name, obj.spec.ports, obj.spec.mode) == (None, None, [], 0)


def test_the_valid_parts_of_a_field_are_typed():
    wrong, right = {"portNumber": "http", "protocol": "UDP"}, {"portNumber": 80}
    obj = read(VALID | {"ports": [wrong, right], "byName": {"a": wrong, "b": right}, "main": wrong})
    for port in (obj.spec.ports[0], obj.spec.by_name["a"], obj.spec.main):
        assert isinstance(port, Port)
        assert (port.port_number, port.protocol) == ("http", "UDP")
    assert obj.spec.ports[1] == obj.spec.by_name["b"] == Port(port_number=80)


def test_fields_that_the_model_does_not_know_are_kept():
    obj = read(VALID | {"size": "large", "extra": {"a": 1}})
    assert obj.spec.model_extra == {"extra": {"a": 1}}


@pytest.mark.parametrize("spec", ["text", 5, [1]])
def test_a_part_that_is_not_an_object_is_returned_unchanged(spec):
    assert read(spec).spec == spec


def test_parts_are_read_independently():
    obj = read(VALID | {"size": "large"}, status={"observedGeneration": 3})
    obj.status.observed_generation = 4
    obj.spec.size = 1
    assert obj.to_dict()["status"] == {"observedGeneration": 4}
    assert obj.to_dict()["spec"]["size"] == "large"  # such a part is for reading


def test_the_status_alone_may_be_invalid():
    obj = read(status={"conditions": [{"type": "Ready", "status": "Maybe"}, {"type": "Synced", "status": "True"}]})
    assert obj.spec == Spec(size=3, owner_name="me")
    assert obj.status.condition_is_true("Synced")
    assert obj.problems == (("status.conditions[0].status", "Input should be 'True', 'False' or 'Unknown'"),)


def test_the_metadata_may_be_invalid():
    metadata = {"name": "t", "namespace": "ns", "generation": "x", "finalizers": ["f"], "labels": None, "uid": "u"}
    obj = Thing.from_dict({"metadata": metadata, "spec": VALID}, lenient=True)
    assert (str(obj.key), obj.uid, obj.metadata.finalizers, obj.labels) == ("ns/t", "u", ["f"], {})
    assert obj.problems[0][0] == "metadata.generation"
    assert obj.to_dict()["metadata"] == metadata


class Strict(BaseModel):
    model_config = {"extra": "forbid", "frozen": True}
    sizeGb: int
    count: int = 1

    @model_validator(mode="after")
    def _check(self) -> Strict:
        if self.sizeGb > 5:
            raise KeyError("secret")
        return self


class Strictly(Resource[Strict], group="example.com", version="v1"):
    """A kind of plain models."""


class Listed(Resource[RootModel[list[int]]], group="example.com", version="v1"):  # type: ignore[type-var]
    """A kind whose spec is a list."""


def test_any_exception_of_a_validator_is_a_problem_of_its_part():
    document = {"metadata": {"name": "s"}, "spec": {"sizeGb": 7}}
    with pytest.raises(InvalidObject, match=r"spec: a validator of Strict raised KeyError$"):
        Strictly.from_dict(document)
    obj = Strictly.from_dict(document, lenient=True)
    assert (obj.spec.sizeGb, obj.spec.count) == (7, 1)


def test_forbidden_fields_do_not_hide_the_others():
    obj = Strictly.from_dict({"metadata": {"name": "s"}, "spec": {"sizeGb": 1, "other": 2}}, lenient=True)
    assert (obj.spec.sizeGb, obj.problems[0][0]) == (1, "spec.other")


def test_a_model_without_fields_is_returned_unchanged():
    assert Listed.from_dict({"metadata": {"name": "s"}, "spec": ["a"]}, lenient=True).spec == ["a"]


def test_an_object_of_another_kind_is_still_rejected():
    with pytest.raises(InvalidObject, match="cannot be read as Thing"):
        Thing.from_dict({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}, lenient=True)


def test_untyped_kinds_are_read_as_usual():
    assert from_document("v1/Secret", {"metadata": {"name": "s"}}, lenient=True) == Unstructured(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    )
