"""The cost of the redaction, counted in characters that patterns looked at and in lines of Python."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reconciler._core.redaction
from reconciler._core.redaction import redact
from reconciler._core.redaction.engine import ERROR_LIMIT, redact_error
from tests.notification.steps import steps

PIECES = [
    *("-", "a", " ", "%", "\\", '"', "'", "\n", "=", ":", "@", "/", "&", "+", ".", "1", "{", "[", "<", ",", "\\n", "é"),
    *(
        "password=",
        'password="',
        '"password":"',
        "password:\n",
        "password: |\n",
        "<password>",
        "password = (",
        "%2F%2f",
    ),
    *(
        "key ",
        "token ",
        "token+",
        "bearer ",
        "bearer+",
        "basic%20",
        "login ",
        "login a password ",
        "-u ",
        "-u=",
        "-u '",
    ),
    *("://", "a://b:c", "//", "%252f", "/\\", "@tcp(", "a:b", "eyJ-", "sk-", "ghp_", "1Q~", ".atlasv1.", "-us1", ":AA"),
    *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "Authorization: ", 'Cookie: a="', "&quot;", "&#0", "%25", "%70"),
    *("secret is ", "name: TOKEN\n", "value: ", "\\u0070", "hooks/services/", "tokens=1", "auth\n", "p%61ssword="),
]


class _Counted:
    """A pattern that counts the characters between where a search began and where its match ended."""

    def __init__(self, pattern: re.Pattern[str], looked: list[int]) -> None:
        self.pattern = pattern.pattern
        self._inner = pattern
        self._looked = looked

    def search(self, text: str, begin: int = 0, end: int = 2**31) -> Any:
        return self._note(self._inner.search(text, begin, end), begin, min(end, len(text)))

    def match(self, text: str, begin: int = 0, end: int = 2**31) -> Any:
        return self._note(self._inner.match(text, begin, end), begin, begin)

    def finditer(self, text: str, begin: int = 0, end: int = 2**31) -> Iterator[Any]:
        for found in self._inner.finditer(text, begin, end):
            begin = self._note(found, begin, begin).end()
            yield found

    def _note(self, found: Any, begin: int, end: int) -> Any:
        self._looked[0] += 1 + (found.end() if found else end) - begin
        return found

    def __getattr__(self, name: str) -> Any:
        self._looked[0] += 1
        return getattr(self._inner, name)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of characters that the patterns of the redaction look at."""
    count = [0]
    for each in pkgutil.iter_modules(reconciler._core.redaction.__path__):
        module = importlib.import_module(f"reconciler._core.redaction.{each.name}")
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, _Counted(value, count))
    return count


def cost(text: str, looked: list[int]) -> int:
    looked[0] = 0
    return steps(lambda: redact(text)) + looked[0]


def check(pieces: list[str], looked: list[int]) -> None:
    piece = "".join(pieces)
    small, large = ((piece * size)[:size] for size in (1_000, 4_000))
    for form in (str, lambda text: json.dumps({"a": text})):
        redact(form(piece * 1_500))  # which compiles the patterns
        assert cost(form(large), looked) <= 5 * cost(form(small), looked) + 1_000, piece


@pytest.mark.parametrize("piece", PIECES)
def test_four_times_the_text_costs_four_times_as_much(piece: str, looked: list[int]) -> None:
    check([piece], looked)


def test_four_times_a_mixed_text_costs_four_times_as_much(looked: list[int]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), min_size=2, max_size=4))
    def mixed(pieces: list[str]) -> None:
        check(pieces, looked)

    mixed()


def test_the_text_of_an_error_is_cut_before_and_half_a_secret_is_not_left() -> None:
    secret = "ghp_0123456789abcdefghij0123456789abcdef"
    for place in range(ERROR_LIMIT - 60, ERROR_LIMIT + 10):
        assert "ghp_0" not in redact_error("x" * (place - 1) + " " + secret + " y" * 100_000)
