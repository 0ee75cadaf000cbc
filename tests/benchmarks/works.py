"""The benchmarks: every contender does the same work in turn, repeatedly, and each run is recorded.

Each function yields *samples*: mappings with the work, its size, the contender, the repetition, and what was measured.
One repetition runs every contender once, in an order drawn anew, so that noise of the machine meets all of them; ratios
are taken within a repetition only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from reconciler.errors import ServerError
from reconciler.testing.cluster import Cluster
from tests.benchmarks.contenders.widget import text_widget, widget
from tests.benchmarks.pods import pod
from tests.benchmarks.processes import Contender, Run, python
from tests.benchmarks.server import Server, server

Sample = dict[str, Any]

_SETTLE = 2.0
"""Seconds until memory is read: collectors return what they return soon."""

_REST = 240.0
"""Seconds until the memory at rest is read. This library compresses what is idle for 1 to 2 minutes, and Go returns
memory within minutes."""

_FILLED = "filled"
"""The namespace of the objects of `memory`."""

_KEPT = (("start", ""), ("read", "_reconciled"))
"""The works of `memory`, and the ends of the names of what is measured."""

_WORKERS = 10

_FEW = 100
"""How many of the objects of `heartbeat` fail if not all do."""


class Rounds:
    """The common part of the benchmarks: the contenders, the repetitions, and their order."""

    def __init__(self, contenders: Sequence[Contender], repeats: int, seed: int) -> None:
        self.contenders = contenders
        self.repeats = repeats
        self._rng = random.Random(seed)
        self._runs = 0

    def __iter__(self) -> Any:
        """Yield repetition and contender."""
        for repetition in range(self.repeats):
            for contender in self._rng.sample(self.contenders, len(self.contenders)):
                yield repetition, contender

    def arguments(self, target: Server, namespace: str, **options: Any) -> list[str]:
        """Return a contender's arguments; each run writes another text into the status."""
        self._runs += 1
        options = {
            "kubeconfig": target.plane.kubeconfig_path,
            "namespace": namespace,
            "run": f"run-{self._runs}",
        } | options
        return [f"--{name}={value}" for name, value in options.items()]


def _sample(work: str, size: int, contender: Contender, repetition: int, **measured: Any) -> Sample:
    load = os.getloadavg()[0]
    return {"work": work, "size": size, "contender": contender.name, "repetition": repetition, "load": load, **measured}


def _place(contender: Contender) -> str:
    """Return the namespace that a contender works in: kopf leaves annotations behind, so it has one of its own."""
    return "kopf" if contender.name == "kopf" else "shared"


async def _places(target: Server, contenders: Sequence[Contender], count: int) -> None:
    for place in sorted({_place(contender) for contender in contenders}):
        await target.seed(place, count)


async def converge(rounds: Rounds, size: int) -> AsyncIterator[Sample]:
    """Write the status of every one of `size` existing objects once, with ten workers."""
    async with server() as target:
        await _places(target, rounds.contenders, size)
        for contender in rounds.contenders:
            if contender.name == "kopf":  # its first sight of an object is a creation; from then on it resumes
                await _converge_once(rounds, target, contender, size)
        for repetition, contender in rounds:
            measured = await _converge_once(rounds, target, contender, size)
            yield _sample("converge", size, contender, repetition, **measured)


async def _converge_once(rounds: Rounds, target: Server, contender: Contender, size: int) -> dict[str, Any]:
    arguments = rounds.arguments(target, _place(contender), work="converge", count=size, workers=_WORKERS)
    async with Run(contender, arguments) as run:
        ready = await run.mark("ready")
        before, served = await target.writes(), target.cpu()
        begun = time.time()
        await run.say("go")
        done = await run.mark("done")
        server_cpu = target.cpu() - served
        await asyncio.sleep(1.0)  # whatever comes behind: echoes, a second write
        _, peak = run.memory()
        after = await target.writes()
        end = await run.stats()
    wall = done["at"] - begun
    return {
        "wall": wall,
        "rate": size / wall,
        "cpu": done["cpu"] - ready["cpu"],
        "cpu_per_object": (done["cpu"] - ready["cpu"]) / size,
        "cpu_process": done["cpu"],
        "server_cpu": server_cpu,
        "peak": peak,
        "reconciles": end["reconciles"] / size,
        "status_writes": (after.get("status", 0) - before.get("status", 0)) / size,
        "other_writes": (after.get("main", 0) - before.get("main", 0)) / size,
        "failures": end["failures"],
    }


