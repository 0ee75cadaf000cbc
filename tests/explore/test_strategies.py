"""`explore.objects` draws what the embedded API server accepts, or on request what it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from reconciler import Client, Model, Resource
from reconciler.apiserver import APIServer
from reconciler.errors import APIError, ConfigurationError
from reconciler.objects import rule
from reconciler.testing import explore
from reconciler.testing.explore.strategies import schema_of


class Disk(Model):
    kind: Literal["disk"]
    size: int = Field(ge=1, le=3)


class Bucket(Model):
    kind: Literal["bucket"]
    url: str = Field(pattern=r"^s3://[a-z]{3,8}$")


class ShopSpec(Model):
    store: Annotated[Disk | Bucket, Field(discriminator="kind")]
    pages: int = Field(default=1, ge=0)
    hosts: list[Annotated[str, Field(min_length=3)]] = Field(default=[], max_length=2)
    labels: dict[str, str] = {}
    port: int | str = 80
    least: int = 0
    most: int = 0

    @field_validator("pages")
    @classmethod
    def _even(cls, pages: int) -> int:
        if pages % 2 and pages != 1:
            raise ValueError("must be even")
        return pages


class Shop(Resource[ShopSpec], group="example.com", version="v1", rules=[rule("self.spec.least <= self.spec.most")]):
    """A shop."""


def definition(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a kind with this schema of its spec."""
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Thing", "plural": "things"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


THING = definition(
    {
        "required": ["when"],
        "properties": {
            "when": {"type": "string", "format": "date-time"},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string", "maxLength": 2}, "port": {"type": "integer"}},
                },
            },
            "weights": {"type": "object", "additionalProperties": {"type": "number", "maximum": 1}, "minProperties": 1},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 10, "exclusiveMinimum": True},
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "none": {"type": "string", "nullable": True},
            "class": {"type": "string", "pattern": "^(?P<first>[[:alpha:]])\\w{2,4}$"},
        },
        "oneOf": [{"required": ["even"]}, {"required": ["raw"]}],
        "x-kubernetes-validations": [{"rule": "!has(self.ports) || size(self.ports) < 3"}],
    }
)


def drawn(strategy: st.SearchStrategy[Any], number: int = 40, start: int = 1) -> list[Any]:
    """Return examples that hypothesis draws."""
    found: list[Any] = []

    @seed(start)
    @settings(max_examples=number, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(each: Any) -> None:
        found.append(each)

    collect()
    return found


def accepted(kind: object, documents: list[Any]) -> list[bool]:
    """Ask the embedded server for each document whether it can be created."""

    async def ask() -> list[bool]:
        async with APIServer() as server, Client(server) as client:
            await server.apply(kind)
            return [await _created(client, each) for each in documents]

    return asyncio.run(ask())


async def _created(client: Client, document: Any) -> bool:
    try:
        await client.delete(await client.create(document))
    except APIError:
        return False
    return True


def test_objects_of_a_class_are_accepted_and_differ() -> None:
    found = drawn(explore.objects(Shop))
    assert all(isinstance(each, Shop) for each in found)
    assert all(accepted(Shop, found))
    specs = [each.spec for each in found]
    assert {spec.store.kind for spec in specs} == {"disk", "bucket"}
    assert len({spec.pages for spec in specs}) > 2
    assert any(spec.hosts for spec in specs)
    assert any(spec.labels for spec in specs)
    assert any(spec.least < spec.most for spec in specs)


def test_objects_of_a_definition_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "crd.yaml"
    file.write_text(yaml.safe_dump(THING))
    found = drawn(explore.objects(file))
    assert all(accepted(THING, found))
    specs = [each["spec"] for each in found]
    assert {key for spec in specs for key in spec} == set(schema_of(THING).drawn["properties"]["spec"]["properties"])


@pytest.mark.parametrize("kind", [Shop, THING], ids=["class", "definition"])
def test_invalid_objects_are_refused_by_the_server_or_the_model(kind: Any) -> None:
    found = drawn(explore.objects(kind, invalid=True))
    for document, fits in zip(found, accepted(kind, found), strict=True):
        assert not fits or schema_of(kind).unfit(document)
    assert len({repr(each) for each in found}) > 10


def test_a_seed_draws_the_same_objects() -> None:
    assert drawn(explore.objects(THING), 10, start=7) == drawn(explore.objects(THING), 10, start=7)


def test_own_strategies_take_precedence() -> None:
    fields = {
        "spec.pages": st.just(4),
        "spec.hosts[]": st.sampled_from(["one", "two"]),
        "spec.labels.*": st.just("here"),
        "spec.store.url": st.just("s3://mine"),
    }
    for each in drawn(explore.objects(Shop, name="mine", namespace="prod", fields=fields)):
        assert (each.name, each.namespace) == ("mine", "prod")
        assert each.spec.pages in (ShopSpec.model_fields["pages"].default, 4)
        assert {*each.spec.hosts} <= {"one", "two"}
        assert {*each.spec.labels.values()} <= {"here"}
        assert not isinstance(each.spec.store, Bucket) or each.spec.store.url == "s3://mine"


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Shop, {"spec.pagse": st.just(1)}, r"'spec.pagse' is not a field of Shop: choose from spec, spec.store"),
        ("missing.yaml", {}, "cannot read missing.yaml"),
        ({"apiVersion": "v1", "kind": "ConfigMap"}, {}, "contains 0 CustomResourceDefinitions"),
        ({"kind": "CustomResourceDefinition", "spec": {}}, {}, "is not a complete CustomResourceDefinition"),
    ],
)
def test_mistakes(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        explore.objects(kind, fields=fields)
