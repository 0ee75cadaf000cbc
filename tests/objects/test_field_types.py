"""Field types in a generated CRD: what the servers accept, default and reject, and what comes back."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, Base64Bytes, ConfigDict, Field, HttpUrl
from pydantic.networks import IPvAnyAddress

from reconciler.client import Client
from reconciler.errors import Invalid
from reconciler.objects import (
    ConfigMapKeySelector,
    Duration,
    InvalidObject,
    LocalObjectReference,
    Model,
    ObjectMeta,
    Quantity,
    Resource,
    SecretKeySelector,
    TypedObjectReference,
    rule,
    schema_extra,
)
from tests.objects.serving import serve


class Mode(enum.StrEnum):
    FAST = "fast"
    SAFE = "safe"


class FileSource(Model):
    kind: Literal["file"] = "file"
    path: str = Field(max_length=100)
    retries: int = 3


class S3Source(Model):
    kind: Literal["s3"] = "s3"
    bucket: str = Field(max_length=63)
    region: str = "eu"
    retries: int = 3


class Frozen(Model):
    zone: Annotated[str | None, Field(max_length=20, json_schema_extra=schema_extra(immutable=True))] = None
    size: int = 1


class Item(Model):
    name: str = Field(max_length=20)
    weight: Annotated[int, Field(json_schema_extra=schema_extra(immutable=True))] = 1


class EverySpec(Model):
    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            rules=[
                rule(
                    "!has(self.low) || !has(self.high) || self.low <= self.high",
                    message="low must not exceed high",
                    field_path=".low",
                    reason="FieldValueForbidden",
                ),
                rule(
                    "!has(self.low) || self.low > -100",
                    message_expression="'low must be at least ' + (has(self.high) ? '-98' : '-99')",
                ),
                rule(
                    "!oldSelf.hasValue() || !has(self.high) || !has(oldSelf.value().high)"
                    " || self.high >= oldSelf.value().high",
                    message="high must not shrink",
                    optional_old_self=True,
                ),
            ]
        )
    )

    low: int | None = None
    high: int | None = None
    memory: Annotated[Quantity, Field(gt=0, le=Quantity("1Ti"))] = Quantity("1.5Gi")
    cpu: Quantity | None = None
    timeout: Annotated[Duration, Field(ge=timedelta(microseconds=1), lt=timedelta(weeks=3))] = timedelta(seconds=90)
    price: Annotated[Decimal, Field(ge=0, lt=100, decimal_places=2)] = Decimal("1.50")
    address: IPv4Address | IPv6Address | None = None
    any_address: IPvAnyAddress | None = None
    network: IPv4Network | IPv6Network | None = None
    network4: IPv4Network | None = None
    source: Annotated[FileSource | S3Source, Field(discriminator="kind")] = FileSource(path="/data")
    sources: list[Annotated[FileSource | S3Source, Field(discriminator="kind")]] = Field(default=[], max_length=10)
    mode: Mode | Literal["auto"] = "auto"
    blob: Base64Bytes | None = None
    url: HttpUrl | None = None
    at: AwareDatetime | None = None
    ratio: int | float = 1
    port: int | str = 80
    secret: SecretKeySelector | None = None
    config: ConfigMapKeySelector | None = None
    peer: LocalObjectReference | None = None
    target: TypedObjectReference | None = None
    frozen: Frozen = Frozen()
    items: list[Item] = Field(
        default=[], max_length=10, json_schema_extra=schema_extra(list_type="map", list_map_keys=["name"])
    )
    tags: list[Annotated[str, Field(max_length=10)]] = Field(
        default=[], max_length=10, json_schema_extra=schema_extra(list_type="set")
    )
    labels: dict[str, Annotated[str, Field(max_length=63)]] = {}
    from_: str | None = None


class Every(Resource[EverySpec], group="example.com", version="v1", plural="everies"):
    """A kind with every type of field."""


def every(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Every",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


FULL = EverySpec(
    low=1,
    high=2,
    memory=Quantity("2Gi"),
    cpu=Quantity("100m"),
    timeout=timedelta(hours=1, minutes=30),
    price=Decimal("99.99"),
    address=IPv6Address("::1"),
    any_address=IPv4Address("10.0.0.1"),
    network=IPv6Network("fd00::/8"),
    network4=IPv4Network("10.0.0.0/8"),
    source=S3Source(bucket="b"),
    sources=[FileSource(path="/a"), S3Source(bucket="c", region="us")],
    mode=Mode.SAFE,
    blob=b"aGVsbG8=",
    url=HttpUrl("https://example.com/"),
    at=datetime.fromisoformat("2026-01-01T00:00:00+01:00"),
    ratio=0.5,
    port="http",
    secret=SecretKeySelector(name="s", key="k"),
    config=ConfigMapKeySelector(name="c", key="k", optional=True),
    peer=LocalObjectReference(name="p"),
    target=TypedObjectReference(api_group="apps", kind="Deployment", name="d", namespace="n"),
    frozen=Frozen(zone="z"),
    items=[Item(name="x"), Item(name="y", weight=2)],
    tags=["t"],
    labels={"a": "b"},
    from_="x",
)

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"low": 3, "high": 2}, "spec.low: Forbidden: low must not exceed high"),
    ({"low": -100}, "low must be at least -99"),
    ({"memory": "1GB"}, "spec.memory"),
    ({"memory": "2Ti"}, "spec.memory: Invalid value.*must be less than or equal to 1Ti"),
    ({"memory": 0}, "spec.memory: Invalid value.*must be greater than 0"),
    ({"timeout": "soon"}, "spec.timeout"),
    ({"timeout": "PT1H"}, "spec.timeout"),
    ({"timeout": "504h"}, "spec.timeout: Invalid value.*must be less than 504h0m0s"),
    ({"timeout": "4 weeks"}, "spec.timeout: Invalid value.*must be less than 504h0m0s"),
    ({"timeout": "0s"}, "spec.timeout: Invalid value.*must be greater than or equal to 1µs"),
    ({"price": "100"}, "spec.price: Invalid value.*must be less than 100"),
    ({"price": "-0.01"}, "spec.price: Invalid value.*must be greater than or equal to 0"),
    ({"price": "1.234"}, "spec.price"),
    ({"price": "NaN"}, "spec.price"),
    ({"address": "10.0.0.256"}, "spec.address"),
    ({"anyAddress": "localhost"}, "spec.anyAddress"),
    ({"network": "10.0.0.0"}, "spec.network"),
    ({"network4": "fd00::/8"}, "spec.network4"),
    ({"source": {"kind": "s3", "path": "/x"}}, "kind s3 needs bucket"),
    ({"source": {"kind": "file", "path": "/x", "bucket": "b"}}, "kind file has no bucket"),
    ({"source": {"kind": "ftp"}}, 'Unsupported value: "ftp"'),
    ({"source": {"path": "/x"}}, "spec.source.kind: Required value"),
    ({"sources": [{"kind": "s3"}]}, r"spec.sources\[0\].*kind s3 needs bucket"),
    ({"mode": "slow"}, 'Unsupported value: "slow"'),
    ({"blob": "%"}, "spec.blob"),
    ({"at": "yesterday"}, "spec.at"),
    ({"secret": {"name": "s"}}, "spec.secret.key: Required value"),
    ({"peer": {"name": ""}}, "spec.peer.name"),
    ({"items": [{"name": "x"}, {"name": "x"}]}, r"spec.items\[1\]: Duplicate value"),
    ({"tags": ["x", "x"]}, r"spec.tags\[1\]: Duplicate value"),
]


async def test_every_type_on_a_server(admin: Client) -> None:
    await serve(admin, Every)
    made = Every(metadata=ObjectMeta(name="full", namespace="default"), spec=FULL)
    read = await admin.create(made, field_validation="Strict")
    assert read.spec == FULL
    assert (await admin.get(Every, "full", "default")).spec == FULL

    small = await admin.create(every("small"), field_validation="Strict")
    assert small["spec"] == {
        "memory": "1536Mi",
        "timeout": "1m30s",
        "price": "1.50",
        "source": {"kind": "file", "path": "/data", "retries": 3},
        "sources": [],
        "mode": "auto",
        "ratio": 1,
        "port": 80,
        "frozen": {"size": 1},
        "items": [],
        "tags": [],
        "labels": {},
    }
    typed = await admin.get(Every, "small", "default")
    assert typed.spec == EverySpec()
    assert (typed.spec.memory, typed.spec.timeout, typed.spec.price) == (
        1.5 * 2**30,
        timedelta(seconds=90),
        Decimal("1.5"),
    )

    for number, (spec, message) in enumerate(WRONG):
        with pytest.raises(Invalid, match=message):
            await admin.create(every(f"wrong-{number}", **spec), field_validation="Strict")

    for spec in (
        {"memory": 5, "cpu": "1e3", "timeout": "2 weeks", "ratio": 2, "price": "1e1"},
        {"timeout": "1.5h", "address": "1.2.3.4", "network": "10.0.0.0/8", "mode": "fast", "port": 1},
    ):
        await admin.create(every("wide", **spec), field_validation="Strict")
        wide = await admin.get(Every, "wide", "default")
        assert wide.to_dict()["spec"] == (await admin.get("example.com/v1/Every", "wide", "default"))["spec"]
        await admin.delete(wide)


async def test_transition_rules_on_a_server(admin: Client) -> None:
    class Changing(Resource[EverySpec], group="example.com", version="v1"):
        pass

    await serve(admin, Changing)
    await admin.create(Changing(metadata=ObjectMeta(name="a", namespace="default"), spec=FULL))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"frozen": {"zone": "other"}}, "spec.frozen.zone: Invalid value.*is immutable"),
        ({"frozen": {"zone": None}}, "spec.frozen: Invalid value.*zone is immutable: it cannot be removed"),
        ({"high": 1}, "high must not shrink"),
        ({"items": [{"name": "y", "weight": 2}, {"name": "x", "weight": 5}]}, r"spec.items\[1\].weight.*is immutable"),
    ]
    for patch, message in refused:
        with pytest.raises(Invalid, match=message):
            await admin.patch(Changing, "a", "default", patch={"spec": patch})
    await admin.patch(Changing, "a", "default", patch={"spec": {"frozen": {"size": 2}, "high": 5}})
    await admin.create(every("unset") | {"kind": "Changing"})
    set_once = await admin.patch(Changing, "unset", "default", patch={"spec": {"frozen": {"zone": "later"}}})
    assert set_once.spec.frozen.zone == "later"


def test_a_message_shows_bounds_as_they_are_on_the_wire() -> None:
    class Limited(Model):
        memory: Annotated[Quantity, Field(ge=Quantity("1Gi"))]
        timeout: Annotated[Duration, Field(le=timedelta(days=1, seconds=5))]

    class Holder(Resource[Limited], group="example.com", version="v1"):
        """A holder."""

    spec = {"memory": "1Mi", "timeout": "48h"}
    document = {"apiVersion": "example.com/v1", "kind": "Holder", "metadata": {"name": "a"}, "spec": spec}
    with pytest.raises(InvalidObject) as caught:
        Holder.from_dict(document)
    assert "spec.memory: Input should be greater than or equal to 1Gi" in str(caught.value)
    assert "spec.timeout: Input should be less than or equal to 24h0m5s" in str(caught.value)
