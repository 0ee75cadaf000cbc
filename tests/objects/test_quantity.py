"""`Quantity`: parsing, the canonical form, comparison and arithmetic."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reconciler import Client, ConditionedStatus, Model, ObjectMeta, Resource, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.apiserver.encoding.text import canonical_quantity
from reconciler.objects import Duration, Quantity, format_duration


@pytest.mark.parametrize(
    ("text", "canonical"),  # the canonical forms are those of k8s.io/apimachinery v0.36
    [
        ("0", "0"),
        ("-0", "0"),
        ("0Ki", "0"),
        ("5", "5"),
        ("+5", "5"),
        ("1500", "1500"),
        ("1000", "1k"),
        ("0.1", "100m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("100n", "100n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.5Gi", "1536Mi"),
        ("-1.5Gi", "-1536Mi"),
        ("1024Ki", "1Mi"),
        ("1000Ki", "1000Ki"),
        ("0.5Ki", "512"),
        ("1.0001Ki", "1024102400u"),
        ("16Ei", "9223372036854775807"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1e4", "10e3"),
        ("1000000e3", "1e9"),
        ("1e-9", "1e-9"),
        ("1E", "1E"),
    ],
)
def test_the_canonical_form(text: str, canonical: str) -> None:
    assert str(Quantity(text)) == canonical
    assert repr(Quantity(text)) == f"Quantity('{canonical}')"
    assert Quantity(canonical) == Quantity(text)


SUFFIXES = ["", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "e3", "e-3", "E6"]


@given(
    st.sampled_from(["", "-", "+"]),
    st.decimals(0, 10**4, places=6, allow_nan=False),
    st.sampled_from(SUFFIXES),
)
def test_the_canonical_form_is_that_of_the_embedded_server(sign: str, number: Decimal, suffix: str) -> None:
    text = f"{sign}{number:f}{suffix}"
    assert str(Quantity(text)) == canonical_quantity(text)
    assert str(Quantity(str(Quantity(text)))) == str(Quantity(text))


@pytest.mark.parametrize("text", ["", " ", "1GB", "Gi", "1 Gi", "0x10", "1e", "--1", "1.2.3", "1e9999", "NaN", "९"])
def test_a_text_that_is_not_a_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid quantity"):
        Quantity(text)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, Decimal("NaN")])
def test_a_number_that_is_not_finite(number: Any) -> None:
    with pytest.raises(ValueError, match="it must be finite"):
        Quantity(number)


@pytest.mark.parametrize("value", [True, None, [], b"1"])
def test_other_types(value: Any) -> None:
    with pytest.raises(TypeError, match="is made of a string or a number, not of"):
        Quantity(value)


def test_numbers_are_what_a_person_writes() -> None:
    assert str(Quantity(0.1)) == "100m"
    assert str(Quantity(Decimal("1.50"))) == "1500m"
    assert str(Quantity(10**30)) == "1000000000000E"
    assert str(Quantity(Fraction(1, 3))) == "333333334n"
    assert str(Quantity(1e-7)) == "100n"


def test_comparison_is_by_value() -> None:
    assert Quantity("1Gi") == Quantity("1024Mi") == 2**30
    assert hash(Quantity("1Gi")) == hash(Quantity("1024Mi")) == hash(2**30)
    assert Quantity("100m") == 0.1
    assert Quantity("1G") < Quantity("1Gi") > 0
    assert sorted([Quantity("1Gi"), Quantity("5"), Quantity("1G")]) == [5, 10**9, 2**30]
    assert Quantity("1") != "1"
    assert Quantity("1") != math.nan  # noqa: PLW0177 - what is tested
    assert not Quantity("0")
    with pytest.raises(TypeError):
        assert Quantity("1") < "2"  # type: ignore[operator]


def test_arithmetic_keeps_the_notation_of_the_left_operand() -> None:
    gi, g = Quantity("1Gi"), Quantity("1G")
    assert (str(gi + Quantity("1Mi")), str(gi - 2**29), str(gi * 3), str(2 * gi), str(-gi)) == (
        "1025Mi",
        "512Mi",
        "3Gi",
        "2Gi",
        "-1Gi",
    )
    assert str(g + gi) == "2073741824"
    assert str(Quantity(0) + gi) == "1Gi"
    assert str(sum([gi, gi])) == "2Gi"
    assert str(abs(Quantity("-100m"))) == "100m"
    assert str(Quantity("100m") * 1.5) == "150m"
    assert (float(Quantity("500m")), int(Quantity("1500m")), Quantity("1500m").value) == (0.5, 1, Fraction(3, 2))
    with pytest.raises(TypeError):
        gi * gi  # type: ignore[operator]
    with pytest.raises(TypeError):
        gi + "1"  # type: ignore[operator]


def test_it_is_immutable_and_can_be_copied() -> None:
    quantity = Quantity("1.5Gi")
    for copied in (copy.deepcopy(quantity), pickle.loads(pickle.dumps(quantity)), Quantity(quantity)):
        assert (copied, str(copied)) == (quantity, "1536Mi")


class Sized(Model):
    memory: Quantity
    others: list[Quantity] = []


def test_in_a_model() -> None:
    sized = Sized.model_validate({"memory": "1.5Gi", "others": [1, 0.5, "1e3"]})
    assert sized.model_dump(mode="json") == {"memory": "1536Mi", "others": ["1", "500m", "1e3"]}
    for wrong in (True, None, {}, "1GB", math.nan):
        with pytest.raises(ValidationError, match=r"quantity|number"):
            Sized.model_validate({"memory": wrong})


def test_numbers_that_no_quantity_has() -> None:
    """Comparing with them gives an answer at once; making a quantity of them is an error at once."""
    one = Quantity("1")
    assert -math.inf < one < math.inf
    assert one < Decimal("Infinity")
    assert one < 10**5000
    assert min(one, math.inf) is one
    for number in (math.inf, 10**5000, Decimal("1e9999999"), Decimal("1e-9999999"), Decimal("sNaN"), math.nan):
        assert one != number
    for number in (10**5000, Decimal("1e9999999"), Decimal("1e-9999999"), Decimal("sNaN")):
        with pytest.raises(ValueError, match="is not a valid quantity: it must be finite, and below 1e1000"):
            Quantity(number)


def test_a_number_minus_a_quantity() -> None:
    assert str(8 - Quantity("500m")) == "7500m"
    assert Decimal("2.5") - Quantity("1") == Decimal("1.5")
    with pytest.raises(TypeError):
        None - Quantity("1")  # type: ignore[operator]


class MeasuredStatus(ConditionedStatus):
    used: Quantity | None = None
    took: Duration | None = None
    address: IPv4Address | None = None


class Measured(Resource[Model, MeasuredStatus], group="example.com", version="v1"):
    """A thing with a status of typed values."""


@pytest.mark.virtual_time
async def test_in_a_status_and_in_a_patch() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Measured)
        thing = await client.create(Measured(metadata=ObjectMeta(name="a", namespace="default"), spec=Model()))
        async with StatusBatcher(client, thing) as status:
            status.set(used=Quantity("1.5Gi"), address=IPv4Address("10.0.0.1"))
            status.set(took=format_duration(timedelta(minutes=90)))
        read = await client.get(Measured, "a", "default")
        assert (read.status.used, read.status.address) == (1.5 * 2**30, IPv4Address("10.0.0.1"))
        assert read.status.took == timedelta(minutes=90)
        patch = {"status": {"used": Quantity("2Gi"), "address": IPv4Address("10.0.0.2")}}
        stored = await client.patch("example.com/v1/Measured", "a", "default", patch=patch, subresource="status")
        assert stored["status"] == {"used": "2Gi", "address": "10.0.0.2", "took": "1h30m0s"}
