"""The channels of single services: real requests to a local receiver, within the services' limits."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from reconciler.notification import (
    Credentials,
    DeferredDeliveryError,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channel import Link
from reconciler.notification.channels.services import RECEIVER_KINDS, build_channel
from tests.notification.receivers import Behaviour, Received, answer, own_address, receiver, reset, stall
from tests.notification.test_receivers import sent

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "notification-receivers.md").read_text()
KEY = "k" * 32

EXAMPLE = Message(
    name="disk-full",
    namespace="prod",
    uid="0c2f1a64-6a0e-4f7b-9b0e-5f2f6f5f3c11",
    type="Escalation",
    priority="Critical",
    subject="Disk almost full on node-7",
    body="**/var/lib** is at 93 %.",
    channel="SERVICE:on-call",
    extensions={"team": "storage"},
    links=(Link(service="grafana", url="https://grafana.example.com/d/1", label="Dashboard"),),
    incident="node-7-disk",
)
LARGEST = replace(
    EXAMPLE,
    subject="\N{PILE OF POO}" * 500,
    body="\N{PILE OF POO}@" * 32_768,
    extensions={f"name-{number}": "\N{PILE OF POO}" * 1024 for number in range(64)},
    links=tuple(
        Link(service="s", url=f"https://x.example/{'é' * 2029}", label="\N{PILE OF POO}" * 75) for _ in range(16)
    ),
)

OPTIONS: dict[str, dict[str, Any]] = {
    "pagerduty": {"routing_key_credential": "key"},
    "jsm": {"api_key_credential": "key", "responders": [{"type": "team", "id": "4513b7ea"}], "tags": ["kubernetes"]},
}
ELSEWHERE = {
    "webhook": "test_receivers.py::test_a_webhook_gets_the_message_as_json_with_an_idempotency_key",
    "slack": "test_receivers.py::test_slack_gets_blocks_within_its_limits",
    "email": "test_receivers.py::test_a_mail_goes_out_over_tls_with_a_login_as_text_and_html",
    "apprise": "test_services.py::test_apprise_delivers_with_its_own_format",
}
"""The delivery tests of the kinds that are not a single HTTP request with a document of the service."""

SERVICES = sorted(set(RECEIVER_KINDS) - set(ELSEWHERE))
"""All other kinds: the tests below deliver each of them, and fail for one without a section in the manual."""


async def arrived(
    kind: str, message: Message, tmp_path: Path, *behaviours: Behaviour, **options: Any
) -> tuple[Received, BaseException | None]:
    """Deliver a message over a new channel of this kind; return what the receiver got, and the delivery error."""
    (tmp_path / "key").write_text(KEY)
    async with receiver(*behaviours) as target:
        config = {"url": target.url, "allow_local_addresses": True, **OPTIONS.get(kind, {}), **options}
        entry = RECEIVER_KINDS[kind].model_validate(config)
        channel = build_channel(f"{kind}:on-call", entry, Credentials(tmp_path))
        error = await sent(channel, replace(message, channel=f"{kind}:on-call"))
    (request,) = target.requests
    return request, error


def documented(kind: str) -> list[Any]:
    """Return the JSON blocks in the service's section of the page."""
    section = re.search(rf"^## [^\n]*`{kind}_configs`.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/notification-receivers.md has no section for {kind}_configs"
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section.group(), re.DOTALL)]


@pytest.mark.parametrize("kind", SERVICES)
async def test_what_arrives_is_what_the_page_shows(kind: str, tmp_path: Path) -> None:
    request, error = await arrived(kind, EXAMPLE, tmp_path)
    assert error is None
    shown = json.loads(request.body)
    if kind == "pagerduty":
        shown["routing_key"] = "KEY"
    assert shown == documented(kind)[0], json.dumps(shown, indent=2, ensure_ascii=False)


