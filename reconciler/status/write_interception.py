"""The interception of every status write that this process sends, whatever client sends it.

All Python clients send through one of a few methods of four HTTP libraries. Those are wrapped while there are
listeners. A library that is imported later is wrapped at its import; none is imported here. The wrapper of an outer
layer disables those below it, so that a request is reported once.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

_OBJECT = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)/(?P<name>[^/]+?)(?P<status>/status)?$"
)
"""The path of an object or its status, after any prefix such as a proxy's."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """The object whose status a request writes.

    Attributes:
        group: the API group; empty for the core kinds. The version is left out, since all versions are the same object.
        plural: the kind's name in paths.
        namespace: None for cluster-scoped objects.
        name: the object's name.
    """

    group: str
    plural: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        kind = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


def status_write(method: str, url: str, body: Callable[[], object], *, query: object = None) -> Addressed | None:
    """Return the object whose status a request writes; None if it does not write one.

    A PUT or PATCH of ``/status`` does, and so does a PATCH of the object itself that contains the status, as for kinds
    without the subresource. A PUT of the object itself always contains the status and is not counted. A request with
    ``dryRun`` writes nothing.

    Args:
        method: the HTTP method.
        url: the URL, or its path and query.
        body: returns the body, as JSON or decoded; called only if it matters.
        query: parameters that are not in the URL.
    """
    if method not in {"PATCH", "PUT"}:
        return None
    parts = urlsplit(url)
    found = _OBJECT.search(parts.path)
    if found is None or "dryRun" in parts.query or "dryRun" in str(query):
        return None
    if found["status"] is None and not (method == "PATCH" and _contains_status(body())):
        return None
    namespace = found["namespace"]
    return Addressed(
        unquote(found["group"] or ""),
        unquote(found["plural"]),
        None if namespace is None else unquote(namespace),
        unquote(found["name"]),
    )


def _contains_status(body: Any) -> bool:
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError):
            return False
    if isinstance(body, dict):
        return "status" in body
    return isinstance(body, list) and any(
        isinstance(step, dict) and step.get("op") != "test" and str(step.get("path", "")).startswith("/status")
        for step in body
    )


class WriteListener(Protocol):
    """An observer of status writes, called from any thread."""

    def on_write(self, addressed: Addressed, request: str, frame: FrameType | None, /) -> Callable[[int | None], None]:
        """Called before a request is sent; returns a function for the status code, or for None if there is no response.

        Args:
            addressed: the object.
            request: method and path.
            frame: the wrapper's frame, for the stack.
        """
        ...

    def on_request(self, request: str, frame: FrameType | None) -> None:
        """Called before any request of another library than this one; what it raises is raised by that library.

        Args:
            request: method and URL, without credentials, query and fragment.
            frame: the wrapper's frame, for the stack.
        """


@dataclass(frozen=True, slots=True)
class _SendMethod:
    """A method that all requests of a library go through.

    Attributes:
        module: the module of its class.
        cls: the class.
        method: the method.
        is_async: whether it is a coroutine function.
        read: returns method, URL, a function that returns the body, and further parameters, from the call's arguments.
    """

    module: str
    cls: str
    method: str
    is_async: bool
    read: Callable[..., tuple[str, str, Callable[[], object], object]]


def _read_urllib3(method: str, url: str, body: Any = None, *_: Any, **__: Any) -> Any:
    return method, url, lambda: body, None


def _read_aiohttp(method: str, url: Any, *, params: Any = None, data: Any = None, json: Any = None, **_: Any) -> Any:
    return method, str(url), lambda: data if json is None else json, params


def _read_httpx(request: Any, *_: Any, **__: Any) -> Any:
    return request.method, str(request.url), lambda: getattr(request, "_content", b""), None


def _read_standard(method: str, url: str, *_: Any, **__: Any) -> Any:
    return method, url, lambda: None, None


def _read_own(request: Any) -> Any:
    return request.method, request.path, lambda: request.body, request.query


_SEND_METHODS = (
    # Before the libraries below, since it also talks to a server in its own process.
    _SendMethod("reconciler.client.connection", "Connection", "send", True, _read_own),
    _SendMethod("urllib3.connectionpool", "HTTPConnectionPool", "urlopen", False, _read_urllib3),  # requests, too
    _SendMethod("aiohttp.client", "ClientSession", "_request", True, _read_aiohttp),
    _SendMethod("httpx._client", "Client", "send", False, _read_httpx),
    _SendMethod("httpx._client", "AsyncClient", "send", True, _read_httpx),
    _SendMethod("httpx2._client", "Client", "send", False, _read_httpx),
    _SendMethod("httpx2._client", "AsyncClient", "send", True, _read_httpx),
    _SendMethod("http.client", "HTTPConnection", "putrequest", False, _read_standard),  # urllib.request, too
)
_MODULES = frozenset(point.module for point in _SEND_METHODS)

_inside: ContextVar[bool] = ContextVar("inside_a_status_write", default=False)
_lock = threading.RLock()
_listeners: tuple[WriteListener, ...] = ()
_wrapped: dict[_SendMethod, tuple[type, Any, Any]] = {}  # the class, its own method, ours


def listen(listener: WriteListener) -> None:
    """Notify a listener of status writes from now on."""
    global _listeners  # noqa: PLW0603 - one process has one set of libraries
    with _lock:
        _listeners = (*_listeners, listener)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        for point in _SEND_METHODS:
            if (module := sys.modules.get(point.module)) is not None:
                _wrap(point, module)


def stop_listening(listener: WriteListener) -> None:
    """Stop notifying a listener. After the last one the libraries are as they were."""
    global _listeners  # noqa: PLW0603
    with _lock:
        _listeners = tuple(other for other in _listeners if other is not listener)
        if _listeners:
            return
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
        for point, (cls, original, ours) in list(_wrapped.items()):
            # If someone else has wrapped our wrapper, it stays below theirs, where it does nothing without listeners.
            if cls.__dict__.get(point.method) is ours:
                setattr(cls, point.method, original)
                del _wrapped[point]


def listeners() -> Sequence[WriteListener]:
    """Return the listeners."""
    return _listeners


def watched() -> Sequence[str]:
    """Return the libraries that are imported and wrapped, without the standard library, which always is."""
    with _lock:
        libraries = dict.fromkeys(point.module.split(".")[0] for point in _wrapped)
        return tuple(name for name in libraries if name not in sys.stdlib_module_names)


def _wrap(point: _SendMethod, module: ModuleType) -> None:
    cls: Any = getattr(module, point.cls, None)
    original = None if cls is None else cls.__dict__.get(point.method)
    if cls is None or original is None or (point in _wrapped and _wrapped[point][0] is cls):
        return
    ours = _wrap_async(point, original) if point.is_async else _wrap_blocking(point, original)
    setattr(cls, point.method, ours)
    _wrapped[point] = (cls, original, ours)


def _wrap_blocking(point: _SendMethod, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _notified(point, args, kwargs, sys._getframe()) as responses:  # noqa: SLF001 - the documented way
            responses.append(original(self, *args, **kwargs))
            return responses[0]

    return send


def _wrap_async(point: _SendMethod, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def send(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _notified(point, args, kwargs, sys._getframe()) as responses:  # noqa: SLF001
            responses.append(await original(self, *args, **kwargs))
            return responses[0]

    return send


@contextmanager
def _notified(point: _SendMethod, args: Sequence[Any], kwargs: dict[str, Any], frame: FrameType) -> Iterator[list[Any]]:
    """Notify the listeners of a status write, and of the response that is put into the list; of no other request."""
    responses: list[Any] = []
    ends = [] if _inside.get() else _ends(point, args, kwargs, frame)
    if not ends:
        yield responses
        return
    token = _inside.set(True)
    try:
        yield responses
    finally:
        _inside.reset(token)
        for end in ends:
            end(_status_code(responses[0]) if responses else None)


def _ends(
    point: _SendMethod, args: Sequence[Any], kwargs: dict[str, Any], frame: FrameType
) -> Sequence[Callable[[int | None], None]]:
    """Notify the listeners of a request; return what to call with the status code if it writes a status."""
    notified = _listeners
    try:
        method, url, body, query = point.read(*args, **kwargs)
        addressed = status_write(str(method).upper(), url, body, query=query)
    except Exception:  # noqa: BLE001 - the client decides about a call that we cannot parse
        return ()
    if point.read is not _read_own:
        for listener in notified:
            listener.on_request(f"{str(method).upper()} {_without_credentials(url)}", frame)
    if addressed is None:
        return ()
    request = f"{str(method).upper()} {urlsplit(url).path}"  # the rest of a URL may contain a password
    return [listener.on_write(addressed, request, frame) for listener in notified]


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _status_code(response: Any) -> int | None:
    code = getattr(response, "status", None) or getattr(response, "status_code", None)
    return code if isinstance(code, int) else None


class _Finder:
    """An import hook that wraps a library which is imported while there are listeners."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _MODULES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                loader: Any = _WrappingLoader(spec.loader)
                spec.loader = loader
                return spec
        return None


class _WrappingLoader:
    """A loader that wraps what another loader has loaded."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        with _lock:
            if _listeners:
                for point in _SEND_METHODS:
                    if point.module == module.__name__:
                        _wrap(point, module)


_finder: Any = _Finder()
