"""Find out how kinds are served, when they are first used."""

from __future__ import annotations

import asyncio
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.client.session.answers import decode
from reconciler.client.session.retry import Repeat
from reconciler.errors import NotServed
from reconciler.meta import GroupVersionKind, ResourceType

if TYPE_CHECKING:
    from reconciler.client.session.session import Connection

__all__ = ["Discovery"]

_Kinds = dict[str, ResourceType]

_BURST = 10
_PER_SECOND = 1.0


class _Group:
    """Hold what is known of one group and version.

    Attributes:
        kinds: by their names; None before the first answer.
        began: when the newest answer was asked for, counted by the questions of the whole client.
        lock: held while it is asked.
        tokens: questions that may be asked at once.
        filled: when they were counted.
    """

    def __init__(self) -> None:
        self.kinds: _Kinds | None = None
        self.began = -1
        self.lock = asyncio.Lock()
        self.tokens = float(_BURST)
        self.filled = 0.0


class Discovery:
    """Remember how kinds are served.

    Each group and version is asked by itself, so that one that fails hurts nobody else. That a kind is *not* served is
    never answered from memory: it may have been installed a moment ago. Who asks for kinds of one group and version
    that are not there waits for his turn instead: ten questions at once, and one a second in the long run.

    Args:
        connection: fetches the documents.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
        self._questions = 0

    async def find(self, gvk: GroupVersionKind) -> ResourceType:
        """Return how a kind is served. Cancellation leaves what was known before.

        Raises:
            NotServed: the server serves no such kind.
            APIError: discovery of its group failed otherwise.
            TransportError: no answer.
        """
        group = self._groups[gvk.group, gvk.version]
        found = (group.kinds or {}).get(gvk.kind)
        if found is not None:
            return found
        self._questions += 1
        question = self._questions
        async with group.lock:
            # An answer that was asked for after this call began is as good as one of its own.
            if group.began < question:
                await self._ask(group, gvk)
            found = (group.kinds or {}).get(gvk.kind)
        if found is None:
            raise self._not_served(gvk)
        return found

    def forget(self, gvk: GroupVersionKind) -> None:
        """Ask again for a kind when it is next needed: what was known of it proved wrong."""
        (self._groups[gvk.group, gvk.version].kinds or {}).pop(gvk.kind, None)

    async def _ask(self, group: _Group, gvk: GroupVersionKind) -> None:
        await asyncio.sleep(self._wait(group))
        self._questions += 1
        began = self._questions
        request = self._connection.request("GET", gvk.path)
        try:
            response = await self._connection.execute(request, Repeat.UNKNOWN)
        except NotServed:
            group.kinds = {}
        else:
            group.kinds = _kinds(gvk, decode(request, response).get("resources") or ())
        group.began = began

    def _wait(self, group: _Group) -> float:
        """Take a token; return the seconds until it is there."""
        now = self._connection.monotonic()
        group.tokens = min(_BURST, group.tokens + max(0.0, now - group.filled) * _PER_SECOND) - 1
        group.filled = now
        return max(0.0, -group.tokens / _PER_SECOND)

    def _not_served(self, gvk: GroupVersionKind) -> NotServed:
        kinds = self._groups[gvk.group, gvk.version].kinds
        if not kinds:
            hint = f"the server serves no {gvk.api_version}; is the CustomResourceDefinition installed?"
        else:
            similar = difflib.get_close_matches(gvk.kind, kinds, n=1) or sorted(kinds)[:5]
            hint = f"{gvk.api_version} has no such kind, but {', '.join(similar)}"
        return NotServed(f"{gvk} is not served: {hint}", status=404, request=f"GET {gvk.path}")


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
