"""The state of a server: snapshots that are restored, and a directory from which the next server continues."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError, OutcomeUnknown
from tests.apiserver.api import CONFIG_MAPS, DEFINITIONS, WIDGETS, Api, definition, widget


async def listed(server: APIServer, path: str = WIDGETS) -> dict[str, tuple[str, str]]:
    """Return the uid and version of each object by name."""
    found = (await Api(server).get(path)).body["items"]
    return {each["metadata"]["name"]: (each["metadata"]["uid"], each["metadata"]["resourceVersion"]) for each in found}


@pytest.mark.virtual_time
async def test_restored_objects_have_the_uids_and_versions_of_the_snapshot(server: APIServer, api: Api) -> None:
    await api.post(WIDGETS, widget("a", size=2))
    await api.post(WIDGETS, widget("b"))
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}})
    event = {
        "metadata": {"name": "e"},
        "regarding": {"namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }
    event |= {"reportingController": "a/b", "reportingInstance": "c", "action": "d", "reason": "r", "type": "Normal"}
    assert (await api.post("/apis/events.k8s.io/v1/namespaces/default/events", event)).status == 201
    before, version = await listed(server), server.statistics().resource_version
    snapshot = server.snapshot()
    await api.delete(f"{WIDGETS}/b")
    lost = (await api.post(WIDGETS, widget("c"))).body["metadata"]
    await server.restore(snapshot)
    assert await listed(server) == before
    assert list(await listed(server, "/api/v1/namespaces/default/events")) == ["e"]
    assert server.snapshot() == snapshot
    made = (await api.post(WIDGETS, widget("c"))).body["metadata"]
    assert int(made["resourceVersion"]) == version + 1
    assert made["uid"] not in (lost["uid"], *(uid for uid, _ in before.values()))


@pytest.mark.virtual_time
async def test_versions_rise_only_so_far_that_the_next_server_can_read_them(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path) as server:
        snapshot = server.snapshot()
        await server.restore(snapshot, bump_revision=2**62 - 1000)
        made = await Api(server).post(CONFIG_MAPS, {"metadata": {"name": "a"}})
        with pytest.raises(ConfigurationError, match="the limit is 4611686018427387904"):
            await server.restore(snapshot, bump_revision=2**62)
    async with APIServer(data=tmp_path) as server:
        found = await Api(server).get(f"{CONFIG_MAPS}/a")
        assert found.body["metadata"]["resourceVersion"] == made.body["metadata"]["resourceVersion"]


@pytest.mark.virtual_time
async def test_another_server_continues_from_a_snapshot(server: APIServer, api: Api) -> None:
    held = await api.post(WIDGETS, widget("a", meta={"finalizers": ["example.com/held"]}))
    owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "a", "uid": held.body["metadata"]["uid"]}
    await api.post(CONFIG_MAPS, {"metadata": {"name": "owned", "ownerReferences": [owner]}})
    await api.delete(f"{WIDGETS}/a")
    snapshot = server.snapshot()
    async with APIServer() as other:
        await other.restore(snapshot)
        api = Api(other)
        made = await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}})
        assert made.body["metadata"]["uid"] not in snapshot.decode()
        assert (await api.post(WIDGETS, widget("wrong", size=11))).status == 422
        await api.patch(f"{WIDGETS}/a", {"metadata": {"finalizers": None}})
        assert await listed(other) == {}
        assert "owned" not in await listed(other, CONFIG_MAPS), "a dependent goes with its owner"
        await api.delete(f"{DEFINITIONS}/widgets.example.com")
        assert (await api.get(WIDGETS)).status == 404


@pytest.mark.virtual_time
@pytest.mark.parametrize("bump", [None, 1000])
async def test_a_restore_breaks_off_watches_and_forgets_the_history(
    server: APIServer, api: Api, bump: int | None
) -> None:
    await api.post(WIDGETS, widget("a"))
    snapshot, version = server.snapshot(), server.statistics().resource_version
    watch = await api.watch(WIDGETS, resourceVersion=str(version))
    await api.post(WIDGETS, widget("b"))
    await server.restore(snapshot, bump_revision=bump)
    with pytest.raises(OutcomeUnknown, match="the connection was lost"):
        await watch.next()
    assert server.statistics().resource_version == version + (bump or 0)
    past = await api.watch(WIDGETS, resourceVersion=str(version if bump else version - 1))
    assert (await past.next())["object"]["code"] == 410
    now = await api.watch(WIDGETS, resourceVersion=str(server.statistics().resource_version))
    await api.post(WIDGETS, widget("c"))
    assert (await now.next())["object"]["metadata"]["name"] == "c"


@pytest.mark.virtual_time
async def test_versions_and_conversions_of_a_kind_are_restored(server: APIServer, api: Api) -> None:
    wider = definition()
    version = wider["spec"]["versions"][0]
    await api.post(WIDGETS, widget("a"))
    wider["spec"]["versions"] = [{**version, "storage": False}, {**version, "name": "v2"}]
    await server.apply(wider)
    await server.restore(server.snapshot())
    found = await api.get("/apis/example.com/v2/namespaces/default/widgets/a")
    assert (found.status, found.body["apiVersion"]) == (200, "example.com/v2")


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda snapshot: "text", r"the snapshot must be bytes, not str: pass what snapshot\(\) returned"),
        (lambda snapshot: b"", "the snapshot was not written by an embedded API server"),
        (lambda snapshot: b"\xff\x00" * 100, "the snapshot was not written by an embedded API server"),
        (lambda snapshot: b"[" * 100_000 + b"\n", "the snapshot was not written by an embedded API server"),
        (lambda snapshot: snapshot[: len(snapshot) // 2], r"the snapshot is cut off: it has \d of 7 objects"),
        (lambda snapshot: snapshot.replace(b'"uid":', b'"uit":', 1), "the snapshot is damaged in line 2: Object miss"),
        (lambda snapshot: snapshot + b'{"resource":5}\n', "the snapshot is damaged in line 9: Expected `str`, got"),
        (lambda snapshot: snapshot + b'{"a":' * 9999 + b"\n", "the snapshot is damaged in line 9: "),
        (
            lambda snapshot: snapshot.replace(b'"resource":"widgets.', b'"resource":"unknown.'),
            "objects of unknown.example.com, which neither Kubernetes 1.36 nor",
        ),
        (lambda snapshot: snapshot.replace(b'"versions":', b'"visions":', 1), "among its customresourcedefinitions"),
    ],
)
async def test_a_damaged_snapshot_replaces_nothing(server: APIServer, api: Api, damage: Any, message: str) -> None:
    await api.post(WIDGETS, widget("a"))
    damaged = damage(server.snapshot())
    with pytest.raises(ConfigurationError, match=message) as caught:
        await server.restore(damaged)
    assert "\n" not in str(caught.value)
    assert list(await listed(server)) == ["a"]


async def test_git_ignores_the_directory(tmp_path: Path) -> None:
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    await asyncio.to_thread(git, ["git", "init"])
    async with APIServer(data=tmp_path / "anywhere") as server:
        await server.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
    status = await asyncio.to_thread(git, ["git", "status", "--porcelain", "--untracked-files=all"])
    assert status.stdout == b""


async def test_the_next_server_continues_from_the_directory(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path / "data") as server:
        token, api = server.token, Api(server)
        await server.apply(definition())
        await api.post(WIDGETS, widget("a"))
        await api.post(WIDGETS, widget("b"))
        await api.delete(f"{WIDGETS}/b")
        before, statistics = await listed(server), server.statistics()
    async with APIServer(data=tmp_path / "data") as server:
        assert server.token == token
        assert await listed(server) == before
        assert server.statistics().resource_version == statistics.resource_version
        api = Api(server)
        known = await api.watch(WIDGETS, resourceVersion=str(statistics.resource_version))
        made = (await api.post(WIDGETS, widget("c"))).body["metadata"]
        assert int(made["resourceVersion"]) == statistics.resource_version + 1
        assert made["uid"] != before["a"][0]
        assert (await known.next())["object"]["metadata"]["name"] == "c"
        gone = await api.watch(WIDGETS, resourceVersion=str(statistics.resource_version - 1))
        assert (await gone.next())["object"]["code"] == 410
        await server.restart(wipe=True)
    async with APIServer(data=tmp_path / "data") as server:
        assert server.statistics().objects == 5, "the namespaces and the Service of a new cluster"


async def test_a_killed_server_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    copy.mkdir()
    async with APIServer(data=data) as server:
        await server.apply(definition())
        await Api(server).post(WIDGETS, widget("a"))
        await Api(server).patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
        state = (data / "state.jsonl").read_bytes()
    for cut, size in ((0, 5), (1, 1), (200, 1)):
        (copy / "state.jsonl").write_bytes(state[: len(state) - cut])
        async with APIServer(data=copy) as server:
            assert (await Api(server).get(f"{WIDGETS}/a")).body["spec"]["size"] == size


async def test_a_changed_definition_changes_the_kept_objects(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path) as server:
        await server.apply(definition())
        await Api(server).post(WIDGETS, widget("a", size=2))
        await server.apply(
            definition(spec={"type": "object", "properties": {"new": {"type": "string", "default": "x"}}})
        )
    async with APIServer(data=tmp_path) as server:
        assert (await Api(server).get(f"{WIDGETS}/a")).body["spec"] == {"new": "x"}


async def test_the_file_does_not_grow_with_the_number_of_writes(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path) as server:
        api = Api(server)
        await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
        for number in range(10_100):
            await api.patch(f"{CONFIG_MAPS}/a", {"data": {"number": str(number)}})
        assert len((tmp_path / "state.jsonl").read_bytes().splitlines()) < 1000
    async with APIServer(data=tmp_path) as server:
        assert (await Api(server).get(f"{CONFIG_MAPS}/a")).body["data"] == {"number": "10099"}


async def test_two_servers_cannot_share_a_directory(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path):
        with pytest.raises(ConfigurationError, match=r"another server keeps its data in"):
            async with APIServer(data=tmp_path):
                pass
    async with APIServer(data=tmp_path):
        pass


async def test_unusable_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "state.jsonl").write_text("hostile\n")
    with pytest.raises(ConfigurationError, match=r"cannot keep the data in .*file: it is not a directory$"):
        await APIServer(data=tmp_path / "file").__aenter__()
    with pytest.raises(ConfigurationError, match=r"cannot keep the data in .*: embedded null"):
        await APIServer(data=tmp_path / "a\0b").__aenter__()
    for _ in range(2):
        with pytest.raises(
            ConfigurationError, match=r"state\.jsonl was not written by .*: to start empty, delete the directory$"
        ):
            await APIServer(data=tmp_path).__aenter__()
    assert (tmp_path / "state.jsonl").read_text() == "hostile\n"


async def test_a_write_that_cannot_be_kept_is_an_error_and_kept_later(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path) as server:
        api = Api(server)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "state.jsonl").stat().st_size + 10, limits[1]))
            answer = await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert answer.status == 500
        assert answer.body["message"].endswith("state.jsonl: File too large")
        await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}})
    async with APIServer(data=tmp_path) as server:
        assert list(await listed(server, CONFIG_MAPS)) == ["a", "b"]
