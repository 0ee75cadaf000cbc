"""YAML in request bodies: scalars are read as by the real server, and no text takes more than linear time or memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from reconciler.apiserver.encoding.json_documents import InvalidYAML, decode_yaml
from tests.apiserver.api import CONFIG_MAPS, Api
from tests.growth import check_linear

TEXTS = ("y", "Y", "n", "N", "on", "null", "1e3", "12e03", "0o7", "08", "007", "0x1F", "1_0", ".5", "1.", "1.e3")
"""Text that a decoder of YAML 1.1, or that of Kubernetes, reads as something else without quotes."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("1" + ":1" * 100_000, "1" + ":1" * 100_000),
        ("!!int '1" + ":1" * 100_000 + "'", "1" + ":1" * 100_000),
        ("!!float '1" + ":1" * 100_000 + ".5'", "1" + ":1" * 100_000 + ".5"),
        ("2001-01-01", "2001-01-01"),
        ("1_000", 1000),
        ("017", 15),
        ("0o17", 15),
        ("089", 89),
        ("-0x1F", -31),
        ("0b11", 3),
        ("1e3", 1000),
        ("+.5", 0.5),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("9" * 300, 1e300),
        ("9" * 100_000, "9" * 100_000),
        ("0x" + "f" * 100_000, "0x" + "f" * 100_000),
        ("1e400", "1e400"),
        ("0x", "0x"),
    ],
)
def test_numbers_are_those_of_kubernetes(text: str, value: Any) -> None:
    found = decode_yaml(f"a: {text}".encode())[0]["a"]
    assert (found, type(found)) == (value, type(value))


WORST: dict[str, Callable[[int], str]] = {
    "base 60": lambda n: "a: 1" + ":1" * n,
    "repeated merges": lambda n: "<<: {}\n" * (n // 7),
    "merges of one mapping": lambda n: (
        "a: &a {" + "".join(f"k{i}: 1, " for i in range(n // 9)) + "}\nb: {<<: [" + "*a, " * 90 + "]}"
    ),
    "repeated keys": lambda n: "a: 1\n" * (n // 5),
    "repeated aliases to a long key": lambda n: "a: &a " + "x" * n + "\nb:\n" + "  *a : 1\n" * 90,
    "aliases to a long text": lambda n: "a: &a " + "x" * n + "\nb: [" + "*a," * 900 + "]",
    "anchors": lambda n: "[" + ",".join(f"&a{i} x" for i in range(n // 8)) + "]",
    "unclosed lists": lambda n: "[" * n,
    "integers": lambda n: "[" + ("1" * 4299 + ",") * (n // 4300) + "]",
    "pairs": lambda n: "a: !!omap [" + "{a: 1}," * (n // 7) + "]",
    "escapes": lambda n: '"' + "\\x41" * (n // 4) + '"',
    "indentation": lambda n: "\n".join(" " * level + "a:" for level in range(int((2 * n) ** 0.5))),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_texts_are_linear(name: str) -> None:
    check_linear(lambda text: decode_yaml(text.encode()), WORST[name])


def test_many_merges_in_a_mapping_are_refused() -> None:
    with pytest.raises(InvalidYAML, match="more than 100 merge keys"):
        decode_yaml(b"<<: {}\n" * 101)


def test_a_long_text_cannot_be_repeated_by_aliases() -> None:
    with pytest.raises(InvalidYAML, match="excessive aliasing"):
        decode_yaml(b"a: &a " + b"x" * 500_000 + b"\nb: [" + b"*a," * 90 + b"]")


async def test_text_in_a_response_is_text_for_every_reader(api: Api) -> None:
    data = dict.fromkeys(TEXTS, "") | {f"k{number}": text for number, text in enumerate(TEXTS)}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
    assert (await api.post(CONFIG_MAPS, body)).status == 201
    text = (await api.send("GET", f"{CONFIG_MAPS}/a", headers={"accept": "application/yaml"})).body.decode()
    assert decode_yaml(text.encode())[0]["data"] == yaml.safe_load(text)["data"] == data
    # The real decoder reads these as booleans as well.
    assert not re.search(r"(?m)^ *[yYnN]:|: [yYnN]$", text)