async def start(rounds: Rounds, sizes: Sequence[int], *, work: str = "start") -> AsyncIterator[Sample]:
    """Fill a cache with `size` objects of 2 KB, of many members or mostly of one text; nothing reconciles.

    Args:
        rounds: the contenders and repetitions.
        sizes: of the caches.
        work: ``"start"`` or ``"start-text"``.
    """
    async with server() as target:
        for size in sizes:
            await target.seed(f"cache-{size}", size, text_widget if work == "start-text" else widget)
        for repetition, contender in rounds:
            for size in sizes:
                arguments = rounds.arguments(target, f"cache-{size}", work="start", count=size)
                async with Run(contender, arguments) as run:
                    ready = await run.mark("ready")
                    begun, served = time.time(), target.cpu()
                    await run.say("go")
                    synced = await run.mark("synced")
                    server_cpu = target.cpu() - served
                    assert synced["objects"] == size, synced
                    await asyncio.sleep(_SETTLE)
                    now, peak = run.memory()
                yield _sample(
                    work,
                    size,
                    contender,
                    repetition,
                    wall=synced["at"] - begun,
                    cpu=synced["cpu"] - ready["cpu"],
                    cpu_process=synced["cpu"],
                    server_cpu=server_cpu,
                    rss=now,
                    peak=peak,
                )


async def memory(rounds: Rounds, size: int) -> AsyncIterator[Sample]:
    """Measure the memory at rest of caches of `size` widgets, or pods, with and without a reconcile of each.

    A reconcile reads its object and writes nothing. Each cache is a process of its own, and all of them rest together,
    since memory, unlike time, does not depend on what else the machine does.
    """
    async with server() as target:
        await _fill(target, size)
        for repetition in range(rounds.repeats):
            async with contextlib.AsyncExitStack() as stack:
                runs: dict[Contender, dict[str, Run]] = {}
                for contender in rounds.contenders:
                    runs[contender] = {
                        f"{kind.lower()}s{suffix}": await stack.enter_async_context(
                            Run(contender, rounds.arguments(target, _FILLED, work=work, kind=kind, count=size))
                        )
                        for kind, (work, suffix) in itertools.product(("Widget", "Pod"), _KEPT)
                    }
                    for name, run in runs[contender].items():  # one list at a time is enough for the server
                        await _kept(run, name)
                await asyncio.sleep(_REST)
                assert not await target.writes(), "a reconcile has written"
                for contender, named in runs.items():
                    found = {name: run.memory() for name, run in named.items()}
                    rests = {name: now for name, (now, _) in found.items()}
                    peaks = {f"{name}_peak": peak for name, (_, peak) in found.items()}
                    yield _sample("memory", size, contender, repetition, **rests, **peaks)


async def _kept(run: Run, name: str) -> None:
    await run.mark("ready")
    await run.say("go")
    await run.mark("done" if name.endswith("_reconciled") else "synced")


