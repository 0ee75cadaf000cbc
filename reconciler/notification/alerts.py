"""The webhook for Alertmanager and Grafana: each group of alerts becomes one NotificationRequest."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from reconciler._core.limits import Limits
from reconciler._core.wire import exceeds_max_levels
from reconciler.errors import AlreadyExists, APIError, ConfigurationError, ReconcilerError, error_text
from reconciler.manager.endpoints.security import sent_token
from reconciler.manager.endpoints.server import Address
from reconciler.notification.api import (
    BODY_LIMIT,
    EXTENSION_LIMIT,
    IDENTIFIER_LENGTH,
    LINK_LIMIT,
    NAME_LENGTH,
    ActionLink,
    Incident,
    NotificationRequest,
    NotificationRequestSpec,
    Priority,
)
from reconciler.notification.channel import RetryableDeliveryError
from reconciler.notification.credentials import Credentials
from reconciler.objects import ObjectMeta

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler.client import Client

ALERT_LIMIT = 10_000
"""Maximum alerts of a group."""


class _Payload(BaseModel):
    """A part of a payload; unknown members are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Alert(_Payload):
    """One alert of a group. The last three members are Grafana's."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: str = ""
    fingerprint: str = ""
    generator_url: str = Field(default="", alias="generatorURL")
    dashboard_url: str = Field(default="", alias="dashboardURL")
    panel_url: str = Field(default="", alias="panelURL")
    silence_url: str = Field(default="", alias="silenceURL")

    @property
    def identity(self) -> str:
        """Return what stays the same while the alert fires, and differs when it fires again."""
        known = self.fingerprint or repr(sorted(self.labels.items()))
        return f"{known}@{self.starts_at}"


class AlertGroup(_Payload):
    """A group of alerts. `title`, `message` and `org_id` are Grafana's."""

    group_key: str = Field(min_length=1)
    status: Literal["firing", "resolved"]
    receiver: str = ""
    alerts: list[Alert] = Field(min_length=1, max_length=ALERT_LIMIT)
    group_labels: dict[str, str] = Field(default_factory=dict)
    common_labels: dict[str, str] = Field(default_factory=dict)
    common_annotations: dict[str, str] = Field(default_factory=dict)
    external_url: str = Field(default="", alias="externalURL")
    truncated_alerts: int = 0
    title: str = ""
    message: str = ""
    org_id: Any = None


SHOWN = 50
"""Maximum alerts that the body describes."""

KEPT = 7 * 86_400
"""Seconds until a finished request is deleted. Until then repeats of the same alerts are recognized; Alertmanager's
``repeat_interval`` must be shorter (its default is 4 h)."""

_URL = re.compile(r"https?://[^\s<>|]+")
_PRIORITIES: dict[str, Priority] = {
    **dict.fromkeys(("critical", "emergency", "page", "p1", "disaster"), "Critical"),
    **dict.fromkeys(("error", "high", "major", "p2"), "High"),
    **dict.fromkeys(("info", "informational", "low", "none", "p4", "p5"), "Low"),
}


