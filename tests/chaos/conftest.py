"""Fixtures of the chaos campaigns."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_logs() -> Iterator[None]:
    """Drop all log records; each logger remembers this, so only `logging.disable` can end it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
