"""Scheduling decisions: which channels are due when, and the status that results."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.notification import NotificationRequest, NotificationRequestSpec, RetryPolicy
from reconciler.notification.api import TERMINAL_PHASES, ChannelStatus, DeliveryAttempt, NotificationRequestStatus
from reconciler.notification.schedule import Delivery, DeliveryVerdict, StatusChange, next_due, plan, settle
from reconciler.objects import ObjectMeta
from tests.depth import examples

START = datetime(2026, 1, 1, tzinfo=UTC)
NONE = NotificationRequestStatus()
OK, RETRY, PERMANENT, DEFERRED, UNKNOWN = (
    DeliveryVerdict.DELIVERED,
    DeliveryVerdict.RETRYABLE,
    DeliveryVerdict.PERMANENT,
    DeliveryVerdict.DEFERRED,
    DeliveryVerdict.UNKNOWN_CHANNEL,
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def spec(*channels: str, **policy: Any) -> NotificationRequestSpec:
    return NotificationRequestSpec(
        type="Simple",
        subject="s",
        body="b",
        channels=list(channels),
        retry_policy=RetryPolicy.model_validate({"jitter": 0, **policy}),
    )


def result(channel: str, verdict: DeliveryVerdict, when: float, *, took: float = 0.0, **more: Any) -> Delivery:
    return Delivery(
        channel=channel,
        verdict=verdict,
        started=at(when),
        ended=at(when + took),
        seconds=took,
        **{"error": "no", **more},
    )


def decide(
    wanted: NotificationRequestSpec, status: NotificationRequestStatus, *results: Delivery, now: float, seed: int = 0
) -> StatusChange:
    return settle(request(wanted), status, results, now=at(now), rng=random.Random(seed))


def request(wanted: NotificationRequestSpec) -> NotificationRequest:
    return NotificationRequest(metadata=ObjectMeta(name="n", namespace="default"), spec=wanted)


def unchanged(wanted: NotificationRequestSpec, status: NotificationRequestStatus) -> StatusChange:
    return StatusChange(request=request(wanted), before=status, after=status)


def upcoming(change: StatusChange, now: datetime) -> datetime | None:
    """Return when the request is due next after a change; None if it has ended."""
    return next_due(change.after.channels, now=now)


def due(wanted: NotificationRequestSpec, status: NotificationRequestStatus, now: float) -> list[str]:
    return [channel.name for channel in plan(wanted, status, now=at(now)).due]


def wait(wanted: NotificationRequestSpec, status: NotificationRequestStatus, now: float) -> float | None:
    return plan(wanted, status, now=at(now)).wait


def played(
    wanted: NotificationRequestSpec, verdicts: dict[str, Sequence[DeliveryVerdict]], *, limit: int = 100
) -> tuple[NotificationRequestStatus, dict[str, list[float]], list[str | None]]:
    """Reconcile whenever something is due; the verdicts of a channel are used in order, then the last one."""
    status, now, calls, phases = NONE, 0.0, {name: [] for name in verdicts}, []
    for _ in range(limit):
        names = due(wanted, status, now)
        results = []
        for name in names:
            given = verdicts[name]
            results.append(result(name, given[min(len(calls[name]), len(given) - 1)], now))
            calls[name].append(now)
        decision = decide(wanted, status, *results, now=now)
        status = decision.after
        phases.append(status.phase)
        following = upcoming(decision, at(now))
        if following is None:
            return status, calls, phases
        now = (following - START).total_seconds()
    raise AssertionError(f"not at an end after {limit} passes: {status}")


# The timeline


def test_the_default_timeline_is_0_30_90_210_450_and_ends_with_the_last_attempt() -> None:
    status, calls, phases = played(spec("console", "file"), {"console": [OK], "file": [RETRY]})
    assert calls == {"console": [0], "file": [0, 30, 90, 210, 450]}
    assert phases == ["Retrying", "Retrying", "Retrying", "Retrying", "PartiallySent"]
    assert status.completion_time == at(450)
    assert (status.total_attempts, status.successful_deliveries, status.failed_deliveries) == (6, 1, 1)
    assert status.reason == "PartialDeliverySuccess"
    assert all(channel.next_attempt_time is channel.delay_seconds is None for channel in status.channels)


def test_the_backoff_is_limited_by_the_policy() -> None:
    _, calls, _ = played(spec("a", maxAttempts=7, maxBackoffSeconds=100), {"a": [RETRY]})
    assert calls["a"] == [0, 30, 90, 190, 290, 390, 490]


def test_a_fractional_multiplier_and_a_multiplier_of_one_are_kept() -> None:
    assert played(spec("a", maxAttempts=4, backoffMultiplier=1.5), {"a": [RETRY]})[1]["a"] == [0, 30, 75, 142.5]
    assert played(spec("a", maxAttempts=4, backoffMultiplier=1), {"a": [RETRY]})[1]["a"] == [0, 30, 60, 90]


def test_the_backoff_starts_at_the_end_of_the_attempt() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0, took=12.5), now=13).after
    assert status.channels[0].next_attempt_time == at(42.5)
    assert due(wanted, status, 42.499999) == []
    assert due(wanted, status, 42.5) == ["a"]


def test_jitter_is_computed_once_and_stored() -> None:
    wanted = spec("a", jitter=0.5)
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0, seed=7).after
    stored = status.channels[0].delay_seconds
    assert stored is not None
    assert stored != 30
    assert 15 <= stored <= 45
    assert status.channels[0].next_attempt_time == at(stored)
    for now in (0, 1, 10):
        assert wait(wanted, status, now) == pytest.approx(stored - now)
        assert decide(wanted, status, now=now, seed=now).after == status


def test_the_due_time_is_rounded_up_to_what_is_stored() -> None:
    wanted = spec("a", jitter=0.1)
    for seed in range(50):
        channel = decide(wanted, NONE, result("a", RETRY, 0), now=0, seed=seed).after.channels[0]
        assert channel.next_attempt_time is not None
        exact = 30 * (1 + random.Random(seed).uniform(-0.1, 0.1))
        assert 0 <= (channel.next_attempt_time - START).total_seconds() - exact <= 2e-6


def test_each_channel_has_its_own_due_time() -> None:
    wanted = spec("a", "b")
    first = decide(wanted, NONE, result("a", RETRY, 0), result("b", RETRY, 0, took=10), now=10).after
    assert due(wanted, first, 30) == ["a"]
    second = decide(wanted, first, result("a", RETRY, 30), now=30).after
    assert due(wanted, second, 40) == ["b"]
    assert wait(wanted, second, 30) == 10


def test_due_times_within_a_second_are_delivered_together() -> None:
    wanted = spec("a", "b", "c")
    status = decide(
        wanted, NONE, result("a", RETRY, 0), result("b", RETRY, 0, took=1), result("c", RETRY, 0, took=1.000001), now=2
    ).after
    assert wait(wanted, status, 30) == 1
    assert due(wanted, status, 30.999999) == []
    assert due(wanted, status, 31) == ["a", "b"]
    assert due(wanted, status, 31.5) == ["a", "b", "c"]


def test_a_channel_without_attempts_does_not_wait_for_others() -> None:
    wanted = spec("a", "b")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after
    assert due(wanted, status, 29.5) == ["b"]


def test_a_longer_retry_after_replaces_the_backoff_and_a_shorter_one_does_not() -> None:
    for asked, waited in ((5.0, 30), (100.0, 100), (1e9, 3600)):
        status = decide(spec("a"), NONE, result("a", RETRY, 0, retry_after=asked), now=0).after
        assert status.channels[0].delay_seconds == waited
        assert status.channels[0].attempts == 1


# Clocks


def test_a_clock_set_back_by_a_year_delays_a_channel_by_one_backoff_at_most() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after
    year = 365 * 86_400
    early = plan(wanted, status, now=at(-year))
    assert (early.wait, early.needs_repair) == (30, True)
    amended = decide(wanted, status, now=-year).after
    assert amended.channels[0].next_attempt_time == at(30 - year)
    assert due(wanted, amended, 30 - year) == ["a"]
    assert not plan(wanted, amended, now=at(-year)).needs_repair


def test_a_small_clock_difference_does_not_change_the_stored_time() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after
    early = plan(wanted, status, now=at(-2))
    assert (early.wait, early.needs_repair) == (32, False)


# The ends


def test_failing_channels_back_off_and_fail_with_the_last_attempt() -> None:
    status, calls, phases = played(spec("a", "b"), {"a": [RETRY], "b": [RETRY]})
    assert calls == {"a": [0, 30, 90, 210, 450], "b": [0, 30, 90, 210, 450]}
    assert phases == ["Retrying"] * 4 + ["Failed"]
    assert (status.reason, status.completion_time) == ("MaxRetriesExhausted", at(450))


def test_a_permanent_error_fails_the_channel_immediately() -> None:
    status, calls, phases = played(spec("a"), {"a": [PERMANENT]})
    assert (calls["a"], phases, status.reason) == ([0], ["Failed"], "AllDeliveriesFailed")
    status, calls, phases = played(spec("a", "b"), {"a": [PERMANENT], "b": [OK]})
    assert (calls, phases) == ({"a": [0], "b": [0]}, ["PartiallySent"])


def test_a_failed_single_attempt_is_final() -> None:
    status, calls, _ = played(spec("a", maxAttempts=1), {"a": [RETRY]})
    assert (calls["a"], status.phase, status.reason) == ([0], "Failed", "MaxRetriesExhausted")


def test_the_phase_is_sent_if_all_channels_delivered() -> None:
    status, _, phases = played(spec("a", "b"), {"a": [OK], "b": [RETRY, OK]})
    assert phases == ["Retrying", "Sent"]
    assert (status.reason, status.completion_time) == ("AllDeliveriesSucceeded", at(30))


def test_duplicate_channels_are_ignored() -> None:
    status, calls, phases = played(spec("a", "a"), {"a": [OK]})
    assert (calls["a"], phases, status.successful_deliveries) == ([0], ["Sent"], 1)


def test_a_request_without_channels_fails() -> None:
    decision = settle(request(NotificationRequestSpec(type="Simple", subject="s", body="b")), NONE, now=START)
    assert (decision.after.phase, decision.after.reason) == ("Failed", "NoChannelsResolved")


def test_an_unknown_channel_fails_without_an_attempt() -> None:
    status, _, phases = played(spec("a", "nobody"), {"a": [OK], "nobody": [UNKNOWN]})
    assert phases == ["PartiallySent"]
    assert (status.total_attempts, status.failed_deliveries) == (1, 1)
    assert played(spec("nobody"), {"nobody": [UNKNOWN]})[0].reason == "UnknownChannel"


def test_a_channel_that_existed_before_is_deferred_when_it_is_missing() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after
    later = decide(wanted, status, result("a", UNKNOWN, 30, retry_after=60.0), now=30).after
    assert (later.phase, later.channels[0].attempts, later.channels[0].next_attempt_time) == ("Retrying", 1, at(90))
    assert decide(wanted, later, result("a", OK, 90), now=90).after.phase == "Sent"


def test_a_terminal_phase_never_changes() -> None:
    wanted = spec("a", "b")
    status, _, _ = played(wanted, {"a": [OK], "b": [PERMANENT]})
    again = decide(wanted, status, result("b", OK, 9), result("a", RETRY, 9), now=9)
    assert again.after == status
    assert again.attempts == ()
    assert plan(wanted, status, now=at(1e6)).due == ()


def test_a_terminal_phase_by_another_writer_ends_the_request() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after.model_copy(update={"phase": "Failed"})
    assert due(wanted, status, 100) == []
    assert decide(wanted, status, result("a", OK, 100), now=100) == unchanged(wanted, status)


# Deferrals


def test_a_deferral_uses_no_attempt() -> None:
    wanted = spec("a", maxAttempts=2)
    status, calls, _ = played(wanted, {"a": [DEFERRED, DEFERRED, DEFERRED, RETRY, DEFERRED, OK]})
    assert (status.phase, status.total_attempts, len(calls["a"])) == ("Sent", 2, 6)


def test_a_deferral_waits_as_long_as_asked_between_a_second_and_an_hour() -> None:
    for asked, waited in ((20.0, 20), (0.0, 1), (None, 1), (1e9, 3600)):
        status = decide(spec("a"), NONE, result("a", DEFERRED, 0, retry_after=asked), now=0).after
        assert status.channels[0].delay_seconds == waited
        assert (status.channels[0].state, status.phase, status.reason) == ("Pending", "Retrying", "DeliveryDeferred")


def test_deferrals_end_after_24_hours_across_restarts() -> None:
    wanted = spec("a", maxAttempts=2)
    status, now, deferrals = NONE, 0.0, 0
    while status.total_attempts == 0:
        decision = decide(wanted, status, result("a", DEFERRED, now, retry_after=3500.0), now=now)
        # The next reconcile knows only what is stored.
        status = NotificationRequestStatus.model_validate_json(decision.after.model_dump_json(by_alias=True))
        following = upcoming(decision, at(now))
        assert following is not None
        before, now, deferrals = now, (following - START).total_seconds(), deferrals + 1
    assert (before, deferrals) == (86_400, 26)
    assert (status.channels[0].deferred_since, status.channels[0].reason) == (None, "AttemptFailed")
    assert status.delivery_attempts[0].result == "failure"


def test_an_attempt_ends_a_series_of_deferrals() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", DEFERRED, 0, retry_after=60.0), now=0).after
    assert status.channels[0].deferred_since == at(0)
    status = decide(wanted, status, result("a", RETRY, 60), now=60).after
    assert status.channels[0].deferred_since is None


# What is said


def test_the_message_is_correct_after_every_reconcile() -> None:
    wanted = spec("console", "file", maxAttempts=2)
    first = decide(wanted, NONE, result("console", OK, 0), result("file", RETRY, 0, error="disk full"), now=0).after
    assert first.message == (
        "Delivered to 1 of 2 channels (console); file will be retried at 2026-01-01T00:00:30.000000Z (attempt 2 of 2)"
    )
    second = decide(wanted, first, result("file", RETRY, 30, error="disk full"), now=30).after
    assert second.message == "Delivered to 1 of 2 channels (console); file failed after 2 attempts: disk full"


def test_a_channel_with_failed_attempts_counts_as_failed_until_it_delivers() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0), now=0).after
    assert (status.successful_deliveries, status.failed_deliveries) == (0, 1)
    status = decide(wanted, status, result("a", OK, 30), now=30).after
    assert (status.successful_deliveries, status.failed_deliveries) == (1, 0)


def test_every_attempt_is_recorded_once() -> None:
    wanted = spec("a")
    status = decide(wanted, NONE, result("a", RETRY, 0, took=0.25, error="e1"), now=1).after
    assert status.delivery_attempts == [
        DeliveryAttempt(channel="a", attempt=1, timestamp=at(0), result="failure", error="e1", duration_seconds=0.25)
    ]
    status = decide(wanted, status, result("a", OK, 31), now=31).after
    assert [(entry.attempt, entry.result, entry.error) for entry in status.delivery_attempts] == [
        (1, "failure", "e1"),
        (2, "success", None),
    ]


def test_recorded_attempts_take_precedence_over_the_channel_state() -> None:
    wanted = spec("a", "b", maxAttempts=3)
    entries = [
        DeliveryAttempt(channel="a", attempt=1, timestamp=at(0), result="success"),
        *(DeliveryAttempt(channel="b", attempt=n, timestamp=at(n), result="failure") for n in (1, 2, 3)),
    ]
    status = NotificationRequestStatus(phase="Retrying", delivery_attempts=entries)
    found = plan(wanted, status, now=at(10))
    assert (found.due, found.needs_repair) == ((), True)
    assert decide(wanted, status, now=10).after.phase == "PartiallySent"


REMOVED: dict[str, Callable[[NotificationRequestStatus], dict[str, object]]] = {
    "due times": lambda status: {
        "channels": [
            each.model_copy(update={"next_attempt_time": None, "delay_seconds": None}) for each in status.channels
        ]
    },
    "channels": lambda _: {"channels": []},
    "all but names": lambda status: {"channels": [ChannelStatus(name=each.name) for each in status.channels]},
    "attempts and due times": lambda status: {**REMOVED["due times"](status), "delivery_attempts": []},
}


@pytest.mark.parametrize("what", REMOVED)
@pytest.mark.parametrize("failures", [1, 2, 4])
def test_a_due_time_that_someone_removed_is_computed_again(what: str, failures: int) -> None:
    wanted, status, now = spec("a"), NONE, 0.0
    for _ in range(failures):
        decision = decide(wanted, status, result("a", RETRY, now), now=now)
        status, before = decision.after, now
        following = upcoming(decision, at(now))
        assert following is not None
        now = (following - START).total_seconds()
    edited = status.model_copy(update=REMOVED[what](status))
    assert due(wanted, edited, before + 1) == []
    assert wait(wanted, edited, before + 1) == now - before - 1
    assert due(wanted, edited, now) == ["a"]
    assert decide(wanted, edited, result("a", RETRY, now), now=now).after.channels[0].attempts == failures + 1


MOMENTS = [
    None,
    START,
    at(0.5),
    at(3600),
    at(-1e7),
    at(1e9),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]
SECONDS = [0.0, 30.0, 1e9, 1e14, 1e300]


@settings(max_examples=examples(300), deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["AtLeastOnce", "Bounded", "AtMostOnce"]))
def test_times_that_someone_wrote_into_a_status_neither_fail_a_reconcile_nor_park_a_request(
    rng: random.Random, guarantee: Any
) -> None:
    def channel(name: str) -> ChannelStatus:
        return ChannelStatus(
            name=name,
            state=rng.choice(["Pending", "Retrying"]),
            reason=rng.choice([None, "Deferred", "AttemptFailed"]),
            attempts=rng.choice([0, 1, 2**40]),
            last_attempt_time=rng.choice(MOMENTS),
            delay_seconds=rng.choice([None, *SECONDS]),
            next_attempt_time=rng.choice(MOMENTS),
            deferred_since=rng.choice(MOMENTS),
        )

    attempts = [
        DeliveryAttempt(
            channel=rng.choice("ab"),
            attempt=rng.choice([1, 2, 2**40]),
            timestamp=rng.choice([each for each in MOMENTS if each is not None]),
            result=rng.choice(["failure", "unknown"]),
            duration_seconds=rng.choice(SECONDS),
        )
        for _ in range(rng.randrange(3))
    ]
    wanted = spec("a", "b").model_copy(update={"delivery": guarantee})
    status = NotificationRequestStatus(channels=[channel("a"), channel("b")], delivery_attempts=attempts)
    results = [result(name, RETRY, 0) for name in due(wanted, status, 0)]
    decision = decide(wanted, status, *results, now=0)
    following = upcoming(decision, at(0))
    assert following is None or at(0) <= following <= at(2 * 86_400 + 2)
    assert not plan(wanted, decision.after, now=at(0)).needs_repair


def test_settle_without_results_is_idempotent() -> None:
    wanted = spec("a", "b")
    status = decide(wanted, NONE, result("a", OK, 0), result("b", RETRY, 0), now=0).after
    assert decide(wanted, status, now=5).after == status


# Properties

VERDICTS = st.sampled_from([OK, RETRY, RETRY, PERMANENT, DEFERRED, UNKNOWN])
POLICIES = st.fixed_dictionaries(
    {
        "maxAttempts": st.integers(1, 10),
        "initialBackoffSeconds": st.integers(1, 400),
        "backoffMultiplier": st.floats(1, 1e9, allow_nan=False),
        "maxBackoffSeconds": st.integers(400, 86_400),
        "jitter": st.floats(0, 1),
    }
)
PASS = st.fixed_dictionaries(
    {
        "verdicts": st.lists(VERDICTS, min_size=4, max_size=4),
        "took": st.lists(st.floats(0, 100), min_size=4, max_size=4),
        "retry_after": st.one_of(st.none(), st.floats(0, 1e7)),
        "late": st.floats(0, 1000),
        "peeks": st.lists(st.floats(0, 0.999), max_size=3),
        "missing": st.booleans(),
    }
)


@settings(deadline=None, max_examples=examples(100))
@given(
    names=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6),
    policy=POLICIES,
    passes=st.lists(PASS, min_size=1, max_size=14),
    seed=st.integers(0, 2**32),
)
def test_the_invariants_hold_for_any_sequence_of_events(
    names: list[str], policy: dict[str, Any], passes: list[dict[str, Any]], seed: int
) -> None:
    wanted, rng = spec(*names, **policy), random.Random(seed)
    channels = tuple(dict.fromkeys(names))
    status, now = NONE, START
    calls = dict.fromkeys(channels, 0)
    succeeded = dict.fromkeys(channels, 0)
    for step in passes:
        found = plan(wanted, status, now=now)
        if not found.due:
            assert status.phase in TERMINAL_PHASES
            break
        results = []
        for position, channel in enumerate(found.due):
            if step["missing"] and position:
                continue  # a pass that was cancelled before this channel had ended
            verdict = step["verdicts"][position]
            ended = now + timedelta(seconds=step["took"][position])
            results.append(
                Delivery(
                    channel=channel.name, verdict=verdict, started=now, ended=ended, retry_after=step["retry_after"]
                )
            )
            calls[channel.name] += verdict in {OK, RETRY, PERMANENT}
            succeeded[channel.name] += verdict is OK
            assert channel.next_attempt_time is None or channel.next_attempt_time <= now
        now = max([now, *(delivery.ended for delivery in results)])
        before, decision = status, settle(request(wanted), status, results, now=now, rng=rng)
        status = NotificationRequestStatus.model_validate_json(decision.after.model_dump_json(by_alias=True))
        assert status == decision.after
        assert all(made <= policy["maxAttempts"] for made in calls.values())
        assert all(times <= 1 for times in succeeded.values())
        assert [c.state == "Delivered" for c in status.channels] == [succeeded[name] == 1 for name in channels]
        assert (status.phase == "Sent") == (all(succeeded.values()))
        following = upcoming(decision, now)
        assert (status.phase in TERMINAL_PHASES) == (following is None)
        assert len(status.delivery_attempts) >= len(before.delivery_attempts)
        assert {(e.channel, e.attempt) for e in before.delivery_attempts} <= {
            (e.channel, e.attempt) for e in status.delivery_attempts
        }
        assert status.total_attempts == len(status.delivery_attempts)
        assert settle(request(wanted), status, now=now, rng=rng).after == status
        if following is None:
            assert status.completion_time == now
            assert settle(request(wanted), status, results, now=now, rng=rng).after == status
            break
        assert following >= now
        # A reconcile before the due time waits for exactly the rest.
        for share in step["peeks"]:
            early = now + (following - now) * share
            if early < following:
                peek = plan(wanted, status, now=early)
                assert (peek.due, peek.wait) == ((), (following - early).total_seconds())
        now = following + timedelta(seconds=step["late"])
