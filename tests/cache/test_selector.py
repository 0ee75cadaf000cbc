"""Selectors, matched in memory."""

from __future__ import annotations

import pytest

from reconciler.cache.scope import LabelSelector, format_labels, matches_fields, parse_fields
from reconciler.meta import Request

LABELS = {"app": "web", "tier": "front", "weight": "5", "example.com/on": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app = web , tier = front", True),
        ("app=web,tier=back", False),
        ("app!=web", False),
        ("none!=web", True),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (web, db)", False),
        ("none notin (web)", True),
        ("app in (web,db),tier notin (back,middle)", True),
        ("app", True),
        ("none", False),
        ("!none", True),
        ("! app", False),
        ("example.com/on=", True),
        ("example.com/on", True),
        ("weight>4", True),
        ("weight > 5", False),
        ("weight<6", True),
        ("app>4", False),
        ("none<6", False),
    ],
)
def test_labels_match_as_on_the_server(selector: str, matches: bool) -> None:
    assert LabelSelector(selector).matches(LABELS) is matches


@pytest.mark.parametrize("selector", ["a b", "a in", "a in b", "=x", "a=b=c", "a,,b", "(a)", "a in (b"])
def test_a_malformed_selector_is_rejected(selector: str) -> None:
    with pytest.raises(ValueError, match="is not a valid label requirement"):
        LabelSelector(selector)


def test_mappings_mean_equality() -> None:
    assert format_labels({"tier": "front", "app": "web"}) == "app=web,tier=front"
    assert format_labels({}) is None
    assert format_labels("") is None
    assert format_labels("a") == "a"


def test_field_selectors_are_parsed() -> None:
    assert parse_fields("metadata.name=a, spec.node!=b,status.phase==c") == (
        ("metadata.name", "=", "a"),
        ("spec.node", "!=", "b"),
        ("status.phase", "=", "c"),
    )
    with pytest.raises(ValueError, match="is not a valid field requirement"):
        parse_fields("metadata.name")


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ("", True),
        ("metadata.name=a", True),
        ("metadata.name=b", False),
        ("metadata.name!=a", False),
        ("metadata.namespace=prod,metadata.name=a", True),
        ("metadata.namespace!=prod", False),
        ("spec.nodeName=n", None),
    ],
)
def test_name_and_namespace_match_and_other_fields_are_unknown(fields: str, matches: bool | None) -> None:
    assert matches_fields(parse_fields(fields), Request("a", "prod")) is matches
