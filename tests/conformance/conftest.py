"""Give the conformance suite its servers and its option."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --record."""
    parser.addoption(
        "--record", action="store_true", help="write the real server's answers to tests/conformance/golden"
    )
