"""The request log says what was asked, what came of it, and what it changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.apiserver._log import changed_paths
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api

pytestmark = pytest.mark.virtual_time


async def test_a_request_is_remembered_with_what_it_did(server: APIServer, api: Api) -> None:
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


async def test_refusals_are_remembered_with_their_reason(server: APIServer, api: Api) -> None:
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


async def test_a_generated_name_is_remembered(server: APIServer, api: Api) -> None:
    made = await api.post(CONFIG_MAPS, {"metadata": {"generateName": "x-"}})
    (entry,) = server.requests(verb="create")
    assert entry.name == made["metadata"]["name"]
    assert entry.changed == ()


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
        server.clear_requests()
        assert server.requests() == []


_documents = st.dictionaries(
    st.sampled_from(["a", "b/c", "d~e"]),
    st.integers(0, 2) | st.booleans() | st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 2), max_size=2),
    max_size=3,
)


@given(_documents, _documents)
@settings(deadline=None)
def test_changed_paths_tell_where_documents_differ(before: dict, after: dict) -> None:
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
