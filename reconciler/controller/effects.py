"""Effects outside the cluster, declared with `effect`: what tests count, recordings keep, and plans leave out.

`ExternalClient` is an HTTP client for what is outside the cluster, whose requests are effects.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from reconciler.meta import request_of

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EffectDeclaration:
    """What a reconciler declares about one of its effects; see `effect` for the fields.

    Attributes:
        name: the name of the method.
        once: whether it must happen at most once for a key.
        undoes: the name of the effect that it undoes; ``""`` for none.
        planned: the result while planning, or a function that computes it.
    """

    name: str
    once: bool = False
    undoes: str = ""
    planned: Any = None


@dataclass(frozen=True, slots=True)
class EffectCall:
    """One call of an effect.

    Attributes:
        declaration: what the reconciler declares about it.
        reconciler: the object that has the method.
        arguments: the arguments of the method by name, without ``self``.
        run: calls the method and returns its result.
    """

    declaration: EffectDeclaration
    reconciler: object
    arguments: Mapping[str, Any]
    run: Callable[[], Awaitable[Any]] = field(repr=False)

    @property
    def name(self) -> str:
        """Return the name of the method."""
        return self.declaration.name

    @property
    def key(self) -> str:
        """Return what the effect concerns: its first argument as text, of an object namespace and name."""
        first: Any = next(iter(self.arguments.values()), "")
        return str(request_of(first) if isinstance(first, Mapping) or hasattr(first, "metadata") else first)

    def planned(self) -> Any:
        """Return the declared result while planning."""
        planned = self.declaration.planned
        return planned(**self.arguments) if callable(planned) else planned


class EffectHandler(Protocol):
    """A function that is called in place of each effect, and returns its result; ``await call.run()`` is the effect.

    Attributes:
        planning: whether reconcilers see `Reconciler.planning` as true.
    """

    planning: bool

    async def __call__(self, call: EffectCall, /) -> Any:
        """Return the result of a call."""


_handler: ContextVar[EffectHandler | None] = ContextVar("effect_handler", default=None)


def current_effect_handler() -> EffectHandler | None:
    """Return the handler of effects in this context; None if they are simply called."""
    return _handler.get()


@contextlib.contextmanager
def use_effect_handler(handler: EffectHandler) -> Iterator[None]:
    """Pass the effects of this context, and of tasks and threads that it starts, to a handler until the block ends."""
    token = _handler.set(handler)
    try:
        yield
    finally:
        _handler.reset(token)


@overload
def effect(method: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...


@overload
def effect(
    *, once: bool = False, undoes: str = "", planned: object = None
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]: ...


def effect(
    method: Callable[..., Any] | None = None, /, *, once: bool = False, undoes: str = "", planned: object = None
) -> Any:
    """Declare that an ``async`` method of a reconciler changes or asks something outside the cluster.

    In production the method is called as if it were not decorated. `reconciler.testing.explore` counts its calls,
    recordings keep its results, and ``reconciler plan`` does not call it. The first argument is the key of the effect:
    what it concerns. An object stands for its namespace and name.

    Args:
        method: the method, if the decorator is written without parentheses.
        once: whether it must happen at most once for a key. Default False: repeating it does no harm.
        undoes: the name of the effect that it undoes for the same key, such as ``"register"``. Default: none.
        planned: the result while planning, or a function of the method's arguments (without ``self``) that returns it.
            Default None.

    Raises:
        TypeError: the method is not ``async``.
    """
    if method is None:
        return functools.partial(_declared, once=once, undoes=undoes, planned=planned)
    return _declared(method, once=once, undoes=undoes, planned=planned)


def _declared(method: Callable[..., Any], *, once: bool, undoes: str, planned: object) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(method):
        name = getattr(method, "__qualname__", repr(method))
        raise TypeError(f"effect is for an 'async def' method: {name} is not one")
    declaration = EffectDeclaration(method.__name__, once, undoes, planned)
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: object, *args: Any, **kwargs: Any) -> Any:
        handler = _handler.get()
        if handler is None:
            return await method(self, *args, **kwargs)
        arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        arguments.pop(next(iter(arguments)))
        run = functools.partial(method, self, *args, **kwargs)
        return await handler(EffectCall(declaration, self, arguments, run))

    call.effect = declaration  # type: ignore[attr-defined]  # how `effects_of` finds it
    return call


def effects_of(reconciler: object) -> dict[str, EffectDeclaration]:
    """Return the declared effects of a reconciler, or of its class, by name."""
    kind = reconciler if isinstance(reconciler, type) else type(reconciler)
    members = {name: value for each in reversed(kind.__mro__) for name, value in vars(each).items()}
    found = {name: getattr(value, "effect", None) for name, value in members.items()}
    return {name: value for name, value in found.items() if isinstance(value, EffectDeclaration)}


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
