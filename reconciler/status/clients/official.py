"""Status writers over the official clients: ``kubernetes`` (blocking), ``kubernetes_asyncio`` and ``kubernetes.aio``.

None of them is imported here.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from reconciler._core.cancellation import RunningTimeout
from reconciler._core.wire import UNDECODABLE
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, error_from_response
from reconciler.http import parse_retry_after
from reconciler.meta import GroupVersionKind, Request, request_of
from reconciler.meta.documents import is_object
from reconciler.meta.metadata import gvk_of
from reconciler.meta.reference import ResourceType
from reconciler.status.clients.failures import before_sending, before_the_write, from_aiohttp, from_urllib3, shown_cause
from reconciler.status.record.conversion import document_of, is_kind, kind_of
from reconciler.status.writer import Strategy

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

__all__ = ["AsyncioClientWriter", "BlockingClientWriter", "ObjectEndpoint", "OfficialWriter", "read_answer"]

AUTH = ["BearerToken"]
"""The generated clients' name for their only authentication by header."""

CONTENT_TYPES: Mapping[Strategy, str] = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}

MAX_KINDS = 256

_served: OrderedDict[Hashable, ResourceType] = OrderedDict()
_lock = threading.Lock()


class ObjectEndpoint:
    """The paths and parameters of the requests for one object.

    Args:
        host: the server's URL, which discovered kinds are remembered for.
        obj_or_kind: the object, or its kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: the name that writes are recorded under.
    """

    def __init__(
        self, host: str, obj_or_kind: object, *, name: str | None, namespace: str | None, field_manager: str
    ) -> None:
        if is_kind(obj_or_kind):
            self.gvk = kind_of(obj_or_kind)
            self.request = Request(name or "", namespace)
        else:
            document = document_of(obj_or_kind)
            self.gvk = _gvk_in(document)
            self.request = request_of(document)
        self._key: Hashable = (host, self.gvk)
        self._field_manager = field_manager
        typed = obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind)
        declared = getattr(typed, "resource_type", None)
        self._declared = declared if isinstance(declared, ResourceType) else None

    @property
    def discovery_path(self) -> str:
        """Return the path where the server lists the kinds of this group and version."""
        return self.gvk.path

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
                    while len(_served) > MAX_KINDS:
                        _served.popitem(last=False)
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

    def query(self, strategy: Strategy) -> list[tuple[str, str]]:
        """Return the parameters of a write."""
        parameters = [("fieldManager", self._field_manager)]
        return [*parameters, ("force", "true")] if strategy == "apply" else parameters


class OfficialWriter:
    """The common part of the writers over an ApiClient.

    Args:
        api_client: the ApiClient; its authentication, proxy and TLS settings are used.
        endpoint: the object.
        field_manager: the name that writes are recorded under.
        timeout: seconds for one request, unless the batcher sets fewer.

    Attributes:
        former_field_manager: the name that earlier releases used instead; ``""`` if there was none.
        request_timeout: seconds that the next call of `read` or `write` may take.
        warnings: the ``Warning`` headers of the last response.
    """

    def __init__(self, api_client: Any, endpoint: ObjectEndpoint, *, field_manager: str, timeout: float) -> None:
        self._api_client = api_client
        self._endpoint = endpoint
        self.request_timeout = timeout
        self.field_manager = field_manager
        self.former_field_manager = ""
        self.warnings: Sequence[str] = ()

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the object's kind."""
        return self._endpoint.gvk

    @property
    def request(self) -> Request:
        """Return the object's name and namespace."""
        return self._endpoint.request

    @property
    def client(self) -> object:
        """Return what identifies server and credentials: a program may create an ApiClient from it for each object."""
        configuration: object = self._api_client.configuration
        return configuration

    @property
    def identity(self) -> Hashable:
        """Return what identifies server, client and field manager."""
        return self._api_client.configuration.host, id(self._api_client), self.field_manager


