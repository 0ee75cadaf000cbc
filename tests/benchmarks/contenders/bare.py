"""The upper limit: aiohttp alone.

It sends the same writes to objects whose names and versions it knows in advance; or, with ``--sees=events``, to objects
that it lists during the measurement, with an open watch whose events it discards, since every controller must list and
watch. Or it reads all objects in pages, each decoded as raw slices and discarded. Or it sends the two requests that a
notification costs: it reads each NotificationRequest, and writes the status of one that was delivered.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.benchmarks.contenders.protocol import (
    MANAGER,
    Options,
    Reporter,
    commands,
    condition,
    obey,
    parse,
    timestamp,
    wanted_status,
)


class _Page(msgspec.Struct):
    metadata: dict[str, Any]
    items: list[msgspec.Raw]


class _Item(msgspec.Struct):
    metadata: dict[str, Any]


class _MetadataPage(msgspec.Struct):
    metadata: dict[str, Any]
    items: list[_Item]


_decode = msgspec.json.Decoder(_Page).decode
_decode_metadata = msgspec.json.Decoder(_MetadataPage).decode


async def main(options: Options) -> None:
    """Do one piece of work."""
    reporter = Reporter(options.count)
    lines = commands()
    config = json.loads(await asyncio.to_thread(Path(options.kubeconfig).read_text))  # JSON is YAML
    cluster = config["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority))
    headers = {"authorization": "Bearer " + config["users"][0]["user"]["token"], "accept": "application/json"}
    async with aiohttp.ClientSession(cluster["server"], connector=connector, headers=headers) as session:
        path = f"/apis/bench.example.com/v1/namespaces/{options.namespace}/widgets"
        if options.work == "start":
            await _read(session, path, reporter, lines)
        elif options.work == "notify":
            await _notify(session, options, reporter, lines)
        elif options.sees == "events":
            await _control(session, path, options, reporter, lines)
        else:
            await _write_known(session, path, options, reporter, lines)
        await obey(reporter, lines)


async def _read(session: aiohttp.ClientSession, path: str, reporter: Reporter, lines: AsyncIterator[str]) -> None:
    reporter.mark("ready")
    await anext(lines)
    await _pages(session, path, reporter)
    reporter.mark("synced")


async def _control(
    session: aiohttp.ClientSession, path: str, options: Options, reporter: Reporter, lines: AsyncIterator[str]
) -> None:
    reporter.mark("ready")
    await anext(lines)
    items, version = await _metadata(session, path)
    reporter.objects = len(items)
    reporter.mark("synced")
    watching = asyncio.create_task(_watch(session, path, version))
    await _write_all(session, path, items, options, reporter)
    if watching.done():
        raise RuntimeError("the watch ended before the work") from watching.exception()
    watching.cancel()


async def _write_known(
    session: aiohttp.ClientSession, path: str, options: Options, reporter: Reporter, lines: AsyncIterator[str]
) -> None:
    accept = {"accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    async with session.get(path, headers=accept) as answer:
        items = (await answer.json())["items"]
    reporter.objects = len(items)
    reporter.mark("ready")
    await anext(lines)
    await _write_all(session, path, items, options, reporter)


async def _metadata(session: aiohttp.ClientSession, path: str) -> tuple[list[dict[str, Any]], str]:
    items: list[dict[str, Any]] = []
    version = token = ""
    while True:
        async with session.get(path, params={"limit": "500", **({"continue": token} if token else {})}) as answer:
            page = _decode_metadata(await answer.read())
        items += [{"metadata": item.metadata} for item in page.items]
        version = version or page.metadata["resourceVersion"]
        token = page.metadata.get("continue") or ""
        if not token:
            return items, version


async def _watch(session: aiohttp.ClientSession, path: str, version: str) -> None:
    parameters = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
    async with session.get(path, params=parameters, timeout=aiohttp.ClientTimeout(), raise_for_status=True) as answer:
        async for _ in answer.content.iter_any():
            pass


async def _write_all(
    session: aiohttp.ClientSession, path: str, items: list[dict[str, Any]], options: Options, reporter: Reporter
) -> None:
    left = iter(items)
    workers = [asyncio.create_task(_write(session, path, left, options, reporter)) for _ in range(options.workers)]
    await asyncio.gather(*workers)


async def _pages(session: aiohttp.ClientSession, path: str, reporter: Reporter) -> None:
    token: str | None = ""
    while token is not None:
        async with session.get(path, params={"limit": "500", **({"continue": token} if token else {})}) as answer:
            page = _decode(await answer.read())
        reporter.objects += len(page.items)
        token = page.metadata.get("continue") or None


async def _write(session: aiohttp.ClientSession, path: str, left: Any, options: Options, reporter: Reporter) -> None:
    update = options.write == "update"
    method, kind = ("PUT", "json") if update else ("PATCH", "merge-patch+json")
    headers = {"content-type": f"application/{kind}"}
    for item in left:
        metadata = item["metadata"]
        status = wanted_status(options.run, metadata["generation"])
        if update:
            kept = {key: value for key, value in metadata.items() if key not in ("managedFields", "uid")}
            body = {"apiVersion": "bench.example.com/v1", "kind": "Widget", "metadata": kept, "status": status}
        else:
            body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        url = f"{path}/{metadata['name']}/status?fieldManager={MANAGER}"
        async with session.request(method, url, data=json.dumps(body).encode(), headers=headers) as answer:
            await answer.read()
            reporter.failures += answer.status != 200
        reporter.reconciles += 1
        reporter.wrote()


CHANNELS = ("first", "second", "third")


async def _notify(
    session: aiohttp.ClientSession, options: Options, reporter: Reporter, lines: AsyncIterator[str]
) -> None:
    path = f"/apis/notify.reconciler.dev/v1alpha1/namespaces/{options.namespace}/notificationrequests"
    items, _ = await _metadata(session, path)
    reporter.mark("ready")
    await anext(lines)
    left = iter(items)
    await asyncio.gather(*(_read_and_write(session, path, left, options, reporter) for _ in range(options.workers)))


async def _read_and_write(
    session: aiohttp.ClientSession, path: str, left: Any, options: Options, reporter: Reporter
) -> None:
    for item in left:
        url = f"{path}/{item['metadata']['name']}"
        async with session.get(url, raise_for_status=True) as answer:
            request = msgspec.json.decode(await answer.read())
        body = msgspec.json.encode({**request, "status": _delivered()})
        headers = {"content-type": "application/json"}
        url = f"{url}/status?fieldManager={MANAGER}"
        async with session.put(url, data=body, headers=headers, raise_for_status=True) as answer:
            await answer.read()
        reporter.wrote()
        reporter.objects += len(CHANNELS)
        if reporter.objects == options.count * len(CHANNELS):
            reporter.mark("delivered")


def _delivered() -> dict[str, Any]:
    """Return the status that the operator writes once three channels have delivered."""
    now = timestamp().replace("Z", ".000000Z")
    routed = condition(timestamp()) | {"type": "RoutingResolved", "reason": "ChannelsNamed", "observedGeneration": 1}
    return {
        "phase": "Sent",
        "reason": "AllDeliveriesSucceeded",
        "message": "Delivered to 3 of 3 channels (first, second, third)",
        "channels": [
            {"name": name, "state": "Delivered", "reason": "Delivered", "attempts": 1, "lastAttemptTime": now}
            for name in CHANNELS
        ],
        "deliveryAttempts": [
            {"channel": name, "attempt": 1, "timestamp": now, "result": "success", "durationSeconds": 0.00005}
            for name in CHANNELS
        ],
        "totalAttempts": 3,
        "successfulDeliveries": 3,
        "failedDeliveries": 0,
        "nextStep": "none",
        "queuedAt": now,
        "completionTime": now,
        "observedGeneration": 1,
        "conditions": [routed, {**routed, "type": "Ready", "reason": "AllDeliveriesSucceeded"}],
    }


if __name__ == "__main__":
    asyncio.run(main(parse()))
