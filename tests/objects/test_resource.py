"""Resource: the class line, construction, reading, and writing back without losing anything."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects import ConditionedStatus, InvalidObject, Model, ObjectMeta, Resource


class Backup(BaseModel):
    """A plain model: forgets what it does not know."""

    schedule: str
    keep: int = 7


class DatabaseSpec(Model):
    size: int = Field(ge=1, le=100)
    storage_class: str | None = None
    tags: list[str] = Field(default_factory=list)
    backups: list[Backup] = Field(default_factory=list)
    main_backup: Backup | None = None


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None
    attempts: int = 0


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1", short_names=("db",)):
    """A database."""


class Plain(Resource[DatabaseSpec], group="example.com", version="v1alpha1", scope="Cluster"):
    """A kind without a status of its own."""


def document(**parts: Any) -> dict[str, Any]:
    metadata = {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "5", "generation": 3}
    return {"apiVersion": "example.com/v1", "kind": "Database", "metadata": metadata, "spec": {"size": 3}, **parts}


class TestClassLine:
    def test_names_are_derived(self) -> None:
        assert Database.gvk == GroupVersionKind("example.com", "v1", "Database")
        assert Database.resource_type == ResourceType(Database.gvk, "databases", True, frozenset({"status"}))
        assert Plain.resource_type.namespaced is False
        assert Database.definition.singular == "database"
        assert Database.definition.description == "A database."

    @pytest.mark.parametrize(
        ("kind", "plural"),
        [
            ("Database", "databases"),
            ("Policy", "policies"),
            ("Gateway", "gateways"),
            ("Ingress", "ingresses"),
            ("Box", "boxes"),
            ("Batch", "batches"),
            ("Mesh", "meshes"),
            ("Quiz", "quizes"),
        ],
    )
    def test_plural_follows_english(self, kind: str, plural: str) -> None:
        class Any_(Resource[DatabaseSpec], group="example.com", version="v1", kind=kind):
            pass

        assert Any_.resource_type.plural == plural

    def test_names_can_be_given(self) -> None:
        class Mice(
            Resource[DatabaseSpec],
            group="example.com",
            version="v2beta1",
            kind="Mouse",
            plural="mice",
            singular="mouse",
        ):
            pass

        assert Mice.gvk.kind == "Mouse"
        assert Mice.resource_type.plural == "mice"
        assert Mice.definition.singular == "mouse"

    def test_an_unknown_keyword_is_rejected_with_the_known_ones(self) -> None:
        with pytest.raises(TypeError, match=r"X: unknown class keyword shortnames; known are group, .*short_names"):

            class X(Resource[DatabaseSpec], group="example.com", version="v1", shortnames=("x",)):  # type: ignore[arg-type]
                pass

    def test_group_and_version_are_required(self) -> None:
        with pytest.raises(TypeError, match="'group' and 'version'"):

            class X(Resource[DatabaseSpec]):  # type: ignore[call-arg]
                pass

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"group": "example"}, r"X: group='example' must be a domain .* like 'example.com'"),
            ({"group": "Example.com"}, "group='Example.com'"),
            ({"version": "1"}, "version='1' must be"),
            ({"kind": "database"}, "kind='database' must be a word in CamelCase"),
            ({"plural": "Databases"}, "plural='Databases' must be"),
            ({"scope": "namespaced"}, "scope='namespaced' must be 'Namespaced' or 'Cluster'"),
            ({"short_names": "db"}, r"short_names must be a sequence of strings: write \('db',\)"),
        ],
    )
    def test_names_that_the_api_rejects_are_rejected_at_the_class_line(
        self, keywords: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(TypeError, match=message):
            type(Database)("X", (Resource,), {}, **({"group": "example.com", "version": "v1"} | keywords))

    def test_a_status_with_required_fields_is_rejected(self) -> None:
        class Late(BaseModel):
            phase: str

        with pytest.raises(TypeError, match=r"X: Late\.phase needs a default, since a new object has no status"):

            class X(Resource[DatabaseSpec, Late], group="example.com", version="v1"):
                pass

    def test_a_spec_that_is_not_a_model_is_rejected(self) -> None:
        with pytest.raises(TypeError, match="X: spec must be a pydantic model"):

            class X(Resource[int], group="example.com", version="v1"):  # type: ignore[type-var]
                pass

    def test_status_defaults_to_conditions_and_bare_resource_takes_anything(self) -> None:
        class Bare(Resource, group="example.com", version="v1"):
            pass

        assert Plain.status_model is ConditionedStatus
        assert Bare.status_model is ConditionedStatus
        bare = Bare.from_dict({"metadata": {"name": "a"}, "spec": {"anything": [1]}})
        assert bare.spec.anything == [1]

    def test_a_subclass_of_a_kind_keeps_its_models(self) -> None:
        class Newer(Database, group="example.com", version="v2", kind="Database"):
            pass

        assert Newer.gvk.version == "v2"
        assert Newer.spec_model is DatabaseSpec
        assert Newer.status_model is DatabaseStatus
        assert Database.gvk.version == "v1"


class TestConstruction:
    def test_a_new_object_has_a_status_with_defaults_that_is_not_sent(self) -> None:
        db = Database(metadata=ObjectMeta(name="db1", namespace="prod"), spec=DatabaseSpec(size=3))
        assert db.status == DatabaseStatus()
        assert db.to_dict() == {
            "apiVersion": "example.com/v1",
            "kind": "Database",
            "metadata": {"name": "db1", "namespace": "prod"},
            "spec": {"size": 3, "tags": [], "backups": []},
        }

    def test_a_status_that_was_set_is_sent_without_its_defaults(self) -> None:
        db = Database(metadata=ObjectMeta(name="db1"), spec=DatabaseSpec(size=3), status=DatabaseStatus(phase="Ready"))
        assert db.to_dict()["status"] == {"phase": "Ready"}

    def test_names_of_the_object(self) -> None:
        db = Database.from_dict(document())
        assert (db.name, db.namespace, db.uid, db.resource_version, db.generation) == ("db1", "prod", "u1", "5", 3)
        assert db.key == Request("db1", "prod")
        assert repr(db) == "<Database prod/db1>"
        assert db.labels == {}
        assert db.annotations == {}

    def test_a_dict_for_a_model_is_rejected_with_a_hint_to_from_dict(self) -> None:
        with pytest.raises(TypeError, match=r"spec of Database must be a DatabaseSpec, not dict; Database\.from_dict"):
            Database(metadata=ObjectMeta(name="a"), spec={"size": 3})  # type: ignore[arg-type]

    def test_objects_are_equal_by_content(self) -> None:
        assert Database.from_dict(document()) == Database.from_dict(document())
        assert Database.from_dict(document()) != Database.from_dict(document(spec={"size": 4}))
        with pytest.raises(TypeError, match="unhashable"):
            hash(Database.from_dict(document()))


class TestReading:
    def test_an_absent_or_null_status_reads_as_defaults_and_stays_absent(self) -> None:
        db = Database.from_dict(document())
        assert db.status == DatabaseStatus()
        assert "status" not in db.to_dict()
        assert Database.from_dict(document(status=None)).status == DatabaseStatus()

    def test_an_error_names_the_object_and_the_field_and_not_the_value(self) -> None:
        with pytest.raises(InvalidObject) as caught:
            Database.from_dict(document(spec={"size": "hunter2", "backups": [{"keep": 1}]}, status={"attempts": []}))
        text = str(caught.value)
        assert text.startswith("Database prod/db1 does not fit its model: ")
        assert [path for path, _ in caught.value.problems] == [
            "spec.size",
            "spec.backups[0].schedule",
            "status.attempts",
        ]
        assert "hunter2" not in text

    def test_another_kind_is_rejected(self) -> None:
        with pytest.raises(
            InvalidObject, match=r"prod/db1 cannot be read as Database: .* not example\.com/v1/Database"
        ):
            Database.from_dict(document(kind="Other"))
        with pytest.raises(InvalidObject, match=r"example\.com/v2/Database, not example\.com/v1/Database"):
            Database.from_dict(document(apiVersion="example.com/v2"))

    def test_a_spec_that_is_not_an_object_is_rejected(self) -> None:
        with pytest.raises(InvalidObject, match="spec"):
            Database.from_dict(document(spec=[1]))


class TestWritingBack:
    def test_an_unchanged_object_is_its_document(self) -> None:
        original = document(
            spec={"size": 3, "unknown": {"a": None}, "mainBackup": {"schedule": "@daily", "unknown": 1}},
            status={"phase": None, "unknown": [1]},
            data={"top": "level"},
        )
        assert Database.from_dict(copy.deepcopy(original)).to_dict() == original

    def test_unknown_fields_survive_a_change_beside_them(self) -> None:
        db = Database.from_dict(
            document(
                spec={"size": 3, "unknown": 1, "mainBackup": {"schedule": "@daily", "unknown": 2}},
                status={"phase": "A", "unknown": 3},
            )
        )
        db.spec.size = 4
        assert db.spec.main_backup is not None
        db.spec.main_backup.keep = 9
        db.status.phase = "B"
        db.metadata.labels["a"] = "b"
        written = db.to_dict()
        assert written["spec"] == {
            "size": 4,
            "unknown": 1,
            "mainBackup": {"schedule": "@daily", "keep": 9, "unknown": 2},
        }
        assert written["status"] == {"phase": "B", "unknown": 3}
        assert written["metadata"]["labels"] == {"a": "b"}
        assert written["metadata"]["uid"] == "u1"

    def test_a_field_set_to_none_is_removed(self) -> None:
        db = Database.from_dict(document(spec={"size": 3, "storageClass": "fast"}, status={"phase": "A"}))
        db.spec.storage_class = None
        db.status.phase = None
        assert db.to_dict()["spec"] == {"size": 3}
        assert db.to_dict()["status"] == {}

    def test_a_spec_of_defaults_is_present_only_if_it_was_read(self) -> None:
        class AllDefaults(BaseModel):
            size: int = 1

        class Small(Resource[AllDefaults], group="example.com", version="v1"):
            pass

        absent = {"apiVersion": "example.com/v1", "kind": "Small", "metadata": {"name": "a"}}
        assert Small.from_dict(absent).to_dict() == absent
        assert Small.from_dict(absent | {"spec": {}}).to_dict() == absent | {"spec": {}}

    def test_an_emptied_list_is_written_and_an_absent_one_is_not(self) -> None:
        db = Database.from_dict(document(spec={"size": 3, "tags": ["a"]}))
        db.spec.tags.clear()
        assert db.to_dict()["spec"] == {"size": 3, "tags": []}

    def test_emptied_labels_are_removed(self) -> None:
        db = Database.from_dict(document(metadata={"name": "a", "labels": {"a": "b"}, "unknown": 1}))
        db.metadata.labels = {}
        assert db.to_dict()["metadata"] == {"name": "a", "unknown": 1}

    def test_a_value_set_back_to_its_default_is_written(self) -> None:
        db = Database.from_dict(document(status={"attempts": 3}))
        db.status = DatabaseStatus()
        assert db.to_dict()["status"] == {"attempts": 0}

    def test_unchanged_values_keep_the_servers_form(self) -> None:
        metadata = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00.000000Z"}
        db = Database.from_dict(document(metadata=metadata))
        db.metadata.annotations["x"] = "y"
        assert db.to_dict()["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00.000000Z"

    def test_unknown_fields_of_list_items_follow_their_item(self) -> None:
        items = [{"schedule": name, "unknown": name} for name in "abc"]
        db = Database.from_dict(document(spec={"size": 3, "backups": items}))
        del db.spec.backups[0]
        db.spec.backups.append(Backup(schedule="d"))
        db.spec.backups.reverse()
        assert db.to_dict()["spec"]["backups"] == [{"schedule": "d", "keep": 7}, items[2], items[1]]

    def test_a_changed_list_item_keeps_its_unknown_fields(self) -> None:
        items = [{"schedule": name, "unknown": name} for name in "ab"]
        db = Database.from_dict(document(spec={"size": 3, "backups": items}))
        db.spec.backups[1].keep = 1
        assert db.to_dict()["spec"]["backups"] == [items[0], {"schedule": "b", "unknown": "b", "keep": 1}]

    def test_the_result_is_a_private_copy(self) -> None:
        db = Database.from_dict(document(spec={"size": 3, "unknown": {"a": 1}}))
        db.to_dict()["spec"]["unknown"]["a"] = 2
        assert db.to_dict()["spec"]["unknown"] == {"a": 1}


unknown = st.dictionaries(
    st.sampled_from(["unknownA", "unknownB"]), st.integers() | st.lists(st.booleans()), max_size=2
)
schedules = st.sampled_from(["@daily", "@hourly"])


@st.composite
def backups_on_the_wire(draw: st.DrawFn) -> dict[str, Any]:
    keep = draw(st.none() | st.integers(0, 3))
    return {"schedule": draw(schedules), **({"keep": keep} if keep is not None else {}), **draw(unknown)}


@st.composite
def specs_on_the_wire(draw: st.DrawFn) -> dict[str, Any]:
    optional = {
        "storageClass": draw(st.none() | st.text(max_size=2)),
        "tags": draw(st.lists(st.text(max_size=2), max_size=3)),
        "backups": draw(st.lists(backups_on_the_wire(), max_size=3)),
        "mainBackup": draw(st.none() | backups_on_the_wire()),
    }
    present = draw(st.sets(st.sampled_from(sorted(optional))))
    spec = {"size": draw(st.integers(1, 100)), **{key: optional[key] for key in present}, **draw(unknown)}
    return {key: value for key, value in spec.items() if value is not None}


backups = st.builds(Backup, schedule=schedules, keep=st.integers(0, 3))
changes = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(1, 100),
        "storage_class": st.none() | st.text(max_size=2),
        "tags": st.lists(st.text(max_size=2), max_size=3),
        "backups": st.lists(backups, max_size=4),
        "main_backup": st.none() | backups,
    },
)


@settings(deadline=None)
@given(spec=specs_on_the_wire(), change=changes)
def test_changes_are_read_back_and_unknown_fields_survive(spec: dict[str, Any], change: dict[str, Any]) -> None:
    db = Database.from_dict(document(spec=spec))
    for field, value in change.items():
        setattr(db.spec, field, value)
    written = db.to_dict()
    assert Database.from_dict(written).spec == db.spec
    for key, value in spec.items():
        if key.startswith("unknown"):
            assert written["spec"][key] == value
    if "mainBackup" in spec and written["spec"].get("mainBackup"):
        assert {k: v for k, v in spec["mainBackup"].items() if k.startswith("unknown")}.items() <= written["spec"][
            "mainBackup"
        ].items()


@settings(deadline=None)
@given(spec=specs_on_the_wire())
def test_reading_and_writing_is_the_identity(spec: dict[str, Any]) -> None:
    original = document(spec=spec)
    assert Database.from_dict(copy.deepcopy(original)).to_dict() == original


@pytest.mark.parametrize("read", [Database.from_dict, Database.from_valid], ids=["read", "read when used"])
def test_a_copy_is_independent_and_keeps_what_the_models_do_not_know(read: Any) -> None:
    document = Database(metadata=ObjectMeta(name="db1"), spec=DatabaseSpec(size=3, tags=["a"])).to_dict()
    document["spec"]["unknown"] = 1
    original = read(document)
    changed = original.copy()
    assert type(changed) is Database
    changed.spec.size = 5
    changed.spec.tags.append("b")
    assert original.to_dict() == document
    assert changed.to_dict()["spec"] == document["spec"] | {"size": 5, "tags": ["a", "b"]}
