"""The address guard of HTTP receivers: the address that is connected to is checked, in every notation."""

from __future__ import annotations

import asyncio
import base64
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler.notification import DeliveryError, PermanentDeliveryError, RetryableDeliveryError
from reconciler.notification.channels.address_guard import is_local
from reconciler.notification.channels.http import WebhookConfig
from tests.notification.receivers import Receiver, answer, own_address, receiver
from tests.notification.test_receivers import NOBODY, message, sent

LOCAL = [
    own_address(),
    f"[::ffff:{own_address()}]",
    "127.0.0.1",
    "127.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "①②⑦.0.0.1",
    "\uff11\uff12\uff17.0.0.1",
    "127。0。0。1",
    "127｡0｡0｡1",
    "127\uff0e0\uff0e0\uff0e1",
    "②①③⓪⑦⓪⑥④③③",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[2001:0:7f00:1::]",
    "[fe80::5efe:127.0.0.1]",
    "[2001:db8::5efe:127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[ff02::1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ⓛocalhost",
    "a.localhost",
    "127.0.0.1.",
    "169.254.169.254",
    "2852039166",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "100.100.100.200",
    "168.63.129.16",
    "10.96.0.1",
    "good@127.0.0.1",
    "good:80@127.0.0.1",
    "good%2F@127.0.0.1",
    "good\\@127.0.0.1",
    "127.0.0.1\\@good",
    "127.0.0.1%00.good",
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The addresses that names resolve to: one list after the other, then the last one."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host not in known:
            if isinstance(host, str) and host.endswith(".example"):
                raise socket.gaierror(socket.EAI_NONAME, "no such host")
            return real(host, port, *rest, **more)
        answers = known[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [each for address in found for each in real(address, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


async def call(url: str, **options: Any) -> DeliveryError | None:
    config = WebhookConfig(**{"url": url, "timeout": 5, **options})
    return await sent(config.build("webhook:x", NOBODY))


@pytest.mark.parametrize("host", LOCAL)
@pytest.mark.parametrize("through", ["", "proxy", "environment"])
async def test_a_local_address_is_refused_in_every_notation_and_through_a_proxy(
    host: str, through: str, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]
) -> None:
    async with receiver() as target:
        if through == "environment":
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{target.port}")
        options = {"proxy": f"http://127.0.0.1:{target.port}"} if through == "proxy" else {}
        error = await call(f"http://{host}:{target.port}/", **options)
        assert target.requests == []
    assert type(error) is PermanentDeliveryError


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "10.0.0.1", "192.168.1.1", "2606:4700::1111", "fd12::1", "64:ff9b::808:808"]
)
def test_public_addresses_are_not_local(address: str) -> None:
    assert not is_local(address)


@pytest.mark.parametrize("answers", [[["127.0.0.1"]], [["169.254.169.254"]], [["::1"]], [["::ffff:127.0.0.1"]]])
async def test_a_name_of_a_local_address_is_refused(
    answers: list[list[str]], names: dict[str, list[list[str]]]
) -> None:
    async with receiver() as target:
        names["hook.example"] = answers
        error = await call(f"http://hook.example:{target.port}/")
        assert target.requests == []
    assert type(error) is PermanentDeliveryError
    assert "allow_local_addresses" in str(error)


async def test_of_several_addresses_only_those_elsewhere_are_connected_to(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    async def connect(_loop: Any, _sock: socket.socket, address: tuple[Any, ...]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    names["hook.example"] = [["127.0.0.1", "203.0.113.7"]]
    error = await call("http://hook.example/")
    assert type(error) is RetryableDeliveryError
    assert connected == ["203.0.113.7"]


async def test_a_name_that_changes_its_address_between_check_and_connection_is_refused(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as target:
        monkeypatch.setattr(
            "reconciler.notification.channels.http.guarded_resolver",
            aiohttp.ThreadedResolver,  # as if the response had passed
        )
        names["hook.example"] = [["127.0.0.1"]]
        error = await call(f"http://hook.example:{target.port}/")
        assert target.requests == []
    assert type(error) is PermanentDeliveryError


@pytest.mark.parametrize("where", ["proxy", "environment"])
async def test_a_name_is_checked_before_a_proxy_resolves_it(
    where: str, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["mixed.example"] = [["203.0.113.7", "127.0.0.1"]]
    names["good.example"] = [["203.0.113.7"]]
    names["proxy.internal"] = [["127.0.0.1"]]
    async with receiver() as proxy:
        if where == "environment":
            monkeypatch.setenv("http_proxy", f"http://proxy.internal:{proxy.port}")
        options = {"proxy": f"http://proxy.internal:{proxy.port}"} if where == "proxy" else {}
        assert type(await call("http://mixed.example/x", **options)) is PermanentDeliveryError
        unknown = await call("http://unknown.example/x", **options)
        assert type(unknown) is RetryableDeliveryError
        assert "allow_local_addresses" in str(unknown)
        assert proxy.requests == []
        error = await call("http://good.example/x", **options)
        if where == "proxy":  # a receiver's own proxy is checked as the receiver is
            assert type(error) is PermanentDeliveryError
            assert proxy.requests == []
        else:
            assert error is None
            assert proxy.requests[0].path == "http://good.example/x"
        assert await call("http://unknown.example/x", allow_local_addresses=True, **options) is None
        assert proxy.requests[-1].path == "http://unknown.example/x"


async def test_a_redirect_is_not_followed_and_carries_nothing_away() -> None:
    async with receiver() as other, receiver(answer(307, Location=other.url)) as target:
        error = await call(target.url, allow_local_addresses=True, headers={"Authorization": "Bearer t"})
        assert other.requests == []
    assert type(error) is PermanentDeliveryError


# What a request does not carry


async def headers_of(target: Receiver, **options: Any) -> dict[str, str]:
    assert await call(target.url, allow_local_addresses=True, **options) is None
    return target.requests[-1].headers


async def test_nothing_of_netrc_is_sent_to_receivers_or_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login ann password hunter2\ndefault login bob password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    async with receiver() as target:
        assert "authorization" not in await headers_of(target)
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert "authorization" not in await headers_of(target)
        monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{target.port}")
        monkeypatch.setenv("NO_PROXY", "")
        found = await headers_of(target)
        assert {"authorization", "proxy-authorization"} & set(found) == set()


async def test_a_proxy_from_the_environment_gets_the_credentials_of_its_url_and_no_proxy_is_honored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with receiver() as target, receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:secret@localhost:{proxy.port}")
        monkeypatch.delenv("REQUEST_METHOD", raising=False)
        assert await call(target.url, allow_local_addresses=True) is None
        assert len(proxy.requests) == 1
        expected = base64.b64encode(b"ann:secret").decode()
        assert proxy.requests[0].headers["proxy-authorization"] == f"Basic {expected}"
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert "proxy-authorization" not in await headers_of(target)
        assert len(proxy.requests) == 1


async def test_a_cookie_is_not_kept_for_the_next_request() -> None:
    async with receiver(answer(200, Set_Cookie="session=1; Path=/")) as target:
        config = WebhookConfig(url=target.url, allow_local_addresses=True)
        channel = config.build("webhook:x", NOBODY)
        await channel.deliver(message())
        await channel.deliver(message())
        await channel.close()
        assert len(target.requests) == 2
        assert "cookie" not in target.requests[1].headers
