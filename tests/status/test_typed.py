"""Typed kinds: names are checked and translated when they are recorded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from reconciler.meta import PathError
from reconciler.objects import Condition, ConditionedStatus, Model, ObjectMeta, Resource, Unstructured
from reconciler.status import StatusBatcher, StatusError
from reconciler.status.errors import UnknownStatusField
from tests.status.scripted import ScriptedServer


class Storage(Model):
    bound_to: str | None = None
    free: dict[str, Any] = {}


class DatabaseSpec(Model):
    size: int


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None
    total_attempts: int = 0
    storage: Storage | None = None
    attempts: list[dict[str, Any]] = []


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A database."""


class PlainStatus(BaseModel):
    phase: str = ""


class Plain(Resource[DatabaseSpec, PlainStatus], group="example.com", version="v1", kind="Database"):
    """With a plain model."""


class OpenStatus(BaseModel):
    model_config = ConfigDict(extra="allow")
    phase: str = ""


class Open(Resource[DatabaseSpec, OpenStatus], group="example.com", version="v1", kind="Database"):
    """With a model that accepts every field."""


def opened(server: ScriptedServer, kind: Any = Database) -> StatusBatcher:
    return StatusBatcher(server.blocking_writer(), kind.from_dict(server.document()))


def test_a_model_sets_the_fields_that_were_set_in_it(server):
    server.status = {"totalAttempts": 3, "kept": 1}
    with opened(server) as status:
        status.set(DatabaseStatus(phase="Ready", storage=Storage(bound_to="pv1")))
    assert server.status == {"totalAttempts": 3, "kept": 1, "phase": "Ready", "storage": {"boundTo": "pv1"}}


def test_keywords_are_translated_to_wire_names(server):
    with opened(server) as status:
        status.set(total_attempts=2, phase="Ready")
        status.increment("total_attempts")
        status.increment("totalAttempts")
        status.set("storage.bound_to", "pv1")
        status.merge(storage={"free": {"any": 1}})
        status.set("storage.free.whatEver", 1)
    assert server.status == {
        "totalAttempts": 4,
        "phase": "Ready",
        "storage": {"boundTo": "pv1", "free": {"any": 1, "whatEver": 1}},
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.set(fase="Ready"),
        lambda s: s.set("fase", "Ready"),
        lambda s: s.set("storage.bound", "x"),
        lambda s: s.set({"fase": 1}),
        lambda s: s.merge(fase=1),
        lambda s: s.merge("storage.bound", {"x": 1}),
        lambda s: s.append("deliveryAttempts", 1),
        lambda s: s.upsert("deliveryAttempts", {"id": 1}, key="id"),
        lambda s: s.increment("total"),
        lambda s: s.remove("fase"),
    ],
)
def test_an_unknown_field_is_refused_at_the_call(server, call):
    with opened(server) as status:
        with pytest.raises(
            UnknownStatusField, match=r"has no status field '.*DatabaseStatus has|Storage has"
        ) as caught:
            call(status)
        assert isinstance(caught.value, StatusError)
        assert status.current == {}
    assert server.writes == []


def test_the_token_is_a_field_like_any_other():
    server = ScriptedServer()
    with pytest.raises(UnknownStatusField):
        StatusBatcher(server.blocking_writer(), Database.from_dict(server.document()), token="lastWrite")


def test_fields_that_every_generated_schema_has_are_known_to_plain_models_too(server):
    with opened(server, Plain) as status:
        status.set(phase="Ready", observed_generation=1)
        status.set_condition("Ready", True, reason="Done")
        with pytest.raises(UnknownStatusField):
            status.set(other=1)
    assert server.status.keys() == {"phase", "observedGeneration", "conditions"}


def test_a_plain_model_that_allows_extra_fields_accepts_every_name(server):
    with opened(server, Open) as status:
        status.set(phase="Ready", other_thing=1)
    assert server.status == {"phase": "Ready", "other_thing": 1}


def test_a_class_with_a_name_is_typed_as_well(server):
    with StatusBatcher(server.blocking_writer(), Database, name="db1", namespace="prod") as status:
        with pytest.raises(UnknownStatusField):
            status.set(fase=1)
        status.set(total_attempts=1)
    assert server.status == {"totalAttempts": 1}
    assert isinstance(status.object, Database)


def test_the_object_has_the_form_that_was_given(server):
    typed = Database.from_dict(server.document())
    with StatusBatcher(server.blocking_writer(), typed) as status:
        assert status.object is typed
        status.set(phase="Ready")
    assert isinstance(status.object, Database)
    assert status.object.status.phase == "Ready"
    loose = Unstructured(server.document())
    with StatusBatcher(server.blocking_writer(), loose) as status:
        status.set(phase="Gone")
    assert isinstance(status.object, Unstructured)
    assert status.object["status"]["phase"] == "Gone"


def test_later_changes_to_a_typed_object_are_not_taken_for_what_was_read(server):
    server.status = {"phase": "New", "unknownToTheModel": 1}
    obj = Database.from_dict(server.document())
    obj.status.phase = "Ready"
    with StatusBatcher(server.blocking_writer(), obj) as status:
        assert status.current == {"phase": "New", "unknownToTheModel": 1}
        status.set(obj.status)
    assert server.status == {"phase": "Ready", "unknownToTheModel": 1}
    assert server.writes[0][0]["status"] == {"phase": "Ready"}


def test_an_object_that_was_never_stored_is_read_first(server):
    obj = Database(metadata=ObjectMeta(name="db1", namespace="prod"), spec=DatabaseSpec(size=1))
    with StatusBatcher(server.blocking_writer(), obj) as status:
        status.set(phase="Ready")
    assert (server.reads, server.status) == (1, {"phase": "Ready"})


def test_a_path_is_still_checked_as_a_path(server):
    with opened(server) as status, pytest.raises(PathError):
        status.set((), 1)


def test_a_model_of_another_kind_is_checked(server):
    class Other(Model):
        fase: str = ""

    with opened(server) as status, pytest.raises(UnknownStatusField):
        status.set(Other(fase="Ready"))


class LooseCondition(Condition):
    """A condition of another project's kind."""

    severity: str = ""


class LooseStatus(Model):
    conditions: list[LooseCondition] = []


class Loose(Resource[DatabaseSpec, LooseStatus], group="example.com", version="v1", kind="Database"):
    """A kind whose conditions are not metav1.Conditions."""


class Claim(Resource[DatabaseSpec, ConditionedStatus], group="resource.k8s.io", version="v1"):
    """A built-in kind."""


@pytest.mark.parametrize("kind", [Loose, Claim, Unstructured])
def test_condition_of_a_kind_with_other_conditions_is_left_to_the_server(server, kind):
    writer = server.blocking_writer()
    if kind is not Unstructured:
        writer.gvk = kind.gvk
    document = {**server.document(), "apiVersion": writer.gvk.api_version, "kind": writer.gvk.kind}
    obj = Unstructured(document) if kind is Unstructured else kind.from_dict(document)
    with StatusBatcher(writer, obj) as status:
        status.set_condition("is ready", True, reason="not ready!", message="m" * 40000)
    assert server.status["conditions"][0]["reason"] == "not ready!"


@pytest.mark.parametrize("kind", [Database, Plain, Open])
def test_condition_of_a_kind_with_the_generated_definition_is_checked(server, kind):
    with opened(server, kind) as status, pytest.raises(ValueError, match="not 'not ready!'"):
        status.set_condition("Ready", True, reason="not ready!")
