"""The search for many known secrets finds what a search for each of them does."""

from __future__ import annotations

import cProfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler._core.redaction import known
from reconciler._core.redaction.known import Word, WordSearch


@given(
    st.dictionaries(st.text("ab+", min_size=3, max_size=6), st.builds(Word, st.integers(0, 3), st.integers(0, 1))),
    st.text("ab+= ", max_size=40),
)
def test_many_words_are_found_as_few_are(words: dict[str, Word], text: str) -> None:
    few = WordSearch(words).places(text)
    numbers = {f"no such word {number}": Word() for number in range(known._FEW + 1)}
    assert WordSearch({**words, **numbers}).places(text) == few
    covered = {place for begin, end, _ in few for place in range(begin, end)}
    for word in words:
        for begin in range(len(text)):
            assert not text.startswith(word, begin) or covered.issuperset(range(begin, begin + len(word)))


@pytest.mark.parametrize("many", [2, 300])
def test_a_text_that_repeats_a_word_everywhere_makes_few_calls(many: int) -> None:
    words = {"a" * length: Word() for length in range(10, 10 + many)}
    profile = cProfile.Profile()
    with profile:
        assert len(WordSearch(words).places("a" * 10_000)) == 1
    assert sum(each.callcount for each in profile.getstats()) < 30 * 10_000
