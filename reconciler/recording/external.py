"""An HTTP client for what is outside the cluster, whose requests are effects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.controller.effects import effect


@dataclass(frozen=True, slots=True)
class ExternalResponse:
    """A response to an `ExternalClient`.

    Attributes:
        status: the status code; no code raises.
        headers: names in lower case.
        text: the body as text.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            json.JSONDecodeError: it is none.
        """
        return json.loads(self.text)


def _not_sent(url: str, method: str = "GET", **_: Any) -> ExternalResponse:
    return ExternalResponse(503, {}, f"{method} {url} is not sent while planning")


class ExternalClient:
    """Sends requests through an ``aiohttp.ClientSession`` or an ``httpx.AsyncClient``, each as an `effect`.

    So recordings keep the responses, replays return them, explorations see the requests, and a plan sends none: it gets
    the status 503, unless an `effect` of your own around the request says otherwise.

    Args:
        client: the session or client. You open and close it.
    """

    def __init__(self, client: Any) -> None:
        if not callable(getattr(client, "request", None)):
            raise TypeError(f"{client!r} is not an aiohttp.ClientSession or httpx.AsyncClient")
        self._client = client

    @effect(planned=_not_sent)
    async def request(self, url: str, method: str = "GET", **options: Any) -> ExternalResponse:
        """Send a request; the URL is the key of the effect. A cancelled call may have taken effect.

        Args:
            url: the URL; relative to that of the client if it has one.
            method: the method.
            options: as the client takes them: ``json=``, ``headers=``, ``timeout=`` and others.

        Raises:
            Exception: what the client raises if there is no response.
        """
        sent = self._client.request(method, url, **options)
        if not hasattr(sent, "__aenter__"):
            response = await sent
            return ExternalResponse(response.status_code, _lowered(response.headers), response.text)
        async with sent as response:
            return ExternalResponse(response.status, _lowered(response.headers), await response.text())


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
