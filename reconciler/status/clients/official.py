"""Form the requests for an official client, and read its answers: what blocking and asynchronous writers share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, NotSent, OutcomeUnknown, error_from_response
from reconciler.http import parse_retry_after
from reconciler.meta import GroupVersionKind, Request, ResourceType, gvk_of, request_of
from reconciler.status.record.documents import document_of, is_kind, kind_of
from reconciler.status.writer import Strategy

__all__ = ["AUTH", "CONTENT_TYPES", "OfficialWriter", "Requests", "not_sent_yet", "read_answer"]

AUTH = ["BearerToken"]
"""What the generated clients call their one way to authenticate by header."""

CONTENT_TYPES: Mapping[Strategy, str] = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}

MAX_KINDS = 256

_plurals: OrderedDict[Hashable, ResourceType] = OrderedDict()
_lock = threading.Lock()


class Requests:
    """Know paths and parameters of the requests for one object.

    Args:
        host: the server's URL; what discovery answers is remembered for it.
        obj_or_kind: the object, or its kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: under which name writes are recorded.
    """

    def __init__(
        self, host: str, obj_or_kind: object, *, name: str | None, namespace: str | None, field_manager: str
    ) -> None:
        if is_kind(obj_or_kind):
            self.gvk = kind_of(obj_or_kind)
            self.request = Request(name or "", namespace)
        else:
            document = document_of(obj_or_kind)
            self.gvk = _kind_in(document)
            self.request = request_of(document)
        self._key: Hashable = (host, self.gvk)
        self._field_manager = field_manager
        typed = obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind)
        declared = getattr(typed, "resource_type", None)
        self._declared = declared if isinstance(declared, ResourceType) else None

    @property
    def discovery_path(self) -> str:
        """Return where the server lists the kinds of this one's group and version."""
        return self.gvk.path

    def served(self) -> ResourceType | None:
        """Return how the kind is served, if that is known."""
        with _lock:
            return self._declared or _plurals.get(self._key)

    def learn(self, discovered: Mapping[str, Any]) -> ResourceType:
        """Take how the kind is served out of what discovery answered.

        Raises:
            ConfigurationError: the server does not serve the kind.
        """
        for entry in discovered.get("resources") or ():
            if entry.get("kind") == self.gvk.kind and "/" not in entry.get("name", "/"):
                found = ResourceType(self.gvk, str(entry["name"]), bool(entry.get("namespaced")))
                with _lock:
                    _plurals[self._key] = found
                    while len(_plurals) > MAX_KINDS:
                        _plurals.popitem(last=False)
                return found
        raise ConfigurationError(f"the server does not serve {self.gvk}: install its CRD, and check the kind's name")

    def path(self, served: ResourceType, subresource: str | None = None) -> str:
        """Return the path of the object or its subresource.

        Raises:
            ConfigurationError: the kind is namespaced, and there is no namespace.
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
    """Be what a writer over an ApiClient is, whichever way its requests are sent.

    Args:
        api_client: the ApiClient; its authentication, proxy and TLS settings are used.
        requests: what to ask for.
        field_manager: under which name writes are recorded.
        timeout: seconds for one request, unless the batcher sets fewer.

    Attributes:
        former_field_manager: the name that earlier releases used in its place; ``""`` if there was none.
        request_timeout: seconds that the next call of `read` or `write` may take.
        warnings: the ``Warning`` headers of the last answer.
    """

    def __init__(self, api_client: Any, requests: Requests, *, field_manager: str, timeout: float) -> None:
        self._api_client = api_client
        self._requests = requests
        self.request_timeout = timeout
        self.field_manager = field_manager
        self.former_field_manager = ""
        self.warnings: Sequence[str] = ()

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the object's kind."""
        return self._requests.gvk

    @property
    def request(self) -> Request:
        """Return the object's name and namespace."""
        return self._requests.request

    @property
    def client(self) -> object:
        """Return what names server and credentials: a program may make an ApiClient of it for each object."""
        configuration: object = self._api_client.configuration
        return configuration

    @property
    def identity(self) -> Hashable:
        """Return what names server, client and field manager."""
        return self._api_client.configuration.host, id(self._api_client), self.field_manager


@contextmanager
def not_sent_yet() -> Iterator[None]:
    """Report a failure of what precedes a write as `NotSent`: the write itself was not begun."""
    try:
        yield
    except OutcomeUnknown as error:
        raise NotSent(str(error)) from error


def read_answer(
    request: str, status: int, headers: Iterable[tuple[str, str]], body: bytes
) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the object and the ``Warning`` headers of an answer.

    Args:
        request: verb and path, for errors.
        status: the status code.
        headers: names in any case; a name may come several times.
        body: as it came.

    Raises:
        APIError: the server's failure, typed.
    """
    named = [(name.lower(), value) for name, value in headers]
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        document = None
    if 200 <= status < 300 and isinstance(document, dict):
        return document, [value for name, value in named if name == "warning"]
    header = next((value for name, value in named if name == "retry-after"), "")
    raise error_from_response(
        status if status >= 300 else 502,
        document if isinstance(document, dict) else None,
        text=body[:200].decode(errors="replace"),
        retry_after=parse_retry_after(header, current_clock().now()),
        request=request,
    )


def _kind_in(document: Mapping[str, Any]) -> GroupVersionKind:
    try:
        return gvk_of(document)
    except ValueError as error:
        raise ValueError(
            f"{error}, as items of a list do: give StatusBatcher 'group/version/Kind' with name= and namespace="
        ) from None
