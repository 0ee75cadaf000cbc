"""Microbenchmarks, each in its own process: ``python -m tests.benchmarks.micro queue 1000``."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.contenders.protocol import condition
from tests.benchmarks.contenders.widget import widget

_KEYS = 100_000
_EVENTS = 5_000
_OBJECTS = 1_000
_PAIRS = 21


def used() -> float:
    """Return the CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def queue(count: int) -> dict[str, float]:
    """Return CPU µs per key: add all, get and give back all; beside put and get of asyncio's."""
    from reconciler.meta import Request
    from reconciler.telemetry.registry import MetricsRegistry
    from reconciler.workqueue import WorkQueue

    keys = [Request(f"widget-{number:07d}", "default") for number in range(count)]
    ours: WorkQueue[Request] = WorkQueue(name="benchmark", metrics=MetricsRegistry().queue("benchmark"))
    theirs: asyncio.PriorityQueue[tuple[int, int, Request]] = asyncio.PriorityQueue()
    gc.collect()

    mine = other = 0.0
    rounds = max(1, _KEYS // count)  # a round of a thousand keys takes two milliseconds: too short to be warm
    for _ in range(rounds):
        begun = used()
        for key in keys:
            ours.add(key, reason="event")
        for _ in keys:
            ours.done(await ours.get())
        between = used()
        for number, key in enumerate(keys):
            await theirs.put((0, number, key))
        for _ in keys:
            await theirs.get()
        mine += between - begun
        other += used() - between
    each = 1e6 / (count * rounds)
    return {"ours": mine * each, "asyncio.PriorityQueue": other * each}


def document(number: int) -> dict[str, Any]:
    """Return a widget as a server sends it, managedFields included."""
    made = widget(number, "default")
    fields = {"f:metadata": {"f:labels": {f"f:{key}": {} for key in made["metadata"]["labels"]}}}
    fields["f:spec"] = {f"f:{key}": {} for key in made["spec"]}
    managed = {"manager": "benchmark", "operation": "Update", "apiVersion": "bench.example.com/v1", "fieldsV1": fields}
    made["metadata"] |= {
        "uid": f"00000000-0000-4000-8000-{number:012d}",
        "resourceVersion": str(1000 + number),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [managed],
    }
    return made | {"status": {"observedGeneration": 1, "conditions": [condition("2026-01-01T00:00:00Z")]}}


async def decoding() -> dict[str, float]:
    """Return CPU µs per watch event and CPU ms per list of 1,000 objects: here, and with other decoders."""
    import msgspec

    from reconciler.cache.decoding import WireReader, decode_line, decode_list
    from reconciler.meta import GroupVersionKind

    gvk = GroupVersionKind("bench.example.com", "v1", "Widget")
    documents = [document(number) for number in range(_OBJECTS)]
    # Without spaces between members, as API servers encode.
    lines = [msgspec.json.encode({"type": "MODIFIED", "object": each}) for each in documents]
    listed = msgspec.json.encode({"metadata": {}, "items": documents})
    reader = WireReader(gvk)
    untyped = msgspec.json.Decoder()

    def ours(line: bytes) -> None:
        reader.read(decode_line(line).object)

    def ours_list(body: bytes) -> list[Any]:
        return [reader.read(raw) for raw in decode_list(body).items or ()]

    return {
        "event: ours": _each(lines, ours) * 1e6,
        "event: json.loads": _each(lines, json.loads) * 1e6,
        "event: msgspec, whole": _each(lines, untyped.decode) * 1e6,
        "event: kubernetes_asyncio": _each(lines, _kubernetes_asyncio()) * 1e6,
        "list: ours": _each([listed] * 5, ours_list) * 1e3,
        "list: json.loads": _each([listed] * 5, json.loads) * 1e3,
        "list: msgspec, whole": _each([listed] * 5, untyped.decode) * 1e3,
        **reading(reader, [msgspec.json.encode(each) for each in documents]),
    }


def reading(reader: Any, documents: list[bytes]) -> dict[str, float]:
    """Return what reads of idle objects cost: a list as a ratio to one of objects in use, and a get in CPU µs.

    The two lists alternate, so that both meet the same machine.
    """
    from reconciler.cache.store import WritableStore
    from tests.benchmarks.contenders.widget import Widget

    used_now, idle = WritableStore(reader.restore), WritableStore(reader.restore)
    for store in (used_now, idle):
        for each in documents:
            cached = reader.read(each)
            cached.read_as(Widget)  # each version is compared with its model once
            store.put(cached)
    keys = list(idle.requests())
    idle._age()
    idle._age()
    while idle._idle:
        idle._compress_next()
    assert idle.held < idle.bytes / 4

    def read(store: Any) -> float:
        begun = used()
        for found in store.find():
            found.read_as(Widget)
        return used() - begun

    ratios = sorted(read(idle) / read(used_now) for _ in range(_PAIRS))
    return {
        "cached list, idle objects: ratio to objects in use": ratios[_PAIRS // 2],
        "get of an idle object": _each(keys, idle.get, rounds=1) * 1e6,
    }


def _kubernetes_asyncio() -> Callable[[bytes], Any]:
    from kubernetes_asyncio.watch import Watch

    watch = Watch()
    return lambda line: watch.unmarshal_event(line.decode(), "object")


def _each(items: list[Any], call: Callable[[Any], Any], rounds: int = _EVENTS // _OBJECTS) -> float:
    begun = used()
    for _ in range(rounds):
        for item in items:
            call(item)
    return (used() - begun) / (rounds * len(items))


IMPORTS = {
    "nothing": "",
    "the batcher": "from reconciler import StatusBatcher",
    "an operator": "from reconciler import Client, Manager, ResourceReconciler, StatusBatcher",
    "an operator, configured": "from tests.benchmarks.micro import open_client; open_client()",
    "kubernetes_asyncio": "import kubernetes_asyncio.client, kubernetes_asyncio.config, kubernetes_asyncio.watch",
    "kopf": "import kopf",
}


def open_client() -> None:
    """Open a client and make a manager, as an operator does at its start; no request is sent."""
    import base64
    import tempfile

    from reconciler import Client, Manager

    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "c", "user": {"token": base64.b64encode(b"x").decode()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }  # fmt: skip

    async def use() -> None:
        async with Client.from_config(kubeconfig=file.name) as client:
            Manager(client)

    with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig") as file:
        file.write(json.dumps(config))
        file.flush()
        asyncio.run(use())


def imports() -> dict[str, float]:
    """Return CPU s and resident MB of a process that imports something."""
    found: dict[str, float] = {}
    # Not ru_maxrss, which begins with what the parent held when it forked.
    tell = (
        "\nimport os; from tests.benchmarks.processes import memory; t = os.times()"
        "\nprint(t.user + t.system, memory(os.getpid())[1])"
    )
    for name, line in IMPORTS.items():
        runs = []
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", line + tell], capture_output=True, text=True, check=True)
            runs.append(tuple(float(word) for word in done.stdout.split()))
        found[f"cpu: {name}"], found[f"rss: {name}"] = min(runs)
    return found


def main() -> None:
    """Measure what the command line names, and print it."""
    what = sys.argv[1]
    begun = time.time()
    if what == "queue":
        found: Any = asyncio.run(queue(int(sys.argv[2])))
    elif what == "decoding":
        found = asyncio.run(decoding())  # a Watch needs a loop to be made in
    else:
        found = imports()
    sys.stdout.write(json.dumps({"at": begun, **found}) + "\n")


if __name__ == "__main__":
    main()
