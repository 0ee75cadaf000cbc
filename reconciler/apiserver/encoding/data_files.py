"""The data files of this package: what was recorded from a real server, or compared with it."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import msgspec

__all__ = ["data_file", "recorded"]


def data_file(path: str) -> bytes:
    """Return the content of a file, by its path below this package."""
    return resources.files("reconciler.apiserver").joinpath(path).read_bytes()


@functools.cache
def recorded(path: str) -> Any:
    """Return the content of a JSON file, which is read once and must not be changed."""
    return msgspec.json.decode(data_file(path))
