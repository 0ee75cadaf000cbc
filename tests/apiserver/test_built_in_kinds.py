"""Built-in kinds: the members of their types, and the special treatment of each kind."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.builtin.kinds import BUILT_IN
from tests.apiserver.api import CONFIG_MAPS, STRATEGIC, Api

pytestmark = pytest.mark.virtual_time

SECRETS = "/api/v1/namespaces/default/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EVENTS = "/api/v1/namespaces/default/events"
NEW_EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


STORED = [info for info, _ in BUILT_IN if "list" in info.verbs]


@pytest.mark.parametrize("info", STORED, ids=lambda info: f"{info.plural}.{info.group}")
async def test_every_kind_is_served_and_discovered(api: Api, info: Any) -> None:
    for known, versions in BUILT_IN:
        if known is not info:
            continue
        for version in versions:
            base = f"/apis/{info.group}/{version}" if info.group else f"/api/{version}"
            listed = await api.get(f"{base}/{info.plural}")
            assert (listed.status, listed["kind"]) == (200, info.list_kind)
            served = {entry["name"]: entry for entry in (await api.get(base))["resources"]}
            assert served[info.plural]["kind"] == info.kind
            assert (f"{info.plural}/status" in served) is ("status" in info.subresources)


async def test_the_namespaces_of_a_new_cluster_exist(api: Api) -> None:
    listed = await api.get("/api/v1/namespaces")
    assert listed.names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    default = listed["items"][0]
    assert default["metadata"]["labels"] == {"kubernetes.io/metadata.name": "default"}
    assert (default["spec"], default["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


async def test_a_namespace_keeps_its_label_and_has_no_dots(api: Api) -> None:
    kept = await api.patch("/api/v1/namespaces/default", {"metadata": {"labels": {"a": "b"}}})
    assert kept["metadata"]["labels"] == {"kubernetes.io/metadata.name": "default", "a": "b"}
    dotted = await api.post("/api/v1/namespaces", {"metadata": {"name": "a.b"}})
    assert dotted.causes == [("metadata.name", 'Invalid value: "a.b": must not contain dots')]


async def test_kind_and_version_may_be_omitted(api: Api) -> None:
    made = await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    other = await api.post(CONFIG_MAPS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}})
    assert "converting (v1.Secret) to (core.ConfigMap): unknown conversion" in other["message"]
    none = await api.post(CONFIG_MAPS, {"apiVersion": "v1", "kind": "Foo", "metadata": {"name": "b"}})
    assert 'no kind "Foo" is registered for version "v1"' in none["message"]


async def test_unknown_and_empty_members_are_dropped(api: Api) -> None:
    made = await api.post(
        CONFIG_MAPS, {"metadata": {"name": "a", "labels": {}, "finalizers": []}, "data": {}, "foo": 1}
    )
    assert made.warnings == ['299 - "unknown field \\"foo\\""']
    assert set(made.body) == {"apiVersion", "kind", "metadata"}
    assert "labels" not in made["metadata"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (CONFIG_MAPS, {"data": {"a": 1}}, "cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        (
            CONFIG_MAPS,
            {"data": "x"},
            "cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            LEASES,
            {"spec": {"leaseDurationSeconds": "x"}},
            "Go struct field LeaseSpec.spec.leaseDurationSeconds of type int32",
        ),
        (LEASES, {"spec": {"renewTime": "zz"}}, 'parsing time "zz" as "2006-01-02T15:04:05.000000Z07:00"'),
        (LEASES, {"spec": {"renewTime": "2026-01-01T00:00:00Z"}}, 'cannot parse "Z" as ".000000"'),
        (SECRETS, {"data": {"a": "???"}}, "illegal base64 data at input byte 0"),
        (DEPLOYMENTS, {"spec": {"replicas": 2**31}}, "of type int32"),
    ],
)
async def test_a_member_of_a_wrong_type_cannot_be_decoded(api: Api, path: str, body: dict[str, Any], says: str) -> None:
    reply = await api.post(path, {"metadata": {"name": "a"}, **body})
    assert reply.status == 400
    assert says in reply["message"]


async def test_immutable_config_maps_and_secrets(api: Api) -> None:
    for path in (CONFIG_MAPS, SECRETS):
        await api.post(path, {"metadata": {"name": "a"}, "data": {"x": "aGk="}, "immutable": True})
        data = await api.patch(f"{path}/a", {"data": {"x": "eHg="}})
        assert data.causes == [("data", "Forbidden: field is immutable when `immutable` is set")]
        thawed = await api.patch(f"{path}/a", {"immutable": False})
        assert thawed.causes[0][0] == "immutable"
        assert (await api.patch(f"{path}/a", {"metadata": {"labels": {"a": "b"}}})).status == 200


async def test_secrets_accept_string_data_and_have_a_type(api: Api) -> None:
    made = await api.post(SECRETS, {"metadata": {"name": "a"}, "stringData": {"x": "hi"}})
    assert made["data"] == {"x": base64.b64encode(b"hi").decode()}
    assert made["type"] == "Opaque"
    assert "stringData" not in made.body
    assert (await api.patch(f"{SECRETS}/a", {"type": "other"})).causes == [
        ("type", 'Invalid value: "other": field is immutable')
    ]
    assert (await api.post(SECRETS, {"metadata": {"name": "b"}, "data": {"a b": ""}})).status == 422


async def test_leases_are_validated_and_created_by_put(api: Api) -> None:
    none = await api.post(LEASES, {"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 0}})
    assert none.causes == [("spec.leaseDurationSeconds", "Invalid value: 0: must be greater than 0")]
    put = await api.put(f"{LEASES}/a", {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}})
    assert put.status == 201
    bare = await api.put(f"{LEASES}/a", {"metadata": {"name": "a"}, "spec": {"holderIdentity": "you"}})
    assert bare.status == 422
    times = {"renewTime": "2026-01-01T02:00:00.000001+02:00"}
    held = await api.patch(f"{LEASES}/a", {"spec": times})
    assert held["spec"]["renewTime"] == "2026-01-01T00:00:00.000001Z"


async def test_events_are_served_in_two_groups(api: Api) -> None:
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    old = {
        "metadata": {"name": "a"},
        "involvedObject": about,
        "reason": "R",
        "message": "m",
        "type": "Normal",
        "count": 1,
    }
    made = await api.post(EVENTS, old)
    assert (made["eventTime"], made["reportingComponent"]) == (None, "")
    shown = await api.get(f"{NEW_EVENTS}/a")
    assert (shown["regarding"], shown["note"], shown["deprecatedCount"]) == (about, "m", 1)
    assert "reportingController" not in shown.body
    new = {
        "metadata": {"name": "b"},
        "regarding": about,
        "reason": "R",
        "note": "n",
        "type": "Normal",
        "action": "A",
        "eventTime": "2026-01-01T00:00:00.000001Z",
        "reportingController": "x.y/z",
        "reportingInstance": "i",
    }
    assert (await api.post(NEW_EVENTS, new)).status == 201
    found = await api.get(f"{EVENTS}/b")
    assert (found["involvedObject"], found["message"], found["reportingComponent"]) == (about, "n", "x.y/z")
    counted = await api.patch(f"{EVENTS}/a", {"count": 2})
    assert counted["count"] == 2
    assert (await api.get(EVENTS, fieldSelector="involvedObject.name=p,reason=R")).names == ["a", "b"]
    lost = await api.post(EVENTS, {**old, "metadata": {"name": "c"}, "involvedObject": {**about, "namespace": "x"}})
    assert lost.causes == [("involvedObject.namespace", 'Invalid value: "x": does not match event.namespace')]


async def test_the_table_of_api_services_shows_whether_they_are_available(api: Api) -> None:
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}

    async def shown(name: str) -> list[str]:
        cells: list[str] = (await api.get(f"{services}/{name}", headers=table))["rows"][0]["cells"]
        return cells[:3]

    spec = {"group": "example.org", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
    await api.post(services, {"metadata": {"name": "v1.example.org"}, "spec": spec})
    assert await shown("v1.example.org") == ["v1.example.org", "Local", "True"]
    spec |= {"group": "example.net", "service": {"namespace": "a", "name": "b"}}
    await api.post(services, {"metadata": {"name": "v1.example.net"}, "spec": spec})
    assert await shown("v1.example.net") == ["v1.example.net", "a/b", "Unknown"]
    failed = {"type": "Available", "status": "False", "reason": "MissingEndpoints"}
    await api.patch(f"{services}/v1.example.net/status", {"status": {"conditions": [failed]}})
    assert await shown("v1.example.net") == ["v1.example.net", "a/b", "False (MissingEndpoints)"]


async def test_workloads_have_a_separate_status_and_merge_containers(api: Api) -> None:
    container = {"name": "c", "image": "1"}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = await api.post(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
    assert made["metadata"]["generation"] == 1
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}}
    patched = await api.patch(f"{DEPLOYMENTS}/d", image, STRATEGIC)
    (changed,) = patched["spec"]["template"]["spec"]["containers"]
    assert (changed["name"], changed["image"]) == ("c", "2")
    assert patched["metadata"]["generation"] == 2
    status = {"status": {"replicas": 2}, "spec": {"replicas": 9}, "metadata": {"annotations": {"a": "b"}}}
    written = await api.patch(f"{DEPLOYMENTS}/d/status", status)
    assert (written["status"], written["spec"]["replicas"]) == ({"replicas": 2}, 2)
    assert written["metadata"]["annotations"] == {"a": "b"}
    scaled = await api.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 4}})
    assert (scaled["spec"], scaled["status"]) == ({"replicas": 4}, {"replicas": 2, "selector": "a=b"})


async def test_apply_accepts_classes_documents_lists_and_files(tmp_path: Any) -> None:
    class Thing:
        @classmethod
        def crd(cls) -> dict[str, Any]:
            from tests.apiserver.api import definition

            return definition("Thing")

    path = tmp_path / "things.yaml"
    path.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n---\n"
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}}\n---\n"
        "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: t}\nspec: {size: 2}\nstatus: {phase: P}\n"
    )
    async with APIServer() as server:
        await server.apply(Thing, path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "three"}})
        api = Api(server)
        assert (await api.get(CONFIG_MAPS)).names == ["one", "three", "two"]
        thing = await api.get("/apis/example.com/v1/namespaces/default/things/t")
        assert (thing["spec"], thing["status"]) == ({"size": 2}, {"phase": "P"})
        await server.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"x": "1"}})
        assert (await api.get(f"{CONFIG_MAPS}/one"))["data"] == {"x": "1"}
        assert server.requests(verb=("create", "update")) == []