@pytest.mark.parametrize("kind", SERVICES)
@pytest.mark.parametrize("action", ["Trigger", "Resolve"])
async def test_the_largest_message_is_within_the_limits(kind: str, action: Any, tmp_path: Path) -> None:
    request, error = await arrived(kind, replace(LARGEST, action=action), tmp_path)
    assert error is None
    shown = json.loads(request.body)
    limits: dict[str, Callable[[], bool]] = {
        "teams": lambda: len(request.body) <= 28_000,
        "pagerduty": lambda: len(request.body) <= 512_000 and len(shown.get("payload", {}).get("summary", "")) <= 1024,
        "jsm": lambda: len(shown.get("message", "")) <= 130 and len(shown.get("description", "")) <= 15_000,
        "discord": lambda: _discord_units(shown["embeds"][0]),
        "mattermost": lambda: len(shown["text"]) <= 16_383,
        "cloudevents": lambda: len(request.body) <= 65_536,
    }
    assert limits[kind]()


def _discord_units(embed: Any) -> bool:
    title, text, foot = (
        len(t.encode("utf-16-le")) // 2 for t in (embed["title"], embed["description"], embed["footer"]["text"])
    )
    return title <= 256 and text <= 4096 and title + text + foot <= 6000


@pytest.mark.parametrize("kind", SERVICES)
@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, DeferredDeliveryError), (503, RetryableDeliveryError), (400, PermanentDeliveryError)],
)
async def test_a_refusal_has_the_same_meaning_for_every_service(
    kind: str, status: int, expected: type, tmp_path: Path
) -> None:
    _, error = await arrived(kind, EXAMPLE, tmp_path, answer(status, b"no", Retry_After="7"))
    assert type(error) is expected
    if isinstance(error, (DeferredDeliveryError, RetryableDeliveryError)):
        assert error.retry_after == 7


# Incidents


@pytest.mark.parametrize("action", ["Acknowledge", "Resolve"])
async def test_an_incident_is_acknowledged_and_resolved_by_its_key(action: Any, tmp_path: Path) -> None:
    about = replace(EXAMPLE, action=action, uid="another", name="another")
    event, error = await arrived("pagerduty", about, tmp_path)
    assert error is None
    body = {"routing_key": KEY, "event_action": action.lower(), "dedup_key": "prod/node-7-disk"}
    assert json.loads(event.body) == body
    alert, error = await arrived("jsm", about, tmp_path)
    assert error is None
    verb = {"Acknowledge": "acknowledge", "Resolve": "close"}[action]
    assert alert.path.endswith(f"/prod%2Fnode-7-disk/{verb}?identifierType=alias")
    assert alert.headers["authorization"] == f"GenieKey {KEY}"


async def test_requests_without_an_incident_share_no_key(tmp_path: Path) -> None:
    keys = {
        json.loads((await arrived("pagerduty", replace(EXAMPLE, incident="", uid=uid), tmp_path))[0].body)["dedup_key"]
        for uid in ("u-1", "u-2")
    }
    assert keys == {"u-1", "u-2"}


async def test_an_incident_of_another_namespace_has_another_key(tmp_path: Path) -> None:
    request, _ = await arrived("pagerduty", replace(EXAMPLE, namespace="dev", action="Resolve"), tmp_path)
    assert json.loads(request.body)["dedup_key"] == "dev/node-7-disk"


async def test_a_key_that_is_none_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    config = RECEIVER_KINDS["pagerduty"].model_validate({"routing_key_credential": "key"})
    error = await sent(build_channel("pagerduty:x", config, Credentials(tmp_path)), EXAMPLE)
    assert type(error) is PermanentDeliveryError
    assert "'key' is not an integration key" in str(error)
    assert "not a key" not in str(error)


# Chats


async def test_no_mention_in_a_message_notifies_anybody(tmp_path: Path) -> None:
    loud = replace(EXAMPLE, subject="@everyone", body="@here <@123> @channel @all")
    request, _ = await arrived("mattermost", loud, tmp_path, channel="town-square")
    post = json.loads(request.body)
    assert re.search(r"@\w", post["text"]) is None
    assert post["channel"] == "town-square"
    request, _ = await arrived("discord", loud, tmp_path)
    assert json.loads(request.body)["allowed_mentions"] == {"parse": []}


