"""Documents as JSON on standard output."""

from __future__ import annotations

import sys

import msgspec

__all__ = ["print_json"]


def print_json(document: object) -> None:
    """Print a document, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
