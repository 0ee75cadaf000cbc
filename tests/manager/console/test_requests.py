"""The console over HTTP: what it answers to whom, without a browser."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import htpy as h
import pytest
import pytest_asyncio

from reconciler import Client, Manager, Reconciler, Result
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError, TerminalError
from reconciler.manager import EndpointSecurity, LeaderElection, ShardByIndex
from reconciler.manager.console import Page
from reconciler.manager.endpoints.server import EndpointRequest
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff

KIND = "v1/ConfigMap"
SECRET = "hunter2-hunter2"
EVENTS = {"accept": "text/event-stream"}


class Worker(Reconciler):
    """Fails for some names."""

    async def reconcile(self, request: Request, /) -> Result | None:
        if request.name == "fails":
            raise LookupError("no disk <b>here</b>\r\nand\x00 \ud800there")
        if request.name == "broken":
            raise TerminalError("never")
        return Result(requeue_after=3600) if request.name == "waits" else None


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    async with APIServer() as server, Client(server) as client:
        for name in ("broken", "fails", "idle", "waits"):
            metadata = {"name": name, "namespace": "default"}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"password": SECRET}}
            await client.create(document)
        yield client


def new_manager(client: Client, **options: Any) -> Manager:
    manager = Manager(client, **({"console": "127.0.0.1:0", "grace_period": 0} | options))
    manager.add_controller(Worker(), resource=KIND, name="worker", rate_limiter=ExponentialBackoff(60, 600))
    return manager


@pytest_asyncio.fixture
async def manager(client: Client) -> AsyncIterator[Manager]:
    manager = new_manager(client)
    async with manager.running():
        while manager.statistics().controllers[0].reconciles < 4:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        yield manager


async def get(manager: Manager, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{manager.console_url}{path}", headers=headers) as answer:
        return answer.status, await answer.text()


# Pages


async def test_the_first_page_shows_what_fails_and_the_controllers(manager: Manager) -> None:
    status, page = await get(manager, "/")
    assert status == 200
    attention, _, controllers = page.partition("Controllers")
    assert [name for name in ("broken", "fails", "idle", "waits") if f"default/{name}" in attention] == [
        "broken",
        "fails",
    ]
    assert "not retried" in attention
    assert "2 failing" in controllers
    assert "reconciles: 4, errors: 2, keys waiting for a timer: 2" in controllers


async def test_keys_are_searched_by_name_state_and_controller(manager: Manager) -> None:
    async def names(query: str) -> list[str]:
        _, page = await get(manager, f"/keys{query}")
        return re.findall(r"data-row>default/(\w+)<", page)

    assert await names("") == ["broken", "fails", "idle", "waits"]
    assert await names("?q=DEFAULT/i") == ["idle"]
    assert await names("?state=failing") == ["broken", "fails"]
    assert await names("?state=waiting") == ["fails", "waits"]
    assert await names("?state=idle&q=i") == ["idle"]
    assert await names("?controller=other") == []
    assert await names("?controller=worker&q=wa&state=") == ["waits"]


async def test_the_page_of_a_key_says_what_explain_says(manager: Manager) -> None:
    _, page = await get(manager, "/key?controller=worker&namespace=default&name=fails")
    assert "because the object appeared or changed, and failed" in page
    assert "no disk &lt;b&gt;here&lt;/b&gt;" in page
    assert "It waits for the backoff after 1 failure." in page
    _, page = await get(manager, "/key?controller=worker&namespace=default&name=nobody")
    assert "The object is not in the cache" in page
    _, page = await get(manager, "/key?controller=nobody")
    assert "No controller of this name" in page


async def test_no_value_of_an_object_is_shown(manager: Manager) -> None:
    for path in ("/", "/keys", "/process", "/key?controller=worker&namespace=default&name=fails"):
        status, page = await get(manager, path)
        assert status == 200
        assert SECRET not in page


async def test_secrets_in_messages_are_hidden_and_known_ones_can_be_added(client: Client) -> None:
    class Leaky(Reconciler):
        async def reconcile(self, request: Request, /) -> None:
            raise LookupError(
                f"login at https://admin:{SECRET}@db failed: password={SECRET} token: eyJhbGciOi.x.y NAME-9"
            )

    manager = Manager(client, console="127.0.0.1:0", grace_period=0)
    controller = manager.add_controller(Leaky(), resource=KIND, rate_limiter=ExponentialBackoff(60, 600))
    assert manager.console is not None
    async with manager.running():
        while controller.statistics().reconciles < 4:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        for path in ("/", "/keys", "/key?controller=configmap&namespace=default&name=idle"):
            _, page = await get(manager, path)
            assert "LookupError" in page
            assert "NAME-9" in page
            assert SECRET not in page
            assert "eyJ" not in page
        manager.console.redact = lambda text: text.replace("NAME-9", "[redacted]")
        assert "NAME-9" not in (await get(manager, "/keys"))[1]


async def test_hostile_queries_are_text(manager: Manager) -> None:
    for query in (
        "q=<script>",
        "q=%00%ff%ed%a0%80",
        "q=" + "x" * 5000,
        "state=x&controller=%22&span=x",
        "q=a&q=b",
        "%",
    ):
        for path in ("/", "/keys", "/key", "/process"):
            status, page = await get(manager, f"{path}?{query}")
            assert status == 200, (path, query)
            assert "<script>" not in page


async def test_there_is_nothing_else(manager: Manager) -> None:
    for path in ("/other", "/static/", "/static/../server.py", "/static/%2e%2e/server.py", "/static/console.py", "//"):
        status, text = await get(manager, path)
        assert status in (404, 200), path
        assert "import" not in text
    async with aiohttp.ClientSession() as http, http.post(f"{manager.console_url}/") as answer:
        assert answer.status == 405


async def test_names_that_are_not_those_of_objects_have_pages(manager: Manager) -> None:
    (controller,) = manager.controllers
    for name in ('a/b "c" <d>', "line\nbreak", "\ud800", "é&amp;", "x" * 253):
        controller.enqueue(Request(name, None))
    while len(controller.queue) or controller.statistics().active:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    _, page = await get(manager, "/keys")
    assert "<d>" not in page
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="(/key\?[^"]*)"', page)]
    assert len(links) == 9
    for link in links:
        status, page = await get(manager, link)
        assert (status, "1 reconcile" in page or "It ran last" in page) == (200, "%3F" not in link), link


async def test_the_shard_is_shown(client: Client) -> None:
    manager = Manager(client, console="127.0.0.1:0", sharding=ShardByIndex(3, [KIND], index=1))
    manager.add_controller(Worker(), resource=KIND)
    async with manager.running():
        _, page = await get(manager, "/process")
    assert "shard" in page
    assert "index 1" in page


async def test_a_standby_names_the_leader_and_what_it_waits_for(client: Client) -> None:
    options = {"leader_election": LeaderElection("op", namespace="ops")}
    async with new_manager(client, **options).running() as first:
        while not first.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        async with new_manager(client, **options).running() as second:
            _, page = await get(second, "/process")
            while "held until" not in page:
                await asyncio.sleep(0.05)
                _, page = await get(second, "/process")
            assert "standby" in page
            _, page = await get(second, "/")
            assert re.search(r"Waiting: lease ops/op is held by \S+ until .* this is a standby", page)


async def test_a_kind_that_is_not_served_needs_attention(client: Client) -> None:
    manager = Manager(client, console="127.0.0.1:0", grace_period=0)
    manager.add_controller(Worker(), resource="example.com/v1/Widget")
    running = asyncio.create_task(manager.run())
    page = ""
    while "Install it" not in page:
        await asyncio.sleep(0.05)
        if manager.console_url is not None:
            _, page = await get(manager, "/")
    assert "The process waits" in page
    manager.stop()
    await running


async def test_a_page_can_be_added_and_a_broken_one_hides_no_other(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(state: Any, query: Any) -> h.Node:
        raise KeyError(SECRET)

    manager = new_manager(client)
    assert manager.console is not None
    manager.console.add(Page("/receivers", "Receivers", lambda state, query: h.p[f"1 receiver {query.get('q')}"]))
    manager.console.add(Page("/broken", "Broken", broken))
    for path in ("/receivers", "/keys", "receivers", "/a/b", "/static"):
        with pytest.raises(ValueError, match="cannot be the path of a page"):
            manager.console.add(Page(path, "Again", broken))
    async with manager.running():
        status, page = await get(manager, "/receivers?q=x")
        assert (status, "1 receiver x" in page) == (200, True)
        assert '<a href="/receivers"' in (await get(manager, "/"))[1]
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                status, page = await get(manager, "/broken")
                assert (status, "failed with a KeyError" in page, SECRET in page) == (200, True, False)
        assert len([record for record in caplog.records if "page /broken" in record.getMessage()]) == 1


# Live


async def test_a_stream_sends_the_page_again_and_again(manager: Manager, client: Client) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{manager.console_url}/keys?q=new", headers=EVENTS) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert "No key matches" in await _event(answer)
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": "default"}}
        )
        page = await _event(answer)
        while "default/new" not in page:
            page = await _event(answer)


async def _event(answer: aiohttp.ClientResponse) -> str:
    """Return the data of the next event, as a browser reads it."""
    lines: list[str] = []
    while True:
        line = (await answer.content.readuntil(b"\n")).decode().removesuffix("\n")
        if line.startswith("data: "):
            lines.append(line.removeprefix("data: "))
        elif not line and lines:
            return "\n".join(lines)


async def test_an_event_is_the_whole_page(manager: Manager) -> None:
    path = "/key?controller=worker&namespace=default&name=fails"  # its error has line ends of all kinds
    async with aiohttp.ClientSession() as http, http.get(f"{manager.console_url}{path}", headers=EVENTS) as answer:
        page = await _event(answer)
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")


async def test_a_stop_ends_the_streams_at_once(client: Client) -> None:
    manager = new_manager(client)
    async with aiohttp.ClientSession() as http:
        async with manager.running():
            answer = await http.get(f"{manager.console_url}/", headers=EVENTS)
            await _event(answer)
        rest = await answer.content.read()
        assert answer.content.at_eof()
        assert rest == b""


async def test_streams_are_limited_and_freed(manager: Manager) -> None:
    async with aiohttp.ClientSession() as http:
        answers = [await http.get(f"{manager.console_url}/", headers=EVENTS) for _ in range(16)]
        for answer in answers:
            await _event(answer)
        assert (await get(manager, "/", **EVENTS))[0] == 503
        assert (await get(manager, "/"))[0] == 200
        for answer in answers:
            answer.close()
        while await _status(manager) == 503:  # until the server notices
            pass


async def test_others_run_between_the_pages_that_many_tabs_ask_for_at_once(client: Client) -> None:
    turns = []

    def body(_state: Any, _query: Any) -> h.Node:
        turns.append(iterations)
        return h.p["drawn"]

    manager = new_manager(client)
    assert manager.console is not None
    manager.console.add(Page("/slow", "Slow", body))
    answers = [
        asyncio.create_task(manager.console.handle(EndpointRequest("slow", [], "text/html", local=True)))
        for _ in range(20)
    ]
    iterations = 0
    while not all(answer.done() for answer in answers):
        iterations += 1
        await asyncio.sleep(0)
    assert len(set(turns)) == 20


async def _status(manager: Manager) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{manager.console_url}/", headers=EVENTS) as answer:
        return answer.status


# Access


async def test_only_local_requests_are_answered(manager: Manager) -> None:
    for header in ("x-forwarded-for", "forwarded", "via"):
        status, text = await get(manager, "/", **{header: "10.1.2.3"})
        assert (status, len(text.splitlines())) == (403, 1)
    for host in ("example.com", "127.0.0.1.example.com", "evil.localhost.example.com:80", ""):
        status, text = await get(manager, "/keys", host=host)  # of a web page whose name resolves to this machine
        assert status == 403
        assert "default/" not in text
        assert (await get(manager, "/", host=host, **EVENTS))[0] == 403
    assert (await get(manager, "/", host="localhost:80"))[0] == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("same-site", "no-cors", 403),  # another port of localhost
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
        ("cross-site", "navigate", 200),  # a link
    ],
)
async def test_a_page_of_another_site_cannot_take_the_streams(
    manager: Manager, site: str, mode: str, status: int
) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{manager.console_url}/", headers={**headers, **EVENTS}) as answer,
    ):
        assert answer.status == status


async def test_with_security_a_token_is_needed_and_any_host_may_ask(client: Client) -> None:
    manager = new_manager(client, console="0.0.0.0:0", security=EndpointSecurity(token="a-token", tls=False))
    async with manager.running():
        for path in ("/", "/keys", "/static/console.js", "/other"):
            assert (await get(manager, path))[0] == 401
            assert (await get(manager, path, authorization="Bearer other"))[0] == 401
            assert (await get(manager, path, **EVENTS))[0] == 401
        allowed = {"authorization": "Bearer a-token", "host": "console.example.com", "x-forwarded-for": "10.1.2.3"}
        status, page = await get(manager, "/keys", **allowed)
        assert (status, "default/fails" in page) == (200, True)


async def test_the_headers_allow_nothing_from_elsewhere(manager: Manager) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/", "/keys", "/static/console.js", "/static/console.css", "/static/icon.svg", "/other"):
            async with http.get(f"{manager.console_url}{path}") as answer:
                policy = answer.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"
                assert answer.headers["referrer-policy"] == "no-referrer"
                assert "access-control-allow-origin" not in answer.headers
                text = await answer.text()
                if path in ("/", "/keys"):
                    assert not re.search(
                        r"<style|style=|onclick|<script(?! src=\"/static/)|https?://(?!www\.w3\.org)", text
                    )


# Bad input


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("8082", "console='8082' is not a valid address: write 'host:port'"),
        ("127.0.0.1:99999", "is not a valid address"),
        ("0.0.0.0:8082", "console='0.0.0.0:8082': other machines could read it: write '127.0.0.1:8082'"),
        (":8082", "other machines could read it"),
        ("127.example.com:8082", "other machines could read it"),
    ],
)
async def test_a_bad_address_is_refused_in_one_line(client: Client, address: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Manager(client, console=address)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_port_in_use_is_refused_in_one_line(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"console='127.0.0.1:{port}': cannot listen on this address"):
            await Manager(client, console=f"127.0.0.1:{port}").run()


def test_without_a_console_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys; from reconciler import Client, Manager; from reconciler.apiserver import APIServer;"
        "manager = Manager(Client(APIServer())); assert manager.console is None is manager.console_url;"
        "sys.exit(any('htpy' in name or 'console' in name for name in sys.modules if 'rich' not in name))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False).returncode == 0


def test_a_missing_extra_is_one_line() -> None:
    program = (
        "import sys; sys.modules['htpy'] = None; from reconciler import Client, Manager;"
        "from reconciler.apiserver import APIServer; Manager(Client(APIServer()), console='127.0.0.1:0')"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("the console needs htpy: pip install 'kube-reconciler[console]'")
