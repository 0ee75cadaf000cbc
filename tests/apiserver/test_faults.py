"""Faults: requests that are refused, delayed, lost or stale, and which requests they hit."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.errors import NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api, definition

pytestmark = pytest.mark.virtual_time


async def test_a_fault_hits_the_given_number_of_requests_and_counts_them(server: APIServer, api: Api) -> None:
    await api.make("a")
    fault = server.faults.add(status=409, times=2, verb="patch", subresource="status")
    for expected in (409, 409, 200):
        assert (await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}})).status == expected
    assert fault.hits == 2
    assert not fault.active


async def test_a_refusal_has_the_real_servers_words(server: APIServer, api: Api) -> None:
    await api.make("a")
    server.faults.add(status=409, verb="patch")
    conflict = await api.patch(f"{WIDGETS}/a", {})
    assert conflict["message"].startswith(
        'Operation cannot be fulfilled on widgets.example.com "a": the object has been'
    )
    assert conflict["details"] == {"name": "a", "group": "example.com", "kind": "widgets"}
    server.faults.add(status=429, retry_after=7)
    busy = await api.get(f"{WIDGETS}/a")
    assert (busy["reason"], busy.headers["retry-after"]) == ("TooManyRequests", "7")
    assert busy["details"]["retryAfterSeconds"] == 7
    server.faults.add(status=403, reason="Odd", message="because")
    odd = await api.get(f"{WIDGETS}/a")
    assert (odd["reason"], odd["message"]) == ("Odd", "because")


async def test_a_fault_has_several_effects(server: APIServer, api: Api) -> None:
    await api.make("a")
    fault = server.faults.add(latency=1.5, status=409, reason="Odd", verb="patch", subresource="status", name=None)
    refused = await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}})
    assert (refused.status, refused["reason"]) == (409, "Odd")
    assert asyncio.get_running_loop().time() == 1.5
    assert fault.hits == 1
    assert str(fault) == "delayed, 409"


@pytest.mark.parametrize("given", [30, timedelta(seconds=30), "30s", "0.5m"])
async def test_the_time_of_a_retry_is_a_duration(server: APIServer, api: Api, given: object) -> None:
    server.faults.add(status=429, retry_after=given)  # type: ignore[arg-type]
    assert (await api.get(WIDGETS)).headers["retry-after"] == "30"


async def test_bad_faults_are_refused(server: APIServer) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'state'"):
        server.faults.add(state=500)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'soon' is not a valid duration: write numbers"):
        server.faults.add(status=429, retry_after="soon")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nth": 0}, "nth=0 is not valid: it must be a number from 1 to inf"),
        ({"times": -1}, "times=-1 is not valid"),
        ({"probability": 2}, "probability=2 is not valid: it must be a number from 0 to 1"),
        ({"status": "500"}, "status='500' is not valid: it must be a number from 400 to 599"),
        ({"status": 200}, "status=200 is not valid"),
        ({"verb": "fetch"}, "verb='fetch' is not valid: choose from get, list, watch"),
        ({"verb": ["get", "post"]}, "is not valid: choose from get, list, watch"),
        ({"latency": -1}, "latency must be seconds of 0 or more"),
        ({"latency": (0, float("nan"))}, "latency must be seconds of 0 or more"),
        ({"stale": "x"}, "stale: 'x' is not a valid duration"),
        ({"stale_version": "7"}, "stale_version='7' is not valid"),
        ({"event_order": "first"}, "event_order='first' is not valid: choose from before, after, late, seeded"),
    ],
)
async def test_invalid_values_of_faults_are_refused(server: APIServer, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        server.faults.add(**given)
    assert server.faults.active == []


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        ({"verb": "get"}, True),
        ({"verb": "list"}, False),
        ({"verb": {"get", "list"}}, True),
        ({"resource": "widgets"}, True),
        ({"resource": "configmaps"}, False),
        ({"kind": "Widget"}, True),
        ({"group": "example.com"}, True),
        ({"name": "a"}, True),
        ({"name": "b"}, False),
        ({"namespace": "default"}, True),
        ({"namespace": "other"}, False),
        ({"subresource": ""}, True),
        ({"subresource": "status"}, False),
        ({"method": "GET"}, True),
        ({"method": "PUT"}, False),
        ({"user_agent": "tests"}, True),
        ({"user_agent": "other"}, False),
        ({"user_agent": ["other", "tests"]}, True),
        ({"path": ["/apis/other.com/*", "/apis/example.com/*"]}, True),
        ({"path": ["/apis/other.com/*"]}, False),
    ],
)
async def test_a_fault_matches_by(server: APIServer, api: Api, match: dict, struck: bool) -> None:
    await api.make("a")
    server.faults.add(status=500, times=None, **match)
    assert ((await api.get(f"{WIDGETS}/a")).status == 500) is struck


async def test_a_removed_fault_hits_nothing(server: APIServer, api: Api) -> None:
    fault = server.faults.add(status=503, times=None)
    assert (await api.get(WIDGETS)).status == 503
    fault.remove()
    fault.remove()
    assert (await api.get(WIDGETS)).status == 200
    server.faults.add(status=503, times=None)
    server.faults.clear()
    assert (await api.get(WIDGETS)).status == 200


async def test_paths_of_no_kind_are_matched_by_method(server: APIServer, api: Api) -> None:
    server.faults.add(status=503, method="GET")
    assert (await api.get("/version")).status == 503


async def test_after_commit_the_write_has_taken_effect(server: APIServer, api: Api) -> None:
    await api.make("a")
    server.faults.add(status=500, after_commit=True, verb="patch")
    assert (await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})).status == 500
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": 5}
    (entry,) = server.requests(verb="patch")
    assert (entry.status, entry.effective) == (200, True)


@pytest.mark.parametrize(("after", "size"), [(False, 1), (True, 5)])
async def test_a_lost_answer_is_an_unknown_outcome(server: APIServer, api: Api, after: bool, size: int) -> None:
    await api.make("a")
    server.faults.add(lost=True, after_commit=after, verb="patch")
    with pytest.raises(OutcomeUnknown):
        await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
    assert (await api.get(f"{WIDGETS}/a"))["spec"] == {"size": size}


async def test_latency_adds_up_and_respects_the_clients_timeout(server: APIServer, api: Api) -> None:
    loop = asyncio.get_running_loop()
    server.faults.add(latency=1.5, times=None)
    server.faults.add(latency=0.5, status=503, times=1)
    assert (await api.get(WIDGETS)).status == 503
    assert loop.time() == 2.0
    with pytest.raises(OutcomeUnknown, match=r"no response within 1\.0 s"):
        await api.get(WIDGETS, patience=1.0)
    assert loop.time() == 3.0


async def test_of_faults_that_answer_only_one_hits_a_request(server: APIServer, api: Api) -> None:
    first = server.faults.add(status=500, times=1)
    second = server.faults.add(status=503, times=1)
    assert [(await api.get(WIDGETS)).status for _ in range(3)] == [500, 503, 200]
    assert (first.hits, second.hits) == (1, 1)


async def test_a_stalled_request_is_never_answered(server: APIServer, api: Api) -> None:
    server.faults.add(stall=True, verb="list")
    with pytest.raises(OutcomeUnknown):
        await api.get(WIDGETS, patience=30.0)
    assert asyncio.get_running_loop().time() == 30.0
    server.faults.add(stall=True, verb="list")
    waiting = asyncio.create_task(api.get(WIDGETS))
    await asyncio.sleep(1)
    await server.close()
    with pytest.raises(OutcomeUnknown, match="closed before it answered"):
        await waiting
    with pytest.raises(NotSent):
        await api.get(WIDGETS)


async def test_a_stalled_request_that_is_cancelled_as_the_server_closes_is_cancelled(
    server: APIServer, api: Api
) -> None:
    server.faults.add(stall=True, verb="list")
    waiting = asyncio.create_task(api.get(WIDGETS, patience=30.0))
    await asyncio.sleep(1)
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting, closing})
    assert waiting.cancelled()


async def test_a_stalled_watch_is_open_and_silent(server: APIServer, api: Api) -> None:
    server.faults.add(stall=True, verb="watch")
    stream = await api.watch(allowWatchBookmarks="true")
    await api.make("a")
    assert await stream.quiet(600)


async def test_expired_ends_a_watch_with_an_error_and_refuses_a_list(server: APIServer, api: Api) -> None:
    await api.make("a")
    server.faults.add(expired=True, verb="watch")
    (event,) = await (await api.watch()).all()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    server.faults.add(expired=True, verb="list")
    assert (await api.get(WIDGETS))["reason"] == "Expired"


async def test_watches_are_cut_by_a_fault_or_a_call(server: APIServer, api: Api) -> None:
    stream, other = await api.watch(), await api.watch(CONFIG_MAPS)
    server.faults.add(cut_watches=True, verb="create", resource="widgets")
    reader = asyncio.create_task(stream.all())
    await asyncio.sleep(1)
    await api.make("a")
    assert await reader == []
    assert server.cut_watches("configmaps") == 1
    assert server.cut_watches() == 0
    assert await other.all() == []


async def test_stale_reads_at_version_zero(server: APIServer, api: Api) -> None:
    await api.make("a")
    await asyncio.sleep(10)
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
    await api.make("b")
    server.faults.add(stale=5.0, times=None)
    assert (await api.get(WIDGETS, resourceVersion="0")).names == ["a"]
    assert (await api.get(f"{WIDGETS}/a", resourceVersion="0"))["spec"] == {"size": 1}
    assert (await api.get(WIDGETS)).names == ["a", "b"]
    stream = await api.watch(resourceVersion="0")
    events = [(event["type"], event["object"]["metadata"]["name"]) for event in await stream.take(3)]
    assert events == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b")]


async def _order(server: APIServer, api: Api, name: str) -> list[str]:
    """Return the order in which the response to a write and its event arrive."""
    stream = await api.watch(resourceVersion=(await api.get(WIDGETS)).version)
    seen: list[str] = []

    async def read() -> None:
        await stream.next()
        seen.append("event")

    reader = asyncio.create_task(read())
    await asyncio.sleep(1)
    await api.make(name)
    seen.append("answer")
    await reader
    await stream.close()
    return seen


async def test_the_event_of_a_write_is_seen_before_or_after_its_answer(server: APIServer, api: Api) -> None:
    loop = asyncio.get_running_loop()
    assert await _order(server, api, "a") == ["answer", "event"]
    server.faults.add(event_order="before", verb="create")
    assert await _order(server, api, "b") == ["event", "answer"]
    server.faults.add(event_order="late", verb="create")
    before = loop.time()
    assert await _order(server, api, "c") == ["answer", "event"]
    assert loop.time() - before == pytest.approx(1.05)


async def test_events_stay_in_order_when_one_is_late(server: APIServer, api: Api) -> None:
    stream = await api.watch()
    server.faults.add(event_order="late", verb="create", name=None, times=1)
    await api.make("a")
    await api.make("b")
    names = [event["object"]["metadata"]["name"] for event in await stream.take(2)]
    assert names == ["a", "b"]


async def test_a_late_event_is_hidden_from_new_watches_too(server: APIServer, api: Api) -> None:
    version = (await api.get(WIDGETS)).version
    server.faults.add(event_order="late", verb="create")
    await api.make("a")
    assert (await api.get(WIDGETS)).names == ["a"]
    stream = await api.watch(resourceVersion=version)
    assert await stream.quiet(0.04)
    assert (await stream.next())["type"] == "ADDED"


async def test_a_seed_draws_both_orders_reproducibly() -> None:
    async def orders() -> list[list[str]]:
        async with APIServer(seed=3, event_order="seeded") as server:
            await server.apply(definition())
            api = Api(server)
            return [await _order(server, api, f"n{index}") for index in range(12)]

    first = await orders()
    assert ["event", "answer"] in first
    assert ["answer", "event"] in first
    assert first == await orders()


async def test_chance_is_reproducible() -> None:
    async def hits() -> list[int]:
        async with APIServer(seed=5) as server:
            server.faults.add(status=503, times=None, probability=0.5)
            return [(await Api(server).get(CONFIG_MAPS)).status for _ in range(20)]

    first = await hits()
    assert set(first) == {200, 503}
    assert first == await hits()


async def test_a_restart_keeps_data_and_loses_history(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    await api.make("b")
    stream = await api.watch()
    await server.restart()
    assert await stream.all() == []
    assert (await api.get(WIDGETS)).names == ["a", "b"]
    (event,) = await (await api.watch(resourceVersion=made.version)).all()
    assert event["object"]["code"] == 410


async def test_a_restart_without_data_restarts_versions(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    await server.restart(wipe=True)
    assert (await api.get(WIDGETS)).status == 404
    fresh = await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    assert int(fresh.version) < int(made.version)


async def test_a_fault_matches_by_path(server: APIServer, api: Api) -> None:
    await api.make("a")
    server.faults.add(status=500, times=None, path="/apis/example.com/*/status")
    assert (await api.get(f"{WIDGETS}/a")).status == 200
    assert (await api.get(f"{WIDGETS}/a/status")).status == 500
    server.faults.add(status=503, path="/openapi/*")
    assert (await api.get("/openapi/v3")).status == 503


async def test_latency_is_drawn_from_a_range(server: APIServer, api: Api) -> None:
    loop = asyncio.get_running_loop()
    server.faults.add(latency=(1.0, 2.0), times=None)
    taken = []
    for _ in range(20):
        before = loop.time()
        await api.get(WIDGETS)
        taken.append(loop.time() - before)
    assert 1.0 <= min(taken) < 1.4
    assert 1.6 < max(taken) <= 2.0


async def test_stalled_watches_stay_open_but_silent(server: APIServer, api: Api) -> None:
    stream, other = await api.watch(), await api.watch(CONFIG_MAPS)
    server.faults.add(stall_watches=True, verb="create", resource="widgets")
    await api.make("a")
    assert await stream.quiet(600)
    assert server.statistics().watches == 2
    assert server.stall_watches("configmaps") == 1
    assert server.stall_watches() == 0
    await api.post(CONFIG_MAPS, {"metadata": {"name": "b"}})
    assert await other.quiet(600)
    again = await api.watch()
    assert (await again.next())["object"]["metadata"]["name"] == "a"


async def test_a_stalled_watch_ends_at_its_timeout(server: APIServer, api: Api) -> None:
    stream = await api.watch(timeoutSeconds=30)
    server.stall_watches()
    await api.make("a")
    assert await stream.all() == []
    assert asyncio.get_running_loop().time() == 30.0


@pytest.mark.parametrize(("age", "names"), [(0.0, ["a", "b", "c"]), (5.0, ["a", "b"]), (15.0, ["a"]), (25.0, [])])
async def test_a_stale_read_is_never_older_than_it_says(
    server: APIServer, api: Api, age: float, names: list[str]
) -> None:
    for name in ("a", "b", "c"):
        await asyncio.sleep(10)
        await api.make(name)
    server.faults.add(stale=age)
    assert (await api.get(WIDGETS, resourceVersion="0")).names == names


async def test_after_a_wipe_a_watch_from_an_old_version_is_silent_until_it_passes(server: APIServer, api: Api) -> None:
    await api.make(*(f"old{number}" for number in range(20)))
    old = (await api.get(WIDGETS)).version
    await server.restart(wipe=True)
    await server.apply(definition())
    assert (await api.get(WIDGETS, resourceVersion=old)).status == 504
    stream = await api.watch(resourceVersion=old)
    number = 0
    while int((await api.get(WIDGETS)).version) < int(old):
        await api.make(f"new{number}")
        number += 1
    assert await stream.quiet(1)
    await api.make("later")
    assert (await stream.next())["object"]["metadata"]["name"] == "later"
    # The reader does not learn what it has missed: the version is valid again.
    resumed = await api.watch(resourceVersion=old)
    assert [event["object"]["metadata"]["name"] for event in await resumed.take(1)] == ["later"]


async def _under_chaos(seed: int, **options: object) -> tuple[list[object], dict[str, int]]:
    async with APIServer(seed=1) as server:
        await server.apply(definition())
        api, seen = Api(server), []
        await api.make("a")
        with server.faults.chaos(seed=seed, **options) as chaos:  # type: ignore[arg-type]
            for number in range(300):
                try:
                    await api.get(f"{WIDGETS}/a", resourceVersion="0")
                    reply = await api.patch(f"{WIDGETS}/a", {"spec": {"replicas": number}})
                    seen.append(reply.status)
                    await (await api.send("GET", WIDGETS, watch="1")).close()
                except OutcomeUnknown:
                    seen.append("unknown")
            hits = chaos.hits
        assert (await api.get(f"{WIDGETS}/a")).status == 200
        assert not any(fault.active for fault in chaos.faults.values())
        return seen, hits


async def test_chaos_injects_every_kind_of_fault_reproducibly() -> None:
    seen, hits = await _under_chaos(7, rate=0.3, latency=0.1)
    assert all(hits.values()), hits
    assert {200, 409, 429, 500, 503, "unknown"} <= set(seen)
    assert 300 * 0.4 < seen.count(200) < 300
    assert (seen, hits) == await _under_chaos(7, rate=0.3, latency=0.1)
    assert (seen, hits) != await _under_chaos(8, rate=0.3, latency=0.1)


async def test_chaos_hits_only_matching_requests(server: APIServer, api: Api) -> None:
    with server.faults.chaos(rate=1.0, without=["lost"], user_agent="operator") as chaos:
        await api.make(*(f"n{number}" for number in range(50)))
        assert not any(chaos.hits.values())
        assert (await api.get(WIDGETS)).status == 200
        refused = [await api.get(WIDGETS, agent="operator/1") for _ in range(50)]
    assert any(reply.status >= 429 for reply in refused)
    assert (await api.get(WIDGETS, agent="operator/1")).status == 200


async def test_chaos_excludes_kinds_of_faults(server: APIServer, api: Api) -> None:
    chaos = server.faults.chaos(rate=1.0, verb="get", without=["lost", "stale", "429"])
    assert set(chaos.faults) == {"500", "503"}
    assert chaos.faults["500"].match == {"verb": ("get",)}
    with pytest.raises(ValueError, match="unknown kind of chaos: thunder; known are 500, 503"):
        server.faults.chaos(without=["thunder"])
    with pytest.raises(ValueError, match="from 0 to 1, not 5"):
        server.faults.chaos(rate=5)


async def test_a_fault_hits_exactly_the_nth_matching_request(server: APIServer, api: Api) -> None:
    fault = server.faults.add(status=500, nth=3, verb="list")
    other = server.faults.add(status=503, nth=3, verb="list")
    await api.make("a")
    assert [(await api.get(WIDGETS)).status for _ in range(5)] == [200, 200, 500, 503, 200]
    assert (fault.hits, fault.matched, other.hits) == (1, 3, 1)


@pytest.mark.parametrize("lost", [False, True])
async def test_callbacks_run_before_and_after_a_write_takes_effect(server: APIServer, api: Api, lost: bool) -> None:
    await api.make("a")
    sizes = []

    async def read(request: HTTPRequest) -> None:
        assert request.method == "PATCH"
        sizes.append((await api.get(f"{WIDGETS}/a"))["spec"]["size"])

    server.faults.add(before=read, after=read, lost=lost, after_commit=True, verb="patch")
    server.faults.add(after=lambda _: sizes.append("plain"), verb="patch")
    with contextlib.nullcontext() if not lost else pytest.raises(OutcomeUnknown):
        await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
    assert sizes == [1, 5, "plain"]


async def test_a_callback_lets_somebody_else_write_first(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    server.faults.add(before=lambda _: api.patch(f"{WIDGETS}/a", {"spec": {"size": 9}}), verb="update")
    assert (await api.put(f"{WIDGETS}/a", {**made.body, "spec": {"size": 2}})).status == 409


async def test_a_request_that_is_not_handled_has_no_callback_after(server: APIServer, api: Api) -> None:
    calls: list[str] = []
    server.faults.add(
        before=lambda _: calls.append("before"), after=lambda _: calls.append("after"), status=500, verb="list"
    )
    assert (await api.get(WIDGETS)).status == 500
    assert calls == ["before"]
    assert server.requests(status=500)[0].fault == "500, callback before, callback after"


async def test_held_watches_receive_everything_late_and_in_order(server: APIServer, api: Api) -> None:
    stream = await api.watch(allowWatchBookmarks="true", resourceVersion=(await api.get(WIDGETS)).version)
    with server.hold_watches() as hold:
        await api.make("a")
        await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
        assert await stream.quiet(600)
        assert (len(hold), server.statistics().watches) == (1, 1)
        await api.make("b")
    shown = [(event["type"], event["object"]["metadata"]["name"]) for event in await stream.take(3)]
    assert shown == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b")]
    hold.release()
    await api.make("c")
    assert (await stream.next())["object"]["metadata"]["name"] == "c"
    assert "1 watches of all kinds were held" in "\n".join(server.log.timeline())


async def test_the_watches_of_one_client_and_kind_are_held(server: APIServer, api: Api) -> None:
    version = (await api.get(WIDGETS)).version
    held, of_other_kind = [await api.watch(path, agent="life 1") for path in (WIDGETS, CONFIG_MAPS)]
    of_other_client = await api.watch(agent="life 2")
    hold = server.hold_watches("widgets", user_agent="life 1")
    await api.make("a")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    for stream in (of_other_client, of_other_kind):
        assert (await stream.next())["object"]["metadata"]["name"] == "a"
    again = await api.watch(agent="life 1", resourceVersion=version)
    initial = await api.watch(agent="life 1")
    assert (await initial.next())["object"]["metadata"]["name"] == "a"
    await api.make("b")
    for stream in (held, again, initial):
        assert await stream.quiet(60)
    hold.release()
    assert [(await stream.next())["object"]["metadata"]["name"] for stream in (held, again, initial)] == ["a", "a", "b"]
    assert server.cut_watches(user_agent="life 1") == 4


async def test_a_stall_can_be_undone_and_spares_new_watches(server: APIServer, api: Api) -> None:
    stream = await api.watch()
    hold = server.hold_watches("widgets", later=False)
    await api.make("a")
    assert (await (await api.watch()).next())["object"]["metadata"]["name"] == "a"
    assert await stream.quiet(60)
    hold.release()
    assert (await stream.next())["object"]["metadata"]["name"] == "a"


async def test_a_held_watch_has_missed_too_much_if_the_history_is_gone(server: APIServer, api: Api) -> None:
    stream = await api.watch()
    with server.hold_watches():
        await api.make("a")
        server.compact()
        assert await stream.quiet(60)
    assert (await stream.next())["object"]["code"] == 410


async def test_one_client_sees_an_earlier_version_and_catches_up(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    await api.delete(f"{WIDGETS}/a")
    await api.make("a")
    server.faults.add(stale_version=int(made.version), times=None, user_agent="reflector")
    assert (await api.get(f"{WIDGETS}/a", resourceVersion="0")).version != made.version
    past = await api.get(f"{WIDGETS}/a", agent="reflector", resourceVersion="0")
    assert past.version == made.version
    listed = await api.get(WIDGETS, agent="reflector", resourceVersion="0")
    assert (listed.version, listed.names) == (made.version, ["a"])
    stream = await api.watch(agent="reflector", resourceVersion=listed.version)
    assert [event["type"] for event in await stream.take(2)] == ["DELETED", "ADDED"]
    streamed = await api.watch(agent="reflector", resourceVersion="0")
    assert [event["type"] for event in await streamed.take(3)] == ["ADDED", "DELETED", "ADDED"]
    server.faults.clear()
    server.faults.add(stale_version=10**9)
    assert (await api.get(WIDGETS, resourceVersion="0")).names == ["a"]


async def test_a_fault_hits_the_requests_of_one_user(server: APIServer, api: Api) -> None:
    operator = Api(server.user("operator"))
    server.faults.add(status=500, times=None, user="operator")
    assert [(await each.get(WIDGETS)).status for each in (api, operator)] == [200, 500]
    server.faults.clear()
    server.faults.add(status=500, times=None, user="")
    assert [(await each.get(WIDGETS)).status for each in (api, operator)] == [500, 200]
