"""The client on the embedded server and on a real kube-apiserver: what each verb and option does, tried on both."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import kubernetes.client
import kubernetes_asyncio.client
import pytest

from reconciler import ConditionedStatus, Model, ObjectMeta, Resource, Unstructured
from reconciler.apiserver import APIServer
from reconciler.client import retry_on_conflict
from reconciler.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    FieldManagerConflict,
    Invalid,
    NotFound,
    NotServed,
)
from reconciler.testing import Cluster

MAP = "v1/ConfigMap"


class Port(Model):
    port: int
    protocol: str = "TCP"


class GizmoSpec(Model):
    size: int = 1
    ports: list[Port] = []


class GizmoStatus(ConditionedStatus):
    phase: str | None = None


class Gizmo(Resource[GizmoSpec, GizmoStatus], group="client.reconciler.dev", version="v1"):
    """A gizmo."""


def config_map(cluster: Cluster, name: str, *, data: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": cluster.namespace, **metadata},
        "data": {"a": "1"} if data is None else data,
    }


def gizmo(cluster: Cluster, name: str = "g", **spec: Any) -> Gizmo:
    return Gizmo(metadata=ObjectMeta(name=name, namespace=cluster.namespace), spec=GizmoSpec(**spec))


# whole objects


async def test_objects_are_created_read_updated_and_deleted(cluster: Cluster) -> None:
    await cluster.install(Gizmo)
    client, ns = cluster.client, cluster.namespace
    made = await client.create(gizmo(cluster, size=3))
    with pytest.raises(AlreadyExists):
        await client.create(gizmo(cluster))
    made.spec.size = 4
    stored = await client.update(made)
    assert (stored.spec.size, stored.generation) == (4, 2)
    with pytest.raises(Conflict):
        await client.update(made)
    stored.status.phase = "Ready"
    assert (await client.update(stored, subresource="status")).status.phase == "Ready"
    with pytest.raises(Conflict):
        await client.delete(Gizmo, "g", ns, uid="another")
    with pytest.raises(Conflict):
        await client.delete(Gizmo, "g", ns, resource_version=made.resource_version)
    await client.delete(made)
    with pytest.raises(NotFound):
        await client.delete(Gizmo, "g", ns)


async def test_models_of_both_official_clients_are_accepted(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    for number, library in enumerate((kubernetes.client, kubernetes_asyncio.client)):
        models: Any = library
        owner = await client.create(config_map(cluster, f"owner{number}"))
        model = models.V1ConfigMap(
            api_version="v1",
            kind="ConfigMap",
            metadata=models.V1ObjectMeta(name=f"m{number}", namespace=ns, labels={"a": "b"}),
            data={"k": "1"},
        )
        assert (await client.create(model))["data"] == {"k": "1"}
        model.data = {"k": "2"}
        assert (await client.update(model))["data"] == {"k": "2"}
        reference = models.V1ConfigMap(
            api_version="v1",
            kind="ConfigMap",
            metadata=models.V1ObjectMeta(name=owner.name, namespace=ns, uid=owner.uid),
        )
        applied = await client.apply(model, owner=reference)
        assert applied.to_dict()["metadata"]["ownerReferences"][0]["uid"] == owner.uid
        labels = {"metadata": models.V1ObjectMeta(labels={"c": "d"})}
        assert (await client.patch(MAP, model.metadata.name, ns, patch=labels)).labels == {"a": "b", "c": "d"}
        assert client.status_writer(model).request == (model.metadata.name, ns)
        await client.delete(model)
        with pytest.raises(NotFound):
            await client.get(MAP, model.metadata.name, ns)


async def test_field_managers_and_field_validation(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    mine = client.with_options(field_manager="mine")
    await mine.create(config_map(cluster, "a"))
    await client.patch(MAP, "a", ns, patch={"data": {"b": "2"}}, field_manager="other")
    stored = (await client.get(MAP, "a", ns)).to_dict()
    assert {entry["manager"] for entry in stored["metadata"]["managedFields"]} == {"mine", "other"}
    unknown = {**config_map(cluster, "b"), "nonsense": 1}
    with pytest.raises(BadRequest, match="nonsense"):
        await client.create(unknown, field_validation="Strict")
    with pytest.raises(BadRequest, match="nonsense"):
        await client.with_options(field_validation="Strict").create(unknown)
    assert "nonsense" not in await client.create(unknown, field_validation="Ignore")


async def test_a_dry_run_client_stores_nothing(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    kept = await client.create(config_map(cluster, "kept"))
    dry = client.with_options(dry_run=True)
    assert (await dry.create(config_map(cluster, "new"))).uid
    await dry.patch(MAP, "kept", ns, patch={"data": {"a": "2"}})
    await dry.apply(config_map(cluster, "applied"))
    await dry.delete(MAP, "kept", ns)
    await dry.delete_all_of(MAP, ns)
    assert (await client.get(MAP, "kept", ns)).resource_version == kept.resource_version
    for name in ("new", "applied"):
        with pytest.raises(NotFound):
            await client.get(MAP, name, ns)


async def test_a_client_of_one_namespace(cluster: Cluster) -> None:
    here = cluster.client.in_namespace(cluster.namespace)
    document = config_map(cluster, "a")
    del document["metadata"]["namespace"]
    assert (await here.create(document)).namespace == cluster.namespace
    assert (await here.apply({**document, "data": {"a": "2"}})).namespace == cluster.namespace
    assert "a" in [found.name for found in await here.list(MAP)]
    assert (await here.get("v1/Namespace", cluster.namespace)).name == cluster.namespace
    with pytest.raises(ValueError, match="for namespace"):
        await here.get(MAP, "a", "default")
    await here.delete_all_of(MAP, label_selector="!kubernetes")
    with pytest.raises(NotFound):
        await here.get(MAP, "a")


# patches


async def test_patches_of_every_kind_and_their_conditions(cluster: Cluster) -> None:
    await cluster.install(Gizmo)
    client, ns = cluster.client, cluster.namespace
    made = await client.create(gizmo(cluster, ports=[Port(port=1)]))
    merged = await client.patch(Gizmo, "g", ns, patch={"spec": {"size": 5}}, resource_version=made.resource_version)
    assert merged.spec.size == 5
    operations = [{"op": "replace", "path": "/spec/ports/0/port", "value": 2}]
    for strategy, patch in (("merge", {"spec": {"size": 6}}), ("json", operations)):
        with pytest.raises(Conflict):
            await client.patch(Gizmo, "g", ns, patch=patch, strategy=strategy, resource_version=made.resource_version)  # type: ignore[arg-type]
    changed = await client.patch(Gizmo, "g", ns, patch=operations, strategy="json")
    assert [port.port for port in changed.spec.ports] == [2]
    with pytest.raises(Invalid):
        await client.patch(Gizmo, "g", ns, patch=[{"op": "test", "path": "/spec/size", "value": 9}], strategy="json")
    container = {"name": "c", "image": "a"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": ns}}
    await client.create({**pod, "spec": {"containers": [container]}})
    strategic = {"spec": {"containers": [{"name": "c", "image": "b"}]}}
    patched = await client.patch("v1/Pod", "p", ns, patch=strategic, strategy="strategic")
    assert [found["image"] for found in patched["spec"]["containers"]] == ["b"]
    await client.delete("v1/Pod", "p", ns, grace_period=0)


async def test_patch_from_sends_the_difference(cluster: Cluster) -> None:
    await cluster.install(Gizmo)
    client, ns = cluster.client, cluster.namespace
    base = await client.create(gizmo(cluster, size=1, ports=[Port(port=1)]))
    changed = Gizmo.from_dict(base.to_dict())
    assert await client.patch_from(base, changed) is changed
    assert cluster.writes(name="g", subresource="") == []
    changed.spec.size, changed.status.phase = 2, "Ready"
    await client.patch(Gizmo, "g", ns, patch={"metadata": {"labels": {"foreign": "yes"}}})
    with pytest.raises(Conflict):
        await client.patch_from(base, changed, optimistic_lock=True)
    stored = await client.patch_from(base, changed)
    assert (stored.spec.size, stored.labels, stored.status.phase) == (2, {"foreign": "yes"}, None)
    stored = await client.patch_from(base, changed, subresource="status")
    assert (stored.spec.size, stored.status.phase) == (2, "Ready")


async def test_conflicts_are_retried_on_the_stored_object(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    await client.create(config_map(cluster, "a", data={"n": "0"}))

    async def add_one() -> Unstructured:
        found = await client.get(MAP, "a", ns)
        await asyncio.sleep(0)
        found["data"]["n"] = str(int(found["data"]["n"]) + 1)
        return await client.update(found)

    await asyncio.gather(*(retry_on_conflict(add_one, attempts=50) for _ in range(4)))
    assert (await client.get(MAP, "a", ns))["data"] == {"n": "4"}


# apply


async def test_apply_creates_owns_yields_and_takes_over(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    owner = await client.create(config_map(cluster, "owner"))
    document = config_map(cluster, "a", data={"a": "1", "b": "1"})
    made = await client.apply(document, owner=owner, field_manager="one")
    (reference,) = made.to_dict()["metadata"]["ownerReferences"]
    assert (reference["uid"], reference["controller"], reference["blockOwnerDeletion"]) == (owner.uid, True, True)
    again = await client.apply(document, owner=owner, field_manager="one")
    assert again.resource_version == made.resource_version
    with pytest.raises(FieldManagerConflict) as caught:
        await client.apply(config_map(cluster, "a", data={"a": "2"}), field_manager="two", force=False)
    assert "one" in str(caught.value)
    taken = await client.apply(config_map(cluster, "a", data={"a": "2"}), field_manager="two")
    assert taken["data"] == {"a": "2", "b": "1"}
    left = await client.apply(config_map(cluster, "a", data={"a": "2"}), owner=owner, field_manager="one")
    assert left["data"] == {"a": "2"}
    with pytest.raises(Conflict):
        await client.apply(config_map(cluster, "a"), resource_version=made.resource_version)
    assert (await client.apply(left)).name == "a"
    assert (await client.get(MAP, "a", ns)).uid == made.uid


async def test_apply_of_the_status(cluster: Cluster) -> None:
    await cluster.install(Gizmo)
    client = cluster.client
    made = await client.create(gizmo(cluster))
    applied = {**made.to_dict(), "status": {"phase": "Ready"}}
    del applied["spec"]
    assert (await client.apply(applied, subresource="status"))["status"] == {"phase": "Ready"}


# ensure


@pytest.mark.parametrize("method", ["create_or_update", "create_or_patch"])
async def test_an_object_in_the_desired_state_is_not_written_despite_server_defaults(
    cluster: Cluster, method: str
) -> None:
    await cluster.install(Gizmo)
    ensure: Any = getattr(cluster.client, method)
    document = {**gizmo(cluster).to_dict(), "spec": {}}

    def expose(obj: Unstructured) -> None:
        obj["spec"] = {**(obj.get("spec") or {}), "ports": [{"port": 80}]}

    stored, done = await ensure(document, expose)
    assert (done, stored["spec"]["ports"]) == ("created", [{"port": 80, "protocol": "TCP"}])
    for _ in range(3):
        assert (await ensure(document, expose))[1] == "unchanged"
    assert cluster.writes(name="g", subresource="") == []


async def test_a_service_whose_ports_are_reset_each_time_is_written_once(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": ns}}

    def expose(obj: Unstructured) -> None:
        obj["spec"] = {**(obj.get("spec") or {}), "ports": [{"port": 80}], "selector": {"app": "web"}}

    assert (await client.create_or_update(service, expose))[1] == "created"
    assert [(await client.create_or_update(service, expose))[1] for _ in range(3)] == ["unchanged"] * 3
    assert cluster.writes(name="s", subresource="") == []


# many objects


async def test_lists_with_pages_selectors_and_metadata_only(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    for number in range(7):
        await client.create(config_map(cluster, f"n{number}", labels={"odd": str(number % 2), "mine": "yes"}))
    everything = await client.list(MAP, ns, label_selector="mine", limit=3)
    assert [found.name for found in everything] == [f"n{number}" for number in range(7)]
    assert everything.resource_version
    pages = [page async for page in client.list_pages(MAP, ns, label_selector="mine", limit=3)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert {page.resource_version for page in pages} == {pages[0].resource_version}
    odd = await client.list(MAP, ns, label_selector={"odd": "1"}, field_selector="metadata.name!=n3")
    assert [found.name for found in odd] == ["n1", "n5"]
    parts = await client.list_metadata(MAP, ns, label_selector="odd in (1)", limit=2)
    assert [part.name for part in parts] == ["n1", "n3", "n5"]
    assert all(part.keys() == {"apiVersion", "kind", "metadata"} for part in parts)
    part = await client.get_metadata(MAP, "n1", ns)
    assert (str(part.gvk), part.keys()) == (MAP, {"apiVersion", "kind", "metadata"})
    await client.delete(part)
    with pytest.raises(NotFound):
        await client.get_metadata(MAP, "n1", ns)
    await client.delete_all_of(MAP, ns, label_selector="odd=1", propagation="Background", grace_period=0)
    assert [found.name for found in await client.list(MAP, ns, label_selector="mine")] == ["n0", "n2", "n4", "n6"]


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_an_owner_is_deleted_with_the_requested_propagation(cluster: Cluster, propagation: Any) -> None:
    client, ns = cluster.client, cluster.namespace
    owner = await client.create(config_map(cluster, "owner"))
    await client.apply(config_map(cluster, "owned"), owner=owner)
    left = await client.delete(owner, propagation=propagation)
    if cluster.kind == "real" and propagation != "Background":  # it runs no garbage collector
        assert left is not None
        finalizer = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}[propagation]
        assert left.to_dict()["metadata"]["finalizers"] == [finalizer]
        await client.patch(MAP, "owner", ns, patch={"metadata": {"finalizers": None}})
    await client.wait_gone(MAP, "owner", ns, timeout=10)


# watches


async def test_a_watch_resumes_where_another_one_ended(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    await client.create(config_map(cluster, "a"))
    version = (await client.list(MAP, ns)).resource_version

    async def one(version: str, **options: Any) -> Any:
        async with contextlib.aclosing(
            client.watch(MAP, ns, resource_version=version, timeout=20, **options)
        ) as events:
            async for event in events:
                if event.type != "BOOKMARK":
                    return event
        raise AssertionError("the watch ended")

    await client.patch(MAP, "a", ns, patch={"data": {"a": "2"}})
    await client.create(config_map(cluster, "b"))
    await client.delete(MAP, "a", ns)
    first = await one(version)
    second = await one(first.object.resource_version)
    third = await one(second.object.resource_version)
    assert [(event.type, event.object.name) for event in (first, second, third)] == [
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    assert int(third.object.resource_version) > int(second.object.resource_version)
    if isinstance(cluster.server, APIServer):  # the real one keeps its history for five minutes
        cluster.server.compact()
        with pytest.raises(Expired):
            await one("1")


async def test_a_watch_that_begins_with_a_list_marks_its_end(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    await client.create(config_map(cluster, "a"))
    seen = []
    async with contextlib.aclosing(client.watch(MAP, ns, send_initial_events=True, timeout=20)) as events:
        async for event in events:
            seen.append((event.type, event.object.name))
            if event.type == "BOOKMARK":
                break
    assert ("ADDED", "a") in seen
    assert event.object.to_dict()["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"


async def test_waiting_for_a_state_and_for_a_deletion(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    wait = asyncio.create_task(
        client.wait_for(MAP, "a", ns, until=lambda found: found["data"] == {"a": "3"}, timeout=30)
    )
    await client.create(config_map(cluster, "a"))
    for value in "23":
        await client.patch(MAP, "a", ns, patch={"data": {"a": value}})
    assert (await wait)["data"] == {"a": "3"}
    gone = asyncio.create_task(client.wait_gone(MAP, "a", ns, timeout=30))
    await client.delete(MAP, "a", ns)
    await gone


# subresources


async def test_scale_is_read_and_patched(cluster: Cluster) -> None:
    client, ns = cluster.client, cluster.namespace
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    kind = "apps/v1/Deployment"
    metadata = {"name": "d", "namespace": ns}
    await client.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    scale = await client.get_subresource(kind, "d", ns, subresource="scale")
    assert (scale.gvk.kind, scale["spec"]["replicas"]) == ("Scale", 1)
    two, version = {"spec": {"replicas": 2}}, scale["metadata"]["resourceVersion"]
    updated = await client.patch(kind, "d", ns, patch=two, subresource="scale", resource_version=version)
    assert updated["spec"]["replicas"] == 2
    with pytest.raises(Conflict):
        await client.patch(kind, "d", ns, patch=two, subresource="scale", resource_version=version)
    patched = await client.patch(kind, "d", ns, patch={"spec": {"replicas": 3}}, subresource="scale")
    assert (patched.gvk.kind, patched["spec"]["replicas"]) == ("Scale", 3)
    assert (await client.get(kind, "d", ns))["spec"]["replicas"] == 3


@pytest.mark.control_plane
async def test_eviction_token_and_approval_on_a_real_server(control_plane: Any) -> None:
    async with control_plane.client() as client:
        with contextlib.suppress(AlreadyExists):
            await client.create(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "t", "namespace": "default"}}
            )
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        made = await client.create_subresource("v1/ServiceAccount", "t", "default", subresource="token", body=request)
        assert made["status"]["token"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "evicted", "namespace": "default"}}
        await client.create({**pod, "spec": {"containers": [{"name": "c", "image": "i"}]}})
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": "default"}}
        await client.create_subresource("v1/Pod", "evicted", "default", subresource="eviction", body=body)
        await client.wait_gone("v1/Pod", "evicted", "default", timeout=10)


# kinds


async def test_a_kind_installed_while_the_client_is_open_is_found(cluster: Cluster) -> None:
    client = cluster.client
    group = f"late-{cluster.namespace}.reconciler.dev"
    for _ in range(12):
        with pytest.raises(NotServed):
            await client.list(f"{group}/v1/Latecomer")

    class Latecomer(Resource[Model], group=group, version="v1"):
        """Comes late."""

    await cluster.install(Latecomer)
    document = {
        "apiVersion": f"{group}/v1",
        "kind": "Latecomer",
        "metadata": {"name": "l", "namespace": cluster.namespace},
    }
    assert (await client.create({**document, "spec": {}})).name == "l"
