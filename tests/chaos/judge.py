"""The conditions of each life, judged from the server's log, its objects, and the record of the reconciles."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from reconciler.apiserver import LoggedRequest
from tests.chaos.controllers import CONFIG_MAP, NAMESPACE, SETTINGS, Gadget, Record, Run, Tally, now
from tests.chaos.life import CALM, Life

EXACT = 1e-3
"""Seconds; the due times are compared with virtual time."""


def one_worker_a_key(record: Record) -> list[str]:
    """Return where a key was reconciled twice at a time, in one process or in two."""
    return record.overlaps


def one_write_a_cycle(life: Life) -> list[str]:
    """Return the reconciles with more than one effective status write."""
    found = []
    for kind in (Gadget, Tally):
        for cycle in life.server.log.cycles(kind, by="operator", subresource="status", effective=True):
            if len(cycle) > 1:
                found.append(f"{len(cycle)} status writes in one reconcile:\n{cycle}")
    return found


def no_attempt_early(life: Life) -> list[str]:
    """Return the attempts before their due time, and those that were repeated although they were recorded."""
    found: list[str] = []
    attempts: dict[str, list[Run]] = defaultdict(list)
    for run in life.record.runs:
        if run.attempt is not None:
            attempts[run.uid].append(run)
    written: dict[str, LoggedRequest] = {
        each.cycle: each for each in life.server.log.writes(Gadget, subresource="status", effective=True) if each.cycle
    }
    for runs in attempts.values():
        for number, run in enumerate(runs):
            before = [each for each in runs[:number] if each.attempt == run.attempt]
            earlier = [each for each in runs[:number] if each.attempt == (run.attempt or 0) - 1]
            for each in before:
                if each.process == run.process:
                    found.append(f"attempt {run.attempt} of {run.request} twice in {run.process}: {each}, {run}")
                elif each.id in written:
                    found.append(f"attempt {run.attempt} of {run.request} again, although recorded: {each}, {run}")
            if earlier and run.made < min(each.due for each in earlier) - EXACT:
                found.append(f"attempt {run.attempt} of {run.request} too early: {earlier}, {run}")
            if run.attempt != 1 and not earlier:
                found.append(f"attempt {run.attempt} of {run.request} without one before it: {run}")
    return found


async def nothing_lost(life: Life) -> list[str]:
    """Return the objects whose last change no reconcile has handled."""
    found = []
    maps = [each.to_dict() for each in await life.client.list(CONFIG_MAP, NAMESPACE)]
    owned = {each["metadata"]["name"]: each["data"] for each in maps}
    settings = owned[SETTINGS]["value"]
    for gadget in await life.client.list(Gadget, NAMESPACE):
        if gadget.metadata.deletion_timestamp is not None:
            found.append(f"Gadget {gadget.name} is not let go")
            continue
        status = gadget.status
        if status.observed_generation != gadget.generation or status.phase != f"size {gadget.spec.size}":
            found.append(f"Gadget {gadget.name}: the change to {gadget.spec} is lost: {status}")
        if len(status.attempts) != gadget.spec.attempts:
            found.append(f"Gadget {gadget.name}: attempts are missing: {gadget.spec}, {status}")
        if owned.get(f"of-{gadget.name}") != {"size": str(gadget.spec.size)}:
            found.append(f"Gadget {gadget.name} of {gadget.spec}: its ConfigMap is not so: {owned}")
    for tally in await life.client.list(Tally, NAMESPACE):
        if tally.status.seen != tally.spec.size:
            found.append(f"Tally {tally.name}: the change to {tally.spec} is lost: {tally.status}")
        if tally.status.setting != settings:
            found.append(f"Tally {tally.name}: the change of the settings to {settings} is lost: {tally.status}")
    return found


async def counts_exact(life: Life) -> list[str]:
    """Return the ledgers and counters that do not match what the reconciles did."""
    found = []
    certain: dict[str, set[str]] = defaultdict(set)
    possible: dict[str, set[str]] = defaultdict(set)
    for run in life.record.runs:
        counts = run.kind == "Tally" or run.attempt is not None
        if counts:
            possible[run.uid].add(run.id)
        if counts and run.outcome == "success":
            certain[run.uid].add(run.id)
    for obj in [*await life.client.list(Gadget, NAMESPACE), *await life.client.list(Tally, NAMESPACE)]:
        uid, ids = obj.metadata.uid or "", [entry.id for entry in obj.status.ledger]
        if len(set(ids)) != len(ids):
            found.append(f"{obj.kind} {obj.name}: an entry is there twice: {ids}")
        if not certain[uid] <= set(ids) <= possible[uid]:
            lost, strange = certain[uid] - set(ids), set(ids) - possible[uid]
            found.append(f"{obj.kind} {obj.name}: entries are lost {lost} or made up {strange}")
        if isinstance(obj, Tally) and obj.status.runs != len(ids):
            found.append(f"Tally {obj.name}: {obj.status.runs} runs, but {len(ids)} entries")
    return found


async def at_rest(life: Life) -> list[str]:
    """Return what is still in progress, or still kept, when nothing has happened for a long time."""
    found: list[str] = []
    objects = {"gadget": len(await life.client.list(Gadget, NAMESPACE)), "tally": len(await life.client.list(Tally))}
    for controller in life.working():
        figures = controller.statistics()
        kept: dict[str, Any] = {
            "ready": figures.queue.ready,
            "waiting": figures.queue.waiting,
            "in progress": figures.queue.in_progress,
            "active": figures.active,
            "echo in progress": figures.echo.in_progress,
            "unsaved": figures.unsaved.kept,
            "blocked": figures.unsaved.blocked,
        }
        found += [f"{controller.name}: {name} is {value}" for name, value in kept.items() if value]
        if figures.echo.known > objects[controller.name]:
            found.append(
                f"{controller.name}: {figures.echo.known} versions known of {objects[controller.name]} objects"
            )
    if life.record.active:
        found.append(f"reconciles that never ended: {life.record.active}")
    runs, writes = len(life.record.runs), _writes(life)
    await asyncio.sleep(CALM)
    if len(life.record.runs) != runs or _writes(life) != writes:
        found.append(f"it goes on: {life.record.runs[runs:][:5]}")
    return found


def _writes(life: Life) -> int:
    return len([each for each in life.server.log.writes(by="operator") if each.resource != "leases"])


async def delays_kept(life: Life) -> list[str]:
    """Return where a delay that was set while a key was in progress got lost, by an echo or anything else."""
    found: list[str] = []
    for controller in life.working():
        kind = {"gadget": Gadget, "tally": Tally}[controller.name]
        for obj in (await life.client.list(kind, NAMESPACE))[:2]:
            # A change that causes a status write, but no change of an owned object, which would wake its owner.
            change = {"delay": obj.spec.delay + 1} if kind is Gadget else {"size": obj.spec.size + 1}
            begun = len(life.record.runs)
            await life.client.patch(kind, obj.name, NAMESPACE, patch={"spec": change})
            while (kind.__name__, obj.key) not in life.record.active:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            await asyncio.sleep(life.rng.uniform(0, 0.45))  # of the half second that the reconcile takes
            moment = now()
            controller.enqueue(obj.key, "probe", after=60)
            await asyncio.sleep(120)
            runs = [each for each in life.record.runs[begun:] if (each.kind, each.request) == (kind.__name__, obj.key)]
            times = [round(each.started - moment, 3) for each in runs]
            if len(times) != 2 or not times[0] <= 0 or abs(times[1] - 60) > EXACT:
                found.append(f"{kind.__name__} {obj.name}: enqueue(after=60) during a reconcile led to {times}")
    return found


def nothing_leaks(life: Life, tasks: int) -> list[str]:
    """Return what is left after the operator's end."""
    found = []
    if life.server.statistics().watches:
        found.append(f"{life.server.statistics().watches} watches are still open")
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if len(left) + 1 > tasks:
        found.append(f"tasks are left: {left}")
    return found
