"""An operator on kopf, before and after: python examples/batcher_kopf.py.

It needs no cluster: it uses the embedded API server, which counts the writes.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf
from demo_cluster import GROUP, PLURAL, VERSION, cluster
from kubernetes import client, config

from reconciler import StatusBatcher


def is_in(namespace: str) -> Any:
    """Return a kopf filter for a namespace."""
    return lambda meta, **_: meta["namespace"] == namespace


@kopf.on.create(GROUP, VERSION, PLURAL, when=is_in("before"))
def before(body: kopf.Body, name: str, namespace: str, **_: Any) -> None:
    """Write each step at once, so that users can watch."""
    api = client.CustomObjectsApi()
    where = (GROUP, VERSION, namespace, PLURAL, name)
    attempts = []
    for attempt in range(1, 6):
        attempts.append({"attempt": attempt, "result": deliver(body, attempt)})
        status = {"attempts": attempts, "total": len(attempts)}
        api.patch_namespaced_custom_object_status(*where, {"status": status})
    api.patch_namespaced_custom_object_status(*where, {"status": {"phase": "Sent"}})


@kopf.on.create(GROUP, VERSION, PLURAL, when=is_in("after"))
def after(body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
    """Record the same steps; kopf writes them with its own patch when the handler ends. `async def` works too."""
    with StatusBatcher(patch, body) as status:
        for attempt in range(1, 6):
            status.append("attempts", {"attempt": attempt, "result": deliver(body, attempt)}, keep_last=50)
            status.increment("total")
        status.set(phase="Sent")


def deliver(body: kopf.Body, attempt: int) -> str:
    """Simulate the work."""
    return "accepted" if attempt == 5 else f"{body.spec['text']}: not now"


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Read the credentials from ``KUBECONFIG``."""
    return kopf.login_with_kubeconfig(**kwargs)


def main() -> None:
    """Run the operator with each handler, and print the counts."""
    with cluster() as demo, ThreadPoolExecutor(1) as user:
        config.load_kube_config(demo.kubeconfig)
        for namespace in ("before", "after"):
            stop = threading.Event()
            demo.make(namespace)
            sent = user.submit(demo.wait, namespace, until=lambda status: status.get("phase") == "Sent")
            sent.add_done_callback(lambda _, stop=stop: stop.set())
            kopf.run(standalone=True, namespaces=[namespace], stop_flag=stop)
            sent.result()
            demo.report(namespace, f"and {demo.other_writes(namespace)} of kopf's annotations")


if __name__ == "__main__":
    main()