class AsyncioClientWriter(OfficialWriter):
    """A `StatusWriter` over an ApiClient that uses aiohttp: kubernetes_asyncio or kubernetes.aio.

    A PATCH is sent once: aiohttp repeats only idempotent methods, and so does kubernetes.aio.
    """

    async def read(self) -> JSONObject:
        """Return the whole object by a consistent GET. Cancellation has no effect on the server.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        return await self._send("GET", self._endpoint.path(await self._discover()))

    async def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once. A cancelled call may have been executed.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        with before_the_write():
            served = await self._discover()
        return await self._send(
            "PATCH",
            self._endpoint.path(served, subresource),
            query=self._endpoint.query(strategy),
            headers={"Content-Type": CONTENT_TYPES[strategy]},
            body=body,
        )

    async def _discover(self) -> ResourceType:
        served = self._endpoint.served()
        return served or self._endpoint.learn(await self._send("GET", self._endpoint.discovery_path))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: JSONObject | None = None,
    ) -> JSONObject:
        arguments = {
            "query_params": list(query),
            "header_params": {"Accept": "application/json", **(headers or {})},
            "body": body,
            "auth_settings": AUTH,
        }
        try:
            async with RunningTimeout(self.request_timeout):
                status, answer_headers, content = await self._call(method, path, arguments)
        except Exception as error:
            transport_error = from_aiohttp(f"{method} {path}", error)
            if transport_error is None:
                raise
            raise transport_error from shown_cause(error)
        document, self.warnings = read_answer(f"{method} {path}", status, answer_headers.items(), content)
        return document

    async def _call(self, method: str, path: str, arguments: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Make a raw request; the two clients differ in how that is done."""
        api_client = self._api_client
        if hasattr(api_client, "param_serialize"):
            with before_sending(f"{method} {path}"):
                prepared = await api_client.param_serialize(method, path, **arguments)
            response = await api_client.call_api(*prepared)
        else:
            with before_sending(f"{method} {path}"):
                await api_client.update_params_for_auth(arguments["header_params"], arguments["query_params"], AUTH)
            arguments["auth_settings"] = []
            response = await api_client.call_api(path, method, **arguments, _preload_content=False)
        return response.status, response.headers, await response.read()


class BlockingClientWriter(OfficialWriter):
    """A `SyncStatusWriter` over an ApiClient that uses urllib3: kubernetes.

    Each request is sent once, whatever retries the client is configured with: it goes directly to the connection pool,
    with retries disabled. ``request_timeout`` covers the connect and the wait for the response.
    """

    _MIN_TIMEOUT = 0.001
    """Seconds; urllib3 refuses a timeout of 0."""

    def read(self) -> JSONObject:
        """Return the whole object by a consistent GET.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        return self._send("GET", self._endpoint.path(self._discover()))

    def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        with before_the_write():
            served = self._discover()
        return self._send(
            "PATCH",
            self._endpoint.path(served, subresource),
            query=self._endpoint.query(strategy),
            headers={"Content-Type": CONTENT_TYPES[strategy]},
            body=msgspec.json.encode(body),
        )

    def _discover(self) -> ResourceType:
        served = self._endpoint.served()
        return served or self._endpoint.learn(self._send("GET", self._endpoint.discovery_path))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> JSONObject:
        with before_sending(f"{method} {path}"):
            url, all_headers = self._address(method, path, query, {"Accept": "application/json", **(headers or {})})
        limit, began = max(self.request_timeout, self._MIN_TIMEOUT), current_clock().monotonic()
        timeout = sys.modules["urllib3"].Timeout(total=limit)
        try:
            response = self._api_client.rest_client.pool_manager.request(
                method, url, body=body, headers=all_headers, timeout=timeout, retries=False
            )
        except Exception as error:
            transport_error = from_urllib3(f"{method} {path}", error)
            if transport_error is None:
                raise
            raise transport_error from shown_cause(error)
        finally:
            # The rest is for the write after a discovery, also if the process was stopped during the discovery.
            self.request_timeout = max(limit / 3, limit - (current_clock().monotonic() - began))
        answer_headers = response.headers.items()
        document, self.warnings = read_answer(f"{method} {path}", response.status, answer_headers, response.data)
        return document

    def _address(
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


def read_answer(
    request: str, status: int, headers: Iterable[tuple[str, str]], body: bytes
) -> tuple[JSONObject, Sequence[str]]:
    """Return the object and the ``Warning`` headers of a response.

    Args:
        request: verb and path, for errors.
        status: the status code.
        headers: names in any case; a name may occur several times.
        body: as received.

    Raises:
        APIError: the server's failure, typed.
    """
    named = [(name.lower(), value) for name, value in headers]
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        document = None
    if 200 <= status < 300 and isinstance(document, dict) and isinstance(document.get("metadata") or {}, dict):
        return document, [value for name, value in named if name == "warning"]
    raise error_from_response(
        status if status >= 300 else 502,
        document if isinstance(document, dict) else None,
        text=body[:200].decode(errors="replace"),
        retry_after=parse_retry_after(dict(reversed(named)), current_clock().now()),
        request=request,
    )


def _gvk_in(document: Mapping[str, Any]) -> GroupVersionKind:
    try:
        return gvk_of(document)
    except ValueError as error:
        raise ValueError(
            f"{error}, as items of a list do: pass StatusBatcher 'group/version/Kind' with name= and namespace="
        ) from None
