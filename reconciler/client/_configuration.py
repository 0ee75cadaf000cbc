"""Placeholder until next step."""

from __future__ import annotations

import os

from reconciler.http import HTTPRequest, HTTPResponse


class ConfiguredTransport:
    def __init__(self, *, kubeconfig: str | os.PathLike[str] | None, context: str | None) -> None: ...
    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        raise NotImplementedError
