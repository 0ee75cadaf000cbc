"""Patterns of schemas in Go's syntax: which are taken, what they match, and which are refused (29)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, in_any_order
from tests.conformance.cases.rules import definition

_PATTERNS = {
    "anchors": (r"\A[a-c]+\z", ["abc", "abd"]),
    "class": (r"^[[:alpha:]_]+$", ["aB_", "a1"]),
    "flags": (r"(?i)^abc$", ["ABC", "ABCD"]),
    "late": (r"^(?i)abc$", ["ABC", "ABCD"]),
    "scoped": (r"^a(?i:b)c$", ["aBc", "ABC"]),
    "named": (r"^(?P<x>a)(?P<y>b)?$", ["ab", "b"]),
    "letters": (r"^\pL+$", ["äß", "a1"]),
    "property": (r"^\p{Greek}+$", ["αβ", "ab"]),
    "digits": (r"^\d{2,3}$", ["12", "1"]),
    "escaped": (r"^\\A\.z$", ["\\A.z", "A.z"]),
    "lazy": (r"^a+?b$", ["aab", "a"]),
    "either": (r"(?i)a|b", ["B", "c"]),
}
_PLACES = {name: {"type": "string", "pattern": pattern} for name, (pattern, _) in _PATTERNS.items()}
_MATCHED = definition("patterneds", "Patterned", {"type": "object", "properties": _PLACES})


@case("patterns and what they match", _MATCHED)
async def _(api: Api) -> None:
    for index in range(2):
        spec = {name: values[index] for name, (_, values) in _PATTERNS.items()}
        await api.create("patterneds:Patterned", {"metadata": {"name": "a"}, "spec": spec}, keep=["spec"])
        in_any_order(api)


@case("invalid patterns")
async def _(api: Api) -> None:
    for pattern in ("[", "(a", "a)", "a**", "*a", "a(?=b)", r"a\1", "a{2,1}", "[b-a]", r"\8", "(?<!a)b", "a++"):
        place: dict[str, Any] = {"type": "string", "pattern": pattern}
        await api.call(
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition("patterns29", "Patterns29", {"type": "object", "properties": {"a": place}}),
            query={"dryRun": "All"},
            keep=["kind"],
        )
