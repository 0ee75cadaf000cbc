"""The server behavior that the batcher relies on: on the embedded API server and (``--control-plane``) on a real
one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from reconciler.controller import ResourceReconciler, Result
from reconciler.manager import Manager
from reconciler.objects import ConditionedStatus, Model, Resource, schema_extra
from reconciler.status import StatusBatcher, StatusContested, StatusInvalid, StatusSubresourceMissing
from reconciler.testing.cluster import Cluster

OTHER = "other-manager"


class Spec(Model):
    size: int = 1


class Part(Model):
    id: str


class Status(ConditionedStatus):
    phase: str | None = None
    error: str | None = None
    total: int | None = None
    log: list[str] | None = None
    deep: dict[str, str] | None = None
    parts: list[Part] = Field(
        default_factory=list, json_schema_extra=schema_extra(list_type="map", list_map_keys=["id"])
    )


class Database(Resource[Spec, Status], group="status.example.com", version="v1"):
    """A database."""


KIND = "status.example.com/v1/Database"


@pytest.fixture
async def obj(cluster: Cluster) -> dict[str, Any]:
    await cluster.install(Database)
    return await made(cluster, KIND)


async def made(cluster: Cluster, kind: str, name: str = "db1") -> dict[str, Any]:
    api_version, _, bare = kind.rpartition("/")
    document = {
        "apiVersion": api_version,
        "kind": bare,
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {"size": 1},
    }
    return (await cluster.client.create(document)).to_dict()


async def fresh(cluster: Cluster) -> dict[str, Any]:
    return (await cluster.client.get(KIND, "db1", cluster.namespace)).to_dict()


async def foreign(cluster: Cluster, status: dict[str, Any]) -> None:
    await cluster.client.patch(KIND, "db1", cluster.namespace, patch={"status": status}, subresource="status")


async def foreign_apply(cluster: Cluster, status: dict[str, Any]) -> None:
    document = {
        "apiVersion": Database.gvk.api_version,
        "kind": "Database",
        "metadata": {"name": "db1", "namespace": cluster.namespace},
        "status": status,
    }
    await cluster.client.apply(document, field_manager=OTHER, subresource="status")


async def test_one_write_and_an_exact_answer(cluster, obj):
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="A", total=1, log=["x"])
        status.set_condition("Ready", True, reason="Done")
        computed = status.current
    assert cluster.writes(name="db1") == [200]
    assert status.object["status"] == computed
    assert status.object["metadata"]["generation"] == obj["metadata"]["generation"]
    async with StatusBatcher(cluster.client, status.object) as status:
        status.set(phase="A", total=1)
        status.set_condition("Ready", True, reason="Done")
    assert status.written is False
    assert cluster.writes(name="db1") == [200]


async def test_a_stale_version_is_refused_and_the_mutations_replayed(cluster, obj):
    await foreign(cluster, {"total": 5, "log": ["theirs"]})
    async with StatusBatcher(cluster.client, obj) as status:
        status.increment("total")
        status.append("log", "own")
    assert (await fresh(cluster))["status"] == {"total": 6, "log": ["theirs", "own"]}
    assert cluster.writes(name="db1") == [200, 409, 200]
    assert status.statistics().conflicts == 1


CONDITIONS = [
    # type, reason, message, what the error names; None where the server accepts it
    ("Ready", "Done", "", None),
    ("example.com/Ready-1_2.3", "A1_b,c:d", "one\n\ntwo", None),
    ("R" * 63, "r" * 1024, "m" * 32768, None),
    ("Ready", "not ready!", "", "reason of condition 'Ready' must be a word of 1 to 1024 letters"),
    ("Ready", "1st", "", "not '1st'"),
    ("Ready", "Done:", "", "not 'Done:'"),
    ("Ready", "Done\n", "", r"not 'Done\\n'"),
    ("Ready", "r" * 1025, "", "reason of condition 'Ready'"),
    ("Ready", "Done", "m" * 32769, "message of condition 'Ready' must be .* 32768 characters, not one of 32769"),
    ("is ready", "Done", "", "type of a condition must be a qualified name .*, not 'is ready'"),
    ("", "Done", "", "type of a condition"),
    ("t" * 317, "Done", "", "type of a condition"),
    ("a/b/c", "Done", "", "type of a condition"),
]


@pytest.mark.parametrize(("type", "reason", "message", "refused"), CONDITIONS)
async def test_condition_that_the_server_would_refuse_is_refused_where_it_is_set(
    cluster, obj, type: str, reason: str, message: str, refused: str | None
):
    untyped = StatusBatcher(cluster.client, obj)
    typed = StatusBatcher(cluster.client, Database.from_dict(obj))
    if refused is None:
        async with typed as status:
            status.set_condition(type, True, reason=reason, message=message)
        assert (await fresh(cluster))["status"]["conditions"][0]["reason"] == reason
        return
    async with typed as status:
        with pytest.raises(ValueError, match=refused):
            status.set_condition(type, True, reason=reason, message=message)
    with pytest.raises(StatusInvalid):  # without a class, only the server knows the definition
        async with untyped as status:
            status.set_condition(type, True, reason=reason, message=message)


# Strategy "update": the same by PUT.


async def test_an_update_is_one_put_and_leaves_other_fields(cluster, obj):
    await foreign(cluster, {"total": 5, "deep": {"a": "1", "b": "2"}, "error": "old", "parts": [{"id": "p"}]})
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="update") as status:
        status.set("deep.a", "3")
        status.set(phase="A", error=None)
        status.set_condition("Ready", True, reason="Done")
        computed = status.current
    stored = await fresh(cluster)
    assert stored["status"] == computed
    assert (stored["status"]["deep"], stored["status"]["total"]) == ({"a": "3", "b": "2"}, 5)
    assert "error" not in stored["status"]
    assert stored["spec"] == obj["spec"]
    assert stored["metadata"]["generation"] == obj["metadata"]["generation"]
    assert cluster.writes(name="db1") == [200, 200]
    async with StatusBatcher(cluster.client, status.object, strategy="update") as status:
        status.set(phase="A")
    assert status.written is False
    assert cluster.writes(name="db1") == [200, 200]


async def test_an_update_of_a_stale_version_is_refused_and_the_mutations_replayed(cluster, obj):
    await foreign(cluster, {"total": 5, "log": ["theirs"]})
    async with StatusBatcher(cluster.client, obj, strategy="update") as status:
        status.increment("total")
        status.append("log", "own")
    assert (await fresh(cluster))["status"] == {"total": 6, "log": ["theirs", "own"]}
    assert cluster.writes(name="db1") == [200, 409, 200]


async def test_an_update_never_writes_into_a_recreated_object(cluster, obj):
    await cluster.client.delete(KIND, "db1", cluster.namespace)
    await made(cluster, KIND)
    async with StatusBatcher(cluster.client, obj, strategy="update") as status:
        status.set(phase="A")
    assert status.statistics().dropped == 1
    assert "status" not in await fresh(cluster)


async def test_an_update_of_a_built_in_kind_leaves_its_metadata_alone(cluster):
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": cluster.namespace,
            "labels": {"app": "web"},
            "annotations": {"note": "kept"},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    }
    before = (await cluster.client.create(document)).to_dict()
    async with StatusBatcher(cluster.client, before, strategy="update") as status:
        status.set(replicas=1)
    after = (await cluster.client.get("apps/v1/Deployment", "web", cluster.namespace)).to_dict()
    assert after["status"]["replicas"] == 1
    assert after["spec"] == before["spec"]
    for kept in ("labels", "annotations", "uid", "generation"):
        assert after["metadata"][kept] == before["metadata"][kept]


def with_data(group: str) -> dict[str, Any]:
    """Return a CRD whose objects have a member beside spec and status."""
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    schema = {"type": "object", "properties": {"data": texts, "status": texts}}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


async def test_after_an_update_an_apply_still_removes_what_its_manager_owns(cluster):
    await cluster.install(with_data("update.example.com"))

    def configuration(**data: str) -> dict[str, Any]:
        metadata = {"name": "g", "namespace": cluster.namespace}
        return {"apiVersion": "update.example.com/v1", "kind": "Gadget", "metadata": metadata, "data": data}

    applied = await cluster.client.apply(configuration(a="1", b="2"), field_manager=OTHER)
    async with StatusBatcher(cluster.client, applied.to_dict(), strategy="update") as status:
        status.set(phase="A")
    applied = await cluster.client.apply(configuration(a="1"), field_manager=OTHER)
    assert applied.to_dict()["data"] == {"a": "1"}
    assert applied.to_dict()["status"] == {"phase": "A"}


async def test_an_update_of_a_kind_without_the_subresource_says_so(cluster):
    document = with_data("bare.example.com")
    del document["spec"]["versions"][0]["subresources"]
    await cluster.install(document)
    made_here = await cluster.client.create(
        {
            "apiVersion": "bare.example.com/v1",
            "kind": "Gadget",
            "metadata": {"name": "g", "namespace": cluster.namespace},
            "data": {"a": "1"},
        }
    )
    with pytest.raises(StatusSubresourceMissing, match="without the 'status' subresource"):
        async with StatusBatcher(cluster.client, made_here.to_dict(), strategy="update") as status:
            status.set(phase="A")


async def test_a_reconciler_may_send_its_status_by_update(cluster, obj):
    class Updating(ResourceReconciler[Database]):
        status_strategy = "update"
        runs = 0

        async def reconcile_object(self, obj: Database, status: StatusBatcher[Status]) -> Result | None:
            self.runs += 1
            status.set(total=self.runs)
            return Result(requeue_after=0.05) if self.runs < 3 else None

    reconciler = Updating()
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    manager.add_controller(reconciler)
    async with manager.running():
        await cluster.client.wait_for(
            Database, "db1", cluster.namespace, until=lambda db: db.status.total == 3, timeout=20
        )
    assert cluster.writes(name="db1") == [200, 200, 200]
    assert reconciler.runs == 3, "no write has triggered the controller"


async def test_another_managers_field_is_contested_and_an_own_field_is_not(cluster, obj):
    await foreign(cluster, {"phase": "Mine"})
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="Later")
    assert (await fresh(cluster))["status"]["phase"] == "Later"
    await foreign_apply(cluster, {"phase": "Theirs"})
    with pytest.raises(StatusContested):
        await write_phase(cluster, status.object)
    assert (await fresh(cluster))["status"]["phase"] == "Theirs"


async def write_phase(cluster: Cluster, document: Any) -> None:
    async with StatusBatcher(cluster.client, document) as status:
        status.set(phase="Again")


async def test_a_recreated_object_is_not_written(cluster, obj):
    await cluster.client.delete(KIND, "db1", cluster.namespace)
    await made(cluster, KIND)
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="A")
    assert status.statistics().dropped == 1
    assert not (await fresh(cluster)).get("status")


async def test_a_deleted_object_and_a_missing_subresource_have_the_same_answer_and_are_distinguished(cluster, obj):
    crd = Database.crd()
    crd["metadata"]["name"] = "plains.status.example.com"
    crd["spec"]["names"] = {"plural": "plains", "singular": "plain", "kind": "Plain", "listKind": "PlainList"}
    del crd["spec"]["versions"][0]["subresources"]
    await cluster.install(crd)
    plain = await made(cluster, "status.example.com/v1/Plain", "p1")
    with pytest.raises(StatusSubresourceMissing):
        await write_phase(cluster, plain)
    async with StatusBatcher(cluster.client, plain, subresource=None) as status:
        status.set(phase="A")
    assert status.object["status"] == {"phase": "A"}
    assert status.object["metadata"]["generation"] == plain["metadata"]["generation"] + 1
    await cluster.client.delete(KIND, "db1", cluster.namespace)
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="A")
    assert status.statistics().dropped == 1


async def test_unknown_fields_are_pruned_and_not_sent_again(cluster, obj, caplog):
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="A", extra=1)
    async with StatusBatcher(cluster.client, status.object) as again:
        again.set(phase="A", extra=1)
    assert (await fresh(cluster))["status"] == {"phase": "A"}
    assert cluster.writes(name="db1") == [200]
    assert "status.extra" in caplog.text
    assert "unknown field" in caplog.text


async def test_a_value_of_the_wrong_type_names_its_field(cluster, obj):
    with pytest.raises(StatusInvalid) as caught:
        await write_total(cluster, obj)
    assert caught.value.fields == ("status.total",)


async def write_total(cluster: Cluster, document: Any) -> None:
    async with StatusBatcher(cluster.client, document) as status:
        status.set(total="many")


async def test_nulls_in_list_items_are_not_a_difference(cluster, obj):
    async with StatusBatcher(cluster.client, obj) as status:
        status.set_condition("Ready", True, reason="Done")
        status.mutate(lambda s: s["conditions"][0].update(observedGeneration=None))
    async with StatusBatcher(cluster.client, status.object) as again:
        again.mutate(lambda s: s["conditions"][0].update(observedGeneration=None))
    assert cluster.writes(name="db1") == [200]


async def test_apply_keeps_own_fields_and_leaves_those_of_others(cluster, obj):
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="A", error="x", total=1)
        status.set("deep.mine", "1")
    theirs = {
        "type": "Theirs",
        "status": "True",
        "reason": "F",
        "message": "",
        "lastTransitionTime": "2020-01-01T00:00:00Z",
    }
    await foreign_apply(cluster, {"deep": {"theirs": "1"}, "conditions": [theirs]})
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.remove("error")
        status.increment("total")
        status.set_condition("Ready", True, reason="Done")
    assert status.statistics().attempts == 2, "the earlier patches are taken over first"
    async with StatusBatcher(cluster.client, status.object, strategy="apply") as status:
        status.set(phase="B")
    assert status.statistics().attempts == 1
    after = (await fresh(cluster))["status"]
    assert sorted(c["type"] for c in after.pop("conditions")) == ["Ready", "Theirs"]
    assert after == {"phase": "B", "total": 2, "deep": {"mine": "1", "theirs": "1"}}


async def test_apply_removes_its_own_item_and_its_own_field_of_a_shared_object(cluster, obj):
    await foreign_apply(cluster, {"deep": {"theirs": "1"}})
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.set("deep.mine", "1")
        status.set_condition("Ready", True, reason="Done")
        status.set_condition("Other", True, reason="Done")
    stripped = await fresh(cluster)
    del stripped["metadata"]["managedFields"]
    async with StatusBatcher(cluster.client, stripped, strategy="apply") as status:
        status.remove("deep.mine")
        status.mutate(lambda s: s.update(conditions=[c for c in s["conditions"] if c["type"] != "Other"]))
    after = (await fresh(cluster))["status"]
    assert [c["type"] for c in after["conditions"]] == ["Ready"]
    assert after["deep"] == {"theirs": "1"}


@pytest.mark.parametrize("below", [False, True])
async def test_apply_removes_the_last_field_of_the_status_or_of_a_nested_object(cluster, obj, below):
    async with StatusBatcher(cluster.client, obj, strategy="apply") as status:
        status.set("deep.mine", "1")
        if below:
            status.set(phase="A")
    async with StatusBatcher(cluster.client, status.object, strategy="apply") as status:
        status.remove("deep.mine")
    assert status.written is True
    assert (await fresh(cluster)).get("status") == ({"phase": "A"} if below else None)


async def test_apply_is_conditional_and_replayed(cluster, obj):
    async with StatusBatcher(cluster.client, obj, strategy="apply") as status:
        status.increment("total")
    stale = status.object
    await foreign_apply(cluster, {"deep": {"theirs": "1"}})
    async with StatusBatcher(cluster.client, stale, strategy="apply") as status:
        status.increment("total")
    assert (await fresh(cluster))["status"] == {"total": 2, "deep": {"theirs": "1"}}
    assert status.statistics().conflicts == 1


async def test_an_applied_list_that_became_empty_can_be_added_to_again(cluster, obj):
    """A list without owners is not mistaken for one that belongs to one manager as a whole."""
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.set(phase="A")
        status.upsert("parts", {"id": "a"}, key="id")
        status.remove("parts", item={"id": "a"})
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.upsert("parts", {"id": "b"}, key="id")
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.remove("parts", item={"id": "b"})
    async with StatusBatcher(cluster.client, await fresh(cluster), strategy="apply") as status:
        status.append("parts", {"id": "c"}, key="id")
    assert (await fresh(cluster))["status"]["parts"] == [{"id": "c"}]
