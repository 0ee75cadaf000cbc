"""Rate limiters: the delays, their composition, and the charge for a duplicate."""

from __future__ import annotations

import asyncio
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.workqueue import (
    ExponentialBackoff,
    FastSlow,
    MaxOf,
    RateLimiter,
    TokenBucket,
    WithMaxWait,
    WorkQueue,
)
from reconciler.workqueue.rate_limiters import when_duplicate


def test_exponential_backoff_has_the_delays_of_controller_runtime() -> None:
    limiter = ExponentialBackoff(0.005, 1000)
    delays = [limiter.when("a") for _ in range(20)]
    assert delays[:18] == [0.005 * 2**n for n in range(18)]
    assert delays[18:] == [1000, 1000]
    assert limiter.retries("a") == 20


def test_exponential_backoff_counts_each_key_separately_and_forgets_it() -> None:
    limiter = ExponentialBackoff(1, 100)
    assert [limiter.when("a"), limiter.when("a"), limiter.when("b")] == [1, 2, 1]
    limiter.forget("a")
    limiter.forget("never seen")
    assert limiter.retries("a") == 0
    assert limiter.when("a") == 1
    limiter.forget("a")
    limiter.forget("b")
    assert limiter._failures == {}


def test_exponential_backoff_stays_at_its_maximum() -> None:
    limiter = ExponentialBackoff(0.005, 1000)
    for _ in range(5000):
        delay = limiter.when("a")
    assert delay == 1000


def test_jitter_is_repeatable_by_its_seed_and_bounded() -> None:
    def delays() -> list[float]:
        limiter = ExponentialBackoff(1, 64, jitter=0.2, rng=random.Random(7))
        return [limiter.when("a") for _ in range(10)]

    assert delays() == delays()
    for n, delay in enumerate(delays()):
        exact = min(64, 2**n)
        assert delay != exact
        assert 0.8 * exact <= delay <= 1.2 * exact


