"""The HTTP server that takes the webhooks of Alertmanager and Grafana."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING

import msgspec
from pydantic import ValidationError

from reconciler._core.limits import Limits, exceeds_max_levels
from reconciler.errors import AlreadyExists, APIError, ConfigurationError, ReconcilerError, error_text
from reconciler.manager.endpoints.security import sent_token
from reconciler.manager.endpoints.server import Address
from reconciler.notification.alerts.payload import AlertGroup
from reconciler.notification.alerts.requests import request_for
from reconciler.notification.api.types import NotificationRequest
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import RetryableDeliveryError

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler.client import Client

__all__ = ["AlertReceiver"]

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
