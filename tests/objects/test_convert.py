"""The forms of kinds and objects that callers may pass."""

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import kubernetes.client
import kubernetes_asyncio.client
import pytest
from pydantic import BaseModel

from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import InvalidObject, ObjectMeta, Resource, Unstructured
from reconciler.objects.kinds import from_document, gvk_from, resource_type_from, to_document


class ThingSpec(BaseModel):
    size: int = 1


class Thing(Resource[ThingSpec], group="example.com", version="v1"):
    pass


DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")


def test_a_kind_is_a_string_a_gvk_or_a_class() -> None:
    assert gvk_from("apps/v1/Deployment") == DEPLOYMENT
    assert gvk_from(DEPLOYMENT) == DEPLOYMENT
    assert gvk_from(Thing) == GroupVersionKind("example.com", "v1", "Thing")


@pytest.mark.parametrize("kind", [Resource, int, 3, None, ThingSpec, {"kind": "Thing"}, ["v1/Pod"]])
def test_anything_else_is_not_a_kind(kind: Any) -> None:
    with pytest.raises(TypeError, match="is not a valid kind: pass 'group/version/Kind'"):
        gvk_from(kind)


def test_only_a_class_defines_how_it_is_served() -> None:
    assert resource_type_from(Thing) is Thing.resource_type
    assert resource_type_from("apps/v1/Deployment") is None
    assert resource_type_from(DEPLOYMENT) is None


def test_from_document_returns_an_instance_of_a_class_and_adds_the_kind() -> None:
    thing = from_document(Thing, {"metadata": {"name": "a"}, "spec": {"size": 2}})
    assert isinstance(thing, Thing)
    assert thing.spec.size == 2
    assert to_document(thing)["kind"] == "Thing"
    with pytest.raises(InvalidObject, match=r"Thing a does not fit its model: spec\.size"):
        from_document(Thing, {"metadata": {"name": "a"}, "spec": {"size": "x"}})


def test_from_document_wraps_other_objects_and_adds_the_kind() -> None:
    obj = from_document("v1/ConfigMap", {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert obj.gvk == GroupVersionKind("", "v1", "ConfigMap")
    assert obj["data"] == {"k": "v"}


def test_to_document_of_each_form() -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert to_document(document) is document
    assert to_document(MappingProxyType(document)) == document
    assert to_document(Unstructured(document)) == document
    thing = Thing(metadata=ObjectMeta(name="a"), spec=ThingSpec())
    assert to_document(thing) == thing.to_dict()
    with pytest.raises(TypeError, match="ThingSpec is not a Kubernetes object"):
        to_document(ThingSpec())


@pytest.mark.parametrize("library", [kubernetes.client, kubernetes_asyncio.client])
def test_models_of_the_official_clients_give_wire_names(library: Any) -> None:
    lease = library.V1Lease(
        api_version="coordination.k8s.io/v1",
        kind="Lease",
        metadata=library.V1ObjectMeta(name="a", resource_version="3", labels={"keepThis_as_is": "x"}),
        spec=library.V1LeaseSpec(holder_identity="me", renew_time=datetime(2026, 1, 1, tzinfo=UTC)),
    )
    assert to_document(lease) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a", "resourceVersion": "3", "labels": {"keepThis_as_is": "x"}},
        "spec": {"holderIdentity": "me", "renewTime": "2026-01-01T00:00:00.000000Z"},
    }


class TestUnstructured:
    document: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "prod",
            "uid": "u1",
            "resourceVersion": "7",
            "generation": 2,
            "labels": {"app": "web"},
            "annotations": {"a": "b"},
        },
        "spec": {"replicas": 1},
    }

    def test_common_metadata_has_properties(self) -> None:
        obj = Unstructured(self.document)
        assert obj.gvk == DEPLOYMENT
        assert (obj.name, obj.namespace, obj.uid, obj.resource_version) == ("web", "prod", "u1", "7")
        assert (obj.generation, obj.labels, obj.annotations) == (2, {"app": "web"}, {"a": "b"})
        assert obj.key == Request("web", "prod")
        assert repr(obj) == "<Deployment prod/web>"

    def test_the_properties_of_an_empty_object_are_empty(self) -> None:
        obj = Unstructured({})
        assert (obj.name, obj.namespace, obj.uid, obj.resource_version) == ("", None, "", "")
        assert (obj.generation, obj.labels, obj.annotations) == (None, {}, {})

    def test_it_reads_and_writes_its_document(self) -> None:
        obj = Unstructured({"spec": {"replicas": 1}})
        obj["spec"]["replicas"] = 2
        obj["kind"] = "Deployment"
        assert obj.to_dict() == {"spec": {"replicas": 2}, "kind": "Deployment"}
        del obj["kind"]
        assert list(obj) == ["spec"]
        assert len(obj) == 1
        assert "kind" not in obj

    def test_to_dict_is_a_private_copy(self) -> None:
        obj = Unstructured({"spec": {"replicas": 1}})
        obj.to_dict()["spec"]["replicas"] = 5
        assert obj["spec"]["replicas"] == 1
