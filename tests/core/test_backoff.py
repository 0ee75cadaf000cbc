"""Backoff: exact delays, the cap, and jitter within its bounds."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler._core.backoff import MAX_RETRY_AFTER, Backoff, longest_retry_after, retry_after_delay
from reconciler.errors import ReconcilerError


def test_delays_grow_by_the_factor_from_the_base() -> None:
    backoff = Backoff(30, factor=2, maximum=480)
    assert [backoff.delay(n) for n in range(6)] == [30, 60, 120, 240, 480, 480]


def test_the_defaults_double_without_cap_and_jitter() -> None:
    assert [Backoff(0.005).delay(n) for n in range(4)] == [0.005, 0.01, 0.02, 0.04]


def test_a_count_beyond_the_range_of_floats_gives_the_cap() -> None:
    assert Backoff(1, maximum=1000).delay(10**6) == 1000
    assert Backoff(1).delay(10**6) == math.inf


def test_base_zero_and_factor_one_give_constant_delays_at_any_count() -> None:
    assert Backoff(0).delay(10**6) == 0
    assert Backoff(7, factor=1).delay(10**6) == 7


def test_the_cap_comes_before_the_jitter() -> None:
    backoff = Backoff(100, maximum=10, jitter=0.1)
    delays = [backoff.delay(5, random.Random(seed)) for seed in range(200)]
    assert all(9 <= delay <= 11 for delay in delays)
    assert min(delays) < 9.5
    assert max(delays) > 10.5


def test_the_same_seed_gives_the_same_delays() -> None:
    backoff = Backoff(1, jitter=0.5)
    one, other = random.Random(7), random.Random(7)
    assert [backoff.delay(n, one) for n in range(9)] == [backoff.delay(n, other) for n in range(9)]


def test_exact_delays_draw_nothing_from_the_generator() -> None:
    rng = random.Random(7)
    Backoff(1).delay(3, rng)
    assert rng.random() == random.Random(7).random()


def test_without_a_generator_the_delays_differ() -> None:
    assert len({Backoff(1, jitter=1).delay(0) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": -1}, "base must be a finite number"),
        ({"base": math.inf}, "base must be a finite number"),
        ({"base": math.nan}, "base must be a finite number"),
        ({"base": 1, "factor": 0.5}, "factor must be finite and 1 or more"),
        ({"base": 1, "factor": math.inf}, "factor must be finite and 1 or more"),
        ({"base": 1, "factor": math.nan}, "factor must be finite and 1 or more"),
        ({"base": 1, "maximum": -1}, "maximum must be 0 seconds or more"),
        ({"base": 1, "maximum": math.nan}, "maximum must be 0 seconds or more"),
        ({"base": 1, "jitter": -0.1}, "jitter must lie between 0 and 1"),
        ({"base": 1, "jitter": 1.1}, "jitter must lie between 0 and 1"),
        ({"base": 1, "jitter": math.nan}, "jitter must lie between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backoff(**arguments)


backoffs = st.builds(
    Backoff,
    base=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    maximum=st.floats(0, 1e9),
    jitter=st.floats(0, 1),
)


@settings(deadline=None)
@given(backoff=backoffs, n=st.integers(0, 10_000), seed=st.integers())
def test_a_delay_is_never_negative_and_never_above_the_cap_plus_jitter(backoff: Backoff, n: int, seed: int) -> None:
    delay = backoff.delay(n, random.Random(seed))
    assert 0 <= delay <= backoff.maximum * (1 + backoff.jitter)


@settings(deadline=None)
@given(backoff=backoffs, n=st.integers(0, 10_000))
def test_exact_delays_never_shrink_with_the_count(backoff: Backoff, n: int) -> None:
    exact = Backoff(backoff.base, backoff.factor, backoff.maximum)
    assert exact.delay(n) <= exact.delay(n + 1)


@pytest.mark.parametrize("asked", [None, 0, -5, -math.inf, math.nan])
def test_without_retry_after_there_is_no_wait(asked: float | None) -> None:
    assert retry_after_delay(asked) == 0
    assert Backoff(base=1).delay(0, retry_after=asked) == 1


@pytest.mark.parametrize("asked", [3601, 1e30, 10**400, math.inf])
def test_retry_after_is_limited_to_an_hour(asked: float) -> None:
    assert retry_after_delay(asked, jitter=False) == MAX_RETRY_AFTER == 3600
    assert 3600 <= retry_after_delay(asked, random.Random(1)) <= 3960
    assert 3600 <= Backoff(base=1, maximum=2, jitter=0.5).delay(3, random.Random(1), retry_after=asked) <= 3960


def test_retry_after_is_spread_upwards_by_a_tenth() -> None:
    rng = random.Random(1)
    waits = [retry_after_delay(30, rng) for _ in range(1000)]
    assert 30 <= min(waits) < 30.1
    assert 32.9 < max(waits) <= 33


def test_the_longest_retry_after_among_errors_causes_and_groups_applies() -> None:
    def wishing(seconds: float | None) -> ReconcilerError:
        error = ReconcilerError()
        error.retry_after = seconds
        return error

    plain = RuntimeError()
    plain.__cause__ = ExceptionGroup("", [wishing(5), ValueError(), ExceptionGroup("", [wishing(7)])])
    plain.__cause__.__cause__ = plain  # a circle
    assert longest_retry_after(plain) == 7
    assert longest_retry_after(wishing(None)) is None
    assert longest_retry_after(ValueError()) is None
