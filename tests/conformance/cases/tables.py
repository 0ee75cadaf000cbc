"""The tables of built-in kinds (39): the columns and cells of an object of each, and of pods in their states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from reconciler.apiserver.builtin.kinds import BUILT_IN
from tests.conformance.api import STRATEGIC, Api
from tests.conformance.cases._case import case, table

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_MANIFESTS = Path(__file__).parents[2] / "foreign" / "kubectl"
_STATUS_BY_CONTROLLERS = ("APIService", "FlowSchema")
"""The kinds whose status a real server sets itself."""


def _path(ns: str, api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    info = next(info for info, versions in BUILT_IN if (info.group, info.kind) == (group, kind) and version in versions)
    base = f"/apis/{api_version}" if group else f"/api/{version}"
    return f"{base}/namespaces/{ns}/{info.plural}" if info.namespaced else f"{base}/{info.plural}"


async def _note(api: Api, path: str) -> None:
    found = await api.call("GET", path, accept=_TABLE, quiet=True)
    cells = [
        re.sub(r"^\d+m?\d*s$", "<age>", cell) if isinstance(cell, str) else cell for cell in found["rows"][0]["cells"]
    ]
    cells = ["<time>" if re.match(r"\d{4}-", str(cell)) else cell for cell in cells]
    api.transcript.append(
        {column["name"]: cell for column, cell in zip(found["columnDefinitions"], cells, strict=False)}
    )


async def _object(api: Api, document: dict[str, Any]) -> None:
    document = yaml.safe_load(yaml.safe_dump(document).replace("tables", api.ns))
    path = _path(api.ns, document["apiVersion"], document["kind"])
    await api.call("POST", path, document, quiet=True)
    await _note(api, f"{path}/{document['metadata']['name']}")
    await api.call("DELETE", f"{path}/{document['metadata']['name']}", quiet=True)


_ALL = [each for path in sorted(_MANIFESTS.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
_DOCUMENTS = [each for each in _ALL if each["kind"] not in _STATUS_BY_CONTROLLERS]
table([(f"the table of {each['kind']} {each['metadata']['name']}", each) for each in _DOCUMENTS])(_object)


def _container(name: str, ready: bool = False, restarts: int = 0, **state: Any) -> dict[str, Any]:
    about = {"name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": restarts}
    return {**about, "state": state.pop("state"), **state}


_RUNNING: dict[str, Any] = {"running": {}}
_COMPLETED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
_CRASHED = {"terminated": {"exitCode": 1, "reason": "Error"}}
_READY = [{"type": "Ready", "status": "True"}]


def _pod(
    phase: str, *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **status: Any
) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [*containers], "initContainerStatuses": [*init], **status}


async def _state(api: Api, status: dict[str, Any]) -> None:
    init = [
        {"name": each["name"], "image": "i", **({"restartPolicy": "Always"} if each.get("started") else {})}
        for each in status["initContainerStatuses"]
    ]
    containers = [{"name": each["name"], "image": "i"} for each in status["containerStatuses"]]
    spec = {"containers": containers, "initContainers": init}
    await api.create("pods", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.patch("pods", "a", {"status": status}, "status", content=STRATEGIC, quiet=True)
    await _note(api, api.path("pods", "a"))


table(
    [
        ("a pod that runs", _pod("Running", _container("a", True, state=_RUNNING), conditions=_READY)),
        (
            "a pod whose container waits",
            _pod("Running", _container("a", state={"waiting": {"reason": "ImagePullBackOff"}})),
        ),
        ("a pod that has completed", _pod("Succeeded", _container("a", state=_COMPLETED))),
        ("a pod that has failed", _pod("Failed", _container("a", state=_CRASHED))),
        ("a pod that was evicted", _pod("Failed", _container("a", state=_RUNNING), reason="Evicted")),
        (
            "a pod killed by a signal",
            _pod("Failed", _container("a", state={"terminated": {"exitCode": 137, "signal": 9}})),
        ),
        ("a pod with an exit code", _pod("Failed", _container("a", state={"terminated": {"exitCode": 3}}))),
        (
            "a pod of which one container has completed",
            _pod(
                "Running", _container("a", state=_COMPLETED), _container("b", True, state=_RUNNING), conditions=_READY
            ),
        ),
        (
            "a pod of which one container has completed and that is not ready",
            _pod("Running", _container("a", state=_COMPLETED), _container("b", True, state=_RUNNING)),
        ),
        (
            "a pod that initializes",
            _pod("Pending", _container("a", state={"waiting": {}}), init=(_container("x", state=_RUNNING),)),
        ),
        (
            "a pod whose second init container crashes",
            _pod(
                "Pending",
                _container("a", state={"waiting": {}}),
                init=(_container("x", True, state=_COMPLETED), _container("y", restarts=4, state=_CRASHED)),
            ),
        ),
        (
            "a pod whose init container cannot start",
            _pod(
                "Pending",
                _container("a", state={"waiting": {}}),
                init=(_container("x", state={"waiting": {"reason": "ErrImagePull"}}),),
            ),
        ),
        (
            "a pod with a sidecar",
            _pod(
                "Running",
                _container("a", True, state=_RUNNING),
                init=(_container("x", True, 2, state=_RUNNING, started=True),),
                conditions=_READY,
            ),
        ),
    ]
)(_state)


@case("tables and metadata of the older version, and of a kind without metadata")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    for form in ("Table", "PartialObjectMetadata"):
        accept = f"application/json;as={form};v=v1beta1;g=meta.k8s.io"
        found = await api.call("GET", api.path("configmaps", "a"), accept=accept, quiet=True)
        objects = [row["object"] for row in found.get("rows", ())]
        api.transcript.append({form: found["apiVersion"], "objects": [each["apiVersion"] for each in objects]})
    review = {"kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    await api.call("POST", path, {"apiVersion": "authorization.k8s.io/v1", **review}, accept=_TABLE)
