"""Speak to an API server and write down what it answered, in a form that two servers can be compared by.

What must differ between two servers is replaced by what must not: uids by their order of appearance, resource versions
by their rank (so order and equality stay), times by a word.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from reconciler.http import HTTPRequest, HTTPResponse

Send = Callable[[HTTPRequest], Awaitable[HTTPResponse]]
JSON = "application/json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

GROUP = "conformance.reconciler.dev"
_TIMES = {"creationTimestamp", "deletionTimestamp", "time", "lastTransitionTime", "lastUpdateTime"}
_NUMBERS = re.compile(r"(too old resource version: )\d+ \(\d+\)|(Too large resource version: )\d+, current: \d+")
_RECORDED = re.compile(r"(ResourceVersion in (?:the precondition|record) )\(\d+\)")
_SHOWN = re.compile(r'(Invalid value: )"\{.*\}"(: )', re.DOTALL)
_DIFFERENCE = re.compile(
    r"((?:pod updates may not change|is immutable after creation|may not be changed)[^\n]*)\n.*", re.DOTALL
)
_TEMPLATE = re.compile(r'(Invalid value: )\{.*"[Ss]pec":\{.*\}(: field is immutable)')
_RANDOM = re.compile(r"(generated-(?:[0-9]+-)?)[a-z0-9]{5}\b")
_UID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_ASKED_VERSION = re.compile(r"\bresourceVersion=(\d+)")


class Api:
    """Be the client of one case.

    Attributes:
        ns: the namespace of the case, made for it alone.
        transcript: what was asked and answered so far.
        with_owners: whether managedFields belong to the responses that are compared.
    """

    def __init__(self, send: Send, ns: str, compact: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self.ns = ns
        self.compact = compact
        self.transcript: list[dict[str, Any]] = []
        self.with_owners = False

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        """Return the path of a kind of the suite's group in the case's namespace, or of a built-in kind."""
        group_version, _, namespaced = resource(plural)
        base = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        place = f"namespaces/{self.ns}" if namespaced else ""
        return "/".join(part for part in (base, place, re.split(r"[.:]", plural)[0], name, sub) if part)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
        keep: Sequence[str] = (),
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Send one request, note the response, return its body.

        Args:
            headers: headers beside those for the types of the bodies.
            keep: note only these dotted paths of the body.
            quiet: note nothing; for what only prepares.
        """
        response = await self._send(
            HTTPRequest(
                method,
                path,
                query=tuple((query or {}).items()),
                headers={
                    "accept": accept,
                    "user-agent": "conformance/1.0",
                    **({"content-type": content} if body is not None else {}),
                    **(headers or {}),
                },
                body=b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
                timeout=30,
            )
        )
        answer = _decode(response.body)
        if not quiet:
            asked = path + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else "")
            entry: dict[str, Any] = {"asked": f"{method} {asked}", "status": response.status, "body": answer}
            if keep and response.status < 300:
                entry["body"] = {key: _dig(answer, key) for key in keep}
            if response.warnings:
                entry["warnings"] = sorted(response.warnings)
            self.transcript.append(entry)
        elif response.status >= 300:
            raise AssertionError(f"preparing: {method} {path}: {response.status} {response.body!r}")
        return answer if isinstance(answer, dict) else {"text": answer}

    async def create(self, plural: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
        """POST an object; apiVersion and kind are filled in."""
        return await self.call("POST", self.path(plural), {**kind_of(plural), **body}, **options)

    async def get(self, plural: str, name: str, sub: str = "", **options: Any) -> dict[str, Any]:
        """GET an object."""
        return await self.call("GET", self.path(plural, name, sub), **options)

    async def put(self, plural: str, name: str, body: Any, sub: str = "", **options: Any) -> dict[str, Any]:
        """PUT an object."""
        return await self.call("PUT", self.path(plural, name, sub), {**kind_of(plural), **body}, **options)

    async def patch(
        self, plural: str, name: str, body: Any, sub: str = "", content: str = MERGE, **options: Any
    ) -> dict[str, Any]:
        """PATCH an object; a merge patch by default."""
        return await self.call("PATCH", self.path(plural, name, sub), body, content=content, **options)

    async def apply(
        self,
        plural: str,
        name: str,
        body: Any,
        manager: str = "one",
        *,
        sub: str = "",
        force: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Apply on the server's side."""
        query = {"fieldManager": manager, **({"force": "true"} if force else {}), **options.pop("query", {})}
        document = {**kind_of(plural), **body} if isinstance(body, dict) else body
        return await self.call("PATCH", self.path(plural, name, sub), document, content=APPLY, query=query, **options)

    async def delete(self, plural: str, name: str, body: Any = None, **options: Any) -> dict[str, Any]:
        """DELETE an object, with options in the body."""
        return await self.call("DELETE", self.path(plural, name), body, **options)

    async def list(self, plural: str, query: Mapping[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """GET a collection."""
        await self._catch_up(self.path(plural), query or {})
        return await self.call("GET", self.path(plural), query=query, **options)

    async def _catch_up(self, path: str, query: Mapping[str, str]) -> None:
        """Wait until the server's watch cache contains all writes, if the response may come from an older version.

        A list without a version is consistent: a real server answers it once its cache is current.
        """
        if query.get("resourceVersion") and query.get("resourceVersionMatch") != "Exact":
            await self._send(HTTPRequest("GET", path, headers={"accept": JSON}, timeout=30))

    async def watch(
        self,
        plural: str,
        query: Mapping[str, str],
        events: int,
        *,
        name: str = "",
        accept: str = JSON,
        quiet_after: float = 0.2,
    ) -> list[Any]:
        """Watch a collection until so many events came, and a moment longer to see that no more come.

        A watch that is refused or ended by the server is noted with what came before.
        """
        path = self.path(plural, name)
        await self._catch_up(path, query)
        asked = f"WATCH {path}?" + "&".join(f"{k}={v}" for k, v in query.items())
        request = HTTPRequest(
            "GET",
            path,
            query=(("watch", "true"), *query.items()),
            headers={"accept": accept},
            stream=True,
            timeout=30,
        )
        response = await self._send(request)
        if response.chunks is None:
            self.transcript.append({"asked": asked, "status": response.status, "body": _decode(response.body)})
            return []
        seen: list[Any] = []
        buffer = b""
        iterator = response.chunks.__aiter__()
        try:
            while True:
                limit = 20 if len(seen) < events else quiet_after
                try:
                    chunk = await asyncio.wait_for(anext(iterator), limit)
                except (TimeoutError, StopAsyncIteration):
                    break
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                seen.extend(json.loads(line) for line in lines if line)
        finally:
            await response.close()
        self.transcript.append({"asked": asked, "status": response.status, "events": seen})
        return seen

    def normalized(self) -> list[dict[str, Any]]:
        """Return the transcript with what two servers cannot share replaced."""
        ranks, uids = ranked_versions(self.transcript), dict[str, str]()
        return [normalize(entry, ranks, uids, owners=self.with_owners) for entry in self.transcript]


_BUILT_IN = """
v1 configmaps ConfigMap | v1 secrets Secret | v1 events Event | v1 pods Pod | v1 services Service
v1 serviceaccounts ServiceAccount | v1 replicationcontrollers ReplicationController | v1 resourcequotas ResourceQuota
v1 limitranges LimitRange | v1 persistentvolumeclaims PersistentVolumeClaim | v1 endpoints Endpoints
v1 podtemplates PodTemplate | v1 namespaces Namespace * | v1 nodes Node * | v1 persistentvolumes PersistentVolume *
apps/v1 deployments Deployment | apps/v1 replicasets ReplicaSet | apps/v1 statefulsets StatefulSet
apps/v1 daemonsets DaemonSet | apps/v1 controllerrevisions ControllerRevision | batch/v1 jobs Job
batch/v1 cronjobs CronJob | coordination.k8s.io/v1 leases Lease | events.k8s.io/v1 events.events.k8s.io Event
policy/v1 poddisruptionbudgets PodDisruptionBudget | autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler
networking.k8s.io/v1 ingresses Ingress | networking.k8s.io/v1 networkpolicies NetworkPolicy
networking.k8s.io/v1 ingressclasses IngressClass * | discovery.k8s.io/v1 endpointslices EndpointSlice
rbac.authorization.k8s.io/v1 roles Role | rbac.authorization.k8s.io/v1 rolebindings RoleBinding
rbac.authorization.k8s.io/v1 clusterroles ClusterRole * | storage.k8s.io/v1 storageclasses StorageClass *
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding *
scheduling.k8s.io/v1 priorityclasses PriorityClass *
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition *
node.k8s.io/v1 runtimeclasses RuntimeClass * | storage.k8s.io/v1 csidrivers CSIDriver *
storage.k8s.io/v1 csinodes CSINode * | storage.k8s.io/v1 csistoragecapacities CSIStorageCapacity
storage.k8s.io/v1 volumeattachments VolumeAttachment * | resource.k8s.io/v1 deviceclasses DeviceClass *
storage.k8s.io/v1 volumeattributesclasses VolumeAttributesClass * | resource.k8s.io/v1 resourceclaims ResourceClaim
flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations PriorityLevelConfiguration *
flowcontrol.apiserver.k8s.io/v1 flowschemas FlowSchema *
"""
_OWN = f"{GROUP}/v1 widgets Widget | {GROUP}/v1 gadgets Gadget | {GROUP}/v1 clusterwidgets ClusterWidget *"


def _table() -> dict[str, tuple[str, str, bool]]:
    rows = (row.split() for line in (*_BUILT_IN.strip().splitlines(), _OWN) for row in line.split("|"))
    return {plural: (group_version, kind, not cluster) for group_version, plural, kind, *cluster in rows}


_RESOURCES = _table()


def resource(plural: str) -> tuple[str, str, bool]:
    """Return apiVersion, kind, and whether objects live in namespaces, of a plural name.

    A plural name that is not known belongs to the suite's group: ``rules:Rule`` names its kind, ``rules:Rule:v2`` its
    version too.
    """
    if plural in _RESOURCES:
        return _RESOURCES[plural]
    _, kind, *version = plural.split(":")
    return f"{GROUP}/{version[0] if version else 'v1'}", kind, True


def kind_of(plural: str) -> dict[str, str]:
    """Return apiVersion and kind of a plural name."""
    group_version, kind, _ = resource(plural)
    return {"apiVersion": group_version, "kind": kind}


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()


def _dig(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def ranked_versions(answers: Any) -> dict[str, str]:
    """Return what stands for each version in the answers.

    The versions of objects become their rank. Those of lists and bookmarks count everything that happens in a server,
    such as the renewal of its own leases, so they become the rank of the last object version that they include.
    """
    objects: set[int] = set()
    others: set[int] = set()
    _collect_versions(answers, objects, others)
    ordered = sorted(objects)
    return {str(version): f"rv{bisect.bisect_right(ordered, version)}" for version in objects | others}


def _collect_versions(value: Any, objects: set[int], others: set[int]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect_versions(item, objects, others)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key.endswith("resourceVersion") and isinstance(item, str) and item.isdigit():
                of_an_object = "name" in value or key == "metadata.resourceVersion"
                (objects if of_an_object else others).add(int(item))
            elif key == "asked":
                others.update(int(asked) for asked in _ASKED_VERSION.findall(item) if int(asked) > 1)
            else:
                _collect_versions(item, objects, others)


def normalize(value: Any, ranks: Mapping[str, str], uids: dict[str, str], *, owners: bool = False) -> Any:
    """Return a value with versions, uids, times, generated names and tokens replaced.

    Args:
        value: any JSON.
        ranks: what stands for each version.
        uids: what stands for each uid; those that appear for the first time are added.
        owners: keep ``metadata.managedFields``, in an order of its own.
    """
    if isinstance(value, list):
        return [normalize(item, ranks, uids, owners=owners) for item in value]
    if isinstance(value, str):
        # What a patch made is shown as a whole, with times and in the order of Go's structs.
        text = _SHOWN.sub(r'\1"<document>"\2', _RECORDED.sub(r"\1(N)", value))
        # How a spec differs is shown by the members of a type inside the real server, and so is a template.
        text = _TEMPLATE.sub(r"\1<template>\2", _DIFFERENCE.sub(r"\1", text))
        text = _RANDOM.sub(r"\1xxxxx", _NUMBERS.sub(r"\1\2N", text))
        text = _ASKED_VERSION.sub(lambda found: f"resourceVersion={ranks.get(found[1], found[1])}", text)
        return _UID.sub(lambda found: uids.setdefault(found[0], f"uid-{len(uids) + 1}"), text)
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in sorted(value.items()):
        if key == "managedFields" and not owners:
            continue
        if key.endswith("resourceVersion") and isinstance(item, str):
            result[key] = ranks.get(item, item)
        elif key.rpartition(".")[2] in _TIMES and isinstance(item, str):
            result[key] = "<time>"
        elif key.endswith("continue") and item:
            result[key] = "<continue>"
        else:
            result[key] = normalize(item, ranks, uids, owners=owners)
    if owners and isinstance(result.get("managedFields"), list):
        # Times have seconds, so that the order of what happened within one is left to chance.
        result["managedFields"].sort(key=lambda entry: json.dumps(entry, sort_keys=True))
    return result
