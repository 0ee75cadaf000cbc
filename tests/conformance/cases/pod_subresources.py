"""What is changed of a running pod through subresources: ephemeral containers (36)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import JSON_PATCH, MERGE, STRATEGIC, Api
from tests.conformance.cases._case import case

RESOURCES = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
SPEC: dict[str, Any] = {
    "containers": [{"name": "c", "image": "i", "resources": RESOURCES}, {"name": "d", "image": "i"}]
}
DEBUGGER = {"name": "debugger", "image": "busybox", "stdin": True, "targetContainerName": "c"}


async def pod(api: Api, spec: Any = None) -> dict[str, Any]:
    """Create a pod."""
    body = {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec or SPEC}
    return await api.create("pods", body, keep=("metadata.name", "spec.containers", "status.qosClass"))


async def patch(api: Api, sub: str, body: Any, content: str = STRATEGIC, **options: Any) -> dict[str, Any]:
    """Patch a subresource."""
    keep = ("metadata.generation", "metadata.labels", "spec.ephemeralContainers", "spec.containers", "spec.nodeName")
    return await api.patch("pods", "p", body, sub, content, **{"keep": keep, **options})


def container(**members: Any) -> dict[str, Any]:
    """Return the patch of ephemeral containers."""
    return {"spec": {"ephemeralContainers": [{**DEBUGGER, **members}]}}


@case("an ephemeral container is added")
async def _(api: Api) -> None:
    await pod(api)
    await patch(api, "ephemeralcontainers", container())
    await api.get("pods", "p", "ephemeralcontainers", keep=("spec.ephemeralContainers",))
    await patch(api, "ephemeralcontainers", container(name="other"))
    more = {"op": "add", "path": "/spec/ephemeralContainers/-", "value": {"name": "third", "image": "busybox"}}
    await patch(api, "ephemeralcontainers", [more], JSON_PATCH)
    await api.patch("pods", "p", container(name="direct"), content=STRATEGIC)


@case("the subresource of ephemeral containers changes nothing else")
async def _(api: Api) -> None:
    await pod(api)
    body = {**container(), "metadata": {"labels": {"c": "d"}}, "status": {"phase": "Failed"}}
    body["spec"] |= {"nodeName": "n", "containers": [{"name": "c", "image": "other"}]}
    await patch(api, "ephemeralcontainers", body)
    await api.get("pods", "p", keep=("status.phase", "spec.nodeName", "spec.containers"))


@case("changes of ephemeral containers that are refused")
async def _(api: Api) -> None:
    await pod(api)
    await patch(api, "ephemeralcontainers", container())
    await patch(api, "ephemeralcontainers", {"spec": {"ephemeralContainers": []}}, MERGE)
    await patch(api, "ephemeralcontainers", container(image="other"))
    for members in (
        {"name": "c"},
        {"name": ""},
        {"name": "new", "image": ""},
        {"name": "new", "targetContainerName": "missing"},
        {"name": "new", "ports": [{"containerPort": 80}]},
        {"name": "new", "resources": {"limits": {"cpu": "1"}}},
        {"name": "new", "livenessProbe": {"exec": {"command": ["x"]}}},
    ):
        add = {"op": "add", "path": "/spec/ephemeralContainers/-", "value": {**DEBUGGER, **members}}
        await patch(api, "ephemeralcontainers", [add], JSON_PATCH)
    await api.call("POST", api.path("pods", "p", "ephemeralcontainers"), {})
    await api.call("DELETE", api.path("pods", "p", "ephemeralcontainers"))
    await api.get("pods", "missing", "ephemeralcontainers")
    await api.patch("pods", "missing", container(), "ephemeralcontainers", STRATEGIC)


@case("a pod with ephemeral containers is not created")
async def _(api: Api) -> None:
    await pod(api, {**SPEC, **container()["spec"]})


@case("owners of what subresources change")
async def _(api: Api) -> None:
    api.with_owners = True
    await pod(api)
    keep = ("metadata.managedFields",)
    await patch(api, "ephemeralcontainers", container(), keep=keep)
