"""A reader of ``/debug/keys`` of a running operator, for ``reconciler explain`` and ``reconciler top``."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

from reconciler._core.limits import exceeds_max_levels
from reconciler._core.tls import client_tls_context
from reconciler.cli.options import AccessFlags
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.manager.endpoints.keys import KeysDocument
from reconciler.manager.endpoints.security import read_token

__all__ = ["HINT", "EndpointError", "printable", "read_keys"]

T = TypeVar("T")

_TIMEOUT = 10.0
"""Seconds for the connection, and for each part of the response."""

_COMPLETE_TIMEOUT = 60.0
"""Seconds for the whole response; the largest takes that long over a slow forwarded port."""

_MAX_BYTES = 64 * 2**20

HINT = "pass the address of --metrics or --health of the operator, or omit --endpoint to forward a port"
"""What to do if an endpoint is not that of an operator."""


class EndpointError(ReconcilerError):
    """The operator could not be asked; the message names the endpoint and says what to do."""


def read_keys(endpoint: str, access: AccessFlags = AccessFlags(), **query: str) -> KeysDocument:  # noqa: B008 - frozen
    """Return the document of ``/debug/keys``.

    Args:
        endpoint: ``http://host:port`` or https, with or without a path in front of ``/debug/keys``.
        access: the token to send, and which certificates to trust.
        query: selects keys.

    Raises:
        ConfigurationError: the endpoint is not a valid URL, or a file cannot be read.
        EndpointError: nothing listens there, or something else does.
    """
    url = _parsed(endpoint)
    headers = {"accept": "application/json"}
    if access.token_file is not None:
        headers["authorization"] = f"Bearer {_read_token(access.token_file)}"
    context = _tls_context(access) if url.scheme == "https" else None
    try:
        status, body = _get(url, f"{url.path.rstrip('/')}/debug/keys?{urlencode(query)}", headers, context)
    except UnicodeError as error:
        raise ConfigurationError(_invalid(endpoint)) from error
    except (OSError, http.client.HTTPException) as error:
        raise EndpointError(f"--endpoint {endpoint}: {_reason(url, error)}") from error
    if status in (401, 403, 503) and body.startswith(b"%d: " % status):
        raise EndpointError(f"--endpoint {endpoint}: {_refused(status, body, access)}")
    if status != 200:
        raise EndpointError(f"--endpoint {endpoint}: /debug/keys is not served there (status {status}); {HINT}")
    if len(body) > _MAX_BYTES:
        raise EndpointError(f"--endpoint {endpoint}: the response has more than {_MAX_BYTES} bytes; {HINT}")
    return _decoded(endpoint, body)


def _reason(url: SplitResult, error: Exception) -> str:
    """Return why there is no response, and what to do."""
    match error:
        case ssl.SSLCertVerificationError():
            text = error.verify_message.rstrip(".")
            hint = "pass --ca-file with the CA that signed it, or --insecure-skip-tls-verify"
            return f"the certificate is not trusted: {text}; {hint}"
        case ssl.SSLError():
            return f"no TLS connection: {error.reason or 'the handshake failed'}; try http://"
        case ConnectionRefusedError():
            text = "nothing listens there"
        case TimeoutError():
            text = f"no response within {_TIMEOUT:g} s, or no end of it within {_COMPLETE_TIMEOUT:g} s"
        case socket.gaierror():
            text = f"unknown host {url.hostname!r}"
        case http.client.HTTPException() | ConnectionError():
            text = "the response is not HTTP" + ("; try https://" if url.scheme == "http" else "")
        case _:
            text = f"cannot connect: {getattr(error, 'strerror', None) or error}"
    return f"{text}; {HINT}"


def _parsed(endpoint: str) -> SplitResult:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0 and url.username is None
    except ValueError:
        url, valid = urlsplit(""), False
    if not valid or not endpoint.isprintable() or " " in endpoint or url.query or url.fragment:
        raise ConfigurationError(_invalid(endpoint))
    return url


def _invalid(endpoint: str) -> str:
    return f"--endpoint {endpoint!r} is not a valid address: write 'http://HOST:PORT', such as 'http://127.0.0.1:8080'"


def _read_token(file: Path) -> str:
    try:
        return read_token(file)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("token_file=", "--token-file ")) from error


def _tls_context(access: AccessFlags) -> ssl.SSLContext:
    try:
        return client_tls_context(access.ca_file, verify=not access.insecure_skip_tls_verify)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "not a PEM file"
        raise ConfigurationError(f"--ca-file {access.ca_file}: cannot read the certificates: {reason}") from error


def _refused(status: int, body: bytes, access: AccessFlags) -> str:
    if status == 401 and access.token_file is None:
        return "it needs a token: pass --token-file"
    return f"the operator answered {printable(body[:300].decode(errors='replace').strip())}"


def _get(url: SplitResult, path: str, headers: dict[str, str], context: ssl.SSLContext | None) -> tuple[int, bytes]:
    host = url.hostname or ""
    if context is None:
        connection = http.client.HTTPConnection(host, url.port, timeout=_TIMEOUT)
    else:
        connection = http.client.HTTPSConnection(host, url.port, timeout=_TIMEOUT, context=context)
    late = threading.Event()
    try:
        connection.connect()
        used = connection.sock

        def give_up() -> None:
            late.set()
            socket.socket.shutdown(used, socket.SHUT_RDWR)  # not that of TLS, whose state the reader uses

        timer = threading.Timer(_COMPLETE_TIMEOUT, give_up)
        timer.daemon = True
        timer.start()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(_MAX_BYTES + 1)
        finally:
            timer.cancel()
            if late.is_set():
                raise TimeoutError
    finally:
        connection.close()


def _decoded(endpoint: str, body: bytes) -> KeysDocument:
    try:
        document = msgspec.json.decode(body)
        if not exceeds_max_levels(document):
            return msgspec.convert(document, KeysDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator of kube-reconciler; {HINT}")


def printable(value: T) -> T:
    """Return a value with the control characters of its strings escaped, since terminals obey them."""
    return msgspec.convert(_escaped(msgspec.to_builtins(value)), type(value))


def _escaped(value: Any) -> Any:
    match value:
        case str() if not value.isprintable():
            return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in value)
        case dict():
            return {name: _escaped(each) for name, each in value.items()}
        case list() | tuple():
            return [_escaped(each) for each in value]
        case _:
            return value
