"""The search for many known secrets finds what a search for each of them does."""

from __future__ import annotations

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
