"""Failures between kopf and the server: what was recorded is stored once, and so is what others wrote.

A handler of changes sees every version in order. A timer sees some version, and its batchers share the object with
those of another timer.
"""

from __future__ import annotations

import copy
import logging
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kopf._cogs.structs.bodies import Body
from kopf._cogs.structs.patches import Patch
from kopf._core.actions import execution, invocation
from kopf._core.intents.causes import DaemonCause

from reconciler.status import StatusBatcher
from tests.depth import examples


@dataclass
class Server:
    """A server with compare-and-swap, field owners, and every version in order, as a watch delivers them."""

    history: list[dict[str, Any]] = field(default_factory=list)

    def store(self, status: dict[str, Any], manager: str) -> None:
        newest = self.history[-1]
        fields = copy.deepcopy(newest["metadata"]["managedFields"])
        changed = {f"f:{name}" for name, value in status.items() if newest.get("status", {}).get(name) != value}
        for entry in fields:
            owned = entry["fieldsV1"]["f:status"]
            for name in changed:
                owned.pop(name, None)
            if entry["manager"] == manager:
                owned.update({name: {} for name in changed})
        version = str(len(self.history) + 1)
        metadata = {**newest["metadata"], "resourceVersion": version, "managedFields": fields}
        self.history.append({**newest, "metadata": metadata, "status": copy.deepcopy(status)})

    def foreign(self, times: int) -> None:
        for _ in range(times):
            status = copy.deepcopy(self.history[-1].get("status", {}))
            status["total"] = status.get("total", 0) + 1
            self.store(status, "other")


@dataclass(frozen=True)
class Send:
    """A write of kopf: what others write before it, whether its response is lost, and what they write afterwards."""

    before: int
    lost: bool
    after: int


SENDS = st.builds(Send, st.integers(0, 2), st.booleans(), st.integers(0, 2))


def first() -> dict[str, Any]:
    owners = [{"manager": name, "fieldsV1": {"f:status": {}}} for name in ("kopf", "other")]
    metadata = {
        "name": "db1",
        "namespace": "prod",
        "uid": str(uuid.uuid4()),
        "resourceVersion": "1",
        "managedFields": owners,
    }
    return {"apiVersion": "example.com/v1", "kind": "Database", "metadata": metadata, "spec": {}}


@given(st.lists(SENDS, max_size=4), st.integers(1, 3), st.booleans(), st.booleans())
def test_nothing_is_lost_and_nothing_counted_twice(sends, blocks, with_token, with_log):
    server = Server([first()])
    body = Body(server.history[0])
    patch = Patch(body=body)
    options = {"token": "mark"} if with_token else {}
    for number in range(blocks):
        with StatusBatcher(patch, body, max_conflicts=50, **options) as status:
            status.increment("total")
            if with_log:
                status.append("log", number)
    seen, refused, script = 0, True, iter([*sends, *[Send(0, False, 0)] * 60])
    while refused and seen < len(server.history):
        send = next(script)
        known = server.history[seen]
        wanted = copy.deepcopy(known)
        for function in patch.fns:
            function(wanted)
        server.foreign(send.before)
        refused = False
        if wanted != known:
            committed = server.history[-1]["metadata"]["resourceVersion"] == known["metadata"]["resourceVersion"]
            if committed:
                server.store(wanted["status"], "kopf")
            refused = not committed or send.lost  # a repetition conflicts with its own first copy
            event(f"committed {committed}, lost {send.lost}")
        server.foreign(send.after)
        seen += 1
    others = sum(
        entry["metadata"]["managedFields"][1]["fieldsV1"]["f:status"].get("f:total") is not None
        for entry in server.history
    )
    final = server.history[-1]["status"]
    assert final.get("log", []) == (list(range(blocks)) if with_log else [])
    assert final["total"] == blocks + others


@dataclass
class Timer:
    """A kopf timer: kopf calls its function with the newest version that it knows, after the function of each run."""

    server: Server
    options: dict[str, Any]
    body: Body = field(init=False)
    patch: Patch = field(init=False)
    runs: int = 0

    def __post_init__(self) -> None:
        self.body = Body(self.server.history[0])
        self.patch = Patch(body=self.body)

    def run(self, name: str, known: int, *, records: bool) -> None:
        self.body._replace_with(self.server.history[known])
        if not records:
            return
        self.runs += 1
        cause = invocation.context([(execution.cause_var, object.__new__(DaemonCause))])
        with cause, StatusBatcher(self.patch, self.body, max_conflicts=1000, **self.options) as status:
            status.increment("total")
            status.append("log", f"{name} {self.runs}")

    def send(self, *, arrives: bool, lost: bool) -> None:
        wanted = copy.deepcopy(dict(self.body))
        for function in self.patch.fns:
            function(wanted)
        if wanted == dict(self.body):
            self.patch = Patch(body=self.body)
            return
        newest = self.server.history[-1]["metadata"]["resourceVersion"]
        committed = arrives and self.body["metadata"]["resourceVersion"] == newest
        if committed:
            self.server.store(wanted["status"], "kopf")
        event(f"committed {committed}, lost {lost}")
        if committed and not lost:
            self.patch = Patch(body=self.body)
        else:
            self.patch = Patch(self.patch, body=self.body)  # kopf keeps the function


RUNS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 2),  # how many versions the body is behind
        st.booleans(),  # whether the function records anything
        st.booleans(),  # whether the request arrives
        st.booleans(),  # whether the response is lost
        st.sampled_from(["", "", "other", "other field"]),  # what others write afterwards
    ),
    max_size=7,
)


class Said(logging.Handler):
    """The errors that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.mark.parametrize("with_token", [True, False])
@settings(deadline=None, max_examples=examples(300))
@given(runs=RUNS, seed=st.integers(0, 3))
def test_what_timers_recorded_is_never_stored_twice_and_never_lost_silently(with_token, runs, seed):
    server, said = Server([first()]), Said()
    options = {"token": "mark", "rng": random.Random(seed)} if with_token else {}
    timers = {name: Timer(server, options) for name in ("a", "b")}
    others, seen = 0, dict.fromkeys(timers, 0)
    logging.getLogger("reconciler.status").addHandler(said)
    try:
        for name, behind, records, arrives, lost, then in [*runs, *[(n, 0, False, True, False, "") for n in "abab"]]:
            seen[name] = max(seen[name], len(server.history) - 1 - behind)
            timers[name].run(name, seen[name], records=records)
            timers[name].send(arrives=arrives, lost=lost)
            if then == "other":
                others += 1
                server.foreign(1)
            elif then:
                server.store({**server.history[-1].get("status", {}), "theirs": len(server.history)}, "other")
    finally:
        logging.getLogger("reconciler.status").removeHandler(said)
    status = server.history[-1].get("status", {})
    log, counted = status.get("log", []), status.get("total", 0) - others
    expected = sum(timer.runs for timer in timers.values())
    assert len(set(log)) == len(log) == counted
    assert counted == expected or (not with_token and any("Dropped" in text for text in said.texts))
