"""Writes of objects: versions, generation and status."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest
from tests.apiserver.api import CONFIG_MAPS, DEFINITIONS, JSON_PATCH, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time


async def test_a_new_object_gets_uid_version_generation_and_timestamp(api: Api) -> None:
    made = await api.post(WIDGETS, widget("a", meta={"uid": "mine", "generation": 9, "selfLink": "x"}))
    metadata = made["metadata"]
    assert made.status == 201
    assert metadata["uid"] != "mine"
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert "selfLink" not in metadata
    assert int(made.version) > 0


async def test_versions_are_one_counter_for_all_kinds(api: Api) -> None:
    (one,) = await api.make("a")
    two = await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}})
    assert int(two.version) == int(one.version) + 1


async def test_status_is_ignored_on_create(api: Api) -> None:
    made = await api.post(WIDGETS, {**widget("a"), "status": {"phase": "Ready"}})
    assert "status" not in made.body


async def test_a_name_is_taken_once(api: Api) -> None:
    await api.make("a")
    again = await api.post(WIDGETS, widget("a"))
    assert (again.status, again["reason"]) == (409, "AlreadyExists")
    assert again["message"] == 'widgets.example.com "a" already exists'


async def test_generated_names_are_reproducible_and_differ() -> None:
    async def names() -> list[str]:
        async with APIServer(seed=7) as server:
            api = Api(server)
            body = {"metadata": {"generateName": "job-"}}
            return [(await api.post(CONFIG_MAPS, body))["metadata"]["name"] for _ in range(3)]

    first, second = await names(), await names()
    assert first == second
    assert len(set(first)) == 3
    assert all(len(name) == 9 and name.startswith("job-") for name in first)


async def test_a_stale_version_conflicts_in_the_real_servers_words(api: Api) -> None:
    (made,) = await api.make("a")
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 2}})
    for reply in (
        await api.put(f"{WIDGETS}/a", widget("a", meta={"resourceVersion": made.version}, size=3)),
        await api.patch(f"{WIDGETS}/a", {"metadata": {"resourceVersion": made.version}, "spec": {"size": 3}}),
        await api.patch(f"{WIDGETS}/a/status", {"metadata": {"resourceVersion": made.version}, "status": {"n": 1}}),
    ):
        assert (reply.status, reply["reason"]) == (409, "Conflict")
        assert reply["message"] == (
            'Operation cannot be fulfilled on widgets.example.com "a": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
        assert reply["details"] == {"name": "a", "group": "example.com", "kind": "widgets"}


async def test_a_stale_version_conflicts_even_if_nothing_would_change(api: Api) -> None:
    (made,) = await api.make("a")
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}})
    same = await api.patch(f"{WIDGETS}/a/status", {"metadata": {"resourceVersion": made.version}, "status": {"n": 1}})
    assert same.status == 409


async def test_a_custom_object_is_not_replaced_without_a_version(api: Api) -> None:
    await api.make("a")
    reply = await api.put(f"{WIDGETS}/a", widget("a", size=2))
    assert reply.status == 422
    assert reply["details"]["kind"] == "widgets"
    assert reply.causes == [("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")]


async def test_a_config_map_is_replaced_without_a_version(api: Api) -> None:
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    reply = await api.put(f"{CONFIG_MAPS}/a", {"metadata": {"name": "a"}, "data": {"y": "2"}})
    assert (reply.status, reply["data"]) == (200, {"y": "2"})


@pytest.mark.parametrize("version", ["", None])
async def test_an_empty_version_in_a_patch_is_invalid(api: Api, version: str | None) -> None:
    await api.make("a")
    reply = await api.patch(f"{WIDGETS}/a", {"metadata": {"resourceVersion": version}})
    assert reply.status == 422


async def test_an_invalid_version_is_a_server_error(api: Api) -> None:
    await api.make("a")
    reply = await api.patch(f"{WIDGETS}/a", {"metadata": {"resourceVersion": "zz"}})
    assert reply.status == 500
    assert reply["message"] == 'strconv.ParseUint: parsing "zz": invalid syntax'
    assert "reason" not in reply.body


async def test_a_wrong_uid_is_answered_differently_by_every_verb(api: Api) -> None:
    (made,) = await api.make("a")
    status = await api.patch(f"{WIDGETS}/a/status", {"metadata": {"uid": "x"}, "status": {"phase": "P"}})
    assert (status.status, status["status"]) == (200, {"phase": "P"})
    main = await api.patch(f"{WIDGETS}/a", {"metadata": {"uid": "x"}})
    assert main.status == 422
    assert set(main.causes) == {("metadata.uid", 'Invalid value: "x": field is immutable')}
    put = await api.put(f"{WIDGETS}/a", widget("a", meta={"uid": "x", "resourceVersion": made.version}))
    assert put.status == 409
    assert "Precondition failed: UID in precondition: x, UID in object meta:" in put["message"]


async def test_a_write_without_change_keeps_the_version_and_makes_no_event(api: Api) -> None:
    (made,) = await api.make("a")
    stream = await api.watch(resourceVersion=made.version)
    body = (await api.get(f"{WIDGETS}/a")).body
    for reply in (
        await api.patch(f"{WIDGETS}/a", {"spec": {"size": 1}}),
        await api.patch(f"{WIDGETS}/a", {}),
        await api.put(f"{WIDGETS}/a", body),
        await api.patch(f"{WIDGETS}/a/status", {}),
    ):
        assert (reply.status, reply.version) == (200, made.version)
    assert await stream.quiet()


async def test_true_is_not_one(api: Api) -> None:
    await api.post(WIDGETS, widget("a", any={"x": 1}))
    changed = await api.patch(f"{WIDGETS}/a", {"spec": {"any": {"x": True}}})
    assert changed["spec"]["any"]["x"] is True
    assert changed["metadata"]["generation"] == 2


async def test_a_whole_number_with_a_point_is_stored_as_go_stores_it(api: Api) -> None:
    made = await api.post(
        WIDGETS, b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":2.0}}'
    )
    assert made["spec"] == {"size": 2}
    assert (await api.patch(f"{WIDGETS}/a", {"spec": {"size": 2}})).version == made.version


async def test_generation_counts_changes_of_the_desired_state(api: Api) -> None:
    await api.make("a")

    async def after(path: str, body: object) -> int:
        return int((await api.patch(path, body))["metadata"]["generation"])

    assert await after(f"{WIDGETS}/a", {"spec": {"size": 2}}) == 2
    assert await after(f"{WIDGETS}/a", {"metadata": {"labels": {"a": "b"}}}) == 2
    assert await after(f"{WIDGETS}/a/status", {"status": {"n": 1}}) == 2
    assert await after(f"{WIDGETS}/a", {"spec": {"size": 3}}) == 3


async def test_without_the_status_subresource_status_is_a_field_like_any_other(server: APIServer, api: Api) -> None:
    await server.apply(definition("Plain", subresources={}))
    path = "/apis/example.com/v1/namespaces/default/plains"
    await api.post(path, {**widget("a", kind="Plain"), "status": {"n": 1}})
    changed = await api.patch(f"{path}/a", {"status": {"n": 2}})
    assert (changed["status"], changed["metadata"]["generation"]) == ({"n": 2}, 2)
    refused = await api.patch(f"{path}/a/status", {"status": {"n": 3}})
    missing = await api.patch(f"{path}/zz/status", {"status": {"n": 3}})
    assert refused.status == missing.status == 404
    assert refused["message"] == 'plains.example.com "a" not found'


async def test_status_and_the_rest_are_written_separately(api: Api) -> None:
    await api.make("a")
    await api.patch(
        f"{WIDGETS}/a/status", {"status": {"phase": "P"}, "spec": {"size": 9}, "metadata": {"labels": {"x": "y"}}}
    )
    found = await api.patch(f"{WIDGETS}/a", {"status": {"phase": "Q"}, "metadata": {"annotations": {"x": "y"}}})
    assert found["status"] == {"phase": "P"}
    assert found["spec"] == {"size": 1}
    assert "labels" not in found["metadata"]
    assert found["metadata"]["annotations"] == {"x": "y"}


async def test_a_put_to_status_writes_only_the_status(api: Api) -> None:
    (made,) = await api.make("a")
    body = {**widget("a", meta={"resourceVersion": made.version, "labels": {"x": "y"}}, size=9), "status": {"n": 3}}
    reply = await api.put(f"{WIDGETS}/a/status", body)
    assert (reply["spec"], reply["status"]) == ({"size": 1}, {"n": 3})
    assert "labels" not in reply["metadata"]
    assert (await api.get(f"{WIDGETS}/a/status"))["status"] == {"n": 3}


async def test_fields_of_the_server_cannot_be_changed(api: Api) -> None:
    (made,) = await api.make("a")
    patch = {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z", "generation": 77, "deletionTimestamp": None}}
    reply = await api.patch(f"{WIDGETS}/a", patch)
    assert reply.body == made.body
    dying = await api.patch(f"{WIDGETS}/a", {"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}})
    assert dying.status == 422


async def test_a_patch_cannot_rename_or_move(api: Api) -> None:
    await api.make("a")
    renamed = await api.patch(f"{WIDGETS}/a", {"metadata": {"name": "b"}})
    moved = await api.patch(f"{WIDGETS}/a", {"metadata": {"namespace": "b"}})
    turned = await api.patch(f"{WIDGETS}/a", {"kind": "Gadget"})
    assert renamed["message"] == "the name of the object (b) does not match the name on the URL (a)"
    assert moved["message"] == "the namespace of the provided object does not match the namespace sent on the request"
    assert turned["message"] == 'Gadget.example.com "a" is invalid: kind: Invalid value: "Gadget": must be Widget'


async def test_a_dry_run_answers_and_stores_nothing(api: Api) -> None:
    dry = await api.post(WIDGETS, widget("a"), dryRun="All")
    assert dry.status == 201
    assert "resourceVersion" not in dry["metadata"]
    assert (await api.get(f"{WIDGETS}/a")).status == 404
    (made,) = await api.make("a")
    changed = await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}}, dryRun="All")
    assert (changed["spec"], changed["metadata"]["generation"]) == ({"size": 5}, 2)
    assert (await api.delete(f"{WIDGETS}/a", dryRun="All")).status == 200
    assert (await api.get(f"{WIDGETS}/a")).body == made.body


async def test_merge_patches_strip_nulls_inside_lists(api: Api) -> None:
    await api.make("a")
    patch = {"spec": {"any": {"list": [None, {"gone": None, "kept": 1}]}}}
    assert (await api.patch(f"{WIDGETS}/a", patch))["spec"]["any"] == {"list": [None, {"kept": 1}]}


async def test_a_failing_json_patch_test_is_invalid_without_details(api: Api) -> None:
    await api.make("a")
    reply = await api.patch(f"{WIDGETS}/a", [{"op": "test", "path": "/spec/size", "value": 9}], JSON_PATCH)
    assert reply.status == 422
    assert reply["message"] == "the server rejected our request due to an error in our request"


async def test_an_object_over_etcds_limit_is_an_error_without_a_reason(api: Api) -> None:
    large = await api.post(WIDGETS, widget("a", any={"x": "y" * 1_600_000}))
    assert (large.status, large["message"], large.body.get("reason")) == (500, "etcdserver: request is too large", None)
    larger = await api.post(WIDGETS, widget("a", any={"x": "y" * 3_200_000}))
    assert (larger.status, larger["reason"]) == (413, "RequestEntityTooLarge")


async def test_namespaced_objects_need_their_namespace(api: Api) -> None:
    path = "/apis/example.com/v1/namespaces/nowhere/widgets"
    reply = await api.post(path, widget("a"))
    assert (reply.status, reply["message"]) == (404, 'namespaces "nowhere" not found')
    assert (await api.get(path))["items"] == []


async def test_warnings_come_as_headers(api: Api) -> None:
    reply = await api.post(WIDGETS, widget("a", size=1, foo=1))
    assert reply.warnings == ['299 - "unknown field \\"spec.foo\\""']
    assert reply.headers["warning"] == reply.warnings[0]


async def test_the_members_of_an_object_are_written_in_the_order_of_the_real_server(server: APIServer) -> None:
    """The text of both is that of kube-apiserver 1.36, but for uids, times and versions."""

    async def written(path: str, document: dict[str, Any]) -> str:
        headers = {"user-agent": "me/1"}
        response = await server.send(HTTPRequest("POST", path, body=json.dumps(document).encode(), headers=headers))
        text = re.sub(r'"[0-9a-f-]{36}"', '"U"', response.body.decode())
        return re.sub(
            r'"2[0-9]{3}-[^"]*Z"', '"T"', re.sub(r'"resourceVersion":"[0-9]+"', '"resourceVersion":"1"', text)
        )

    spec = {"tags": ["b", "a"], "map": {"z": 1, "y": 2}, "items": [{"v": 10, "k": "b"}, {"k": "a"}]}
    made = {"spec": spec, "metadata": {"name": "a"}, "kind": "Widget", "apiVersion": "example.com/v1"}
    assert await written(WIDGETS, made) == (
        '{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"creationTimestamp":"T","generation":1,'
        '"managedFields":[{"apiVersion":"example.com/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{".":{},'
        '"f:items":{".":{},"k:{\\"k\\":\\"a\\"}":{".":{},"f:k":{},"f:v":{}},'
        '"k:{\\"k\\":\\"b\\"}":{".":{},"f:k":{},"f:v":{}}},"f:map":{".":{},"f:y":{},"f:z":{}},"f:size":{},'
        '"f:tags":{".":{},"v:\\"a\\"":{},"v:\\"b\\"":{}}}},"manager":"me","operation":"Update","time":"T"}],'
        '"name":"a","namespace":"default","resourceVersion":"1","uid":"U"},'
        '"spec":{"items":[{"k":"b","v":10},{"k":"a","v":7}],"map":{"y":2,"z":1},"size":3,"tags":["b","a"]}}\n'
    )
    ports = [{"containerPort": 8080}, {"containerPort": 443}]
    pod = {"spec": {"containers": [{"ports": ports, "name": "c", "image": "i"}]}, "metadata": {"name": "p"}}
    text = await written("/api/v1/namespaces/default/pods", pod)
    assert text.startswith('{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p",')
    assert text.index('"k:{\\"containerPort\\":443') < text.index('"k:{\\"containerPort\\":8080')


async def test_a_directory_is_applied_with_its_definitions_first(server: APIServer, api: Api, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(widget("w", kind="Gadget")))
    (tmp_path / "b.yml").write_text(yaml.safe_dump(definition("Gadget")))
    (tmp_path / "notes.txt").write_text("not an object")
    await server.apply(tmp_path)
    assert (await api.get("/apis/example.com/v1/namespaces/default/gadgets/w")).status == 200
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no YAML or JSON file in"):
        await server.apply(tmp_path / "empty")


async def test_uids_depend_on_the_object_and_its_incarnation_alone() -> None:
    async def uids(*names: str, seed: int = 0) -> dict[str, list[str]]:
        async with APIServer(seed=seed) as server:
            await server.apply(definition())
            api = Api(server)
            made: dict[str, list[str]] = {}
            for name in names:
                (reply,) = await api.make(name)
                made.setdefault(name, []).append(reply["metadata"]["uid"])
                await api.delete(f"{WIDGETS}/{name}")
            return made

    first = await uids("a", "b", "a")
    assert first == await uids("b", "a", "a")
    assert len({*first["a"], *first["b"]}) == 3
    assert first["a"][0] not in (await uids("a", seed=1))["a"]
    assert uuid.UUID(first["a"][0]).version == 4


async def test_no_uid_is_used_twice(server: APIServer, api: Api) -> None:
    seen = set()
    for _ in range(2):
        await api.make("a")
        snapshot = server.snapshot()
        seen.add((await api.get(f"{WIDGETS}/a"))["metadata"]["uid"])
        await api.delete(f"{DEFINITIONS}/widgets.example.com")
        await server.apply(definition())
    await api.make("a")
    seen.add((await api.get(f"{WIDGETS}/a"))["metadata"]["uid"])
    await server.restore(snapshot)
    await api.delete(f"{WIDGETS}/a")
    (again,) = await api.make("a")
    assert len({*seen, again["metadata"]["uid"]}) == 4
