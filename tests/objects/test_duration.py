"""`Duration`: Go's form of durations, as timedeltas."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reconciler.apiserver.encoding.formats import FORMATS
from reconciler.objects import Duration, Model, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "canonical"),  # as time.ParseDuration and Duration.String
    [
        ("0", "0s"),
        ("1h30m", "1h30m0s"),
        ("90s", "1m30s"),
        ("1.5h", "1h30m0s"),
        (".5s", "500ms"),
        ("-300ms", "-300ms"),
        ("+2m", "2m0s"),
        ("1us", "1µs"),
        ("1500µs", "1.5ms"),
        ("500ns", "0s"),
        ("1h0.000001s", "1h0m0.000001s"),
        ("3 days", "72h0m0s"),
        ("2w", "336h0m0s"),
        ("5min", "5m0s"),
        ("7hours", "7h0m0s"),
    ],
)
def test_what_is_read_and_written(text: str, canonical: str) -> None:
    assert format_duration(parse_duration(text)) == canonical
    assert FORMATS["duration"](text)
    assert FORMATS["duration"](canonical)


@given(st.timedeltas())
def test_what_is_written_is_read(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "1", "h", "1x", "PT1H", "1h 30m", "in 2 days", "1 days 2 hours", "१h", "1" * 101])
def test_a_text_that_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid duration: write numbers with units"):
        parse_duration(text)


def test_a_duration_beyond_a_timedelta() -> None:
    with pytest.raises(ValueError, match="is too long for a duration"):
        parse_duration("99999999999999h")


class Waiting(Model):
    wait: Duration = timedelta(seconds=30)


def test_in_a_model() -> None:
    assert Waiting().model_dump(mode="json") == {"wait": "30s"}
    assert Waiting(wait=timedelta(minutes=90)).model_dump(mode="json") == {"wait": "1h30m0s"}
    assert Waiting.model_validate({"wait": "1h"}).wait == timedelta(hours=1)
    with pytest.raises(ValidationError, match="is not a valid duration"):
        Waiting.model_validate({"wait": "soon"})
