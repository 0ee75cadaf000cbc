"""Discovery requests: groups, resources, schemas (21)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, table

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_KNOWN = ("widgets", "gadgets", "clusterwidgets")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@case("the group of the suite")
async def _(api: Api) -> None:
    await api.call("GET", f"/apis/{GROUP}")
    body = api.transcript[-1]["body"]
    body["versions"] = [each for each in body["versions"] if each["version"] == "v1"]
    del body["preferredVersion"]  # other cases bring other versions


@case("the groups, of which one is the suite's")
async def _(api: Api) -> None:
    found = await api.call("GET", "/apis", quiet=True)
    wanted = {"apps", "batch", "coordination.k8s.io", "events.k8s.io", "apiextensions.k8s.io", "policy"}
    listed = {each["name"]: each for each in found["groups"]}
    api.transcript.append({"kind": found["kind"], "apps": listed["apps"], "known": sorted(wanted & listed.keys())})


@case("the core group")
async def _(api: Api) -> None:
    found = await api.call("GET", "/api", quiet=True)
    api.transcript.append({"kind": found["kind"], "versions": found["versions"]})


def _resource(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {key: entry.get(key) for key in ("name", "singularName", "namespaced", "kind", "shortNames", "categories")}
    return kept | {"verbs": [verb for verb in _VERBS if verb in entry["verbs"]]}


_LISTED = {
    "api/v1": (
        "configmaps secrets events pods pods/status services services/status serviceaccounts namespaces "
        "namespaces/status nodes nodes/status replicationcontrollers persistentvolumeclaims persistentvolumes "
        "endpoints resourcequotas limitranges"
    ),
    "apis/apps/v1": "deployments deployments/status deployments/scale replicasets statefulsets daemonsets",
    "apis/batch/v1": "jobs jobs/status cronjobs cronjobs/status",
    "apis/coordination.k8s.io/v1": "leases",
    "apis/events.k8s.io/v1": "events",
    "apis/policy/v1": "poddisruptionbudgets poddisruptionbudgets/status",
    "apis/apiextensions.k8s.io/v1": "customresourcedefinitions customresourcedefinitions/status",
    f"apis/{GROUP}/v1": "widgets widgets/status gadgets clusterwidgets clusterwidgets/status",
}


async def _resources(api: Api, path: str, names: str) -> None:
    found = await api.call("GET", f"/{path}", quiet=True)
    entries = {entry["name"]: _resource(entry) for entry in found["resources"]}
    api.transcript.append(
        {
            "groupVersion": found["groupVersion"],
            "resources": [entries.get(name, {"missing": name}) for name in names.split()],
        }
    )


table([(f"the resources of /{path}", path, names) for path, names in _LISTED.items()])(_resources)


@case("discovery in one answer")
async def _(api: Api) -> None:
    found = await api.call("GET", "/apis", accept=_AGGREGATED, quiet=True)
    group = next(item for item in found["items"] if item["metadata"]["name"] == GROUP)
    version = next(each for each in group["versions"] if each["version"] == "v1")
    known = [entry for entry in version["resources"] if entry["resource"] in _KNOWN]
    shown = sorted(known, key=lambda entry: str(entry["resource"]))
    for entry in shown:
        entry["verbs"].sort()
        for sub in entry.get("subresources", ()):
            sub["verbs"].sort()
    api.transcript.append({"kind": found["kind"], "version": version["version"], "resources": shown})


@case("discovery of the core group in one answer")
async def _(api: Api) -> None:
    found = await api.call("GET", "/api", accept=_AGGREGATED, quiet=True)
    resources = found["items"][0]["versions"][0]["resources"]
    shown = [entry for entry in resources if entry["resource"] in ("configmaps", "namespaces", "secrets")]
    for entry in shown:
        entry["verbs"].sort()
        entry.pop("subresources", None)
    api.transcript.append({"kind": found["kind"], "resources": sorted(shown, key=lambda entry: str(entry["resource"]))})


@case("OpenAPI of the suite's kinds")
async def _(api: Api) -> None:
    index = await api.call("GET", "/openapi/v3", quiet=True)
    assert f"apis/{GROUP}/v1" in index["paths"]
    found = await api.call("GET", f"/openapi/v3/apis/{GROUP}/v1", quiet=True)
    schemas = found["components"]["schemas"]
    kinds = "x-kubernetes-group-version-kind"
    schema = next(s for s in schemas.values() if s.get(kinds, [{}])[0].get("kind") == "Widget")
    spec = schema["properties"]["spec"]
    path = f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}"
    api.transcript.append(
        {
            "kinds": schema[kinds],
            "members": sorted(schema["properties"]),
            "spec": sorted(spec["properties"]),
            "required": spec.get("required"),
            "size": spec["properties"]["size"],
            "mode": spec["properties"]["mode"],
            "ports": spec["properties"]["ports"],
            "methods": sorted(key for key in found["paths"][path] if key != "parameters"),
        }
    )


@case("the version of the server")
async def _(api: Api) -> None:
    found = await api.call("GET", "/version", quiet=True)
    api.transcript.append({"members": sorted(found), "major": found["major"], "minor": found["minor"]})
    for path in ("/healthz", "/livez", "/readyz"):
        await api.call("GET", path)


@case("paths that nothing serves")
async def _(api: Api) -> None:
    for path in (
        "/nothing",
        "/apis/nothing.example",
        "/apis/apps/v9",
        "/api/v9",
        "/apis/apps/v1/nothings",
        "/api/v1/x",
    ):
        await api.call("GET", path)
