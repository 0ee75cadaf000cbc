"""The requests whose results are not saved: their calls would be repeated if this process died."""

from __future__ import annotations

from reconciler.meta import Request

__all__ = ["UnsavedResults"]

TOTAL_LIMIT = 500
"""Number of requests with unsaved results from which on a namespace delivers only while it has none. Far below what a
controller keeps (1000), because a lost result means that a call is repeated."""

NAMESPACE_LIMIT = 100
"""Maximum requests of a namespace with unsaved results; then no other request of the namespace is delivered."""


class UnsavedResults:
    """The requests with unsaved results, and whether a namespace may have more of them."""

    def __init__(self) -> None:
        self._requests: dict[str, set[Request]] = {}

    def add(self, request: Request) -> None:
        """Record that the results of a request are not saved."""
        self._requests.setdefault(request.namespace or "", set()).add(request)

    def discard(self, request: Request) -> None:
        """Record that the results of a request are saved, or that it is gone."""
        requests = self._requests.get(request.namespace or "", set())
        requests.discard(request)
        if not requests:
            self._requests.pop(request.namespace or "", None)

    def is_full(self, request: Request) -> bool:
        """Return whether the results of too many other requests are unsaved."""
        total = sum(map(len, self._requests.values()))
        most = NAMESPACE_LIMIT if total < TOTAL_LIMIT else 1
        return len(self._requests.get(request.namespace or "", ())) >= most and request not in self

    def __contains__(self, request: Request) -> bool:
        return request in self._requests.get(request.namespace or "", ())