# CloudEvents


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_an_event_is_what_the_cloudevents_library_reads(mode: str, tmp_path: Path) -> None:
    about = replace(EXAMPLE, subject="Platte fast voll: é", name="disk-full")
    request, error = await arrived("cloudevents", about, tmp_path, mode=mode)
    assert error is None
    event = from_http_event(HTTPMessage(headers=request.headers, body=request.body))
    assert event.get_id() == f"{EXAMPLE.uid}/cloudevents:on-call"
    assert event.get_type() == "dev.reconciler.notification.Escalation"
    assert event.get_source() == "/apis/notify.reconciler.dev/namespaces/prod"
    assert event.get_subject() == "disk-full"
    assert event.get_data()["subject"] == "Platte fast voll: é"
    again, _ = await arrived("cloudevents", replace(about, attempt=2), tmp_path, mode=mode)
    assert from_http_event(HTTPMessage(headers=again.headers, body=again.body)).get_id() == event.get_id()


# Apprise


async def apprise(
    tmp_path: Path, *behaviours: Behaviour, scheme: str = "json", query: str = "", **options: Any
) -> tuple[list[Received], BaseException | None]:
    async with receiver(*behaviours) as target:
        (tmp_path / "url").write_text(f"{scheme}://localhost:{target.port}/hook/T0P5ECRETPATH{query}")
        config = {"url_credential": "url", "allow_local_addresses": True, "timeout": 2, **options}
        channel = build_channel("apprise:x", RECEIVER_KINDS["apprise"](**config), Credentials(tmp_path))
        return target.requests, await sent(channel, replace(EXAMPLE, channel="apprise:x"))


async def test_apprise_delivers_with_its_own_format(tmp_path: Path) -> None:
    (request,), error = await apprise(tmp_path)
    assert error is None
    assert request.path == "/hook/T0P5ECRETPATH"
    assert json.loads(request.body) == documented("apprise")[0]


@pytest.mark.parametrize(
    ("behaviour", "expected", "text"),
    [
        (answer(429, b"", Retry_After="9"), DeferredDeliveryError, "JSON: HTTP 429"),
        (answer(503), RetryableDeliveryError, "JSON: HTTP 503"),
        (answer(401), PermanentDeliveryError, "JSON: HTTP 401"),
        (answer(302, b"", Location="http://localhost/x"), PermanentDeliveryError, "redirects are not followed"),
        (reset(), UnknownDeliveryError, "connection lost"),
        (stall(), UnknownDeliveryError, "no response within 2 s"),
    ],
)
async def test_apprise_maps_what_happened(behaviour: Behaviour, expected: type, text: str, tmp_path: Path) -> None:
    requests, error = await apprise(tmp_path, behaviour)
    assert len(requests) == 1
    assert type(error) is expected
    assert text in str(error)
    if isinstance(error, DeferredDeliveryError):
        assert error.retry_after == 9


async def test_apprise_does_not_retry_by_itself_or_call_a_failure_a_success(tmp_path: Path) -> None:
    requests, error = await apprise(tmp_path, answer(500), query="?retry=3&wait=0&optional=yes&rto=60")
    assert len(requests) == 1
    assert isinstance(error, RetryableDeliveryError)
    assert error.doubtful


