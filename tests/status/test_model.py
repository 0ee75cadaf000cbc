"""The batcher against a model of the server, under any interleaving of foreign writes, refusals and lost responses.

Each example records some mutations, lets requests fail in an order that hypothesis chooses, and then compares with
arithmetic: what both sides requested is stored exactly once, or the error says that it is not.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler.errors import NotSent
from reconciler.meta.cycle import current_cycle
from reconciler.status import StatusBatcher, StatusConflict, StatusError, StatusOutcomeUnknown, StatusUnavailable
from reconciler.status.writer import Strategy
from reconciler.testing import virtual_time
from tests.depth import examples
from tests.status.scripted import (
    ScriptedServer,
    Trouble,
    api_error,
    late,
    lost,
    meanwhile,
    never_arrived,
    refused,
    then,
)
from tests.status.test_cycle import FakeCycle

START = {"total": 3, "log": ["start"], "ledger": [{"id": "start"}], "phase": "New", "theirs": 0}


@dataclass
class Asked:
    """The changes that one side requested; each must be stored exactly once."""

    total: int = 0
    log: list[str] = field(default_factory=list)
    ledger: dict[str, int] = field(default_factory=dict)
    phase: str | None = None
    conditions: set[str] = field(default_factory=set)


strategies: st.SearchStrategy[Strategy] = st.sampled_from(["merge", "update"])

own_operations = st.lists(
    st.one_of(
        st.tuples(st.just("increment"), st.integers(-2, 2)),
        st.tuples(st.just("append"), st.just(0)),
        st.tuples(st.just("append-key"), st.integers(1, 3)),
        st.tuples(st.just("upsert"), st.integers(1, 3)),
        st.tuples(st.just("set"), st.sampled_from(["Ready", "Failed"])),
        st.tuples(st.just("condition"), st.sampled_from(["Ready", "Healthy"])),
        st.tuples(st.just("mutate"), st.integers(1, 2)),
    ),
    min_size=1,
    max_size=5,
)
idempotent_operations = st.lists(
    st.one_of(
        st.tuples(st.just("append-key"), st.integers(1, 3)),
        st.tuples(st.just("upsert"), st.integers(1, 3)),
        st.tuples(st.just("set"), st.sampled_from(["Ready", "Failed"])),
        st.tuples(st.just("condition"), st.sampled_from(["Ready", "Healthy"])),
    ),
    min_size=1,
    max_size=5,
)
foreign_changes = st.sampled_from(["increment", "decrement", "append", "upsert", "spec", "annotate", "field"])
single_troubles = st.one_of(
    st.just(("ok",)),
    st.tuples(st.just("meanwhile"), foreign_changes),
    st.tuples(st.just("lost"), st.sampled_from(["reset", "500", "504"])),
    st.tuples(st.just("lost-then"), foreign_changes),
    st.tuples(st.just("never"), st.sampled_from(["reset", "503"])),
    st.tuples(st.just("never-then"), foreign_changes),
    st.tuples(st.just("late"), st.integers(0, 3)),
    st.sampled_from([("409",), ("429",), ("not-sent",)]),
)
read_troubles = st.lists(st.sampled_from(["ok", "500", "reset", "foreign"]), max_size=3)


def record(status: StatusBatcher[Any], operations: list[tuple[str, Any]], asked: Asked) -> None:
    for index, (verb, value) in enumerate(operations):
        if verb == "increment":
            status.increment("total", value)
            asked.total += value
        elif verb == "append":
            status.append("log", f"own-{index}")
            asked.log.append(f"own-{index}")
        elif verb == "append-key":
            if f"own-{value}" not in asked.ledger:
                asked.ledger[f"own-{value}"] = index
            status.append("ledger", {"id": f"own-{value}", "n": index}, key="id")
        elif verb == "upsert":
            status.upsert("ledger", {"id": f"own-{value}", "n": index}, key="id")
            asked.ledger[f"own-{value}"] = index
        elif verb == "set":
            status.set(phase=value)
            asked.phase = value
        elif verb == "condition":
            status.set_condition(value, True, reason="Tested")
            asked.conditions.add(value)
        else:
            status.mutate(lambda s, by=value: s.update(total=s["total"] + by))
            asked.total += value


class Foreign:
    """The other writers."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.fields = 0
        self.count = 0

    def act(self, what: str) -> Callable[[ScriptedServer], object]:
        return lambda server: self._act(server, what)

    def _act(self, server: ScriptedServer, what: str) -> None:
        self.count += 1
        name = f"foreign-{self.count}"
        if what in ("increment", "decrement"):
            by = 1 if what == "increment" else -1
            self.asked.total += by
            server.foreign(lambda s: s.update(total=s["total"] + by))
        elif what == "append":
            self.asked.log.append(name)
            server.foreign(lambda s: s["log"].append(name))
        elif what == "upsert":
            self.asked.ledger[name] = 0
            server.foreign(lambda s: s["ledger"].append({"id": name, "n": 0}))
        elif what == "spec":
            server.change_spec()
        elif what == "annotate":
            server.annotate()
        else:
            self.fields += 1
            server.foreign(lambda s: s.update(theirs=s["theirs"] + 1))


