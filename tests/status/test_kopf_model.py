"""Failures between kopf and the server: what was recorded is stored once, and so is what others wrote."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st
from kopf._cogs.structs.bodies import Body
from kopf._cogs.structs.patches import Patch

from reconciler.status import StatusBatcher


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
    metadata = {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "1", "managedFields": owners}
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
