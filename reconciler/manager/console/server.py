"""The console's requests: pages, their live streams, and the static files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import htpy as h

from reconciler._core.redaction import redact
from reconciler._core.wire import JSONObject
from reconciler.manager.console.html import document
from reconciler.manager.console.pages import KEY, KEYS, NOW, PROCESS, Page
from reconciler.manager.console.state import Parts, Samples, read_state
from reconciler.manager.endpoints.handlers import Turns
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse

_log = logging.getLogger("reconciler.manager")

_PERIOD = 1.0
"""Seconds between two updates of a page."""

_SHARE = 20
"""The event loop spends at most one of so many seconds on the updates of all pages."""

_MAX_STREAMS = 16
"""Pages that are updated at the same time."""

_MAX_QUERY = 1000
"""Characters of a value of a query; the longest names of objects have 253."""

_STATIC = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}

_NOT_LOCAL = (
    "403: the console answers only local requests: open http://localhost:PORT on this machine, or forward the port "
    "with 'kubectl port-forward POD PORT'. Others need a token: Manager(security=), --token-file of 'reconciler run'\n"
)

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "vary": "accept",
    "x-frame-options": "DENY",
}


class Console:
    """The console of a process.

    A request with ``Accept: text/event-stream`` gets the page as an event once a second; others get it once.

    Args:
        parts: what it shows.

    Attributes:
        redact: removes secrets from messages of errors and values of fields. Set it to remove those that you know.
            Default: removes keys, tokens, passwords in addresses, and values of names such as ``password``.
    """

    def __init__(self, parts: Parts) -> None:
        self.redact: Callable[[str], str] = redact
        self._parts = parts
        self._turns = Turns(parts.process.clock)
        self._samples = Samples(parts.process.controllers, parts.informers, parts.process.clock)
        self._pages: dict[str, Page] = {page.path: page for page in (NOW, KEYS, PROCESS, KEY)}
        self._streams = 0
        self._cost = 0.0  # seconds that the latest page took
        self._closed = asyncio.Event()
        self._broken: set[str] = set()

    def add(self, page: Page) -> None:
        """Add a page.

        Raises:
            ValueError: its path is taken or invalid.
        """
        if not re.fullmatch(r"/[a-z0-9-]+", page.path) or page.path in self._pages or page.path == "/static":
            raise ValueError(f"{page.path!r} cannot be the path of a page: write '/name', which no other page has")
        self._pages[page.path] = page

    async def run(self) -> None:
        """Sample the figures for the charts until cancelled; then end all streams."""
        try:
            await self._samples.run()
        finally:
            self._closed.set()

    async def handle(self, request: EndpointRequest) -> EndpointResponse:
        """Answer a request. Cancellation leaves nothing behind."""
        if not request.is_trusted:
            return EndpointResponse(403, _NOT_LOCAL.encode(), headers=_HEADERS)
        if request.path.startswith("static/"):
            return _static(request.path.removeprefix("static/"))
        page = self._pages.get(f"/{request.path}")
        if page is None:
            return EndpointResponse(404, b"404: the console has no such page; its first one is /\n", headers=_HEADERS)
        query = {name: value[:_MAX_QUERY] for name, value in request.query}
        if "text/event-stream" not in request.accept:
            return EndpointResponse(200, await self._render(page, query), "text/html; charset=utf-8", _HEADERS)
        if self._streams >= _MAX_STREAMS:
            text = f"503: {_MAX_STREAMS} pages are updated already: close one, or reload this one\n"
            return EndpointResponse(503, text.encode(), headers=_HEADERS)
        return EndpointResponse(200, self._stream(page, query), "text/event-stream", _HEADERS)

    async def _stream(self, page: Page, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        if self._streams >= _MAX_STREAMS:  # it was not when the response began; the browser asks again
            return
        self._streams += 1
        try:
            while not self._closed.is_set():
                yield _event(await self._render(page, query))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(_PERIOD, _SHARE * self._cost * self._streams)):
                        await self._closed.wait()
        finally:
            self._streams -= 1

    async def _render(self, page: Page, query: Mapping[str, str]) -> bytes:
        async with self._turns.turn():
            state = read_state(self._parts, self._samples, page.query(query), limit=page.limit, redact=self.redact)
        self._cost = self._turns.seconds
        async with self._turns.turn():  # a large table takes tens of milliseconds: others run before it is drawn
            text = self._draw(page, state, query)
        self._cost += self._turns.seconds
        return text.encode("utf-8", "backslashreplace")

    def _draw(self, page: Page, state: JSONObject, query: Mapping[str, str]) -> str:
        try:
            body = page.body(state, query)
            navigation = [(each.path, each.title) for each in self._pages.values() if each.in_navigation]
            text = str(document(state, page.title, page.path, navigation, body))
            self._broken.discard(page.path)
        except Exception as error:  # noqa: BLE001 - an added page must not hide the others
            if page.path not in self._broken:
                self._broken.add(page.path)
                _log.exception("the page %s of the console failed", page.path)
            failed = h.p(".calm.bad")[f"This page failed with a {type(error).__name__}; see the log of the process."]
            text = str(document(state, page.title, page.path, [("/", "Now")], failed))
        return text


def _event(page: bytes) -> bytes:
    lines = re.split(rb"\r\n|\r|\n", page)
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"retry: 500\n\n"  # the milliseconds to reconnect


def _static(name: str) -> EndpointResponse:
    kind = _STATIC.get(name)
    if kind is None:
        return EndpointResponse(404, b"404: the console has no such file\n", headers=_HEADERS)
    content = Path(__file__).with_name("static").joinpath(name).read_bytes()
    return EndpointResponse(200, content, f"{kind}; charset=utf-8", _HEADERS)
