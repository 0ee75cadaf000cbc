"""The offset of the API server's clock: its error is bounded, and it is zero if the clocks agree."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.client.connection import ServerClock, current_clock
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.testing.control_plane import ControlPlane

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def date_of(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


class Dated:
    """Stamp each response, as a real server does; `ahead` of the current clock."""

    def __init__(self, transport: Transport, ahead: timedelta = timedelta()) -> None:
        self.transport = transport
        self.ahead = ahead

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self.transport.send(request)
        response.headers = {**response.headers, "date": date_of(current_clock().now() + self.ahead)}
        return response


@given(
    offset=st.floats(-1e6, 1e6),
    exchanges=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_error_of_the_estimate_is_at_most_one_second_and_one_exchange(
    offset: float, exchanges: list[tuple[float, float, float]]
) -> None:
    clock, now = ServerClock(), START
    for pause, took, share in exchanges:
        sent = now + timedelta(seconds=pause)
        now = received = sent + timedelta(seconds=took)
        made = sent + timedelta(seconds=took * share + offset)
        clock.record(date_of(made), sent=sent, received=received)
        assert abs(clock.offset.total_seconds() - offset) <= 1 + took + 1e-3


@given(exchanges=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=20))
def test_clocks_that_agree_have_no_offset_at_all(exchanges: list[tuple[float, float, float]]) -> None:
    clock, now = ServerClock(), START
    for pause, took, share in exchanges:
        sent = now + timedelta(seconds=pause)
        now = received = sent + timedelta(seconds=took)
        clock.record(date_of(sent + timedelta(seconds=took * share)), sent=sent, received=received)
        assert clock.offset == timedelta()


def test_more_answers_narrow_the_estimate() -> None:
    clock = ServerClock()
    for number in range(20):
        now = START + timedelta(seconds=number * 1.13)
        clock.record(date_of(now + timedelta(seconds=10.5)), sent=now, received=now)
    assert 10 < clock.offset.total_seconds() < 11
    assert clock._high - clock._low < timedelta(seconds=0.2)


@pytest.mark.parametrize("date", ["", "soon", "Thu, 99 Jan 2026 00:00:00 GMT", "0", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_date_that_cannot_be_used_is_ignored(date: str) -> None:
    clock = ServerClock()
    clock.record(date, sent=START, received=START)
    assert clock.offset == timedelta()


@pytest.mark.virtual_time
async def test_the_offset_is_estimated_from_any_answer_and_shared() -> None:
    async with APIServer() as server, Client(server) as bare:
        dated = Dated(server, DAY)
        client = bare.through(lambda _: dated)
        assert bare.clock_offset == timedelta()
        await client.get("v1/Namespace", "default")
        assert abs(client.clock_offset - DAY) <= timedelta(seconds=1)
        assert client.in_namespace("default").clock_offset == bare.clock_offset == client.clock_offset


@pytest.mark.virtual_time
async def test_a_changed_clock_is_followed_with_the_next_answer_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="reconciler.client")
    async with APIServer() as server, Client(server) as bare:
        dated = Dated(server)
        client = bare.through(lambda _: dated)
        for ahead in (timedelta(), DAY, DAY, -DAY, timedelta(), timedelta()):
            dated.ahead = ahead
            await asyncio.sleep(10)
            await client.get("v1/Namespace", "default")
            assert abs(client.clock_offset - ahead) <= timedelta(seconds=1)
        assert client.clock_offset == timedelta()
    (line,) = caplog.messages
    assert "s ahead of this machine" in line


@pytest.mark.virtual_time
async def test_answers_within_a_second_cost_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    original = ServerClock.record

    def counted(self: ServerClock, date: str, *, sent: datetime, received: datetime) -> None:
        heard.append(date)
        original(self, date, sent=sent, received=received)

    monkeypatch.setattr(ServerClock, "record", counted)
    async with APIServer() as server, Client(server) as bare:
        dated = Dated(server)
        client = bare.through(lambda _: dated)
        for _ in range(50):
            await client.get("v1/Namespace", "default")
    assert len(heard) == len(set(heard)) <= 2


class Ahead:
    """A machine's clock that is an hour ahead."""

    def monotonic(self) -> float:
        return current_clock().monotonic()

    def now(self) -> datetime:
        return current_clock().now() + timedelta(hours=1)


@pytest.mark.control_plane
async def test_the_clock_of_a_real_server(control_plane: ControlPlane) -> None:
    async with control_plane.client() as client:
        await client.get("v1/Namespace", "default")
        assert client.clock_offset == timedelta()
    async with control_plane.client() as client:
        client.session.connection.server_clock = ServerClock(Ahead)
        before = current_clock().now()
        await client.get("v1/Namespace", "default")
        took = current_clock().now() - before
        assert abs(client.clock_offset + timedelta(hours=1)) <= timedelta(seconds=1) + took
