"""What an engineer on call sees of an operator: ``explain``, the console, the probes, the log and the Events.

Under virtual time no socket works, so the endpoints are asked inside the process.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

from reconciler import Client, Manager
from reconciler.cli.endpoint import EndpointError
from reconciler.cli.explain import explanation, find_key
from reconciler.manager.endpoints.keys import KeysDocument, read_document
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse


class Screens:
    """The screens of one operator."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.client = client
        self.manager = Manager(client, health="127.0.0.1:0", console="127.0.0.1:1", grace_period=0, **options)
        self._servers = self.manager._servers
        self._servers.start = self._attach  # type: ignore[method-assign]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the manager during the block, which does not wait for its start."""
        import asyncio

        task = asyncio.create_task(self.manager.run())
        try:
            yield
        finally:
            self.manager.stop()
            await asyncio.wait({task})

    async def _attach(self) -> None:
        self._servers._main.attach()

    def document(self, **query: str) -> KeysDocument:
        return read_document(self.manager._process, query)

    def explain(self, kind: str, key: str) -> str:
        """Return what ``reconciler explain`` prints."""
        try:
            return explanation(find_key(self.document, kind, key))
        except EndpointError as error:
            return f"error: {error}"

    async def get(self, path: str, query: str = "", *, local: bool = True) -> EndpointResponse:
        """Return the response of an endpoint."""
        handlers = {name: call for server in self._servers._servers for name, call in server.handlers.items()}
        name = next((each for each in handlers if each and path.startswith(each)), "")
        rest = path.removeprefix(name).strip("/")
        pairs = parse_qsl(query, keep_blank_values=True)
        return await handlers[name](EndpointRequest(rest, pairs, "text/html", local=local))

    async def readyz(self, *, local: bool = True) -> str:
        """Return ``/readyz?verbose``."""
        response = await self.get("/readyz", "verbose", local=local)
        assert isinstance(response.body, bytes)
        return response.body.decode()

    async def console(self, path: str = "/", query: str = "") -> str:
        """Return the text of a page of the console."""
        response = await self.get(path, query)
        assert isinstance(response.body, bytes)
        page = response.body.decode().partition("<main")[2].partition("</main>")[0].partition(">")[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())

    async def events(self, name: str) -> list[str]:
        """Return the Events on an object, as ``Warning Reason: message``."""
        found = [each for each in await self.client.list("v1/Event") if each["involvedObject"]["name"] == name]
        return [f"{each['type']} {each['reason']}: {each['message']}" for each in found]
