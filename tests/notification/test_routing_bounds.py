"""Routing configurations that expand beyond the limits, or that have thousands of errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.channels.services import RECEIVER_KINDS
from reconciler.notification.matchers import MatcherError, parse_matchers
from reconciler.notification.router import RoutingTable
from reconciler.notification.routing_config import RoutingConfigError, read_routing
from tests.growth import check_linear

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 5000))
GOOD = """
route:
  receiver: everybody
  routes:
    - &route
      matchers: [a = b]
      receiver: everybody
    - *route
receivers:
  - name: everybody
"""


def load(text: str) -> RoutingTable:
    table = RoutingTable(ChannelRegistry(), kinds=RECEIVER_KINDS)
    table.load(text, name="routing.yaml")
    return table


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, r"line 6: a5: more than 250000 values"),
        (MERGES, r"line 7: a6: more than 250000 values"),
        (CHAIN, r"line 63: a62: nested more than 64 levels deep"),
        ("route: &a {routes: [*a]}", r"line 1: route: nested more than 64 levels deep after expanding aliases"),
        ("a:\n- &a [*a]", r"line 1: a: nested more than 64 levels"),
        ("[" * 100_000, r"line 1: .*nest"),
        ("{a: " * 100_000, r"line 1: nested more than 64 levels deep"),
        ("- " * 100_000, r"line 1: nested more than 64 levels deep"),
        ("? " * 100_000, r"line 1: nested more than 64 levels deep"),
        ("".join(" " * level + "a:\n" for level in range(1000)), r"line 65: nested more than 64 levels deep"),
        ("x" * 2_000_000, r"the document has 2000000 characters; the maximum is 1048576"),
        ("a: *b", r"line 1: invalid YAML: found undefined alias"),
        ("!!python/object:os.system x", r"line 1: invalid YAML: could not determine a constructor"),
        (f"a: &a {'x' * 200_000}\nb: [*a, *a, *a, *a, *a]", r"line 2: b: more than 1048576 characters after expanding"),
        ("? [a]\n: b", r"line 1: a list or mapping cannot be a key"),
        ("route: {receiver: 0x" + "f" * 20_000 + "}\nreceivers: [{name: a}]", r"unknown receiver '0xf"),
        ("? 0x" + "f" * 20_000 + "\n: b", r"line 1: 0xf.*unknown key"),
        ("route: {receiver: 1" + ":1" * 100_000 + "}\nreceivers: [{name: a}]", r"unknown receiver '1:1:1"),
        ("route: {}\nroute: {}", r"line 1: route: duplicate key 'route', also on line 2"),
    ],
)
def test_what_is_larger_than_it_looks_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(RoutingConfigError, match=words):
        load(text)


def test_an_alias_is_a_route_like_any_other() -> None:
    config = load(GOOD).config
    assert config is not None
    assert len(config.route.routes) == 2


def test_a_configuration_with_thousands_of_errors_lists_some_of_them() -> None:
    routes = "".join(f"    - receiver: nobody-{number}\n" for number in range(5_000))
    receivers = "".join(f"  - name: r{number}\n" for number in range(5_000))
    with pytest.raises(RoutingConfigError, match="and 951 more") as caught:
        load(f"route:\n  receiver: r1\n  routes:\n{routes}receivers:\n{receivers}")
    assert len(str(caught.value)) < 50_000


WORST: dict[str, Callable[[int], str]] = {
    "unknown receivers": lambda n: routed(
        "  - name: " + "\n  - name: ".join(f"a{number}" for number in range(n // 12)), "    - receiver: x\n" * (n // 16)
    ),
    "a long name and many entries": lambda n: routed(
        f"  - name: {'x' * (n // 2)}\n    webhook_configs: [{'{},' * (n // 6)}]"
    ),
    "repeated long names": lambda n: routed(f"  - name: &a {'x' * n}\n" + "  - name: *a\n" * 20),
    "long keys": lambda n: routed("  - name: a", f"    - {'k' * n}: 1\n" + "      routes: [" + "{z: 1}," * 900 + "]\n"),
    "unknown options": lambda n: routed(
        "  - name: a\n    webhook_configs: [{" + ",".join(f"a{number}: 1" for number in range(n // 8)) + "}]"
    ),
    "matchers": lambda n: routed("  - name: a", f"    - matchers: ['{'a=b,' * (n // 4)}']\n"),
    "quotes in a matcher": lambda n: routed("  - name: a", f"    - matchers: ['{chr(34) * n}']\n"),
    "backslashes in a matcher": lambda n: routed("  - name: a", f"    - matchers: ['a={chr(92) * n}{chr(34)}']\n"),
    "merges": lambda n: "<<: {}\n" * (n // 7),
}


def routed(receivers: str, routes: str = "") -> str:
    return f"route:\n  receiver: a\n  routes:\n{routes}receivers:\n{receivers}\n"


@pytest.mark.parametrize("name", WORST)
def test_the_worst_texts_are_linear(name: str) -> None:
    def parse(text: str) -> None:
        with pytest.raises(RoutingConfigError) as caught:
            read_routing(text, kinds=RECEIVER_KINDS)
        assert len(str(caught.value)) < 120_000

    check_linear(parse if name != "matchers" else lambda text: read_routing(text, kinds=RECEIVER_KINDS), WORST[name])


def test_a_value_that_is_not_a_list_is_quoted_by_its_beginning() -> None:
    with pytest.raises(RoutingConfigError) as caught:
        load(f"route: {{receiver: a, routes: {'x' * 500_000}}}\nreceivers: [{{name: a}}]")
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("text", ["a" * 200_000, '"' * 100_001, "a=~(" + "(" * 100_000, 'a= x"' + " " * 200_000 + "y"])
def test_an_error_about_a_matcher_is_short(text: str) -> None:
    with pytest.raises(MatcherError) as caught:
        parse_matchers(text)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("text", ["end", '"a"=b end', '{"a"=b} end', '"a" operator b'])
def test_no_word_has_a_meaning_of_its_own_in_a_matcher(text: str) -> None:
    with pytest.raises(MatcherError, match=r"missing at the end|column"):
        parse_matchers(text)


def test_the_spaces_in_a_matcher_are_read_once() -> None:
    (matcher,) = parse_matchers("a= x" + " " * 200_000 + "y  ")
    assert matcher.value == "x" + " " * 200_000 + "y"
