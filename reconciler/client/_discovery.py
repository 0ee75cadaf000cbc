"""Find out how kinds are served, when they are first used."""

from __future__ import annotations

import asyncio
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.client._answers import decode
from reconciler.client._retry import Repeat
from reconciler.errors import NotServed
from reconciler.meta import GroupVersionKind, ResourceType

if TYPE_CHECKING:
    from reconciler.client._connection import Connection

__all__ = ["Discovery"]

_Kinds = dict[str, ResourceType]

_BURST = 10
_PER_SECOND = 1.0


class Discovery:
    """Remember how kinds are served.

    Each group and version is asked by itself, so that one that fails hurts nobody else. A kind that is not in what was
    fetched is asked for again, so that a CustomResourceDefinition installed meanwhile is found; such misses cost at
    most one request a second in the long run, beyond which the answer is given from memory.

    Args:
        connection: fetches the documents.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: dict[tuple[str, str], _Kinds] = {}
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tokens = float(_BURST)
        self._filled = 0.0

    async def find(self, gvk: GroupVersionKind) -> ResourceType:
        """Return how a kind is served. Cancellation leaves what was known before.

        Raises:
            NotServed: the server serves no such kind.
            APIError: discovery of its group failed otherwise.
            TransportError: no answer.
        """
        found = self._known(gvk)
        if found is not None:
            return found
        async with self._locks[gvk.group, gvk.version]:
            found = self._known(gvk)
            if found is None:
                await self._refresh(gvk)
                found = self._known(gvk)
        if found is None:
            raise self._not_served(gvk)
        return found

    def forget(self, gvk: GroupVersionKind) -> None:
        """Ask again for a kind when it is next needed: what was known of it proved wrong."""
        self._groups.get((gvk.group, gvk.version), {}).pop(gvk.kind, None)

    def _known(self, gvk: GroupVersionKind) -> ResourceType | None:
        return self._groups.get((gvk.group, gvk.version), {}).get(gvk.kind)

    async def _refresh(self, gvk: GroupVersionKind) -> None:
        if (gvk.group, gvk.version) in self._groups and not self._may_ask_again():
            return
        request = self._connection.request("GET", _path(gvk))
        try:
            response = await self._connection.execute(request, Repeat.UNKNOWN)
        except NotServed:
            self._groups[gvk.group, gvk.version] = {}
            return
        resources = decode(request, response).get("resources") or ()
        self._groups[gvk.group, gvk.version] = _kinds(gvk, resources)

    def _may_ask_again(self) -> bool:
        now = self._connection.monotonic()
        self._tokens = min(_BURST, self._tokens + max(0.0, now - self._filled) * _PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _not_served(self, gvk: GroupVersionKind) -> NotServed:
        kinds = self._groups.get((gvk.group, gvk.version), {})
        if not kinds:
            hint = f"the server serves no {gvk.api_version}; is the CustomResourceDefinition installed?"
        else:
            similar = difflib.get_close_matches(gvk.kind, kinds, n=1) or sorted(kinds)[:5]
            hint = f"{gvk.api_version} has no such kind, but {', '.join(similar)}"
        return NotServed(f"{gvk} is not served: {hint}", status=404, request=f"GET {_path(gvk)}")


def _path(gvk: GroupVersionKind) -> str:
    return f"/apis/{gvk.group}/{gvk.version}" if gvk.group else f"/api/{gvk.version}"


def _kinds(gvk: GroupVersionKind, resources: Iterable[Mapping[str, Any]]) -> _Kinds:
    """Return the kinds in an APIResourceList; entries with a slash are subresources of the one before the slash."""
    subresources: dict[str, set[str]] = {}
    plurals: dict[str, Mapping[str, Any]] = {}
    for resource in resources:
        plural, _, subresource = str(resource.get("name") or "").partition("/")
        if subresource:
            subresources.setdefault(plural, set()).add(subresource)
        else:
            plurals.setdefault(str(resource.get("kind") or ""), resource)
    return {
        kind: ResourceType(
            GroupVersionKind(gvk.group, gvk.version, kind),
            str(resource["name"]),
            bool(resource.get("namespaced")),
            frozenset(subresources.get(str(resource["name"]), ())),
        )
        for kind, resource in plurals.items()
    }