def trouble_of(what: tuple[Any, ...], foreign: Foreign) -> Trouble:
    errors = {"reset": None, "500": api_error(500), "503": api_error(503), "504": api_error(504)}
    match what:
        case ("ok",):
            return meanwhile(lambda server: None)
        case ("meanwhile", change):
            return meanwhile(foreign.act(change))
        case ("lost", error):
            return lost(errors[error])
        case ("lost-then", change):
            return lambda server, execute: _afterwards(server, lost(), execute, foreign.act(change))
        case ("never", error):
            return never_arrived(errors[error])
        case ("never-then", change):
            return then(meanwhile(foreign.act(change)), never_arrived())
        case ("late", requests):
            return late(requests)
        case ("409",):
            return refused(api_error(409, "Conflict"))
        case ("429",):
            return refused(api_error(429, "TooManyRequests"))
        case _:
            return refused(NotSent("connection refused"))


def _afterwards(
    server: ScriptedServer, trouble: Trouble, execute: Callable[[], Any], change: Callable[..., object]
) -> Any:
    try:
        return trouble(server, execute)
    finally:
        change(server)


def read_trouble_of(what: str, foreign: Foreign) -> Trouble:
    if what == "foreign":
        return meanwhile(foreign.act("append"))
    if what == "ok":
        return meanwhile(lambda server: None)
    return refused(api_error(500)) if what == "500" else never_arrived()


def run(
    operations: list[tuple[str, Any]],
    troubles: list[tuple[Any, ...]],
    reads: list[str],
    *,
    token: str | None = None,
    strategy: Strategy = "merge",
    seed: int = 0,
) -> tuple[ScriptedServer, Asked, Foreign, StatusError | None, StatusBatcher[Any]]:
    server, foreign, own = ScriptedServer(status=copy.deepcopy(START)), Foreign(), Asked()
    given_object = server.document()
    server.on_write.extend(trouble_of(what, foreign) for what in troubles)
    server.on_read.extend(read_trouble_of(what, foreign) for what in reads)
    batcher: StatusBatcher[Any] = StatusBatcher(
        server.writer(), given_object, token=token, strategy=strategy, rng=random.Random(seed)
    )

    async def cycle() -> StatusError | None:
        try:
            async with batcher as status:
                record(status, operations, own)
        except StatusError as error:
            return error
        return None

    with virtual_time():
        error = asyncio.run(cycle())
    server.on_write.clear()
    server.on_read.clear()
    for _ in range(5):  # requests that are still in the network arrive
        server._run_delayed()
    return server, own, foreign, error, batcher


def assert_bounded(server: ScriptedServer, batcher: StatusBatcher[Any]) -> None:
    statistics = batcher.statistics()
    assert len(server.writes) == statistics.attempts <= 5
    assert server.reads == statistics.reads <= 5


def assert_foreign_survives(server: ScriptedServer, foreign: Foreign) -> None:
    assert server.status["theirs"] == foreign.fields
    assert [entry for entry in server.status["log"] if not entry.startswith("own")] == ["start", *foreign.asked.log]
    theirs = [entry["id"] for entry in server.status["ledger"] if not entry["id"].startswith("own")]
    assert theirs == ["start", *foreign.asked.ledger]


def assert_own_is_there_once(server: ScriptedServer, own: Asked, foreign: Foreign) -> None:
    status = server.status
    assert status["total"] == START["total"] + own.total + foreign.asked.total
    assert [entry for entry in status["log"] if entry.startswith("own")] == own.log
    mine = [(entry["id"], entry["n"]) for entry in status["ledger"] if entry["id"].startswith("own")]
    assert sorted(mine) == sorted(own.ledger.items())
    assert status["phase"] == (own.phase or "New")
    assert {condition["type"] for condition in status.get("conditions", [])} == own.conditions


def assert_own_is_there_at_most_once(server: ScriptedServer, own: Asked, foreign: Foreign) -> None:
    status = server.status
    assert status["total"] - START["total"] - foreign.asked.total in (0, own.total)
    mine = [entry for entry in status["log"] if entry.startswith("own")]
    assert mine in ([], own.log)
    names = [entry["id"] for entry in status["ledger"]]
    assert len(names) == len(set(names))


@settings(deadline=None, max_examples=examples(400))
@given(own_operations, st.lists(single_troubles, max_size=6), read_troubles, strategies, st.integers(0, 3))
def test_nothing_is_lost_silently_and_nothing_is_counted_twice(operations, troubles, reads, strategy, seed) -> None:
    server, own, foreign, error, batcher = run(operations, troubles, reads, strategy=strategy, seed=seed)
    event(type(error).__name__)
    assert_bounded(server, batcher)
    assert_foreign_survives(server, foreign)
    if error is None:
        assert_own_is_there_once(server, own, foreign)
        assert server.applied <= 1
    elif isinstance(error, StatusOutcomeUnknown):
        assert_own_is_there_at_most_once(server, own, foreign)
    else:
        assert isinstance(error, (StatusConflict, StatusUnavailable))
        assert server.applied == 0, "the error says that nothing was written"
        assert_own_is_there_once(server, Asked(), foreign)


