"""Status writers over the clients of other libraries, and the choice of the writer for a client.

A client is known by the module and the name of its class. None of the libraries is imported here.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from reconciler._core.lru import LRU
from reconciler._core.wire import UNDECODABLE
from reconciler.clock import current_clock
from reconciler.errors import (
    ConfigurationError,
    NotSent,
    OutcomeUnknown,
    TransportError,
    describe_error,
    error_from_response,
    error_text,
)
from reconciler.http import HTTPRequest, parse_retry_after
from reconciler.meta import Request, request_of
from reconciler.meta.documents import is_object
from reconciler.meta.field_managers import check_field_manager, current_controller, default_field_manager, program_name
from reconciler.meta.metadata import WRITE_METHODS, ResourceType, gvk_of
from reconciler.status.documents import kind_of
from reconciler.status.drivers import RunningTimeout
from reconciler.status.kopf import KopfPatch
from reconciler.status.writer import StatusWriter, Strategy, SyncStatusWriter

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

_PASSWORD = re.compile(r"(?<=://)[^\s/]*@")
"""User and password in the address of a proxy, which aiohttp's errors quote."""


def _without_password(text: str) -> str:
    return _PASSWORD.sub("***@", text)


def shown_cause(error: Exception) -> Exception | None:
    """Return the error as the cause of another one; None if its own text, which a traceback shows, has a password."""
    return None if _PASSWORD.search(error_text(error)) else error


_AIOHTTP_NOT_SENT = {
    *("ClientConnectorError", "ClientConnectorCertificateError", "ConnectionTimeoutError"),
    "ClientHttpProxyError",  # the proxy refuses the tunnel
}
"""Raised before anything of the request was sent. aiohttp's other errors may come later."""

_URLLIB3_NOT_SENT = {"NewConnectionError", "ConnectTimeoutError", "SSLCertVerificationError"}


_HTTPX_NOT_SENT = {
    *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError")
}


def _network_error(
    request: str, error: Exception, names: set[str], *, not_sent: set[str], unknown: set[str]
) -> TransportError | None:
    if names & not_sent:
        return NotSent(f"{request}: {_without_password(error_text(error))}")
    if isinstance(error, OSError) or names & unknown:
        return OutcomeUnknown(f"{request}: {_without_password(describe_error(error))}")
    return None


