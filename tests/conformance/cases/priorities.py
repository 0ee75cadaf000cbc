"""The priority of pods: from their class, or the default one (52)."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.api import Api, kind_of
from tests.conformance.cases._case import case

SHOWN = ("spec.priority", "spec.priorityClassName", "spec.preemptionPolicy")


def _pod(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def _class(api: Api, suffix: str = "", **parts: Any) -> str:
    """Create a class of the case, and wait until new pods get it: the real server reads classes from a cache."""
    name = api.ns + suffix
    await api.create("priorityclasses", {"metadata": {"name": name}, "value": 7, **parts}, quiet=True)
    for _ in range(100):
        try:
            await api.create("pods", _pod(priorityClassName=name), query={"dryRun": "All"}, quiet=True)
        except AssertionError:
            await asyncio.sleep(0.05)
        else:
            break
    return name


@case("a pod has the priority of its class")
async def _(api: Api) -> None:
    api.with_owners = True
    name = await _class(api, preemptionPolicy="Never")
    await api.create("pods", _pod(priorityClassName=name), keep=(*SHOWN, "metadata.managedFields"))
    await api.create("pods", _pod("b", priorityClassName=name, priority=7, preemptionPolicy="Never"), keep=SHOWN)
    await api.patch("pods", "a", {"spec": {"priority": None, "preemptionPolicy": None}}, keep=SHOWN)
    await api.patch("pods", "a", {"spec": {"priorityClassName": "other"}})
    await api.patch("pods", "a", {"spec": {"priority": 8}})


@case("a class without a value")
async def _(api: Api) -> None:
    body = {**kind_of("priorityclasses"), "metadata": {"name": api.ns}}
    await api.call("POST", api.path("priorityclasses"), body, keep=("value", "preemptionPolicy", "globalDefault"))
    await api.patch("priorityclasses", api.ns, {"preemptionPolicy": None}, keep=("value", "preemptionPolicy"))
    await api.patch("priorityclasses", api.ns, {"value": 3})


@case("a pod without a class, and with those of the system")
async def _(api: Api) -> None:
    await api.create("pods", _pod(), keep=SHOWN)
    await api.create("pods", _pod("b", priority=0, preemptionPolicy="PreemptLowerPriority"), keep=SHOWN)
    for number, name in enumerate(("system-node-critical", "system-cluster-critical")):
        await api.create("pods", _pod(f"c{number}", priorityClassName=name), keep=SHOWN)


@case("a pod whose priority is not that of its class")
async def _(api: Api) -> None:
    name = await _class(api, preemptionPolicy="Never")
    for wanted in ({"priority": 8}, {"preemptionPolicy": "PreemptLowerPriority"}):
        await api.create("pods", _pod(priorityClassName=name, **wanted))
        await api.create("pods", _pod(**{"priority": 8, **wanted, "preemptionPolicy": "Never"}))
    await api.create("pods", _pod(preemptionPolicy="Never"))


@case("a pod of a class that does not exist")
async def _(api: Api) -> None:
    await api.create("pods", _pod(priorityClassName="nothing"))
    await api.create("pods", _pod(priorityClassName="Not_A_Name"))
    await api.create("pods", {"metadata": {}, "spec": {"priorityClassName": "nothing"}})
    await api.create("pods", {"metadata": {"name": "b"}, "spec": {"priorityClassName": "nothing"}})
    generated = {"metadata": {"generateName": "generated-"}, "spec": _pod(priorityClassName="nothing")["spec"]}
    await api.create("pods", generated)


@case("one class is the default")
async def _(api: Api) -> None:
    body = {"metadata": {"name": f"{api.ns}-2"}, "value": 8}
    name = await _class(api, globalDefault=True, value=-5)
    await api.create("pods", _pod(), keep=SHOWN)
    await api.create("pods", _pod("b", priority=0))
    await api.create("priorityclasses", {**body, "globalDefault": True})
    await api.create("priorityclasses", body, keep=("value", "globalDefault", "preemptionPolicy"))
    await api.patch("priorityclasses", f"{api.ns}-2", {"globalDefault": True})
    await api.patch("priorityclasses", name, {"description": "x"}, keep=("globalDefault",))
    for each in (name, f"{api.ns}-2"):
        await api.call("DELETE", api.path("priorityclasses", each), quiet=True)
