"""The console that asks for a token, in a real browser."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.manager import EndpointSecurity

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

TOKEN = "s3cret-of-the-console"


@pytest.fixture
def console() -> Iterator[str]:
    """The URL of a console with a self-signed certificate and a token."""
    urls: queue.Queue[str] = queue.Queue()
    stopped = threading.Event()

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, console="127.0.0.1:0", security=EndpointSecurity(token=TOKEN))
            async with manager.running():
                urls.put(manager.console_url or "")
                await asyncio.to_thread(stopped.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    yield urls.get(timeout=30)
    stopped.set()
    thread.join()


def test_the_token_is_the_password_and_the_page_is_live(browser: Browser, console: str) -> None:
    credentials = {"username": "me", "password": TOKEN}
    context = browser.new_context(http_credentials=credentials, ignore_https_errors=True)
    page = context.new_page()
    page.goto(console)
    page.locator("html[data-live=live]").wait_for()
    context.close()


def test_without_the_token_there_is_no_page(browser: Browser, console: str) -> None:
    context = browser.new_context(http_credentials={"username": "me", "password": "guess"}, ignore_https_errors=True)
    answer = context.new_page().goto(console)
    assert answer is not None
    assert answer.status == 401
    context.close()