def _class_names(error: object) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def from_aiohttp(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    return _network_error(request, error, _class_names(error), not_sent=_AIOHTTP_NOT_SENT, unknown={"ClientError"})


def from_urllib3(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    names = _class_names(error)
    if "ProxyError" in names:  # urllib3 1 also raises it when a connection through the proxy breaks
        cause = error.original_error  # type: ignore[attr-defined]
        names |= _class_names(cause)
        if str(cause).startswith("Tunnel connection failed"):
            return NotSent(f"{request}: the proxy refused the connection: {cause}")
    names |= {name for argument in error.args for name in _class_names(argument) if name == "SSLCertVerificationError"}
    return _network_error(request, error, names, not_sent=_URLLIB3_NOT_SENT, unknown={"HTTPError"})


def from_httpx(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    unknown = {"TransportError", "APITimeoutError"}
    return _network_error(request, error, _class_names(error), not_sent=_HTTPX_NOT_SENT, unknown=unknown)


@contextmanager
def before_sending(request: HTTPRequest) -> Iterator[None]:
    """Report a failure of the credentials as `NotSent`. A hook is foreign code, and its message may contain a token."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        raise NotSent(f"{request.label}: the credentials could not be renewed ({type(error).__name__})") from None


@contextmanager
def network_errors(
    translate: Callable[[str, Exception], TransportError | None], request: HTTPRequest
) -> Iterator[None]:
    """Raise what an error of a client means for the request."""
    try:
        yield
    except Exception as error:
        transport_error = translate(request.label, error)
        if transport_error is None:
            raise
        raise transport_error from shown_cause(error)


@contextmanager
def before_the_write() -> Iterator[None]:
    """Report a failure before a write as `NotSent`: the write itself was not started."""
    try:
        yield
    except OutcomeUnknown as error:
        raise NotSent(str(error)) from error


AUTH = ["BearerToken"]
"""The generated clients' name for their only authentication by header."""

MAX_KINDS = 256

_served: LRU[Hashable, ResourceType] = LRU(MAX_KINDS)
_lock = threading.Lock()


RawResponse = tuple[int, Iterable[tuple[str, str]], bytes]
"""Status, headers and body."""


_ACCEPT = {"Accept": "application/json"}
"""In this case: kubernetes_asyncio looks for ``Content-Type`` and adds another one."""


def _get(path: str) -> HTTPRequest:
    return HTTPRequest("GET", path, headers=_ACCEPT)


class OfficialWriter:
    """The requests for one object over the client of another library; a `StatusWriter`.

    Args:
        api_client: the client; its authentication, proxy and TLS settings are used.
        obj_or_kind: the object, or its kind.
        document: the object; None for a kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: the name that writes are recorded under.
        timeout: seconds for one request, unless the batcher sets fewer.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        client: what identifies server and credentials: a program may create an ApiClient from it for each object.
        unsupported: why a strategy cannot be sent.
        request_timeout: seconds that the next call of `read` or `write` may take.
        warnings: the ``Warning`` headers of the last response.
        from_error: translates the library's errors.
    """

    from_error: Callable[[str, Exception], TransportError | None] = staticmethod(from_httpx)
    unsupported: Mapping[Strategy, str] = {
        "update": "needs a reconciler.Client: the official clients repeat a PUT by themselves when a connection "
        "breaks, and the second one conflicts with the first"
    }

    def __init__(
        self,
        api_client: Any,
        obj_or_kind: object,
        document: Mapping[str, Any] | None,
        *,
        name: str | None,
        namespace: str | None,
        field_manager: str,
        timeout: float,
    ) -> None:
        if document is None:
            self.gvk, self.request = kind_of(obj_or_kind), Request(name or "", namespace)
        else:
            try:
                self.gvk, self.request = gvk_of(document), request_of(document)
            except ValueError as error:
                raise ValueError(
                    f"{error}, as items of a list do: pass StatusBatcher 'group/version/Kind' with name= and namespace="
                ) from None
        self._api_client = api_client
        self.client, self._host = self.identify(api_client)
        self._key: Hashable = (self._host, self.gvk)
        declared = getattr(obj_or_kind, "resource_type", None)
        self._declared = declared if isinstance(declared, ResourceType) else None
        self.request_timeout = timeout
        self.field_manager = field_manager
        self.warnings: Sequence[str] = ()

    @property
    def identity(self) -> Hashable:
        """Return what identifies server, client and field manager."""
        return self._host, id(self._api_client), self.field_manager

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return what identifies server and credentials, and the address of the server."""
        return api_client.configuration, api_client.configuration.host

    def served(self) -> ResourceType | None:
        """Return how the kind is served; None if that is not known."""
        with _lock:
            return self._declared or _served.get(self._key)

    def learn(self, discovered: Mapping[str, Any]) -> ResourceType:
        """Return how the kind is served according to a discovery response, and remember it.

        Raises:
            ConfigurationError: the server does not serve the kind.
        """
        entries = discovered.get("resources")
        for entry in filter(is_object, entries if isinstance(entries, list) else ()):
            if entry.get("kind") == self.gvk.kind and "/" not in str(entry.get("name", "/")):
                found = ResourceType(self.gvk, str(entry["name"]), bool(entry.get("namespaced")))
                with _lock:
                    _served[self._key] = found
                return found
        raise ConfigurationError(f"the server does not serve {self.gvk}: install its CRD, and check the kind's name")

    def path(self, served: ResourceType, subresource: str | None = None) -> str:
        """Return the path of the object or its subresource.

        Raises:
            ConfigurationError: the kind is namespaced, and no namespace was given.
            ValueError: a name is not valid.
        """
        if not self.request.namespace and served.namespaced:
            raise ConfigurationError(
                f"{self.gvk.kind} {self.request.name!r} needs a namespace: pass namespace=, or an object that has one"
            )
        return served.path(*self.request, subresource)

    def write_request(
        self, served: ResourceType, body: JSONObject, strategy: Strategy, subresource: str | None
    ) -> HTTPRequest:
        """Build the request of a write."""
        method = WRITE_METHODS[strategy]
        query = [("fieldManager", self.field_manager), *method.parameters]
        headers = {**_ACCEPT, "Content-Type": method.content_type}
        return HTTPRequest(method.http, self.path(served, subresource), query, headers, msgspec.json.encode(body))

    async def read(self) -> JSONObject:
        """Read the whole object; see `StatusWriter`. Cancellation has no effect on the server.

        Raises:
            ConfigurationError: the server does not serve the kind.
        """
        return await self._send(_get(self.path(self.served() or await self._discover())))

    async def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once; see `StatusWriter`. A cancelled call may have been executed.

        Raises:
            ConfigurationError: the server does not serve the kind.
        """
        if (served := self.served()) is None:
            with before_the_write():
                served = await self._discover()
        return await self._send(self.write_request(served, body, strategy, subresource))

    async def _discover(self) -> ResourceType:
        return self.learn(await self._send(_get(self.gvk.path)))

    async def _send(self, request: HTTPRequest) -> JSONObject:
        with network_errors(self.from_error, request):
            status, headers, content = await self._exchange_in_time(request)
        document, self.warnings = read_answer(request, status, headers, content)
        return document

    async def _exchange_in_time(self, request: HTTPRequest) -> RawResponse:
        with RunningTimeout(self.request_timeout):
            return await self.exchange(request)

    async def exchange(self, request: HTTPRequest) -> RawResponse:
        """Send a request once. A cancelled call may have been executed."""
        raise NotImplementedError


class AsyncioClientWriter(OfficialWriter):
    """A `StatusWriter` over an ApiClient that uses aiohttp: kubernetes_asyncio or kubernetes.aio.

    A PATCH is sent once: aiohttp repeats only idempotent methods, and so does kubernetes.aio.
    """

    from_error = staticmethod(from_aiohttp)

    async def exchange(self, request: HTTPRequest) -> RawResponse:
        """Send a request once."""
        response = await self._call(request)
        return response.status, response.headers.items(), await response.read()

    async def _call(self, request: HTTPRequest) -> Any:
        """Make a raw request; the two clients differ in how that is done."""
        api_client, query, headers = self._api_client, list(request.query), dict(request.headers)
        body = msgspec.json.decode(request.body) if request.body else None
        arguments = {"query_params": query, "header_params": headers, "body": body}
        if hasattr(api_client, "param_serialize"):
            with before_sending(request):
                prepared = await api_client.param_serialize(
                    request.method, request.path, **arguments, auth_settings=AUTH
                )
            return await api_client.call_api(*prepared)
        with before_sending(request):
            await api_client.update_params_for_auth(headers, query, AUTH)
        return await api_client.call_api(
            request.path, request.method, **arguments, auth_settings=[], _preload_content=False
        )


class BlockingWriter(OfficialWriter):
    """A `SyncStatusWriter`: the same over a blocking client. Its coroutines never wait, so each runs in one step."""

    _MIN_TIMEOUT = 0.001
    """Seconds; urllib3 refuses a timeout of 0."""

    def read(self) -> JSONObject:  # type: ignore[override]
        """Read the whole object; see `OfficialWriter.read`."""
        return _completed(super().read())

    def write(  # type: ignore[override]
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once; see `OfficialWriter.write`."""
        return _completed(super().write(body, strategy=strategy, subresource=subresource))

    async def _discover(self) -> ResourceType:
        limit, clock = self.request_timeout, current_clock()
        began = clock.monotonic()
        try:
            return await super()._discover()
        finally:
            # The rest is for the request that follows, also if the process was stopped during this one.
            self.request_timeout = max(limit / 3, limit - (clock.monotonic() - began))

    async def _exchange_in_time(self, request: HTTPRequest) -> RawResponse:
        return self.exchange_blocking(request, max(self.request_timeout, self._MIN_TIMEOUT))

    def exchange_blocking(self, request: HTTPRequest, limit: float) -> RawResponse:
        """Send a request once; it may take so many seconds."""
        raise NotImplementedError


def _completed(coroutine: Coroutine[Any, Any, JSONObject]) -> JSONObject:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        found: JSONObject = ended.value
        return found
    raise AssertionError("a blocking client waited for the event loop")


class BlockingClientWriter(BlockingWriter):
    """A `SyncStatusWriter` over an ApiClient that uses urllib3: kubernetes.

    Each request is sent once, whatever retries the client is configured with: it goes directly to the connection pool,
    with retries disabled. ``request_timeout`` covers the connect and the wait for the response.
    """

    from_error = staticmethod(from_urllib3)

    def exchange_blocking(self, request: HTTPRequest, limit: float) -> RawResponse:
        """Send a request once; it may take so many seconds."""
        with before_sending(request):
            url, headers = self._address(request)
        timeout = sys.modules["urllib3"].Timeout(total=limit)
        response = self._api_client.rest_client.pool_manager.request(
            request.method, url, body=request.body or None, headers=headers, timeout=timeout, retries=False
        )
        return response.status, response.headers.items(), response.data

    def _address(self, request: HTTPRequest) -> tuple[str, Mapping[str, str]]:
        """Return the URL, and the headers with the client's own and its credentials."""
        client, parameters, headers = self._api_client, list(request.query), dict(request.headers)
        if hasattr(client, "param_serialize"):
            _, url, headers, *_ = client.param_serialize(
                request.method, request.path, query_params=parameters, header_params=headers, auth_settings=AUTH
            )
            return url, headers
        headers = {**client.default_headers, **headers}
        client.update_params_for_auth(headers, parameters, AUTH)
        return f"{self.client.host}{request.path}" + (f"?{urlencode(parameters)}" if parameters else ""), headers


class _Lightkube(OfficialWriter):
    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(api_client._client._client.base_url)  # noqa: SLF001 - see `_request`

    def _request(self, request: HTTPRequest, seconds: float) -> Any:
        session = self._api_client._client._client  # noqa: SLF001 - lightkube has no other way to send a status as it is
        return session.request(request.method, request.path, **_httpx_arguments(request, seconds))


class AsyncLightkubeWriter(_Lightkube):
    """A `StatusWriter` over lightkube's ``AsyncClient``."""

    async def exchange(self, request: HTTPRequest) -> RawResponse:
        """Send a request once. A cancelled call may have been executed."""
        return _raw(await self._request(request, self.request_timeout))


class LightkubeWriter(_Lightkube, BlockingWriter):
    """A `SyncStatusWriter` over lightkube's ``Client``."""

    def exchange_blocking(self, request: HTTPRequest, limit: float) -> RawResponse:
        """Send a request once; it may take so many seconds."""
        return _raw(self._request(request, limit))


class AsyncKr8sWriter(OfficialWriter):
    """A `StatusWriter` over kr8s's asynchronous ``Api``. It renews credentials that the server refuses."""

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(api_client.auth.server)

    async def exchange(self, request: HTTPRequest) -> RawResponse:
        """Send a request; it was not executed if it is repeated with other credentials."""
        return await _call_kr8s(self._api_client, request, self.request_timeout)


class Kr8sWriter(BlockingWriter):
    """A `SyncStatusWriter` over kr8s's blocking ``Api``, which runs the asynchronous one in a thread."""

    identify = AsyncKr8sWriter.identify

    def exchange_blocking(self, request: HTTPRequest, limit: float) -> RawResponse:
        """Send a request; it may take so many seconds."""
        found: RawResponse = sys.modules["kr8s._async_utils"].as_sync_func(_call_kr8s)(self._api_client, request, limit)
        return found


async def _call_kr8s(api: Any, request: HTTPRequest, seconds: float) -> RawResponse:
    parent, _, last = request.path.rpartition("/")
    arguments = _httpx_arguments(request, seconds)
    try:
        async with api.call_api(request.method, version="", base=parent, url=last, **arguments) as response:
            return _raw(response)
    except Exception as error:
        response = getattr(error, "response", None)
        if response is None:
            raise
        return _raw(response)


def _httpx_arguments(request: HTTPRequest, seconds: float) -> JSONObject:
    return {
        "params": list(request.query),
        "content": request.body or None,
        "headers": request.headers,
        "timeout": seconds,
    }


def _raw(response: Any) -> RawResponse:
    return response.status_code, response.headers.multi_items(), response.content


def read_answer(
    request: HTTPRequest, status: int, headers: Iterable[tuple[str, str]], body: bytes
) -> tuple[JSONObject, Sequence[str]]:
    """Read a response: its object, and its ``Warning`` headers.

    Args:
        request: what was sent, for errors.
        status: the status code.
        headers: names in any case; a name may occur several times.
        body: as received.

    Raises:
        APIError: the server's failure, typed.
    """
    named: dict[str, str] = {}
    warnings = []
    for name, value in headers:
        if name.lower() == "warning":
            warnings.append(value)
        named.setdefault(name.lower(), value)
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        document = None
    if 200 <= status < 300 and isinstance(document, dict) and isinstance(document.get("metadata") or {}, dict):
        return document, warnings
    raise error_from_response(
        status if status >= 300 else 502,
        document if isinstance(document, dict) else None,
        text=body[:200].decode(errors="replace"),
        retry_after=parse_retry_after(named, current_clock().now()),
        request=request.label,
    )


# The choice of the writer.


class ClientBinding(msgspec.Struct, frozen=True):
    """A writer, and how to call it.

    Attributes:
        writer: a `StatusWriter` or a `SyncStatusWriter`.
        is_async: whether it is a `StatusWriter`, for ``async with``. None: both kinds of block are valid.
        kopf: the writer again, if kopf does the writing.
    """

    writer: Any
    is_async: bool | None
    kopf: KopfPatch | None = None


def bind(
    api: Any,
    obj_or_kind: object,
    document: Mapping[str, Any] | None,
    *,
    name: str | None,
    namespace: str | None,
    field_manager: str | None,
    timeout: float,
) -> ClientBinding:
    """Choose the writer for an object over a client.

    Args:
        api: a client of this library, a writer, an ApiClient or ``*Api`` of an official client, a client of lightkube
            or kr8s, or kopf's patch.
        obj_or_kind: the object, or its kind.
        document: the object; None for a kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: for clients that do not have one; None for the default.
        timeout: seconds for one request over a client of another library.

    Raises:
        TypeError: the client is unknown, or object and name do not go together.
        ValueError: an API server would refuse the field manager.
    """
    if (document is None) != (name is not None):
        raise TypeError(
            "pass an object, or a kind with name= and namespace="
            if name is None
            else "an object has its own name: name= and namespace= are for a kind only"
        )
    if hasattr(api, "status_writer"):
        return _of_writer(api.status_writer(obj_or_kind, name=name, namespace=namespace))
    if _is_kopf_patch(type(api)):  # type: ignore[arg-type]  # every class is hashable
        patch = KopfPatch(api, obj_or_kind)
        return ClientBinding(patch, None, patch)
    if hasattr(api, "read") and hasattr(api, "write") and hasattr(api, "request") and hasattr(api, "identity"):
        return _of_writer(api)
    api_client = getattr(api, "api_client", api)
    make = _writer_class(type(api_client))  # type: ignore[arg-type]  # every class is hashable
    if make is not None:
        writer = make(
            api_client,
            obj_or_kind,
            document,
            name=name,
            namespace=namespace,
            field_manager=check_field_manager(field_manager)
            or default_field_manager(program_name(), current_controller()),
            timeout=timeout,
        )
        return ClientBinding(writer, not issubclass(make, BlockingWriter))
    raise TypeError(
        f"StatusBatcher does not support the client {type(api).__module__}.{type(api).__qualname__}: pass a "
        "reconciler.Client, an ApiClient or an *Api of kubernetes, kubernetes.aio or kubernetes_asyncio, a client of "
        "lightkube or kr8s, the patch of a kopf handler, or a StatusWriter"
    )


@functools.lru_cache(maxsize=64)
def _writer_class(client_class: type) -> type[OfficialWriter] | None:
    """Return the writer over a client of another library; None if it is none of those that are known."""
    for cls in client_class.__mro__:
        for name, modules, writer in _WRITERS:
            if cls.__name__ == name and f"{cls.__module__}.".startswith(modules):
                return writer
    return None


_WRITERS: tuple[tuple[str, tuple[str, ...], type[OfficialWriter]], ...] = (
    ("ApiClient", ("kubernetes_asyncio.", "kubernetes.aio."), AsyncioClientWriter),
    ("ApiClient", ("kubernetes.",), BlockingClientWriter),
    ("AsyncClient", ("lightkube.",), AsyncLightkubeWriter),
    ("Client", ("lightkube.",), LightkubeWriter),
    ("Api", ("kr8s._api.",), AsyncKr8sWriter),
    ("Api", ("kr8s.",), Kr8sWriter),
)
"""The names of classes of clients, the beginnings of their modules, and the writers over them."""


@functools.lru_cache(maxsize=64)
def _is_kopf_patch(client_class: type) -> bool:
    """Return whether this is the class of a kopf handler's ``patch``."""
    return any(cls.__name__ == "Patch" and cls.__module__.startswith("kopf.") for cls in client_class.__mro__)


_is_coroutine_function = functools.lru_cache(maxsize=256)(inspect.iscoroutinefunction)
"""Called for each batcher, with the same few functions."""


def _of_writer(writer: StatusWriter | SyncStatusWriter) -> ClientBinding:
    write = writer.write
    return ClientBinding(writer, _is_coroutine_function(write.__func__ if isinstance(write, MethodType) else write))
