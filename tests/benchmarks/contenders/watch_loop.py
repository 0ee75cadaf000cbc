"""A plain loop: kubernetes_asyncio's Watch, a queue of names, ten workers that patch."""

from __future__ import annotations

import asyncio
from typing import Any

from kubernetes_asyncio import client, config, watch

from tests.benchmarks.contenders.protocol import MANAGER, Options, Reporter, commands, obey, parse, wanted_status

KIND = ("bench.example.com", "v1")


async def main(options: Options) -> None:
    """List and watch; patch objects that do not have the status of this run."""
    reporter = Reporter(options.count)
    lines = commands()
    await config.load_kube_config(options.kubeconfig)
    async with client.ApiClient() as api_client:
        api = client.CustomObjectsApi(api_client)
        reporter.mark("ready")
        await anext(lines)
        todo: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        store: dict[str, dict[str, Any]] = {}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_follow(api, todo, store, options, reporter))]
            if options.work == "converge":
                tasks += [group.create_task(_work(api, todo, options, reporter)) for _ in range(options.workers)]
            await obey(reporter, lines)
            for task in tasks:
                task.cancel()


async def _follow(
    api: Any,
    todo: asyncio.Queue[dict[str, Any]],
    store: dict[str, dict[str, Any]],
    options: Options,
    reporter: Reporter,
) -> None:
    listed = await api.list_namespaced_custom_object(*KIND, options.namespace, "widgets")
    for item in listed["items"]:
        item["metadata"].pop("managedFields", None)
        store[item["metadata"]["name"]] = item
        if options.work == "converge":
            todo.put_nowait(item)
    reporter.objects = len(store)
    reporter.mark("synced")
    version = listed["metadata"]["resourceVersion"]
    async with watch.Watch().stream(
        api.list_namespaced_custom_object, *KIND, options.namespace, "widgets", resource_version=version
    ) as stream:
        async for event in stream:
            item = event["object"]
            store[item["metadata"]["name"]] = item
            todo.put_nowait(item)


async def _work(api: Any, todo: asyncio.Queue[dict[str, Any]], options: Options, reporter: Reporter) -> None:
    while True:
        item = await todo.get()
        reporter.reconciles += 1
        metadata = item["metadata"]
        if (item.get("status") or {}).get("run") == options.run:
            continue  # the event of our own write
        status = wanted_status(options.run, metadata["generation"])
        await api.patch_namespaced_custom_object_status(
            *KIND,
            options.namespace,
            "widgets",
            metadata["name"],
            {"status": status},
            field_manager=MANAGER,
            _content_type="application/merge-patch+json",
        )
        reporter.wrote()


if __name__ == "__main__":
    asyncio.run(main(parse()))
