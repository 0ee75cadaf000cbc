"""The models shared by all kinds."""

from datetime import UTC, datetime

import pytest

from reconciler.objects import Condition, ConditionedStatus, Model, ObjectMeta, OwnerReference


class Part(Model):
    storage_class: str | None = None


def test_fields_are_snake_case_in_python_and_camel_case_on_the_wire() -> None:
    part = Part.model_validate({"storageClass": "fast"})
    assert part.storage_class == "fast"
    assert part == Part(storage_class="fast")
    assert part.model_dump(by_alias=True) == {"storageClass": "fast"}


def test_unknown_fields_are_kept() -> None:
    part = Part.model_validate({"storageClass": "fast", "newerField": {"a": 1}})
    assert part.model_dump(by_alias=True) == {"storageClass": "fast", "newerField": {"a": 1}}


def test_metadata_reads_what_the_server_writes() -> None:
    metadata = ObjectMeta.model_validate(
        {
            "name": "db1",
            "namespace": "prod",
            "uid": "u1",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u2", "controller": True}],
            "managedFields": [{"manager": "m"}],
        }
    )
    assert metadata.resource_version == "7"
    assert metadata.deletion_timestamp == datetime(2026, 1, 2, tzinfo=UTC)
    assert metadata.owner_references == [
        OwnerReference(api_version="v1", kind="Pod", name="p", uid="u2", controller=True)
    ]
    assert metadata.labels == {}


def test_metadata_reads_null_as_absent_since_generated_yaml_contains_nulls() -> None:
    metadata = ObjectMeta.model_validate({"name": "a", "labels": None, "creationTimestamp": None})
    assert metadata.labels == {}
    assert metadata.creation_timestamp is None


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], False),
        ([Condition(type="Ready", status="False")], False),
        ([Condition(type="Ready", status="Unknown")], False),
        ([Condition(type="Other", status="True")], False),
        ([Condition(type="Other", status="False"), Condition(type="Ready", status="True")], True),
    ],
)
def test_condition_is_true_only_if_it_exists_and_is_true(conditions: list[Condition], expected: bool) -> None:
    assert ConditionedStatus(conditions=conditions).condition_is_true("Ready") is expected


def test_find_condition() -> None:
    ready = Condition(type="Ready", status="True", reason="Up")
    status = ConditionedStatus(conditions=[ready])
    assert status.find_condition("Ready") is ready
    assert status.find_condition("Absent") is None
