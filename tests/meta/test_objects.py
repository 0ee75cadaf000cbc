"""References, owners, finalizers, paths, times and versions of plain objects."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.meta import (
    AlreadyOwned,
    GroupVersionKind,
    PathError,
    Request,
    owner_reference,
    request_of,
    set_controller_reference,
)
from reconciler.meta.documents import (
    delete_path,
    format_micro_time,
    format_path,
    format_time,
    get_path,
    is_newer,
    parse_path,
    parse_time,
    parse_version,
    set_path,
)
from reconciler.meta.metadata import (
    ResourceType,
    add_finalizer,
    controller_of,
    gvk_of,
    has_finalizer,
    name_of,
    namespace_of,
    remove_finalizer,
    uid_of,
    version_of,
)
from reconciler.objects import Model, Resource

DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
CONFIG_MAP = GroupVersionKind("", "v1", "ConfigMap")


def owner(name: str = "db1", namespace: str | None = "prod", version: str = "v1", uid: str = "u1") -> dict[str, Any]:
    metadata = {"name": name, "uid": uid, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": f"example.com/{version}", "kind": "Database", "metadata": metadata}


def dependent(namespace: str | None = "prod", **metadata: Any) -> dict[str, Any]:
    inner = {"name": "dep", **({"namespace": namespace} if namespace else {}), **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": inner}


class Database(Resource[Model], group="example.com", version="v1"):
    """A database."""


class TestReferences:
    @pytest.mark.parametrize(("text", "gvk"), [("apps/v1/Deployment", DEPLOYMENT), ("v1/ConfigMap", CONFIG_MAP)])
    def test_a_kind_is_parsed_and_printed_the_same(self, text: str, gvk: GroupVersionKind) -> None:
        assert GroupVersionKind.parse(text) == gvk
        assert str(gvk) == text

    @pytest.mark.parametrize(
        "text", ["", "ConfigMap", "a/b/c/d", "/v1/ConfigMap", "v1/", "apps//Deployment", "apps/Deployment"]
    )
    def test_another_form_is_rejected_with_the_two_valid_ones(self, text: str) -> None:
        with pytest.raises(ValueError, match="'group/version/Kind', or 'v1/Kind' for the core group"):
            GroupVersionKind.parse(text)

    def test_the_kind_of_an_object(self) -> None:
        assert gvk_of({"apiVersion": "apps/v1", "kind": "Deployment"}) == DEPLOYMENT
        assert gvk_of({"apiVersion": "v1", "kind": "ConfigMap"}) == CONFIG_MAP
        assert DEPLOYMENT.api_version == "apps/v1"
        assert CONFIG_MAP.api_version == "v1"
        with pytest.raises(ValueError, match="'a' has no apiVersion or no kind"):
            gvk_of({"kind": "ConfigMap", "metadata": {"name": "a"}})

    def test_names_of_an_object_and_of_one_that_lacks_them(self) -> None:
        obj = {"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"}}
        assert (name_of(obj), namespace_of(obj), uid_of(obj), version_of(obj)) == ("a", "n", "u", "7")
        assert request_of(obj) == Request("a", "n")
        for empty in ({}, {"metadata": None}, {"metadata": {"name": None, "namespace": ""}}):
            assert (name_of(empty), namespace_of(empty), uid_of(empty), version_of(empty)) == ("", None, "", "")

    def test_a_request_prints_as_in_kubectl(self) -> None:
        assert str(Request("a", "n")) == "n/a"
        assert str(Request("a")) == "a"

    @pytest.mark.parametrize(
        ("gvk", "namespaced", "arguments", "path"),
        [
            (DEPLOYMENT, True, {}, "/apis/apps/v1/deployments"),
            (DEPLOYMENT, True, {"namespace": "n"}, "/apis/apps/v1/namespaces/n/deployments"),
            (DEPLOYMENT, True, {"namespace": "n", "name": "a"}, "/apis/apps/v1/namespaces/n/deployments/a"),
            (
                DEPLOYMENT,
                True,
                {"namespace": "n", "name": "a", "subresource": "status"},
                "/apis/apps/v1/namespaces/n/deployments/a/status",
            ),
            (GroupVersionKind("", "v1", "Deployment"), False, {"name": "a"}, "/api/v1/deployments/a"),
            (DEPLOYMENT, False, {"name": "a", "namespace": "n"}, "/apis/apps/v1/deployments/a"),
        ],
    )
    def test_paths(self, gvk: GroupVersionKind, namespaced: bool, arguments: dict[str, str], path: str) -> None:
        assert ResourceType(gvk, "deployments", namespaced).path(**arguments) == path

    def test_an_object_of_a_namespaced_kind_needs_a_namespace(self) -> None:
        with pytest.raises(ValueError, match="Deployment 'a' needs a namespace"):
            ResourceType(DEPLOYMENT, "deployments", True).path("a")


class TestOwners:
    def test_the_reference_of_a_controller(self) -> None:
        assert owner_reference(owner()) == {
            "apiVersion": "example.com/v1",
            "kind": "Database",
            "name": "db1",
            "uid": "u1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert "controller" not in owner_reference(owner(), controller=False)

    def test_only_a_stored_object_can_own(self) -> None:
        with pytest.raises(ValueError, match="Database 'db1' has no uid"):
            owner_reference(owner(uid=""))

    def test_set_and_read_the_controller(self) -> None:
        obj = dependent()
        set_controller_reference(obj, owner())
        assert controller_of(obj) == owner_reference(owner())
        assert controller_of(dependent(ownerReferences=[{"uid": "x"}])) is None
        assert controller_of({}) is None

    def test_an_instance_of_a_resource_class_can_own(self) -> None:
        obj = dependent()
        set_controller_reference(obj, Database.from_dict(owner()))
        assert controller_of(obj) == owner_reference(owner()) == owner_reference(Database.from_dict(owner()))

    def test_setting_the_same_owner_again_changes_nothing(self) -> None:
        obj = dependent()
        set_controller_reference(obj, owner())
        set_controller_reference(obj, owner())
        assert obj["metadata"]["ownerReferences"] == [owner_reference(owner())]

    def test_the_same_owner_at_another_version_is_updated_in_place(self) -> None:
        obj = dependent()
        set_controller_reference(obj, owner(version="v1alpha1"))
        set_controller_reference(obj, owner(version="v1"))
        assert [r["apiVersion"] for r in obj["metadata"]["ownerReferences"]] == ["example.com/v1"]

    def test_other_owners_are_kept(self) -> None:
        other = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u9"}
        obj = dependent(ownerReferences=[other])
        set_controller_reference(obj, owner())
        assert obj["metadata"]["ownerReferences"] == [other, owner_reference(owner())]

    def test_an_object_has_one_controller(self) -> None:
        obj = dependent()
        set_controller_reference(obj, owner())
        with pytest.raises(AlreadyOwned, match="'dep' is already controlled by Database 'db1'"):
            set_controller_reference(obj, owner("db2", uid="u2"))
        assert controller_of(obj) == owner_reference(owner())

    def test_an_owner_is_in_the_same_namespace_or_cluster_scoped(self) -> None:
        with pytest.raises(ValueError, match="in namespace 'prod' cannot own 'dep' in 'test'"):
            set_controller_reference(dependent("test"), owner())
        with pytest.raises(ValueError, match="cannot own"):
            set_controller_reference(dependent(None), owner())
        obj = dependent()
        set_controller_reference(obj, owner(namespace=None))
        assert controller_of(obj) is not None


class TestFinalizers:
    def test_add_once(self) -> None:
        obj: dict[str, Any] = {}
        assert add_finalizer(obj, "a/b")
        assert not add_finalizer(obj, "a/b")
        assert obj == {"metadata": {"finalizers": ["a/b"]}}
        assert has_finalizer(obj, "a/b")
        assert not has_finalizer(obj, "a/c")

    def test_remove_every_copy_and_keep_the_others(self) -> None:
        obj = {"metadata": {"finalizers": ["x", "a/b", "y", "a/b"]}}
        assert remove_finalizer(obj, "a/b")
        assert not remove_finalizer(obj, "a/b")
        assert obj == {"metadata": {"finalizers": ["x", "y"]}}

    def test_null_finalizers_count_as_absent(self) -> None:
        obj: dict[str, Any] = {"metadata": {"finalizers": None}}
        assert not has_finalizer(obj, "a")
        assert not remove_finalizer(obj, "a")
        assert add_finalizer(obj, "a")


class TestPaths:
    def test_a_path_is_a_string_or_a_sequence(self) -> None:
        assert parse_path("a.b") == ("a", "b")
        assert parse_path(["a.b", "c"]) == ("a.b", "c")
        assert format_path(["a", "b.c", "d"]) == "a[b.c].d"

    @pytest.mark.parametrize("path", ["", ".", "a.", "a..b", [], ["a", ""]])
    def test_a_path_with_an_empty_key_is_rejected(self, path: Any) -> None:
        with pytest.raises(PathError, match="is not a valid path"):
            parse_path(path)

    def test_set_creates_the_objects_on_the_way(self) -> None:
        document: dict[str, Any] = {"n": None}
        set_path(document, ["n", "b", "c"], 1)
        assert document == {"n": {"b": {"c": 1}}}

    def test_set_rejects_a_path_through_a_scalar_or_a_list(self) -> None:
        for value in (1, "x", [1]):
            with pytest.raises(PathError, match=r"'a\.b\.c' leads through 'a\.b', which is not an object"):
                set_path({"a": {"b": value}}, ["a", "b", "c"], 1)

    def test_get_distinguishes_null_from_absent(self) -> None:
        assert get_path({"a": None}, ["a"], 1) is None
        assert get_path({}, ["a"], 1) == 1
        assert get_path({"a": [1]}, ["a", "b"], 1) == 1

    def test_delete(self) -> None:
        document: dict[str, Any] = {"a": {"b": 1}}
        assert delete_path(document, ["a", "b"])
        assert not delete_path(document, ["a", "b"])
        assert not delete_path(document, ["x", "y"])
        assert document == {"a": {}}
        assert delete_path(document, ["a"])

    @settings(deadline=None)
    @given(path=st.lists(st.sampled_from("ab"), min_size=1, max_size=4), value=st.integers())
    def test_a_value_that_was_set_exists_until_it_is_deleted(self, path: list[str], value: int) -> None:
        document: dict[str, Any] = {}
        set_path(document, path, value)
        assert get_path(document, path) == value
        assert delete_path(document, path)
        assert get_path(document, path, "absent") == "absent"


class TestTimes:
    def test_fractions_of_a_second_are_truncated_and_microseconds_kept(self) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))
        assert format_time(moment) == "2026-01-02T01:04:05Z"
        assert format_micro_time(moment) == "2026-01-02T01:04:05.999999Z"

    @pytest.mark.parametrize(
        "text", ["2026-01-02T01:04:05Z", "2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000000000Z"]
    )
    def test_every_form_that_a_server_writes_is_read(self, text: str) -> None:
        assert parse_time(text) == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)

    def test_a_time_without_offset_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="has no UTC offset"):
            parse_time("2026-01-02T01:04:05")

    @settings(deadline=None)
    @given(moment=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
    def test_a_formatted_time_is_parsed_back(self, moment: datetime) -> None:
        assert parse_time(format_micro_time(moment)) == moment
        assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


class TestVersions:
    def test_decimal_numbers_are_ints_and_the_rest_is_opaque(self) -> None:
        assert parse_version("12") == 12
        for text in ("", "abc", "-1", "1.0", "٣", "9" * 5000):
            assert parse_version(text) == text

    def test_numbers_are_ordered_and_opaque_versions_only_differ(self) -> None:
        assert is_newer(10, 9)
        assert not is_newer(9, 10)
        assert not is_newer(9, 9)
        assert is_newer("b", "a")
        assert is_newer("a", "b")
        assert not is_newer("a", "a")
        assert is_newer(1, "a")

    def test_none_comes_before_everything(self) -> None:
        assert is_newer(0, None)
        assert is_newer("", None)
