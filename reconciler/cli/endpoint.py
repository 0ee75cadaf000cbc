"""A reader of ``/debug/keys`` of a running operator, for ``reconciler explain``."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from reconciler._core.certificates import client_tls_context
from reconciler._core.wire import exceeds_max_levels
from reconciler.cli.options import AccessFlags, OperatorOptions
from reconciler.cli.output import running_dev
from reconciler.client.configuration import context_namespace
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.manager.endpoints.keys import KeysDocument
from reconciler.manager.endpoints.security import read_token

T = TypeVar("T")

_TIMEOUT = 10.0
"""Seconds for the connection, and for each part of the response."""

_COMPLETE_TIMEOUT = 60.0
"""Seconds for the whole response; the largest takes that long over a slow connection."""

_MAX_BYTES = 64 * 2**20

_FORWARD = "kubectl port-forward deploy/NAME 8080"

HINT = f"pass the address of --metrics or --health of the operator, or forward its port: {_FORWARD}"
"""What to do if an endpoint is not that of an operator."""


class EndpointError(ReconcilerError):
    """The operator could not be asked; the message names the endpoint and says what to do."""


class PathNotServed(EndpointError):
    """The endpoint serves something, but not what was asked for."""


class Operator(NamedTuple):
    """An operator that can be asked.

    Attributes:
        endpoint: the address to ask.
        namespace: the namespace of the kubeconfig's context; None without a kubeconfig.
    """

    endpoint: str
    namespace: str | None


def find_operator(options: OperatorOptions) -> Operator:
    """Return the operator to ask.

    That is the one at ``--endpoint``, or that of ``reconciler dev`` if it runs on the server of the kubeconfig or of
    ``reconciler.kubeconfig`` in this directory.

    Raises:
        ConfigurationError: neither is there, or the kubeconfig cannot be read.
    """
    if options.endpoint is not None:
        return Operator(options.endpoint, context_namespace(options.kubeconfig, options.context))
    dev = running_dev(options.kubeconfig, options.context)
    if dev is None:
        raise ConfigurationError(
            "no 'reconciler dev' runs here: pass --endpoint. For an operator in a cluster, run "
            f"'{_FORWARD}', and pass --endpoint http://127.0.0.1:8080"
        )
    kubeconfig, endpoint = dev
    return Operator(endpoint, context_namespace(kubeconfig, None))


Sink = Callable[[bytes], object]


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
    return _decoded(endpoint, read_debug(endpoint, access, "/debug/keys", sink=None, **query))


def read_debug(endpoint: str, access: AccessFlags, path: str, *, sink: Sink | None = None, **query: str) -> bytes:
    """Return the body of a path below ``/debug``; see `read_keys`.

    Args:
        endpoint: as for `read_keys`.
        access: as for `read_keys`.
        path: the path.
        query: its query.
        sink: called with each part of a body of any size and duration, which is not returned then.

    Raises:
        PathNotServed: there is no such thing.
    """
    url = _parsed(endpoint, path, query)
    headers = {"accept": "application/json"}
    if access.token_file is not None:
        headers["authorization"] = f"Bearer {_read_token(access.token_file)}"
    try:
        context = _tls_context(access) if url.scheme == "https" else True
        status, body = asyncio.run(_get(url, headers, context, sink))
    except UnicodeError as error:
        raise ConfigurationError(_invalid(endpoint)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise EndpointError(f"--endpoint {endpoint}: {_reason(url, error)}") from error
    if status in (401, 403, 503) and body.startswith(b"%d: " % status):
        raise EndpointError(f"--endpoint {endpoint}: {_refused(status, body, access)}")
    if status != 200:
        raise PathNotServed(f"--endpoint {endpoint}: {path} is not served there (status {status}); {HINT}")
    if len(body) > _MAX_BYTES:
        raise EndpointError(f"--endpoint {endpoint}: the response has more than {_MAX_BYTES} bytes; {HINT}")
    return body


def _reason(url: URL, error: Exception) -> str:
    """Return why there is no response, and what to do."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            text = getattr(error.certificate_error, "verify_message", str(error.certificate_error)).rstrip(".")
            hint = "pass --ca-file with the CA that signed it, or --insecure-skip-tls-verify"
            return f"the certificate is not trusted: {text}; {hint}"
        case aiohttp.ClientConnectorSSLError():
            reason = getattr(error.os_error, "reason", None) or "the handshake failed"
            return f"no TLS connection: {reason}; try http://"
        case TimeoutError():
            text = f"no response within {_TIMEOUT:g} s, or no end of it within {_COMPLETE_TIMEOUT:g} s"
        case aiohttp.ClientConnectorDNSError():
            text = f"unknown host {url.host!r}"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            text = "nothing listens there"
        case aiohttp.ClientPayloadError():
            text = "the connection was lost before the end of the response"
        case aiohttp.ClientConnectorError():
            text = f"cannot connect: {error.os_error.strerror or error.os_error}"
        case _:
            text = "the response is not HTTP" + ("; try https://" if url.scheme == "http" else "")
    return f"{text}; {HINT}"


def _parsed(endpoint: str, path: str, query: Mapping[str, str]) -> URL:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0 and url.username is None
    except ValueError:
        url, valid = urlsplit(""), False
    printable_ascii = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    if not valid or not printable_ascii or url.query or url.fragment:
        raise ConfigurationError(_invalid(endpoint))
    return URL(f"{endpoint.rstrip('/')}{path}?{urlencode(query)}", encoded=True)


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


async def _get(
    url: URL, headers: dict[str, str], context: ssl.SSLContext | bool, sink: Sink | None
) -> tuple[int, bytes]:
    complete = _COMPLETE_TIMEOUT if sink is None else None
    timeout = aiohttp.ClientTimeout(total=complete, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
    body = bytearray()
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, headers=headers, ssl=context, allow_redirects=False) as response,
    ):
        async for chunk in response.content.iter_any():
            if sink is not None and response.status == 200:
                sink(chunk)
                continue
            body += chunk
            if len(body) > _MAX_BYTES:
                break
        return response.status, bytes(body)


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
