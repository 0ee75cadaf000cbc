"""Write a status over the blocking client ``kubernetes``."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from reconciler.clock import current_clock
from reconciler.errors import NotSent, OutcomeUnknown, TransportError, error_text
from reconciler.meta import ResourceType
from reconciler.status.clients.official import AUTH, CONTENT_TYPES, OfficialWriter, not_sent_yet, read_answer
from reconciler.status.writer import Strategy

__all__ = ["BlockingClientWriter"]

_MIN_TIMEOUT = 0.001
"""Seconds; urllib3 refuses a timeout of 0."""


class BlockingClientWriter(OfficialWriter):
    """Be a `SyncStatusWriter` over an ApiClient with urllib3 below it.

    Each request is sent once, whatever retries the client is configured with: the connection pool is asked directly,
    with retries off for the request. ``request_timeout`` covers the connect and the wait for the answer.
    """

    def read(self) -> dict[str, Any]:
        """Return the whole object by a consistent GET.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        return self._send("GET", self._requests.path(self._served()))

    def write(
        self, body: dict[str, Any], *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> dict[str, Any]:
        """Send a body once.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        with not_sent_yet():
            served = self._served()
        return self._send(
            "PATCH",
            self._requests.path(served, subresource),
            query=self._requests.query(strategy),
            headers={"Content-Type": CONTENT_TYPES[strategy]},
            body=msgspec.json.encode(body),
        )

    def _served(self) -> ResourceType:
        served = self._requests.served()
        return served or self._requests.learn(self._send("GET", self._requests.discovery_path))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> dict[str, Any]:
        url, all_headers = self._addressed(method, path, query, {"Accept": "application/json", **(headers or {})})
        limit = sys.modules["urllib3"].Timeout(total=max(self.request_timeout, _MIN_TIMEOUT))
        began = current_clock().monotonic()
        try:
            response = self._api_client.rest_client.pool_manager.request(
                method, url, body=body, headers=all_headers, timeout=limit, retries=False
            )
        except Exception as error:
            without_answer = _without_answer(f"{method} {path}", error)
            if without_answer is None:
                raise
            raise without_answer from error
        finally:
            self.request_timeout -= current_clock().monotonic() - began
        answered = response.headers.items()
        document, self.warnings = read_answer(f"{method} {path}", response.status, answered, response.data)
        return document

    def _addressed(
        self, method: str, path: str, query: Sequence[tuple[str, str]], headers: dict[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        """Return the URL, and the headers with the client's own and its credentials."""
        client, parameters = self._api_client, list(query)
        if hasattr(client, "param_serialize"):
            _, url, headers, *_ = client.param_serialize(
                method, path, query_params=parameters, header_params=headers, auth_settings=AUTH
            )
            return url, headers
        headers = {**client.default_headers, **headers}
        client.update_params_for_auth(headers, parameters, AUTH)
        return f"{client.configuration.host}{path}" + (f"?{urlencode(parameters)}" if parameters else ""), headers


def _without_answer(request: str, error: Exception) -> TransportError | None:
    """Say what an error of the client means for the request; None when it is no error of the network."""
    names = {cls.__name__ for cls in type(error).__mro__}
    bad_certificate = any(isinstance(argument, ssl.SSLCertVerificationError) for argument in error.args)
    if names & {"NewConnectionError", "ConnectTimeoutError"} or bad_certificate:
        return NotSent(f"{request}: {error_text(error)}")
    if isinstance(error, OSError) or "HTTPError" in names:
        return OutcomeUnknown(f"{request}: {type(error).__name__}: {error_text(error)}")
    return None