async def test_apprise_with_nobody_listening_has_sent_nothing(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("json://localhost:1/x")
    config = RECEIVER_KINDS["apprise"](url_credential="url", allow_local_addresses=True)
    error = await sent(build_channel("apprise:x", config, Credentials(tmp_path)), EXAMPLE)
    assert type(error) is RetryableDeliveryError


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("json://127.0.0.1:1/x", "blocked"),
        ("json://localhost:1/x", "blocked"),
        (f"json://{own_address()}:1/x", "blocked"),
        ("syslog://", "over HTTP only"),
        ("irc://127.0.0.1:6667/channel", "over HTTP only"),
        ("mailto://127.0.0.1:25/?to=a@b.example&from=a@b.example", "over HTTP only"),
        ("rsyslog://127.0.0.1", "over HTTP only"),
        ("nostr://nsec1" + "q" * 58 + "/127.0.0.1", "valid Apprise URL|over HTTP only"),
        ("fcm://project/device?keyfile=/etc/passwd", "over HTTP only"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template=/etc/passwd", "names a file"),
        ("json://x.example/a%0D%0Ab", "control character"),
        ("json://x.example/a%250D%250Ab", "control character"),
        ("json://x.example/a\tb", "control character"),
        ("json://x.example/" + "%25" * 20 + "0D", "control character"),
        ("nosuchservice://T0P5ECRET", "not a valid Apprise URL"),
    ],
)
async def test_apprise_rejects_local_targets_and_invalid_urls(url: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(url)
    config = RECEIVER_KINDS["apprise"](url_credential="url")
    error = await sent(build_channel("apprise:x", config, Credentials(tmp_path)), EXAMPLE)
    assert type(error) is PermanentDeliveryError
    assert re.search(text, str(error))
    assert "T0P5ECRET" not in str(error)


async def test_apprise_connects_to_the_address_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that has another address when it is resolved again leads to no local port."""
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def rebind(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return resolve(host, *arguments, **options)
        asked.append(host)
        return resolve("203.0.113.7" if len(asked) == 1 else "127.0.0.1", *arguments, **options)

    async with receiver() as target:
        monkeypatch.setattr(socket, "getaddrinfo", rebind)
        (tmp_path / "url").write_text(f"json://rebind.example:{target.port}/x")
        config = RECEIVER_KINDS["apprise"](url_credential="url", timeout=1)
        error = await sent(build_channel("apprise:x", config, Credentials(tmp_path)), EXAMPLE)
    assert target.requests == []
    assert "127.0.0.1, which is blocked" in str(error)


async def test_apprise_logs_neither_its_url_nor_the_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await apprise(tmp_path, answer(400))
    assert "T0P5ECRETPATH" not in caplog.text
    assert "93 %" not in caplog.text


async def test_hanging_services_occupy_a_bounded_number_of_threads(tmp_path: Path) -> None:
    async with receiver(stall()) as target:
        (tmp_path / "url").write_text(f"json://localhost:{target.port}/x")
        config = RECEIVER_KINDS["apprise"](
            url_credential="url", allow_local_addresses=True, timeout=30, max_concurrent=2, breaker_failures=99
        )
        channel = build_channel("apprise:x", config, Credentials(tmp_path))
        for number in (1, 2):  # abandoned by the operator's timeout, while their threads wait for the service
            delivery = asyncio.create_task(channel.deliver(EXAMPLE))
            while len(target.requests) < number:  # noqa: ASYNC110 - the server is another program in spirit
                await asyncio.sleep(0.01)
            delivery.cancel()
            await asyncio.wait({delivery})
        assert isinstance(await sent(channel, EXAMPLE), DeferredDeliveryError)


# Adding a kind


def test_a_service_is_named_in_its_module_and_in_the_table_of_kinds_only() -> None:
    for kind in SERVICES:
        config = RECEIVER_KINDS[kind].__name__
        files = {path.name for path in (ROOT / "reconciler").rglob("*.py") if config in path.read_text()}
        assert files == {"services.py"}


def test_every_kind_has_a_delivery_test() -> None:
    assert set(SERVICES) | set(ELSEWHERE) == set(RECEIVER_KINDS)
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"async def {name}(" in (Path(__file__).parent / file).read_text()


def test_every_kind_has_a_section_with_what_arrives() -> None:
    for kind in {*SERVICES, "apprise"}:
        assert documented(kind)


def test_an_invalid_option_is_one_line_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"(?s)severity.*'critical', 'error', 'warning' or 'info'"):
        RECEIVER_KINDS["pagerduty"].model_validate({"routing_key_credential": "k", "severity": "loud"})
