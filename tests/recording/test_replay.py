"""A recorded reconcile runs again without a cluster: the same, or the first difference."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from os import urandom
from pathlib import Path
from random import choice as choice_by_name
from random import random as random_by_name
from typing import Any

import pytest

from reconciler import (
    Client,
    Manager,
    Outcome,
    Reconciler,
    Recording,
    Request,
    ResourceReconciler,
    Result,
    StatusBatcher,
    effect,
)
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, ReconcilerError, describe_error
from reconciler.meta.documents import format_micro_time
from reconciler.recording.answers import _exception
from reconciler.recording.records import EffectStep
from reconciler.testing import Replay, replay, virtual_time
from tests.benchmarks.contenders.widget import Widget, WidgetStatus, widget


@dataclass(frozen=True)
class Account:
    id: str
    size: int


class BankClosed(Exception):
    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


class Copies(Reconciler):
    """Copies a ConfigMap into another one, with random names, times and an account at a bank."""

    opened = 0

    @effect
    async def open_account(self, name: str) -> Account:
        type(self).opened += 1
        await asyncio.sleep(2)
        if name == "closed":
            raise BankClosed("the bank is closed", retry_after=77.0)
        return Account(f"account-{time.time_ns()}", 3)

    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        try:
            account = await self.open_account(request.name)
        except BankClosed as closed:
            return Result(requeue_after=closed.retry_after)
        others = await self.client.list("v1/ConfigMap", "default", label_selector={"other": "yes"})
        await self.client.apply(
            config_map(
                f"copy-{request.name}",
                **(found.get("data") or {}),
                account=account.id,
                number=str(random.randrange(10**9)),
                unique=str(uuid.uuid4()),
                hexadecimal=secrets.token_hex(8),
                at=format_micro_time(current_clock().now()),
                others=str(len(list(others))),
            )
        )
        live = await self.client.live.get("v1/ConfigMap", f"copy-{request.name}", "default")
        return Result(requeue_after=len(live.to_dict()["data"]["unique"]))


def record(directory: Path, reconciler: Reconciler, *documents: dict[str, Any], **options: Any) -> None:
    """Record the reconciles of some ConfigMaps."""

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, recording=Recording(directory))
            options.setdefault("predicates", [lambda event: not event.object.name.startswith("copy")])
            manager.add_controller(reconciler, resource="v1/ConfigMap", name="copies", **options)
            async with manager.running():
                for document in documents:
                    await client.create(document)
                await asyncio.sleep(30)

    with virtual_time():
        asyncio.run(main())


def only(replays: Sequence[Replay]) -> Replay:
    (found,) = replays
    return found


def test_the_same_code_does_the_same(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a", key="value"))
    opened = Copies.opened
    found = only(replay(tmp_path / "r", Copies))
    assert found.differences == ()
    assert found.unreproducible == ()
    assert Copies.opened == opened  # the bank is not asked again
    assert found.replayed.requeue_after == 36
    assert found.replayed.seconds == pytest.approx(found.recorded.seconds)


def test_the_exception_of_an_effect_is_raised_again(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("closed"))
    found = only(replay(tmp_path / "r", Copies))
    assert (found.differences, found.replayed.requeue_after) == ((), 77.0)


class Fixed(Copies):
    """Writes one more field."""

    async def reconcile(self, request: Request) -> Outcome:
        await self.client.get("v1/ConfigMap", request.name, request.namespace)
        await self.client.apply(config_map(f"copy-{request.name}", fixed="yes"))
        again = (await self.client.live.get("v1/ConfigMap", f"copy-{request.name}", "default")).to_dict()
        return Result(requeue_after=5 if again["data"].get("fixed") else 6)


def test_the_first_difference_names_the_fields(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a", key="value"))
    found = only(replay(tmp_path / "r", Fixed))
    first, *_, last = found.differences
    assert first.startswith("sends PATCH /api/v1/namespaces/default/configmaps/copy-a with other fields: data.key:")
    assert 'data.fixed: absent → "yes"' in first or "more" in first
    assert last == "ends otherwise: requeue_after 36 s → requeue_after 5 s"  # a later read sees the new write


class Curious(Copies):
    """Reads something that the recorded code did not read."""

    async def reconcile(self, request: Request) -> Outcome:
        await self.client.get("v1/ConfigMap", "elsewhere", request.namespace)
        return None


class Lister(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        await self.client.list("v1/ConfigMap", "default")
        return None


class Live(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        await self.client.live.get("v1/Node", "n1")
        return None


@pytest.mark.parametrize(
    ("reconciler", "difference"),
    [
        (Curious, "reads v1/ConfigMap default/elsewhere, which the recording does not have"),
        (Lister, "lists v1/ConfigMap in default, which the recording does not have"),
        (Live, "sends GET /api/v1/nodes/n1, which the recording does not have"),
    ],
)
def test_what_the_recording_does_not_have_is_named(
    tmp_path: Path, reconciler: type[Reconciler], difference: str
) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    found = only(replay(tmp_path / "r", reconciler))
    assert found.differences[0] == difference
    assert "does not send PATCH /api/v1/namespaces/default/configmaps/copy-a" in found.differences


class Fails(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        return Result(requeue_after=60 / int(found["data"]["count"]))


class Mended(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        return Result(requeue_after=60 / max(1, int(found["data"]["count"])))


def test_a_fix_is_seen(tmp_path: Path) -> None:
    record(tmp_path / "r", Fails(), config_map("a", count="0"))
    before, after = replay(tmp_path / "r", Fails), replay(tmp_path / "r", Mended)
    assert before[0].error == "ZeroDivisionError: division by zero"
    assert [each.differences for each in before] == [()] * len(before)
    assert {each.error for each in after} == {None}
    assert after[0].differences == ("ends otherwise: ZeroDivisionError: division by zero → requeue_after 60 s",)


class WallClock(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        await self.client.apply(config_map("copy", at=str(datetime.now()), also=str(time.time())))  # noqa: DTZ005
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        logging.getLogger("operator").info("a log record has a time, which changes nothing")
        await asyncio.to_thread(time.monotonic_ns)
        return None


def test_calls_that_cannot_be_replayed_are_named(tmp_path: Path) -> None:
    record(tmp_path / "r", WallClock(), config_map("a"))
    found = only(replay(tmp_path / "r", WallClock))
    names = [text.partition(" in ")[2] for text in found.unreproducible]
    assert names == [
        "reconcile calls datetime.now",
        "reconcile calls time.time",
        "reconcile starts a thread",
        "reconcile starts a thread",
    ]
    assert found.differences[0].startswith("sends PATCH /api/v1/namespaces/default/configmaps/copy with other fields")


CLOCKS = [
    *("time.ctime()", "time.localtime()", "time.gmtime(None)", "time.asctime()", "time.strftime('%H')"),
    *("time.time_ns()", "time.monotonic()", "time.perf_counter()", "time.process_time()", "time.clock_gettime(0)"),
    *("datetime.now(UTC)", "datetime.utcnow()", "datetime.today()", "date.today()", "Day.today()"),
    *(
        "uuid.uuid1()",
        "random.Random().random()",
        "urandom(4)",
        "random_by_name()",
        "choice_by_name([1, 2])",
        "time.ctime(*())",
    ),
]
REPLAYED = [
    *("time.ctime(0)", "time.localtime(0)", "time.gmtime(0)", "time.strftime('%H', time.gmtime(0))"),
    *("os.urandom(4)", "uuid.uuid4()", "secrets.token_hex(4)", "random.random()", "random.choice([1, 2])"),
    *("random.Random(7).random()", "datetime.fromtimestamp(0)", "current_clock().now()"),
]


class Day(date):
    """A class of the user."""


_NAMES = {
    each.__name__: each for each in (time, datetime, date, Day, UTC.__class__, uuid, os, secrets, random, current_clock)
} | {"UTC": UTC, "urandom": urandom, "random_by_name": random_by_name, "choice_by_name": choice_by_name}


class Evaluates(Copies):
    def __init__(self, code: str) -> None:
        self.code = compile(code, __file__, "eval")

    async def reconcile(self, request: Request) -> Outcome:
        eval(self.code, _NAMES)
        return None


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize("code", [*CLOCKS, *REPLAYED])
def test_each_source_of_time_and_chance_is_replayed_or_named(tmp_path: Path, code: str) -> None:
    record(tmp_path / "r", Evaluates(code), config_map("a"))
    found = only(replay(tmp_path / "r", Evaluates(code)))
    assert bool(found.unreproducible) == (code in CLOCKS), found.unreproducible


@pytest.mark.parametrize("stop", [SystemExit(3), asyncio.CancelledError()])
def test_code_that_ends_its_process_ends_no_replay(tmp_path: Path, stop: BaseException) -> None:
    class Stops(Copies):
        async def reconcile(self, request: Request) -> Outcome:
            raise stop

    record(tmp_path / "r", Copies(), config_map("a"), config_map("b"))
    found = replay(tmp_path / "r", Stops)
    assert [each.differences[-1].endswith(f"→ {describe_error(stop)}") for each in found] == [True, True]


class Plain(Copies):
    """A plain function, which runs in a thread."""

    def reconcile(self, request: Request) -> Outcome:
        found = self.wait(self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        self.wait(self.client.apply(config_map("copy", number=str(random.random()), **found["data"])))
        return None


def test_a_reconcile_in_a_thread_is_replayed(tmp_path: Path) -> None:
    record(tmp_path / "r", Plain(), config_map("a", key="value"))
    found = only(replay(tmp_path / "r", Plain))
    assert (found.differences, found.unreproducible) == ((), ())


class Slow(Copies):
    async def reconcile(self, request: Request) -> Outcome:
        await self.client.get("v1/ConfigMap", request.name, request.namespace)
        await asyncio.sleep(100)
        return None


def test_a_timeout_is_replayed(tmp_path: Path) -> None:
    record(tmp_path / "r", Slow(), config_map("a"), timeout=7)
    found = replay(tmp_path / "r", Slow)[0]
    assert found.recorded.failure is not None
    assert found.recorded.failure.timed_out
    assert found.differences == ()


def test_one_reconcile_is_chosen_by_its_id(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a"), config_map("b"))
    both = replay(tmp_path / "r", Copies)
    assert len(both) == 2
    assert only(replay(tmp_path / "r", Copies, reconcile=both[1].recorded.id[:8])).recorded.id == both[1].recorded.id


def add_to(manager: Manager) -> None:
    manager.add_controller(Copies(), resource="v1/ConfigMap", name="copies")


async def add_later(manager: Manager) -> None:
    add_to(manager)


def add_other(manager: Manager) -> None:
    manager.add_controller(Copies(), resource="v1/Secret", name="others")


@pytest.mark.parametrize("operator", [Copies, Copies(), add_to, add_later])
def test_the_operator_is_given_as_to_run(tmp_path: Path, operator: Any) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    assert only(replay(tmp_path / "r", operator)).differences == ()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda path: replay(path, add_other), r"has no such controller; it has others \(Secret\)"),
        (lambda path: replay(path, Copies, reconcile="zzz"), "no reconcile whose id begins with 'zzz'"),
        (lambda path: replay(path / "nowhere", Copies), "cannot read the recording"),
    ],
)
def test_what_cannot_be_replayed(tmp_path: Path, action: Callable[[Path], Any], message: str) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    with pytest.raises(ConfigurationError, match=message):
        action(tmp_path / "r")


def test_nothing_of_a_replay_is_left_behind(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    random.seed(5)
    expected = random.random()
    random.seed(5)
    replay(tmp_path / "r", Copies)
    assert random.random() == expected
    assert not getattr(current_clock(), "virtual", False)


def test_records_of_other_controllers_are_left_out(tmp_path: Path) -> None:
    class Sees(ResourceReconciler[Widget]):
        async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
            return None

    class Waits(Reconciler):
        async def reconcile(self, request: Request) -> Outcome:
            return None

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            await server.apply(Widget, widget(1, "default"), config_map("a"))
            manager = Manager(client, namespaces=["default"], recording=Recording(tmp_path / "r"))
            manager.add_controller(Sees())
            manager.add_controller(Waits(), resource="v1/ConfigMap")
            async with manager.running():
                await asyncio.sleep(10)

    with virtual_time():
        asyncio.run(main())
    assert [each.recorded.controller for each in replay(tmp_path / "r", Sees)] == ["widget"]


@pytest.mark.parametrize("error", ["subprocess:Popen", "this:s", "json.tool:main", "none", ":", "builtins:__import__"])
def test_a_recording_names_no_class_but_that_of_an_exception(error: str) -> None:
    before = set(sys.modules)
    assert type(_exception(EffectStep(0.0, "call", "a", b"{}", error=error, message="x"))) is ReconcilerError
    assert set(sys.modules) == before


def test_a_lost_response_is_lost_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, recording=Recording(tmp_path / "r"))
            manager.add_controller(
                Plain(), resource="v1/ConfigMap", name="copies", predicates=[lambda event: event.object.name == "a"]
            )
            server.faults.add(lost=True, verb="patch")
            async with manager.running():
                await client.create(config_map("a", key="value"))
                await asyncio.sleep(30)

    with virtual_time():
        asyncio.run(main())
    found = replay(tmp_path / "r", Plain)
    assert [each.differences for each in found] == [()] * len(found)
    assert any(step.error for each in found for step in each.recorded.writes)
