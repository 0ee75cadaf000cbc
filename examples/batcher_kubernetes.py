"""A hand-written loop on the client `kubernetes`, before and after: python examples/batcher_kubernetes.py.

It needs no cluster: it uses the embedded API server, which counts the writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demo_cluster import GROUP, NAME, PLURAL, VERSION, cluster
from kubernetes import client, config, watch

from reconciler import StatusBatcher


def before(api: client.CustomObjectsApi, message: dict[str, Any]) -> None:
    """Write each step at once; each write triggers the loop again."""
    where = (GROUP, VERSION, message["metadata"]["namespace"], PLURAL, message["metadata"]["name"])
    attempts = []
    for attempt in range(1, 6):
        attempts.append({"attempt": attempt, "result": deliver(message, attempt)})
        status = {"attempts": attempts, "total": len(attempts)}
        api.patch_namespaced_custom_object_status(*where, {"status": status})
    api.patch_namespaced_custom_object_status(*where, {"status": {"phase": "Sent"}})


def after(api: client.CustomObjectsApi, message: dict[str, Any]) -> None:
    """Record the same steps; they are written once, when the block ends."""
    with StatusBatcher(api, message) as status:
        for attempt in range(1, 6):
            status.append("attempts", {"attempt": attempt, "result": deliver(message, attempt)}, keep_last=50)
            status.increment("total")
        status.set(phase="Sent")


def deliver(message: dict[str, Any], attempt: int) -> str:
    """Simulate the work."""
    return "accepted" if attempt == 5 else f"{message['spec']['text']}: not now"


def controller(work: Callable[[client.CustomObjectsApi, dict[str, Any]], None], namespace: str) -> int:
    """Process each message that is not sent; return the number of watch events until all are sent."""
    api = client.CustomObjectsApi()
    woken = 0
    for event in watch.Watch().stream(api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL):
        woken += 1
        message = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, NAME)
        if message.get("status", {}).get("phase") != "Sent":
            work(api, message)
        if event["object"].get("status", {}).get("phase") == "Sent":
            break
    return woken


def main() -> None:
    """Run the loop with each function, and print the counts."""
    with cluster() as demo:
        config.load_kube_config(demo.kubeconfig)
        for work in (before, after):
            demo.make(namespace=work.__name__)
            woken = controller(work, namespace=work.__name__)
            demo.report(work.__name__, f"woken {woken} times")


if __name__ == "__main__":
    main()
