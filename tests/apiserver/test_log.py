"""The request log: requests, their outcomes, and what they changed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.apiserver.serving.request_log import changed_paths
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time


async def test_a_request_is_logged_with_its_effect(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    changed = await api.patch(f"{WIDGETS}/a/status", {"status": {"phase": "P"}}, agent="operator/1")
    (entry,) = server.requests(subresource="status")
    assert (entry.verb, entry.method, entry.path) == ("patch", "PATCH", f"{WIDGETS}/a/status")
    assert (entry.group, entry.version, entry.resource, entry.kind) == ("example.com", "v1", "widgets", "Widget")
    assert (entry.namespace, entry.name, entry.status, entry.reason) == ("default", "a", 200, "")
    assert (entry.before, entry.after, entry.effective) == (int(made.version), int(changed.version), True)
    assert entry.changed == ("/status",)
    assert entry.user_agent == "operator/1"
    assert entry.content_type == "application/merge-patch+json"
    assert entry.summary() == (
        f"patch widgets/a/status in default: 200, version {made.version} to {changed.version}, changed /status"
    )


async def test_a_write_without_change_had_no_effect(server: APIServer, api: Api) -> None:
    await api.make("a")
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 1}})
    (entry,) = server.requests(verb="patch")
    assert (entry.effective, entry.changed, entry.before == entry.after) == (False, (), True)
    assert entry.summary() == "patch widgets/a in default: 200"


async def test_refusals_are_logged_with_their_reason(server: APIServer, api: Api) -> None:
    await api.get(f"{WIDGETS}/zz")
    await api.get("/nowhere")
    missing, unknown = server.requests(status=404)
    assert missing.summary() == "get widgets/zz in default: 404 NotFound"
    assert (unknown.verb, unknown.resource) == ("get", "")


async def test_verbs_are_kubernetes_words(server: APIServer, api: Api) -> None:
    await api.make("a")
    stream = await api.watch()
    await api.get(WIDGETS)
    await api.get(f"{WIDGETS}/a")
    await api.put(f"{WIDGETS}/a", (await api.get(f"{WIDGETS}/a")).body)
    await api.delete(f"{WIDGETS}/a")
    await api.delete(WIDGETS)
    await stream.close()
    verbs = [entry.verb for entry in server.requests(resource="widgets")]
    assert verbs == ["create", "watch", "list", "get", "get", "update", "delete", "deletecollection"]
    assert len(server.requests(verb=("get", "list"))) == 3


async def test_a_generated_name_is_logged(server: APIServer, api: Api) -> None:
    made = await api.post(CONFIG_MAPS, {"metadata": {"generateName": "x-"}})
    (entry,) = server.requests(verb="create")
    assert entry.name == made["metadata"]["name"]
    assert entry.changed == ()


async def test_a_refused_create_is_logged_with_the_requested_name(server: APIServer, api: Api) -> None:
    await api.post(WIDGETS, widget("a"), dryRun="All")
    await api.post(WIDGETS, widget("b", size=99))
    server.faults.add(status=500)
    await api.post(WIDGETS, widget("c"))
    await api.post(WIDGETS, b"metadata: {name: d}", type="application/yaml", dryRun="All")
    await api.post(WIDGETS, b"{")
    asked = [(entry.name, entry.status, entry.effective) for entry in server.requests(verb="create")]
    assert asked == [("a", 201, False), ("b", 422, False), ("c", 500, False), ("", 400, False), ("", 400, False)]


async def test_requests_are_found_by_every_attribute(server: APIServer, api: Api) -> None:
    await api.make("a")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}}, agent="other/1")
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}})
    await api.patch(f"{WIDGETS}/a", {})

    def names(**wanted: object) -> list[str]:
        return [entry.name for entry in server.requests(**wanted)]  # type: ignore[arg-type]

    assert names(kind="ConfigMap") == ["b"]
    assert names(resource="configmaps", namespace="default") == ["b"]
    assert names(user_agent="other") == ["b"]
    assert names(name="a", verb="patch", subresource="") == ["a"]
    assert names(effective=False) == ["a"]
    assert [entry.name for entry in server.status_writes("a")] == ["a"]
    assert server.status_writes("b") == []


async def test_the_log_is_bounded_and_counts_what_it_drops() -> None:
    async with APIServer(log=5) as server:
        api = Api(server)
        for index in range(12):
            await api.get(f"{CONFIG_MAPS}/n{index}")
        assert [entry.name for entry in server.requests()] == ["n7", "n8", "n9", "n10", "n11"]
        statistics = server.statistics()
        assert (statistics.requests, statistics.requests_dropped) == (12, 7)
        assert server.log.timeline() == ["(7 older requests are no longer in the log)"]
        server.log.clear()
        assert server.requests() == []
        for _ in range(1003):
            server.compact()
        assert (len(server.log.timeline(most=2000)), server.log.actions_dropped) == (1001, 3)


async def test_a_write_prints_as_one_line(server: APIServer, api: Api) -> None:
    await asyncio.sleep(90)
    await api.make("a")
    await api.patch(f"{WIDGETS}/a/status", {"status": {"phase": "P"}}, agent="operator/1", fieldManager="status-writer")
    server.faults.add(status=409, verb="patch")
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 2}}, agent="operator/1")
    await api.delete(f"{WIDGETS}/a", agent="operator/1")
    await api.get(f"{WIDGETS}/a")
    writes = server.log.writes("Widget", "a")
    first, second = writes[0].after, writes[1].after
    assert str(writes).splitlines() == [
        f"2026-01-01 00:01:30.000 create widgets/a in default by tests/1.0: 201, version {first}",
        (
            "2026-01-01 00:01:30.000 patch widgets/a/status in default by operator/1 as status-writer: "
            f"200, version {first} to {second}, changed /status"
        ),
        "2026-01-01 00:01:30.000 patch widgets/a in default by operator/1: 409 Conflict [fault: 409]",
        f"2026-01-01 00:01:30.000 delete widgets/a in default by operator/1: 200, version {second} to {second + 1}",
    ]
    assert repr(writes) == f"<4 writes\n{writes}>"
    assert (str(server.log.writes("Widget", "b")), repr(server.log.writes("Widget", "b"))) == (
        "no writes",
        "<no writes>",
    )


class Widget:
    @staticmethod
    def crd() -> dict:
        return definition()


async def test_writes_are_found_by_kind_object_writer_and_effect(server: APIServer, api: Api) -> None:
    await api.make("a", "b")
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}}, agent="operator/1", fieldManager="me")
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}}, agent="operator/1")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    log = server.log

    def count(*of: object, **wanted: object) -> int:
        return len(log.writes(*of, **wanted))  # type: ignore[arg-type]

    for kind in (Widget, "Widget", "widgets", "example.com/v1/Widget"):
        assert count(kind) == 4
    assert count("example.com/v2/Widget") == count("other.com/v1/Widget") == 0
    assert count("v1/ConfigMap") == count("configmaps", "a", "default") == 1
    assert count(None, "a") == 4
    assert count(namespace="other") == 0
    assert count(Widget, "a", subresource="status") == 2
    assert count(Widget, subresource="") == 2
    assert count(Widget, effective=False) == 1
    assert count(by="operator") == 2
    assert count(by="me") == 1
    assert (len(log), [entry.verb for entry in log].count("create")) == (5, 3)
    with pytest.raises(TypeError, match="5 is not a kind"):
        log.writes(5)


async def test_writes_are_grouped_into_cycles(server: APIServer, api: Api) -> None:
    await api.make("a", "b")

    async def write(name: str, agent: str, count: int) -> None:
        for _ in range(count):
            await api.patch(f"{WIDGETS}/{name}/status", {"status": {"n": len(server.log)}}, agent=agent)
            await asyncio.sleep(0.3)

    await write("a", "operator/1", 3)
    await write("b", "operator/1", 1)
    await write("a", "other/1", 1)
    await asyncio.sleep(60)
    await write("a", "operator/1", 2)

    def counts(**wanted: object) -> list[int]:
        return [len(cycle) for cycle in server.log.cycles(Widget, subresource="status", **wanted)]  # type: ignore[arg-type]

    assert counts() == [3, 1, 1, 2]
    assert counts(name="a", by="operator") == [3, 2]
    assert counts(name="a", by="operator", gap=0.2) == [1] * 5
    assert counts(name="a", by="operator", gap=600) == [5]


async def test_a_client_can_mark_the_writes_of_one_cycle(server: APIServer, api: Api) -> None:
    await api.make("a")
    for number, cycle in enumerate(["x", "x", "y", "x"]):
        await api.patch(f"{WIDGETS}/a", {"spec": {"replicas": number}}, headers={"x-reconcile-id": cycle})
        await asyncio.sleep(5)
    assert [len(cycle) for cycle in server.log.cycles(Widget, "a")] == [1, 3, 1]


async def test_the_timeline_shows_writes_faults_and_server_actions_in_order(server: APIServer, api: Api) -> None:
    stream = await api.watch()
    await api.make("a")
    await api.get(f"{WIDGETS}/a")
    server.faults.add(verb="get", latency=2.0)
    await api.get(f"{WIDGETS}/a")
    server.cut_watches()
    await api.make("b")
    server.compact()
    await server.restart()
    await server.restart(wipe=True)
    await stream.close()
    told = [line.partition(" ")[2] for line in server.log.timeline()]
    version = server.log.writes("widgets", "b")[0].after
    assert told == [
        "00:00:00.000 customresourcedefinitions/widgets.example.com was created by apply()",
        "00:00:00.000 customresourcedefinitions/widgets.example.com was changed by apply()",
        f"00:00:00.000 create widgets/a in default by tests/1.0: 201, version {version - 1}",
        "00:00:02.000 get widgets/a in default by tests/1.0: 200 [fault: delayed]",
        "00:00:02.000 1 watches of all kinds were cut",
        f"00:00:02.000 create widgets/b in default by tests/1.0: 201, version {version}",
        f"00:00:02.000 history up to version {version} was compacted",
        f"00:00:02.000 history up to version {version} was compacted",
        "00:00:02.000 the server restarted",
        "00:00:02.000 the server restarted and lost its data",
    ]
    assert len(server.log.timeline("widgets", "b")) == 6
    assert server.log.timeline(most=1) == ["(9 earlier lines are left out)", server.log.timeline()[-1]]


async def test_the_timeline_shows_what_the_server_did_to_objects_by_itself(server: APIServer, api: Api) -> None:
    (owner,) = await api.make("a")
    reference = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "a", "uid": owner["metadata"]["uid"]}
    await api.post(CONFIG_MAPS, {"metadata": {"name": "child", "ownerReferences": [reference]}})
    await api.delete(f"{WIDGETS}/a")
    await api.make("b")
    await api.delete(WIDGETS)
    told = [line.split(" ", 2)[2].partition(":")[0] for line in server.log.timeline()[2:]]
    assert told == [
        "create widgets/a in default by tests/1.0",
        "create configmaps/child in default by tests/1.0",
        "delete widgets/a in default by tests/1.0",
        "configmaps/child in default was removed by the server",
        "create widgets/b in default by tests/1.0",
        "deletecollection widgets in default by tests/1.0",
        "widgets/b in default was removed by the server",
    ]
    assert len(server.log.timeline("ConfigMap", "child")) == 2


async def test_the_log_entry_of_one_request_is_bounded(server: APIServer, api: Api) -> None:
    await api.make("a")
    long = "k" * 5000
    await api.patch(f"{WIDGETS}/a", {"spec": {"any": {f"{long}{n}": n for n in range(100)}}}, agent="a" * 5000)
    await api.patch(f"{WIDGETS}/a", {"spec": {"any": {f"{long}{n}": n + 1 for n in range(100)}}})
    await api.get(f"/{long}")
    entry = server.log.writes("widgets", "a", effective=True)[-1]
    assert len(entry.changed) == 64
    for remembered in server.log:
        held = [remembered.user_agent, remembered.field_manager, *remembered.changed]
        assert all(len(text) <= 256 for text in held)


_documents = st.dictionaries(
    st.sampled_from(["a", "b/c", "d~e"]),
    st.integers(0, 2) | st.booleans() | st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 2), max_size=2),
    max_size=3,
)


@given(_documents, _documents)
@settings(deadline=None)
def test_changed_paths_show_where_documents_differ(before: dict, after: dict) -> None:
    found = set(changed_paths(before, after))
    expected = set()
    for key in before.keys() | after.keys():
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            expected |= {f"{pointer}/{inner}" for inner in old.keys() | new.keys() if old.get(inner) != new.get(inner)}
        elif key not in before or key not in after or old != new or type(old) is not type(new):
            expected.add(pointer)
    assert found == expected