async def _fill(target: Server, size: int) -> None:
    """Store widgets and pods, with the managedFields of an object that the server has stored, and nothing to write."""
    await target.namespace(_FILLED)
    first = await target.client.create(widget(size, _FILLED))
    stored = {key: first["metadata"][key] for key in ("generation", "creationTimestamp", "managedFields")}
    await target.client.delete("bench.example.com/v1/Widget", first["metadata"]["name"], _FILLED)

    def widgets() -> Iterator[tuple[str, bytes]]:
        for number in range(size):
            document = widget(number, _FILLED)
            document["metadata"] |= {"uid": f"00000000-0000-4000-8000-{number:012x}", **stored}
            document["status"] = {"observedGeneration": stored["generation"]}  # so that no reconcile writes it
            yield document["metadata"]["name"], msgspec.json.encode(document)

    def pods() -> Iterator[tuple[str, bytes]]:
        for number in range(size):
            document = msgspec.json.decode(pod(number, _FILLED, 0))
            del document["metadata"]["resourceVersion"]  # etcd's is the version
            yield document["metadata"]["name"], msgspec.json.encode(document)

    await target.fill(f"bench.example.com/widgets/{_FILLED}", widgets())
    await target.fill(f"pods/{_FILLED}", pods())
    for kind in ("bench.example.com/v1/Widget", "v1/Pod"):
        await _caught_up(target, kind)


async def _caught_up(target: Server, kind: str) -> None:
    """Wait until the server's watch cache has what was stored in etcd: until then it answers lists with 504."""
    async with asyncio.timeout(900):
        while True:
            with contextlib.suppress(ServerError):
                async for _ in target.client.list_pages(kind, _FILLED, limit=1):
                    return


