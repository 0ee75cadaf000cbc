"""Give pytest the mark ``virtual_time`` (and, further down, the fixtures of this library).

Loaded by pytest through its entry point. Imports stay inside the hooks, so that a test run which uses nothing of this
pays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

_MARK = "virtual_time: run the test and its async fixtures on a virtual clock, where sleeping takes no time"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", _MARK)
    # looptime's plugin asks for the current loop around every test. Before the first loop is set, Python up to 3.13
    # would make one for it, which nobody closes.
    asyncio.set_event_loop(None)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - hooks are called by name
    item: pytest.Item,
) -> Generator[None, Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None, Any]:
    """Replace the loop of marked tests; leave the others to whoever else decides."""
    factories = yield
    if item.get_closest_marker("virtual_time") is None:
        return factories or {"asyncio": asyncio.new_event_loop}
    return {"virtual": _virtual_loop}


def _virtual_loop() -> asyncio.AbstractEventLoop:
    from reconciler.clock import current_clock
    from reconciler.testing._virtual_time import VirtualClock, new_virtual_loop

    loop = new_virtual_loop()
    clock = current_clock()
    if isinstance(clock, VirtualClock):
        clock.follow(loop)
    return loop


@pytest.fixture(autouse=True)
def _virtual_clock(request: pytest.FixtureRequest) -> Generator[None]:
    if request.node.get_closest_marker("virtual_time") is None:
        yield
        return
    from reconciler.clock import use_clock
    from reconciler.testing._virtual_time import VirtualClock

    with use_clock(VirtualClock()):
        yield
