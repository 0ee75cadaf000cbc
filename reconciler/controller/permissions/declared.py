"""Compare what a reconciler asks of the server with what it declared, so that a gap is found in a test."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from reconciler.controller.permissions.permissions import AccessRule, full_name
from reconciler.http import HTTPRequest, HTTPResponse, Transport

__all__ = ["Declared"]

_log = logging.getLogger("reconciler.controller")

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch"}

_OF_NAMESPACES = ("status", "finalize")


class Declared:
    """Send the requests of a reconciler, and warn of those that its declared permissions do not cover, each once.

    Args:
        transport: sends the requests.
        name: whose requests they are, for the warning.
        rules: what is covered.
    """

    def __init__(self, transport: Transport, *, name: str, rules: Sequence[AccessRule]) -> None:
        self._transport = transport
        self._name = name
        self._known = {(rule.group, rule.resource, verb) for rule in rules for verb in rule.verbs}

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request, whatever was declared."""
        asked = _asked(request)
        if asked is not None and asked not in self._known:
            self._known.add(asked)
            group, resource, verb = asked
            _log.warning(
                "%s does not declare that it may %s %s: the role of 'reconciler manifests' will refuse it. Add a "
                "Permission with %r to its permissions",
                self._name,
                verb,
                full_name(group, resource),
                verb,
            )
        return await self._transport.send(request)

    async def renew(self) -> bool:
        """Renew the credentials, if the transport can. Cancellation leaves those that were there."""
        renew = getattr(self._transport, "renew", None)
        return renew is not None and bool(await renew())


def _asked(request: HTTPRequest) -> tuple[str, str, str] | None:
    """Return group, resource and verb of a request as the server's authorizer sees them; None for other paths."""
    match request.path.strip("/").split("/"):
        case ["api", _, *rest]:
            group = ""
        case ["apis", group, _, *rest]:
            pass
        case _:
            return None
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _OF_NAMESPACES:
        rest = rest[2:]
    match rest:
        case [resource]:
            named = False
        case [resource, _]:
            named = True
        case [plural, _, subresource, *_]:
            resource, named = f"{plural}/{subresource}", True
        case _:
            return None
    return group, resource, _verb(request, named=named)


def _verb(request: HTTPRequest, *, named: bool) -> str:
    if request.method == "DELETE":
        return "delete" if named else "deletecollection"
    if request.method != "GET":
        return _WRITES.get(request.method, request.method.lower())
    if named:
        return "get"
    return "watch" if any(name == "watch" and value not in ("0", "false") for name, value in request.query) else "list"