@pytest.mark.parametrize("numbers", [(-1, 10), (1, -1), (math.nan, 10), (1, math.inf), (1, math.nan)])
def test_exponential_backoff_rejects_invalid_numbers(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ExponentialBackoff(*numbers)


def test_fast_slow_is_fast_a_few_times_and_then_slow() -> None:
    limiter = FastSlow(0.1, 10, 3)
    assert [limiter.when("a") for _ in range(5)] == [0.1, 0.1, 0.1, 10, 10]
    assert limiter.when("b") == 0.1
    assert limiter.retries("a") == 5
    limiter.forget("a")
    assert (limiter.retries("a"), limiter.when("a")) == (0, 0.1)


def test_max_of_counts_in_each_limiter_and_returns_the_longest() -> None:
    fast, slow = ExponentialBackoff(1, 100), FastSlow(3, 3, 1)
    limiter = MaxOf(fast, slow)
    assert [limiter.when("a") for _ in range(3)] == [3, 3, 4]
    assert limiter.retries("a") == 3
    limiter.forget("a")
    assert (fast.retries("a"), slow.retries("a")) == (0, 0)


def test_with_max_wait_limits_the_delay() -> None:
    limiter = WithMaxWait(ExponentialBackoff(1, 1000), 5)
    assert [limiter.when("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    assert limiter.retries("a") == 5
    limiter.forget("a")
    assert limiter.when("a") == 1


def test_limiters_reject_invalid_numbers() -> None:
    with pytest.raises(ValueError, match="at least one"):
        MaxOf()
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(0, 1)
    with pytest.raises(ValueError, match="burst"):
        TokenBucket(1, 0)
    with pytest.raises(ValueError, match="maximum"):
        WithMaxWait(FastSlow(1, 1, 1), math.inf)
    with pytest.raises(ValueError, match="slow"):
        FastSlow(1, -1, 1)


@pytest.mark.virtual_time
async def test_token_bucket_gives_its_burst_and_then_its_rate() -> None:
    limiter = TokenBucket(rate=10, burst=3)
    assert [limiter.when(key) for key in "abc"] == [0, 0, 0]
    assert [limiter.when(key) for key in "def"] == pytest.approx([0.1, 0.2, 0.3])
    await asyncio.sleep(0.3)
    assert limiter.when("g") == pytest.approx(0.1)
    await asyncio.sleep(100)
    assert [limiter.when(key) for key in "hijk"] == pytest.approx([0, 0, 0, 0.1])
    assert limiter.retries("k") == 0


@pytest.mark.virtual_time
async def test_token_bucket_does_not_charge_a_duplicate_and_stores_only_future_tokens() -> None:
    limiter = TokenBucket(rate=1, burst=1)
    assert [limiter.when("a"), limiter.when("b"), limiter.when("c")] == [0, 1, 2]
    assert [limiter.when_duplicate("c") for _ in range(10)] == [2] * 10
    await asyncio.sleep(1.5)
    assert [limiter.when_duplicate(key) for key in "abc"] == [0, 0, 0.5]
    assert list(limiter._reserved) == ["c"]
    await asyncio.sleep(1)
    assert limiter.when_duplicate("c") == 0
    assert not limiter._reserved


@pytest.mark.virtual_time
@pytest.mark.parametrize("wrapped", [lambda bucket: bucket, MaxOf, lambda bucket: WithMaxWait(bucket, 1000)])
async def test_a_flood_of_adds_of_one_key_does_not_slow_down_the_others(wrapped) -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=wrapped(TokenBucket(rate=1, burst=1)))
    queue.add_rate_limited("first")
    queue.add_rate_limited("flood")
    for _ in range(1000):
        queue.add_rate_limited("flood")
        queue.add_rate_limited("first")
    queue.add_rate_limited("other")
    assert queue.explain("other").due == pytest.approx(2)
    assert queue.explain("flood").due == pytest.approx(1)


@pytest.mark.virtual_time
async def test_a_duplicate_counts_as_a_failure_and_waits_for_its_token() -> None:
    limiter = MaxOf(ExponentialBackoff(0.005, 1000), TokenBucket(rate=0.1, burst=1))
    queue: WorkQueue[str] = WorkQueue(rate_limiter=limiter)
    queue.add_rate_limited("other")
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    assert queue.retries("a") == 2
    assert queue.explain("a").due == pytest.approx(10)


@pytest.mark.virtual_time
async def test_a_key_that_waits_for_another_reason_is_charged() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=TokenBucket(rate=1, burst=1))
    queue.add("a", after=100)
    queue.add_rate_limited("a")
    queue.add_rate_limited("b")
    assert queue.explain("b").due == pytest.approx(1)


@pytest.mark.virtual_time
async def test_each_processing_is_charged() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=TokenBucket(rate=1, burst=1))
    queue.add_rate_limited("a")
    for _ in range(3):
        async with queue.item() as key:
            queue.add_rate_limited(key)
    assert queue.explain("a").due == pytest.approx(1)
    assert asyncio.get_running_loop().time() == pytest.approx(2)


@pytest.mark.virtual_time
async def test_add_rate_limited_waits_for_the_delay_and_forget_resets_it() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=ExponentialBackoff(1, 1000))
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(4):
        before = loop.time()
        queue.add_rate_limited("a", reason="retry")
        async with queue.item() as key:
            times.append(loop.time() - before)
            run = queue.in_progress(key)
            assert run is not None
            assert run.reasons == {"retry"}
    assert times == [1, 2, 4, 8]
    assert queue.retries("a") == 4
    queue.forget("a")
    queue.add_rate_limited("a")
    assert queue.explain("a").due == 1


@pytest.mark.virtual_time
async def test_an_add_ends_the_backoff_and_keeps_the_failures() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=ExponentialBackoff(10, 1000))
    queue.add_rate_limited("a")
    queue.add("a")
    async with asyncio.timeout(0):
        queue.done(await queue.get())
    queue.add_rate_limited("a")
    assert queue.explain("a").due == 20


@pytest.mark.virtual_time
async def test_forget_keeps_what_is_pending() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=ExponentialBackoff(10, 1000))
    queue.add_rate_limited("a")
    queue.forget("a")
    assert queue.explain("a").due == 10


@pytest.mark.virtual_time
async def test_the_default_is_exponential_from_5_milliseconds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_rate_limited("a", priority=3)
    assert queue.explain("a").due == 0.005
    assert queue.explain("a").priority == 3


