"""Say what a reflector needs of a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.http import HTTPResponse
from reconciler.meta import ResourceType

__all__ = ["Source"]


class Source(Protocol):
    """Be what a reflector needs of a client: bytes, one request a call, typed errors."""

    async def raw_list(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> bytes:
        """Return one page of a list."""
        ...

    async def open_watch(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> HTTPResponse:
        """Return an open watch, which the caller closes."""
        ...
