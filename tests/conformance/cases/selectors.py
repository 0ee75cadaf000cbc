"""Fields by which objects of built-in kinds are selected (37)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, names


async def select(api: Api, plural: str, selectors: list[str]) -> None:
    """List a kind with each selector, and note the names or the refusal."""
    for selector in selectors:
        answer = await api.list(plural, {"fieldSelector": selector}, keep=("kind",))
        api.transcript.append({"names": names(answer)})


async def event(api: Api, name: str, plural: str = "events", **members: Any) -> None:
    """Create an event."""
    core = {
        "involvedObject": {"kind": "Pod", "name": name, "namespace": api.ns, "uid": f"u-{name}", "apiVersion": "v1"},
        "reason": "Started",
        "message": "m",
        "type": "Normal",
        "source": {"component": "kubelet", "host": "h"},
    }
    await api.create(plural, {"metadata": {"name": name}, **core, **members}, quiet=True)


NEW: dict[str, Any] = {
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "action": "Act",
    "reportingController": "example.com/robot",
    "reportingInstance": "r-1",
    "reason": "Failed",
    "type": "Warning",
    "note": "n",
}


async def events(api: Api) -> None:
    """Create events of both groups."""
    await event(api, "a")
    await event(api, "b", reason="Killing", type="Warning", reportingComponent="example.com/x", source={})
    about = {"kind": "Node", "name": "n", "namespace": api.ns, "fieldPath": "spec", "resourceVersion": "7"}
    body = {"metadata": {"name": "c"}, "regarding": about, **NEW}
    await api.create("events.events.k8s.io", body, quiet=True)


@case("events are selected by what they are about")
async def _(api: Api) -> None:
    await events(api)
    about = [f"involvedObject.{field}" for field in ("kind=Pod", "kind=Node", "name=a", "namespace=x", "uid=u-a")]
    about += ["involvedObject.apiVersion=v1", "involvedObject.fieldPath=spec", "involvedObject.resourceVersion=7"]
    others = [
        "reason=Killing",
        "type!=Normal",
        "type=Warning,reason=Failed",
        "source=kubelet",
        "source=example.com/robot",
    ]
    others += ["reportingComponent=example.com/x", "reportingComponent=example.com/robot", "source=example.com/x"]
    await select(api, "events", [*about, *others, "regarding.kind=Pod", "reportingController=x", "message=m"])


@case("events of the newer group are selected by what they regard")
async def _(api: Api) -> None:
    await events(api)
    about = [f"regarding.{field}" for field in ("kind=Pod", "kind=Node", "name=a", "namespace=x", "uid=u-a")]
    about += ["regarding.apiVersion=v1", "regarding.fieldPath=spec", "regarding.resourceVersion=7"]
    others = ["reason=Killing", "type!=Normal", "reportingController=example.com/x", "metadata.name=a"]
    await select(api, "events.events.k8s.io", [*about, *others, "involvedObject.kind=Pod", "source=kubelet", "note=n"])


@case("pods are selected by their fields")
async def _(api: Api) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.create("pods", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    other = {"restartPolicy": "Never", "schedulerName": "s", "serviceAccountName": "robot", "hostNetwork": True}
    await api.create("pods", {"metadata": {"name": "b"}, "spec": {**spec, **other, "nodeName": "n"}}, quiet=True)
    status = {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}
    await api.patch("pods", "b", {"status": status}, "status", quiet=True)
    await api.patch("pods", "a", {"status": {"nominatedNodeName": "m"}}, "status", quiet=True)
    selectors = ["spec.nodeName=n", "spec.nodeName=", "spec.host=n", "spec.restartPolicy=Always"]
    selectors += ["spec.schedulerName=s", "spec.serviceAccountName=robot", "spec.hostNetwork=true"]
    selectors += ["spec.hostNetwork=false", "status.phase=Pending", "status.phase!=Pending", "status.podIP=10.1.0.1"]
    selectors += ["status.podIP=fd00::1", "status.podIPs=10.1.0.1", "status.nominatedNodeName=m"]
    await select(api, "pods", [*selectors, "spec.hostname=a", "metadata.labels=a", "metadata.name=b,spec.nodeName=n"])


@case("fields that are absent have a value where a number or a boolean is zero")
async def _(api: Api) -> None:
    name = f"a-{api.ns}"
    pool = {"name": "p", "generation": 0, "resourceSliceCount": 1}
    job = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
    for path, empty, full, fields in (
        ("/api/v1/nodes", {}, {"spec": {"unschedulable": True}}, ["spec.unschedulable"]),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            {"spec": {"driver": "d.io", "allNodes": True, "pool": pool}},
            {"spec": {"driver": "d.io", "nodeName": "n", "pool": pool}},
            ["spec.nodeName", "spec.driver", "spec.pool.name"],
        ),
        (
            f"/apis/batch/v1/namespaces/{api.ns}/jobs",
            {"spec": {"template": {"spec": job}}},
            {"spec": {"template": {"spec": job}, "suspend": True}},
            ["status.successful", "spec.suspend"],
        ),
    ):
        for made in (empty, full):
            await api.call("POST", path, {"metadata": {"name": name}, **made}, quiet=True)
            for field in fields:
                for value in ("", "false", "true", "0", "n", "d.io"):
                    query = {"fieldSelector": f"metadata.name={name},{field}={value}"}
                    answer = await api.call("GET", path, query=query, keep=("kind",))
                    api.transcript.append({f"{field}={value}": names(answer)})
            await api.call("DELETE", f"{path}/{name}", {"propagationPolicy": "Background"}, quiet=True)
