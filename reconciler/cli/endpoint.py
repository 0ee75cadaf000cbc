"""A reader of ``/debug/keys`` of a running operator, for ``reconciler explain`` and ``reconciler top``."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.wire import JSONObject

__all__ = ["EndpointError", "duration", "key_text", "read_keys"]

_TIMEOUT = 10.0
_MAX_BYTES = 64 * 2**20

_HINT = "pass the address of --metrics or --health of the operator, or that of 'kubectl port-forward POD 8080'"


class EndpointError(ReconcilerError):
    """The operator could not be asked; the message names the endpoint and says what to do."""


def read_keys(endpoint: str, **query: str) -> JSONObject:
    """Return the document of ``/debug/keys``.

    Args:
        endpoint: ``http://host:port``, with or without a path in front of ``/debug/keys``.
        query: selects keys.

    Raises:
        ConfigurationError: the endpoint is not a valid URL.
        EndpointError: nothing listens there, or something else does.
    """
    url = _parsed(endpoint)
    try:
        status, body = _get(url, f"{url.path.rstrip('/')}/debug/keys?{urlencode(query)}")
    except ConnectionRefusedError as error:
        raise EndpointError(f"--endpoint {endpoint}: nothing listens there; {_HINT}") from error
    except TimeoutError as error:
        raise EndpointError(f"--endpoint {endpoint}: no response within {_TIMEOUT:g} s; {_HINT}") from error
    except socket.gaierror as error:
        raise EndpointError(f"--endpoint {endpoint}: unknown host {url.hostname!r}; {_HINT}") from error
    except ssl.SSLError as error:
        reason = error.reason or "the handshake failed"
        raise EndpointError(f"--endpoint {endpoint}: no TLS connection: {reason}; try http://") from error
    except (http.client.HTTPException, ConnectionError) as error:
        raise EndpointError(f"--endpoint {endpoint}: the response is not HTTP; {_HINT}") from error
    except OSError as error:
        raise EndpointError(f"--endpoint {endpoint}: cannot connect: {error.strerror or error}; {_HINT}") from error
    if status != 200:
        raise EndpointError(f"--endpoint {endpoint}: /debug/keys is not served there (status {status}); {_HINT}")
    return _decoded(endpoint, body)


def _parsed(endpoint: str) -> SplitResult:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0 and url.username is None
    except ValueError:
        url, valid = urlsplit(""), False
    if not valid or any(ord(letter) <= 32 for letter in endpoint) or url.query or url.fragment:
        raise ConfigurationError(
            f"--endpoint {endpoint!r} is not a valid address: write 'http://HOST:PORT', such as 'http://127.0.0.1:8080'"
        )
    return url


def _get(url: SplitResult, path: str) -> tuple[int, bytes]:
    make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = make(url.hostname or "", url.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path, headers={"accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(_MAX_BYTES)
    finally:
        connection.close()


def _decoded(endpoint: str, body: bytes) -> JSONObject:
    try:
        document = msgspec.json.decode(body)
        if isinstance(document, dict) and isinstance(document["controllers"], list):
            return document
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
        pass
    raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator of kube-reconciler; {_HINT}")


def key_text(key: Mapping[str, str]) -> str:
    """Return ``namespace/name``, or the name alone."""
    return f"{key['namespace']}/{key['name']}" if "namespace" in key else key["name"]


def duration(seconds: float) -> str:
    """Return a duration as a person would say it: ``"12 ms"``, ``"48 s"``, ``"5 min"``, ``"2.5 h"``, ``"3 days"``."""
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
