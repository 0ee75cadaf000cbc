"""Health, readiness, metrics and the queue endpoint over HTTP."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Result
from reconciler.errors import ConfigurationError
from reconciler.manager import LeaderElection
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.workqueue import ExponentialBackoff
from tests.manager.working import RecordingReconciler, config_map
from tests.ports import held_port

KIND = "v1/ConfigMap"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, str]:
    async with http.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def get_queue(http: aiohttp.ClientSession, url: str, query: str = "") -> list[dict[str, Any]]:
    status, text = await get(http, f"{url}/debug/queue{query}")
    assert status == 200
    found: list[dict[str, Any]] = json.loads(text)["controllers"]
    return found


# Health


async def test_healthz_and_readyz_answer_ok(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    assert manager.health_url is None
    async with manager.running():
        for path in ("healthz", "readyz", "healthz/ping", "readyz/ping", "readyz/manager", "healthz/"):
            assert await get(http, f"{manager.health_url}/{path}") == (200, "ok")


async def test_verbose_lists_the_checks(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    manager.add_health_check("database", lambda: None)
    async with manager.running():
        status, text = await get(http, f"{manager.health_url}/healthz?verbose")
    assert (status, text) == (200, "[+]ping ok\n[+]database ok\nhealthz check passed\n")


async def test_failing_check_returns_500_and_its_reason_is_logged_once(
    client: Client, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    healthy = False

    async def check() -> None:
        if not healthy:
            raise ConnectionError("password=hunter2")

    manager = Manager(client, health="127.0.0.1:0")
    manager.add_ready_check("database", check)
    async with manager.running():
        with caplog.at_level(logging.INFO, "reconciler.manager"):
            status, text = await get(http, f"{manager.health_url}/readyz")
            assert status == 500
            assert "[-]database failed: reason withheld\nreadyz check failed\n" in text
            assert (await get(http, f"{manager.health_url}/readyz/database"))[0] == 500
            assert await get(http, f"{manager.health_url}/readyz/ping") == (200, "ok")
            assert await get(http, f"{manager.health_url}/readyz?exclude=database&exclude=unknown") == (200, "ok")
            healthy = True
            assert await get(http, f"{manager.health_url}/readyz") == (200, "ok")
    assert [record.getMessage() for record in caplog.records if "check database" in record.getMessage()] == [
        "readyz check database failed: ConnectionError: password=hunter2",
        "readyz check database passes again",
    ]


async def test_check_fails_when_it_returns_false(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    manager.add_health_check("no", lambda: False)
    async with manager.running():
        assert (await get(http, f"{manager.health_url}/healthz"))[0] == 500


async def test_a_check_of_a_task_that_was_cancelled_fails(
    client: Client, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    worker = asyncio.create_task(asyncio.sleep(60))
    worker.cancel()
    manager = Manager(client, health="127.0.0.1:0")
    manager.add_health_check("worker", lambda: worker)
    manager.add_ready_check("worker", worker.result)
    async with manager.running():
        for path in ("healthz", "readyz"):
            status, text = await get(http, f"{manager.health_url}/{path}")
            assert status == 500
            assert "[-]worker failed: reason withheld" in text
    assert "healthz check worker failed: CancelledError" in caplog.text


@pytest.mark.virtual_time
async def test_hanging_check_fails(client: Client) -> None:
    from reconciler.manager.endpoints.handlers import CHECK_TIMEOUT, Checks

    checks = Checks("healthz")
    checks.add("hangs", lambda: asyncio.sleep(1000))
    assert await checks.run(["hangs"]) == {"hangs": f"timed out after {CHECK_TIMEOUT:g} s"}


async def test_unknown_check_or_path_returns_404(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    async with manager.running():
        assert (await get(http, f"{manager.health_url}/healthz/unknown"))[0] == 404
        assert (await get(http, f"{manager.health_url}/readyz/unknown?verbose"))[0] == 404
        status, text = await get(http, f"{manager.health_url}/elsewhere")
        assert (status, "/healthz" in text) == (404, True)
        async with http.post(f"{manager.health_url}/healthz") as answer:
            assert answer.status == 405
        async with http.head(f"{manager.health_url}/healthz") as answer:
            assert answer.status == 200


async def test_check_names_are_unique_and_contain_no_slash(client: Client) -> None:
    manager = Manager(client)
    manager.add_health_check("a", lambda: None)
    with pytest.raises(ValueError, match="already exists"):
        manager.add_health_check("a", lambda: None)
    with pytest.raises(ValueError, match="already exists"):
        manager.add_ready_check("ping", lambda: None)
    for name in ("", "a/b"):
        with pytest.raises(ValueError, match="without '/'"):
            manager.add_ready_check(name, lambda: None)


async def test_check_that_is_not_a_function_is_refused(client: Client) -> None:
    async def check() -> None: ...

    for wrong in (None, "database", check()):
        with pytest.raises(TypeError, match="a healthz check is a function without parameters"):
            Manager(client).add_health_check("a", wrong)  # type: ignore[arg-type]


async def test_manager_is_not_ready_while_starting_or_stopping(
    server: APIServer, client: Client, http: aiohttp.ClientSession
) -> None:
    fault = server.faults.add(verb={"list", "watch"}, resource="configmaps", status=503, times=None)
    await client.create(config_map("a"))
    stopping, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: object) -> None:
        stopping.set()
        await go_on.wait()

    manager = Manager(client, health="127.0.0.1:0")
    manager.add_controller(RecordingReconciler(work), resource=KIND)
    running = asyncio.create_task(manager.run())
    await until(lambda: manager.health_url is not None)
    url = manager.health_url
    assert (await get(http, f"{url}/readyz"))[0] == 500
    assert (await get(http, f"{url}/healthz"))[0] == 200
    fault.remove()
    await stopping.wait()
    await until(lambda: manager.statistics().state == "running")
    assert (await get(http, f"{url}/readyz"))[0] == 200
    manager.stop()
    await until(lambda: manager.statistics().state == "stopping")
    assert (await get(http, f"{url}/readyz"))[0] == 500
    assert (await get(http, f"{url}/healthz"))[0] == 200
    go_on.set()
    await running


async def test_standby_is_ready_when_its_caches_are_listed(
    server: APIServer, client: Client, http: aiohttp.ClientSession
) -> None:
    fault = server.faults.add(verb={"list", "watch"}, resource="configmaps", status=503, times=None)
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 3600}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    await client.create({**lease, "metadata": {"name": "lease", "namespace": "default"}, "spec": spec})
    manager = Manager(client, health="127.0.0.1:0", leader_election=LeaderElection("lease", "default"))
    manager.add_controller(RecordingReconciler(), resource=KIND)
    async with manager.running():
        assert (await get(http, f"{manager.health_url}/readyz"))[0] == 500
        fault.remove()
        while (await get(http, f"{manager.health_url}/readyz"))[0] == 500:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
        assert manager.statistics().leading is False


# Metrics


async def test_metrics_are_served(client: Client, http: aiohttp.ClientSession) -> None:
    await client.create(config_map("a"))
    done = asyncio.Event()

    async def work(_: object) -> None:
        done.set()

    manager = Manager(client, metrics="127.0.0.1:0")
    manager.add_controller(RecordingReconciler(work), resource=KIND)
    async with manager.running():
        await done.wait()
        status, text = await get(http, f"{manager.metrics_url}/metrics")
        assert status == 200
        assert 'controller_runtime_max_concurrent_reconciles{controller="configmap"} 1.0' in text
        assert 'workqueue_adds_total{controller="configmap",name="configmap"} 1.0' in text
        assert 'rest_client_requests_total{code="200",host="",method="GET"}' in text
        _, text = await get(http, f"{manager.metrics_url}/metrics", accept="application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert (await get(http, f"{manager.metrics_url}/healthz"))[0] == 404


async def test_more_than_four_concurrent_scrapes_get_503_and_do_not_block_the_loop(
    client: Client, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Semaphore(0), threading.Event()
    loop, render = asyncio.get_running_loop(), MetricsRegistry.render

    def slow(self: MetricsRegistry, accept: str) -> tuple[str, bytes]:
        loop.call_soon_threadsafe(begun.release)
        go.wait()
        return render(self, accept)

    monkeypatch.setattr(MetricsRegistry, "render", slow)
    manager = Manager(client, metrics="127.0.0.1:0")
    async with manager.running():
        scrapes = [asyncio.create_task(get(http, f"{manager.metrics_url}/metrics")) for _ in range(4)]
        for _ in scrapes:
            await begun.acquire()
        status, text = await get(http, f"{manager.metrics_url}/metrics")
        assert (status, text) == (503, "503: 4 scrapes are in progress; try again later\n")
        go.set()
        assert {status for status, _ in await asyncio.gather(*scrapes)} == {200}
        assert (await get(http, f"{manager.metrics_url}/metrics"))[0] == 200


@pytest.mark.parametrize("limit", ["9" * 5000, "²", "-1", "", "0"])
async def test_queue_endpoint_accepts_any_limit(client: Client, http: aiohttp.ClientSession, limit: str) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    async with manager.running():
        status, _ = await get(http, f"{manager.health_url}/debug/queue?limit={limit}")
        assert status == 200


async def test_metrics_and_health_can_share_an_address(client: Client, http: aiohttp.ClientSession) -> None:
    with held_port() as port:
        address = f"127.0.0.1:{port}"
        manager = Manager(client, metrics=address, health=address)
        async with manager.running():
            assert manager.metrics_url == f"http://{address}"
            assert (await get(http, f"http://{address}/metrics"))[0] == 200
            assert (await get(http, f"http://{address}/readyz"))[0] == 200


async def test_nothing_listens_after_the_stop(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, metrics="127.0.0.1:0")
    async with manager.running():
        url = manager.metrics_url
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(http, f"{url}/metrics")


# Addresses


async def test_error_for_a_port_in_use_names_the_option(client: Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for option in ("metrics", "health"):
            with pytest.raises(ConfigurationError) as raised:
                await Manager(client, **{option: address}).run()  # type: ignore[arg-type]
            text, in_use = str(raised.value), os.strerror(errno.EADDRINUSE)  # each libc has its own words
            assert text.startswith(f"{option}='{address}': cannot listen on this address: {in_use}")
            assert "\n" not in text


async def test_error_for_a_foreign_host_names_the_option(client: Client) -> None:
    with pytest.raises(ConfigurationError, match=r"health='192\.0\.2\.1:8081': cannot listen on this address"):
        await Manager(client, health="192.0.2.1:8081").run()


@pytest.mark.parametrize("address", ["8080", "localhost", "", "host:port", "1.2.3.4:99999", "::1:8080", "http://a:80"])
def test_error_for_an_invalid_address_names_the_option(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"metrics='.*' is not a valid address: write 'host:port'"):
        Manager(Client(APIServer()), metrics=address)


async def test_all_interfaces_and_ipv6_are_accepted(client: Client, http: aiohttp.ClientSession) -> None:
    async with Manager(client, health=":0").running() as manager:
        assert manager.health_url is not None
        assert (await get(http, f"{manager.health_url}/healthz"))[0] == 200
    if socket.has_ipv6:
        try:
            async with Manager(client, health="[::1]:0").running() as manager:
                assert manager.health_url is not None
                assert manager.health_url.startswith("http://[::1]:")
                assert (await get(http, f"{manager.health_url}/healthz"))[0] == 200
        except ConfigurationError:
            pytest.skip("this machine has no IPv6 loopback")


@pytest.mark.virtual_time
async def test_address_is_refused_under_virtual_time(client: Client) -> None:
    with pytest.raises(ConfigurationError, match=r"metrics='127\.0\.0\.1:0': sockets do not work under virtual time"):
        await Manager(client, metrics="127.0.0.1:0").run()


# The queue


async def test_queue_endpoint_lists_keys_with_reasons_and_due_times(
    client: Client, http: aiohttp.ClientSession
) -> None:
    in_progress = asyncio.Event()

    async def work(request: Any) -> Result | None:
        if request.name == "z-in-hand":
            in_progress.set()
            await asyncio.sleep(1000)
        if request.name == "fails":
            raise ValueError("no")
        return Result(requeue_after=3600)

    for name in ("fails", "waits", "z-in-hand"):
        await client.create(config_map(name))
    manager = Manager(client, metrics="127.0.0.1:0", grace_period=0)
    manager.add_controller(RecordingReconciler(work), resource=KIND, rate_limiter=ExponentialBackoff(60, 600))
    async with manager.running():
        await in_progress.wait()
        (controller,) = await get_queue(http, manager.metrics_url or "")
        assert controller["name"] == "configmap"
        assert (controller["waiting"], controller["in_progress"], controller["ready"]) == (2, 1, 0)
        fails, waits, active = sorted(controller["keys"], key=lambda key: key["name"])
        assert (active["name"], active["current_reasons"]) == ("z-in-hand", ["event"])
        assert active["in_progress_seconds"] < 60
        assert "due" not in active
        assert (fails["name"], fails["next_reasons"], fails["failures"]) == ("fails", ["retry"], 1)
        assert (waits["next_reasons"], waits["namespace"]) == (["requeue_after"], "default")
        assert 3500 < waits["due_in_seconds"] < 3600
        assert 3500 < (datetime.fromisoformat(waits["due"]) - datetime.now(UTC)).total_seconds() < 3600
        assert waits["waits_for"] == "the delay that a reconcile returned"

        (controller,) = await get_queue(http, manager.metrics_url or "", "?name=waits&namespace=default")
        assert [key["name"] for key in controller["keys"]] == ["waits"]
        (controller,) = await get_queue(http, manager.metrics_url or "", "?limit=1")
        assert (len(controller["keys"]), controller["keys_left_out"]) == (1, 2)
        assert await get_queue(http, manager.metrics_url or "", "?controller=other") == []
        (controller,) = await get_queue(http, manager.metrics_url or "", "?name=other&namespace=default")
        assert controller["keys"] == []


async def test_queue_endpoint_is_served_with_health_only(client: Client, http: aiohttp.ClientSession) -> None:
    async with Manager(client, health="127.0.0.1:0").running() as manager:
        assert await get_queue(http, manager.health_url or "") == []
