"""Discovery: how kinds are served, asked for when a kind is first used."""

from __future__ import annotations

import asyncio
import difflib
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.client.session.answers import decode
from reconciler.client.session.retry import RetryOn
from reconciler.errors import APIError, NotServed, OutcomeUnknown, TransportError
from reconciler.meta import GroupVersionKind
from reconciler.meta.reference import ResourceType
from reconciler.objects import InvalidObject

if TYPE_CHECKING:
    from reconciler.client.session.connection import Connection

__all__ = ["Discovery"]

_Kinds = dict[str, ResourceType]

_BURST = 10
_PER_SECOND = 1.0

_VERSION_TIMEOUT = 5.0
_VERSION_PAUSE = 60.0
"""Seconds for the server's version, which is answered from memory, and until it is asked for again."""

_PAGES_CACHED_SINCE = 34
"""The minor version of Kubernetes whose API server reads pages from snapshots of its cache (ListFromCacheSnapshot)."""


class _GroupVersion:
    """The discovered kinds of one API group and version.

    Attributes:
        kinds: its kinds by name; None before the first response.
        asked: when the newest response was asked for, in lookups of the whole client.
        lock: held during a request.
        tokens: requests that may be sent at once.
        filled: when `tokens` was last computed.
    """

    def __init__(self) -> None:
        self.kinds: _Kinds | None = None
        self.asked = -1
        self.lock = asyncio.Lock()
        self.tokens = float(_BURST)
        self.filled = 0.0


class Discovery:
    """A memory of how kinds are served.

    Each group and version is discovered separately, so that one that fails affects no other. That a kind is *not*
    served is never answered from memory: it may just have been installed. Instead, discovery of an unknown kind is
    rate-limited per group and version: ten lookups at once, then one per second.

    Args:
        connection: sends the requests.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: defaultdict[tuple[str, str], _GroupVersion] = defaultdict(_GroupVersion)
        self._lookups = 0
        self._pages_are_cached: bool | None = None
        self._asking_version = asyncio.Lock()
        self._version_failed = False  # the last time
        self._ask_version_at = 0.0

    async def pages_are_cached(self) -> bool:
        """Return whether the server answers the pages of a list from memory: Kubernetes 1.34 and newer do.

        The server's version is asked for once. A server that refuses to tell it counts as an older one, and so does
        for a minute one that does not answer twice in a row, since a proxy may not let the request pass.

        Raises:
            TransportError: there was no response within 5 s, for the first time.
        """
        async with self._asking_version:
            if self._pages_are_cached is None and self._connection.monotonic() >= self._ask_version_at:
                request = self._connection.request("GET", "/version")
                try:
                    async with asyncio.timeout(_VERSION_TIMEOUT):
                        info = decode(request, await self._connection.once(request))
                except (APIError, InvalidObject):
                    return False
                except (TransportError, TimeoutError) as error:
                    if not self._version_failed:
                        self._version_failed = True
                        if isinstance(error, TransportError):
                            raise
                        raise OutcomeUnknown(f"no response to GET /version within {_VERSION_TIMEOUT:g} s") from None
                    self._version_failed = False
                    self._ask_version_at = self._connection.monotonic() + _VERSION_PAUSE
                    return False
                self._pages_are_cached = _minor_version(info) >= _PAGES_CACHED_SINCE
        return bool(self._pages_are_cached)

    async def find(self, gvk: GroupVersionKind) -> ResourceType:
        """Return how a kind is served. Cancellation leaves what was known before.

        Raises:
            NotServed: the server does not serve the kind.
            APIError: discovery of its group failed for another reason.
            TransportError: there was no response.
        """
        group = self._groups[gvk.group, gvk.version]
        found = (group.kinds or {}).get(gvk.kind)
        if found is not None:
            return found
        self._lookups += 1
        lookup = self._lookups
        async with group.lock:
            # A response that was asked for after this call began is as good as one of its own.
            if group.asked < lookup:
                await self._ask(group, gvk)
            found = (group.kinds or {}).get(gvk.kind)
        if found is None:
            raise self._not_served(gvk)
        return found

    def forget(self, gvk: GroupVersionKind) -> None:
        """Discover a kind again when it is next used: what was known of it proved wrong."""
        (self._groups[gvk.group, gvk.version].kinds or {}).pop(gvk.kind, None)

    async def _ask(self, group: _GroupVersion, gvk: GroupVersionKind) -> None:
        await asyncio.sleep(self._wait(group))
        self._lookups += 1
        asked = self._lookups
        request = self._connection.request("GET", gvk.path)
        try:
            response = await self._connection.execute(request, RetryOn.UNKNOWN)
        except NotServed:
            group.kinds = {}
        else:
            group.kinds = _kinds(gvk, decode(request, response).get("resources"))
        group.asked = asked

    def _wait(self, group: _GroupVersion) -> float:
        """Take a token and return the seconds until it is available."""
        now = self._connection.monotonic()
        group.tokens = min(_BURST, group.tokens + max(0.0, now - group.filled) * _PER_SECOND) - 1
        group.filled = now
        return max(0.0, -group.tokens / _PER_SECOND)

    def _not_served(self, gvk: GroupVersionKind) -> NotServed:
        kinds = self._groups[gvk.group, gvk.version].kinds
        if not kinds:
            hint = f"the server does not serve {gvk.api_version}; is the CustomResourceDefinition installed?"
        else:
            similar = difflib.get_close_matches(gvk.kind, kinds, n=1) or sorted(kinds)[:5]
            hint = f"{gvk.api_version} has no such kind, but {', '.join(similar)}"
        return NotServed(f"{gvk} is not served: {hint}", status=404, request=f"GET {gvk.path}")


def _minor_version(info: Mapping[str, Any]) -> int:
    """Return the minor version that a server behaves as; providers append a plus sign (``"34+"``)."""
    digits = str(info.get("emulationMinor") or info.get("minor") or "").rstrip("+")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0  # int() refuses thousands of digits


def _kinds(gvk: GroupVersionKind, resources: Any) -> _Kinds:
    """Return the kinds in an APIResourceList. A name with a slash is a subresource of the resource before the slash.

    Malformed entries are left out, since an aggregated API server is foreign code.
    """
    subresources: dict[str, set[str]] = {}
    plurals: dict[str, Mapping[str, Any]] = {}
    for resource in resources if isinstance(resources, list) else ():
        if not isinstance(resource, dict) or not resource.get("name"):
            continue
        plural, _, subresource = str(resource["name"]).partition("/")
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
            str(resource.get("singularName") or ""),
            tuple(map(str, names if isinstance(names := resource.get("shortNames"), list) else ())),
        )
        for kind, resource in plurals.items()
    }