def request_for(group: AlertGroup, namespace: str, token: str) -> NotificationRequest:
    """Return the request for a group of alerts.

    Its name is derived from the group's key, the alerts that fire, or that have been resolved, and the senders' token.
    The same alerts have the same name, so a repeat is not another request, from any sender. Nobody without the token
    can take the name before.
    """
    resolved = group.status == "resolved"
    alerts = [alert for alert in group.alerts if resolved or alert.status == "firing"]
    content = "\n".join([group.status, *sorted(alert.identity for alert in alerts)])
    key = _digest(group.group_key)
    name = hmac.new(token.encode(), f"{key}\n{content}".encode(errors="replace"), hashlib.sha256).hexdigest()
    return NotificationRequest(
        metadata=ObjectMeta(name=f"alert-{key[:16]}-{name[:24]}", namespace=namespace),
        spec=NotificationRequestSpec(
            type="StatusUpdate" if resolved else "Escalation",
            priority=_priority(alerts),
            subject=_subject(group, alerts),
            body=_body(group, alerts),
            extensions=_extensions(group),
            action_links=list(_links(group, alerts))[:LINK_LIMIT] or None,
            incident=Incident(key=f"group-{key[:32]}", action="Resolve" if resolved else "Trigger"),
            correlation_id=group.group_key if len(group.group_key) <= IDENTIFIER_LENGTH else key,
            sender="grafana" if group.org_id is not None else "alertmanager",
            ttl_seconds_after_finished=KEPT,
        ),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _priority(alerts: Iterable[Alert]) -> Priority:
    """Return the highest priority that the label ``severity`` of an alert stands for; Medium for others."""
    found: list[Priority] = [_PRIORITIES.get(alert.labels.get("severity", "").lower(), "Medium") for alert in alerts]
    return min(found, key=get_args(Priority).index) if found else "Medium"


def _subject(group: AlertGroup, alerts: list[Alert]) -> str:
    state = "RESOLVED" if group.status == "resolved" else f"FIRING:{len(alerts) + group.truncated_alerts}"
    labels = {**group.group_labels, **group.common_labels}
    name = labels.pop("alertname", "") or group.receiver or "alerts"
    about = ", ".join(f"{key}={value}" for key, value in sorted(group.group_labels.items()) if key != "alertname")
    made = f"[{state}] {name}" + (f" ({about})" if about else "")
    return " ".join(group.title.split() or made.split())[:500]  # a template of Grafana's may leave a blank title


def _body(group: AlertGroup, alerts: list[Alert]) -> str:
    """Return Markdown: Grafana's message, or a paragraph for each alert."""
    text = group.message or "\n\n".join(_paragraph(alert) for alert in alerts[:SHOWN])
    left = len(alerts) - SHOWN + group.truncated_alerts if not group.message else 0
    if left > 0:
        text += f"\n\nand {left} more"
    return text[:BODY_LIMIT].strip() or group.status


def _paragraph(alert: Alert) -> str:
    title = alert.labels.get("alertname", "alert")
    about = alert.annotations.get("summary") or alert.annotations.get("description") or ""
    labels = ", ".join(f"{name}={value}" for name, value in sorted(alert.labels.items()) if name != "alertname")
    return f"**{title}** {about}\n{labels}\nsince {alert.starts_at}"


def _extensions(group: AlertGroup) -> dict[str, str]:
    """Return the attributes for routing: the common labels, ``receiver`` and ``status``, which take precedence."""
    own = {"receiver": group.receiver, "status": group.status}
    labels = {**own, **group.group_labels, **group.common_labels, **own}  # first, so that the limit keeps them
    kept = [(name, value[:1024]) for name, value in labels.items() if value and len(name) <= NAME_LENGTH]
    return dict(kept[:EXTENSION_LIMIT])


def _links(group: AlertGroup, alerts: Iterable[Alert]) -> Iterator[ActionLink]:
    sender = "grafana" if group.org_id is not None else "alertmanager"
    urls = [(sender, group.external_url, sender.capitalize())]
    for alert in alerts:
        urls += [
            ("grafana", alert.dashboard_url, "Dashboard"),
            ("grafana", alert.panel_url, "Panel"),
            ("prometheus", alert.generator_url, "Source"),
            ("grafana", alert.silence_url, "Silence"),
        ]
    seen: set[str] = set()
    for service, url, label in urls:
        if url not in seen and len(url) <= 2048 and _URL.fullmatch(url):
            seen.add(url)
            yield ActionLink(service=service, url=url, label=label)


_log = logging.getLogger("reconciler.notification")

BODY_BYTES = 4 * 1024 * 1024
"""Maximum bytes of a webhook. A thousand alerts of Alertmanager take about one MiB."""

SHUTDOWN_SECONDS = 5.0


class AlertReceiver:
    """A server for ``POST /``, which creates a NotificationRequest for each new state of a group of alerts.

    The sender proves itself by the header ``Authorization``: ``Bearer`` and the token, or ``Basic`` with the token as
    the password. It runs on every replica; several replicas, and several Alertmanagers, create one request.

    Responses: 200 if the request exists, 401 without the token, 400 for an invalid payload, 422 if the API server
    refuses the request; the senders do not repeat these. 503 if it cannot be created now; they repeat it.

    Args:
        address: ``HOST:PORT``; the host may be empty for all addresses, and port 0 means a free one.
        token: name of the credential that holds the token.

    Raises:
        ConfigurationError: the address is invalid.
    """

    def __init__(self, client: Client, address: str, *, namespace: str, credentials: Credentials, token: str) -> None:
        self._address = Address.parse("alertmanager_webhook", address)
        self._client = client
        self._namespace = namespace
        self._credentials = credentials
        self._token = token
        self._limits = Limits(body_bytes=BODY_BYTES)
        self._listening = asyncio.Event()
        self.port = self._address.port

    async def listening(self) -> None:
        """Wait until the server listens. Cancellation changes nothing."""
        await self._listening.wait()

    async def run(self) -> None:
        """Serve until cancelled; then finish the requests in progress, for at most five seconds.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        from reconciler._core.server import HTTPServer

        server = HTTPServer(self._handle, self._limits)
        try:
            try:
                await server.start(self._address.host or None, self._address.port)
            except OSError as error:
                reason = f"cannot listen on {self._address} for alerts: {error.strerror}"
                raise ConfigurationError(reason) from error
            self.port = server.addresses[0][1]
            self._listening.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(server.close(SHUTDOWN_SECONDS))

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        from aiohttp import web

        from reconciler._core.server import read_body

        if request.path != "/":
            return web.Response(status=404, text="404: alerts are accepted at /\n")
        if request.method != "POST":
            return web.Response(status=405, text="405: only POST is supported\n", headers={"allow": "POST"})
        if not self._is_authorized(request.headers.get("Authorization", "")):
            return web.Response(status=401, text="401: wrong token\n", headers={"www-authenticate": "Bearer"})
        status, text = await self._accept(await read_body(request, self._limits))
        return web.Response(status=status, text=f"{text}\n")

    def _is_authorized(self, header: str) -> bool:
        try:
            token = self._credentials.get(self._token)
        except RetryableDeliveryError as error:
            _log.error("alerts are refused: %s", error)
            return False
        given = sent_token(header)
        return given is not None and hmac.compare_digest(given.encode(errors="replace"), token.encode())

    async def _accept(self, body: bytes) -> tuple[int, str]:
        """Create the request for a payload; return the status and the text of the response."""
        try:
            request = request_for(_parsed(body), self._namespace, self._credentials.get(self._token))
        except RetryableDeliveryError:
            return 503, "503: the token cannot be read now"
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return 400, f"400: not a payload of Alertmanager or Grafana: {where}: {first['msg']}"
        except (msgspec.DecodeError, ValueError, RecursionError):
            return 400, "400: not a payload of Alertmanager or Grafana: invalid JSON"
        return await self._create(request)

    async def _create(self, request: NotificationRequest) -> tuple[int, str]:
        name = f"{request.namespace}/{request.name}"
        try:
            await self._client.create(request)
        except AlreadyExists:
            return 200, f"{name} exists already"
        except APIError as error:
            if 400 <= error.status < 500 and error.status != 429:
                _log.error("the request %s for alerts is refused: %s", name, error_text(error))
                return 422, f"422: {error_text(error)}"
            return 503, "503: the API server cannot create the request now"
        except (ReconcilerError, OSError):
            return 503, "503: the API server cannot be reached"
        return 200, f"{name} created"


def _parsed(body: bytes) -> AlertGroup:
    document = msgspec.json.decode(body)
    if exceeds_max_levels(document):
        raise ValueError("too many levels")
    return AlertGroup.model_validate(document)