async def latency(rounds: Rounds, size: int, rate: float) -> AsyncIterator[Sample]:
    """Create `size` objects at a steady rate, and see how long each waits for its status."""
    async with server() as target:
        for repetition, contender in rounds:
            namespace = await target.namespace(f"latency-{repetition}-{rounds.contenders.index(contender)}")
            arguments = rounds.arguments(target, namespace, work="converge", workers=_WORKERS)
            async with Run(contender, arguments) as run:
                ready = await run.mark("ready")
                await run.say("go")
                await asyncio.sleep(3.0)  # all are watching by now
                waits = sorted(await _waits(target, namespace, size, rate))
                end = await run.stats()
            yield _sample(
                "latency",
                size,
                contender,
                repetition,
                rate=rate,
                p50=waits[len(waits) // 2],
                p99=waits[int(len(waits) * 0.99)],
                worst=waits[-1],
                cpu=end["cpu"] - ready["cpu"],
            )


class _Status(msgspec.Struct):
    run: str = ""


class _Metadata(msgspec.Struct):
    name: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    object: _Object


async def backlog(rounds: Rounds, size: int, fresh: int, rate: float) -> AsyncIterator[Sample]:
    """Create objects while `size` older ones still wait for their status, and again when they have it."""
    async with server() as target:
        await target.seed("backlog", size)
        for repetition, contender in rounds:
            arguments = rounds.arguments(target, "backlog", work="converge", count=size + fresh, workers=_WORKERS)
            salt = f"{repetition}-{rounds.contenders.index(contender)}-"
            async with Run(contender, arguments) as run:
                ready = await run.mark("ready")
                await run.say("go")
                await _first_write(run)
                busy = sorted(await _waits(target, "backlog", fresh, rate, f"{salt}busy"))
                written = (await run.stats())["writes"]
                await run.mark("done")
                idle = sorted(await _waits(target, "backlog", fresh, rate, f"{salt}idle"))
                end = await run.stats()
            # The next contender finds as many objects as this one did.
            for phase in ("busy", "idle"):
                for number in range(fresh):
                    name = widget(number, "backlog", run=f"{salt}{phase}")["metadata"]["name"]
                    await target.client.delete("bench.example.com/v1/Widget", name, "backlog")
            yield _sample(
                "backlog",
                size,
                contender,
                repetition,
                rate=rate,
                left=size + fresh - written,
                p50=busy[fresh // 2],
                worst=busy[-1],
                idle_p50=idle[fresh // 2],
                idle_worst=idle[-1],
                ratio_p50=busy[fresh // 2] / idle[fresh // 2],
                ratio_worst=busy[-1] / idle[-1],
                cpu=end["cpu"] - ready["cpu"],
            )


async def neighbors(rounds: Rounds, size: int, seconds: float) -> AsyncIterator[Sample]:
    """Let four other clients read one object after the other while `size` ones get their status, and afterwards."""
    async with server() as target:
        await target.seed("backlog", size)
        for repetition, contender in rounds:
            arguments = rounds.arguments(target, "backlog", work="converge", count=size, workers=_WORKERS)
            async with Run(contender, arguments) as run:
                await run.mark("ready")
                await run.say("go")
                await _first_write(run)
                busy = await _reads(target, seconds)
                left = size - (await run.stats())["writes"]
                await run.mark("done")
                idle = await _reads(target, seconds)
            yield _sample(
                "neighbors", size, contender, repetition, left=left, p99=busy, idle_p99=idle, ratio_p99=busy / idle
            )


async def _reads(target: Server, seconds: float) -> float:
    """Return the 99th percentile of the seconds that a read takes, of four clients at once."""
    waits: list[float] = []
    end = time.perf_counter() + seconds
    name = widget(0, "backlog")["metadata"]["name"]

    async def read() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            await target.client.get("bench.example.com/v1/Widget", name, "backlog")
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(read() for _ in range(4)))
    return statistics.quantiles(waits, n=100)[-1]


async def _first_write(run: Run) -> None:
    while True:
        if (await run.stats())["writes"]:
            return
        await asyncio.sleep(0.05)


async def _waits(target: Server, namespace: str, size: int, rate: float, salt: str = "all") -> list[float]:
    """Create objects on schedule; return the seconds from asking for each one to seeing its status.

    Args:
        target: the server.
        namespace: where.
        size: how many.
        rate: how many a second.
        salt: a part of their names, where other objects are.
    """
    asked: dict[str, float] = {}
    waits: dict[str, float] = {}
    resource = await target.client.resource_type("bench.example.com/v1/Widget")
    # Only these objects: the server ends a watch that does not keep up with the events.
    stream = await target.client.session.open_watch(resource, namespace, [("labelSelector", f"wave=wave-{salt}")])
    assert stream.chunks is not None
    decoder = msgspec.json.Decoder(_Event)

    async def look() -> None:
        pending = b""
        async for chunk in stream.chunks:  # type: ignore[union-attr]
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                seen = decoder.decode(line).object
                if seen.status.run and seen.metadata.name not in waits:
                    waits[seen.metadata.name] = time.perf_counter() - asked[seen.metadata.name]
            if len(waits) == size:
                return
        raise RuntimeError("the server ended the watch")

    async def create(begun: float) -> None:
        for number in range(size):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            document = widget(number, namespace, run=salt)
            document["metadata"]["labels"]["wave"] = f"wave-{salt}"
            asked[document["metadata"]["name"]] = time.perf_counter()
            creating.create_task(target.client.create(document))

    async with asyncio.timeout(120 + size / rate), asyncio.TaskGroup() as creating:
        creating.create_task(look())
        creating.create_task(create(time.perf_counter()))
    await stream.close()
    return list(waits.values())


async def steady(rounds: Rounds, size: int, period: float, burst: int) -> AsyncIterator[Sample]:
    """Let `size` keys run again each `period` seconds, with nothing to write; then change `burst` objects."""
    async with server() as target:
        await _places(target, rounds.contenders, size)
        for repetition, contender in rounds:
            place = _place(contender)
            arguments = rounds.arguments(target, place, work="converge", count=size, workers=_WORKERS, requeue=period)
            async with Run(contender, arguments) as run:
                await run.mark("ready")
                await run.say("go")
                await run.mark("done")
                await asyncio.sleep(1.5 * period)  # until each key has run once since its write
                before = await run.stats()
                await asyncio.sleep(period)
                after = await run.stats()
                served = await target.writes()
                await _change(target, place, burst, salt=f"{repetition}-{contender.name}")
                quiet = await _quiet(run)
                wrote = (await target.writes()).get("status", 0) - served.get("status", 0)
                now, _ = run.memory()
            per_minute = 60 / (after["at"] - before["at"])
            idle = (after["cpu"] - before["cpu"]) * per_minute
            yield _sample(
                "steady",
                size,
                contender,
                repetition,
                cpu_per_minute=idle,
                reconciles_per_minute=(after["reconciles"] - before["reconciles"]) * per_minute,
                burst=burst,
                burst_cpu=quiet["cpu"] - after["cpu"] - idle * (quiet["at"] - after["at"]) / 60,
                burst_reconciles=quiet["reconciles"] - after["reconciles"],
                burst_status_writes=wrote / burst,
                rss=now,
            )


async def _change(target: Server, namespace: str, count: int, salt: str) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            patch = {"spec": {"image": f"registry.example.com/widgets/{salt}:{number}"}}
            name = widget(number, namespace)["metadata"]["name"]
            await target.client.patch("bench.example.com/v1/Widget", name, namespace, patch=patch)

    await asyncio.gather(*(work() for _ in range(16)))


async def _quiet(run: Run) -> dict[str, Any]:
    """Wait until the contender writes nothing for a second, then return its counts."""
    last = await run.stats()
    while True:
        await asyncio.sleep(1.0)
        now = await run.stats()
        if now["writes"] == last["writes"]:
            return now
        last = now


async def heartbeat(size: int, period: float, repeats: int) -> AsyncIterator[Sample]:
    """Measure the longest gap of the loop: `size` objects, a hundred or all of which fail, a resync each `period`."""
    contender = python("heartbeat", "kube-reconciler")
    rounds = Rounds([contender], repeats, 0)
    async with server() as target:
        await target.seed("shared", size)
        for repetition, failing in itertools.product(range(repeats), (_FEW, size)):
            options = {"work": "converge", "count": size, "workers": _WORKERS, "requeue": period, "failing": failing}
            async with Run(contender, rounds.arguments(target, "shared", **options)) as run:
                await run.mark("ready")
                await run.say("go")
                await run.mark("synced")
                phases = {"cache fill": await run.stats()}
                if failing < size:
                    await run.mark("done")
                    phases["converge"] = await run.stats()
                await asyncio.sleep(2.5 * period)
                phases["resync"] = await run.stats()
            for phase, stats in phases.items():
                gaps = {key: stats[key] for key in ("beats", "longest", "p999", "longest_cpu", "longest_gc")}
                fails = f"{phase}, {'all' if failing == size else failing} fail"
                yield _sample("heartbeat", size, contender, repetition, phase=fails, failures=stats["failures"], **gaps)


async def notify(size: int, repeats: int) -> AsyncIterator[Sample]:
    """Deliver `size` requests over three channels each; and send only the two requests that one takes."""
    from reconciler.notification import NotificationRequest

    rounds = Rounds([python("notifier", "kube-reconciler"), python("bare", "bare aiohttp")], repeats, 0)
    async with server() as target:
        await Cluster("real", target.client, "default", target.plane).install(NotificationRequest)
        for number, (repetition, contender) in enumerate(rounds):
            namespace = f"notify-{number}"
            await target.seed(namespace, size, notification)
            arguments = rounds.arguments(target, namespace, work="notify", count=size, workers=_WORKERS)
            async with Run(contender, arguments) as run:
                ready = await run.mark("ready")
                before = await target.writes("notificationrequests")
                begun = time.time()
                await run.say("go")
                delivered = await run.mark("delivered")
                await asyncio.sleep(3.0)  # the last writes, and whatever should not come
                end = await run.stats()
                after = await target.writes("notificationrequests")
            yield _sample(
                "notify",
                size,
                contender,
                repetition,
                rate=delivered["objects"] / (delivered["at"] - begun),
                deliveries=end["objects"],
                status_writes=(after.get("status", 0) - before.get("status", 0)) / size,
                cpu_per_object=(delivered["cpu"] - ready["cpu"]) / size,
            )


def notification(number: int, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": f"request-{number:05d}", "namespace": namespace},
        "spec": {
            "type": "Simple",
            "subject": f"Message {number}",
            "body": "Something happened that somebody wants to know.",
            "channels": ["first", "second", "third"],
        },
    }