@settings(deadline=None, max_examples=examples(200))
@given(idempotent_operations, st.lists(single_troubles, max_size=3), strategies, st.integers(0, 3))
def test_idempotent_mutations_are_always_written_in_the_end(operations, troubles, strategy, seed) -> None:
    server, own, foreign, error, batcher = run(operations, troubles, [], strategy=strategy, seed=seed)
    assert error is None
    assert_bounded(server, batcher)
    assert_foreign_survives(server, foreign)
    assert_own_is_there_once(server, own, foreign)


@settings(deadline=None, max_examples=examples(200))
@given(own_operations, st.lists(single_troubles, max_size=3), strategies, st.integers(0, 3))
def test_with_a_token_the_outcome_of_a_lost_answer_is_always_known(operations, troubles, strategy, seed) -> None:
    server, own, foreign, error, _ = run(operations, troubles, [], token="lastWrite", strategy=strategy, seed=seed)
    assert error is None
    assert_own_is_there_once(server, own, foreign)
    assert server.applied <= 1


@settings(deadline=None, max_examples=examples(200))
@given(own_operations, own_operations, st.lists(single_troubles, max_size=5), strategies, st.integers(0, 3))
def test_a_checkpoint_is_written_once_or_not_at_all(first, second, troubles, strategy, seed) -> None:
    server, foreign = ScriptedServer(status=copy.deepcopy(START)), Foreign()
    before, after = Asked(), Asked()
    server.on_write.extend(trouble_of(what, foreign) for what in troubles)
    outcome: list[StatusError | None] = [None, None]

    async def cycle() -> None:
        try:
            async with StatusBatcher(
                server.writer(), server.document(), strategy=strategy, rng=random.Random(seed)
            ) as status:
                record_totals(status, first, before)
                try:
                    await status.flush()
                except StatusError as error:
                    outcome[0] = error
                record_totals(status, second, after)
        except StatusError as error:
            outcome[1] = error

    with virtual_time():
        asyncio.run(cycle())
    server.on_write.clear()
    for _ in range(5):
        server._run_delayed()
    event(f"{type(outcome[0]).__name__}, {type(outcome[1]).__name__}")
    end = {True} if outcome[1] is None else {True, False} if isinstance(outcome[1], StatusOutcomeUnknown) else {False}
    if outcome[0] is None:
        first_written = {True}
    else:  # what must not be repeated is not; everything else is written at the end
        first_written = {True, False} if isinstance(outcome[0], StatusOutcomeUnknown) else end
    sums = {
        START["total"] + foreign.asked.total + before.total * once + after.total * later
        for once in first_written
        for later in end
    }
    assert server.status["total"] in sums
    assert server.status["log"] == ["start", *foreign.asked.log]


def record_totals(status: StatusBatcher[Any], operations: list[tuple[str, Any]], asked: Asked) -> None:
    for verb, value in operations:
        if verb in ("increment", "mutate"):
            status.increment("total", value)
            asked.total += value


@settings(deadline=None, max_examples=examples(200))
@given(
    st.lists(
        st.tuples(own_operations, st.sampled_from(["ok", "403", "422", "conflict", "409 each time", "exception"])),
        min_size=1,
        max_size=6,
    ),
    strategies,
)
def test_unsaved_mutations_are_saved_once_by_a_later_reconcile(cycles, strategy) -> None:
    server, foreign = ScriptedServer(status=copy.deepcopy(START)), Foreign()
    everything, cycle = Asked(), FakeCycle()

    async def one(number: int, operations: list[tuple[str, Any]], trouble: str) -> None:
        plan = {
            "403": [refused(api_error(403))],
            "422": [refused(api_error(422))],
            "conflict": [meanwhile(foreign.act("increment"))],
            "409 each time": [meanwhile(foreign.act("append"))] * 5,
        }
        server.on_write.extend(plan.get(trouble, []))
        try:
            async with StatusBatcher(
                server.writer(), server.document(), strategy=strategy, rng=random.Random(1)
            ) as status:
                for index, (verb, value) in enumerate(operations):
                    if verb == "increment":
                        status.increment("total", value)
                        everything.total += value
                    else:
                        status.append("log", f"own-{number}-{index}")
                        everything.log.append(f"own-{number}-{index}")
                if trouble == "exception":
                    raise ZeroDivisionError
        except (StatusError, ZeroDivisionError):
            pass
        server.on_write.clear()

    async def run_all() -> None:
        token = current_cycle.set(cycle)
        for number, (operations, trouble) in enumerate(cycles):
            await one(number, operations, trouble)
        await one(len(cycles), [], "ok")
        current_cycle.reset(token)

    with virtual_time():
        asyncio.run(run_all())
    assert server.status["total"] == START["total"] + everything.total + foreign.asked.total
    assert [entry for entry in server.status["log"] if entry.startswith("own")] == everything.log
    assert cycle.unsaved == {}
