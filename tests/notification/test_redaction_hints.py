"""The hints are only a faster way: with a hint at every place, the redaction finds the same."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler._core.redaction import engine, names
from reconciler._core.redaction import redact as redact_forms

PIECES = [
    *("password", "PassWord", "p%61ssword", "api_key", "key", "token", "sig", "auth", "Cookie", "Authorization"),
    *("value", "name", "-u ", "--user ", "login", "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
    *(
        "=",
        ": ",
        ":",
        "://",
        "//",
        "%2F%2F",
        "\\/\\/",
        "@",
        "@tcp(",
        "?",
        "&",
        "%",
        "%3D",
        "%25",
        "\\",
        "\\n",
        "\\u0070",
    ),
    *('"', "'", "`", "{", "}", "[", "]", ",", ";", " ", "\n", "\t", ".", "-", "_", "é", "\ud800", "\N{PILE OF POO}"),
    *("bearer ", "Basic ", "https", "hooks/services/", "a", "abc", "x1", "ghp_", "sk-", "A" * 16, "1" * 9, "eyJ"),
]


class _Everywhere:
    def is_in(self, text: str) -> bool:
        return True

    def starts(self, text: str) -> range:
        return range(len(text))


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_a_hint_at_every_place_finds_the_same(text: str) -> None:
    found = redact_forms(text)
    everywhere = _Everywhere()
    steps = [(everywhere, step) for _, step in engine._STEPS]
    with patch.object(engine, "_HINTS", everywhere), patch.object(engine, "_STEPS", steps):
        assert redact_forms(text) == found


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*PIECES, *engine._HINTS.texts]), max_size=14).map("".join))
def test_all_hints_are_found_at_all_their_places(text: str) -> None:
    folded = text.encode("ascii", "replace").lower()
    for hints in (engine._HINTS, *(hints for hints, _ in engine._STEPS)):
        texts = tuple(each.lower().encode() for each in hints.texts)
        assert hints.starts(text) == [place for place in range(len(folded)) if folded.startswith(texts, place)]
        assert hints.is_in(text) == bool(hints.starts(text))


def test_hints_are_found_in_any_case_at_the_characters_place() -> None:
    assert names.Hints("token", "key", "pass").starts("a token, an API-Key, héllo password=x") == [2, 16, 27]