@pytest.mark.virtual_time
async def test_a_limiter_needs_no_more_than_three_methods() -> None:
    class Constant:
        def when(self, key: object, /) -> float:
            return 2.0

        def forget(self, key: object, /) -> None: ...

        def retries(self, key: object, /) -> int:
            return 7

    limiter: RateLimiter = Constant()
    queue: WorkQueue[str] = WorkQueue(rate_limiter=MaxOf(limiter))
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    assert queue.explain("a").due == 2
    assert queue.retries("a") == 7


@settings(deadline=None)
@given(
    base=st.floats(0.001, 10),
    maximum=st.floats(0.001, 10_000),
    jitter=st.floats(0, 1),
    failures=st.integers(1, 2000),
)
def test_delays_never_leave_their_bounds(base: float, maximum: float, jitter: float, failures: int) -> None:
    limiter = ExponentialBackoff(base, maximum, jitter=jitter, rng=random.Random(0))
    limiter._failures["a"] = failures
    assert 0 <= limiter.when("a") <= maximum * (1 + jitter)


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60), rate=st.floats(0.1, 100), burst=st.integers(1, 10))
def test_a_bucket_never_grants_more_than_burst_plus_rate(gaps: list[float], rate: float, burst: int) -> None:
    class Manual:
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        def now(self):
            raise NotImplementedError

    clock = Manual()
    limiter = TokenBucket(rate, burst, clock=clock)
    grants = []
    for number, gap in enumerate(gaps):
        clock.time += gap
        grants.append(clock.time + limiter.when(number))
    for i, start in enumerate(grants):
        for count, end in enumerate(grants[i:], 1):
            assert count <= burst + rate * (end - start) + 1e-6


def _held_by(value: object, keys: set[str], seen: set[int]) -> bool:
    """Return whether a limiter refers to one of the keys anywhere."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, str):
        return value in keys
    if isinstance(value, dict):
        return any(_held_by(each, keys, seen) for pair in value.items() for each in pair)
    if isinstance(value, (list, tuple, set)):
        return any(_held_by(each, keys, seen) for each in value)
    return type(value).__module__.startswith("reconciler.workqueue") and _held_by(vars(value), keys, seen)


@given(
    st.lists(st.tuples(st.sampled_from(["when", "duplicate", "forget"]), st.sampled_from(["k1", "k2", "k3", "k4"]))),
    st.sampled_from(["exponential", "fast", "bucket", "nested"]),
)
def test_limiters_keep_nothing_of_forgotten_keys(steps: list[tuple[str, str]], kind: str) -> None:
    made: dict[str, RateLimiter] = {
        "exponential": ExponentialBackoff(1, 100),
        "fast": FastSlow(1, 10, 2),
        "bucket": TokenBucket(1, 1),
        "nested": MaxOf(
            WithMaxWait(MaxOf(TokenBucket(1, 2), ExponentialBackoff(1, 100)), 50), TokenBucket(1, 1), FastSlow(1, 10, 2)
        ),
    }
    limiter = made[kind]
    for step, key in steps:
        if step == "when":
            limiter.when(key)
        elif step == "duplicate":
            when_duplicate(limiter, key)
        else:
            limiter.forget(key)
            assert not _held_by(limiter, {key}, set())
    keys = {key for _, key in steps}
    for key in keys:
        limiter.forget(key)
        assert limiter.retries(key) == 0
    assert not _held_by(limiter, keys, set())


def test_token_of_a_forgotten_key_stays_spent() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.when("a") == 0
    assert bucket.when("b") == pytest.approx(1, abs=0.1)
    bucket.forget("b")
    assert when_duplicate(bucket, "b") == 0
    assert bucket.when("c") == pytest.approx(2, abs=0.1)


@pytest.mark.virtual_time
async def test_failure_after_a_forgotten_one_is_charged_again() -> None:
    """After a waiting key is forgotten, its next failure must take a token."""
    queue: WorkQueue[str] = WorkQueue(rate_limiter=TokenBucket(1, 1))
    queue.add_rate_limited("a")
    assert await queue.get() == "a"
    queue.done("a")
    queue.add_rate_limited("b")  # in one second
    queue.forget("b")
    queue.add_rate_limited("b")
    assert len(queue) == 0
    await queue.get()
    assert asyncio.get_running_loop().time() == pytest.approx(1)
