"""Name the errors of cached reads.

---

Say what went wrong with a list or a watch, and how long to wait before the next attempt.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from reconciler.backoff import Backoff, obey
from reconciler.clock import Clock, current_clock
from reconciler.errors import APIError, Expired, ReconcilerError, ServerTimeout, error_text
from reconciler.meta import ResourceType

__all__ = ["CacheNotSynced", "Failure", "NotCached", "Pacer", "WatchTrouble", "action_on", "is_behind"]


class NotCached(ReconcilerError):
    """Say that no informer holds what was asked for, and that ``client.live`` reads it from the server."""


class CacheNotSynced(ReconcilerError):
    """Say which informers have no complete list yet, and what the server answered them last."""


BACKOFF = Backoff(base=0.8, factor=2.0, maximum=30.0, jitter=0.5)
"""Delays after failures; 800 ms, factor 2 and the cap of 30 s are client-go's (reflector) and kube-rs' (watcher)."""

HEALTHY_AFTER = 120.0
"""Seconds without a failure after which the next one waits the shortest delay again, as in client-go."""

_logger = logging.getLogger("reconciler.cache")


class WatchTrouble(ReconcilerError):
    """Say that a stream or a list was answered with success and is of no use all the same.

    Attributes:
        kind: a word or two for logs and decisions.
        lost: whether only a new, consistent list can help.
    """

    def __init__(self, message: str, *, kind: str, lost: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.lost = lost


@dataclass(frozen=True, slots=True)
class Failure:
    """Hold the last failure of a list or a watch; its text is for people.

    Attributes:
        action: what was tried on what (``"list databases.example.com in namespace prod"``).
        error: what came of it.
        at: when.
    """

    action: str
    error: Exception
    at: datetime

    def __str__(self) -> str:
        return f"{self.action}: {_describe(self.error)}"


def action_on(verb: str, resource: ResourceType, namespace: str | None) -> str:
    """Return verb, resource and scope as the subject of an error."""
    plural = f"{resource.plural}.{resource.gvk.group}" if resource.gvk.group else resource.plural
    if not resource.namespaced:
        return f"{verb} {plural}"
    return f"{verb} {plural} in {f'namespace {namespace}' if namespace else 'all namespaces'}"


def is_behind(error: Exception) -> bool:
    """Say whether the server answered that it has not come to the version asked for yet."""
    if not isinstance(error, ServerTimeout):
        return False
    return "Too large resource version" in error.message or any(
        cause.reason == "ResourceVersionTooLarge" for cause in error.causes
    )


def _describe(error: Exception) -> str:
    if isinstance(error, APIError):
        try:
            reason = error.reason or HTTPStatus(error.status).phrase
        except ValueError:
            reason = "failed"
        return f"{error.status} {reason}: {error.message}"
    return error_text(error)


class Pacer:
    """Space out the attempts of one reflector.

    Every failure is followed by a delay with jitter that doubles up to a cap, or by the delay that the server asks for
    if that is longer. An expired version is retried at once, but only the first time.

    Args:
        clock: tells how long it was healthy. Default: the clock in force.
        rng: source of the jitter.
    """

    def __init__(self, *, clock: Clock | None = None, rng: random.Random) -> None:
        self._clock = clock or current_clock()
        self._rng = rng
        self._failures = 0
        self._resumed = self._clock.monotonic()
        self._told: set[Hashable] = set()

    def delay(self, error: Exception) -> float:
        """Return the seconds to wait after a failure."""
        now = self._clock.monotonic()
        if now - self._resumed >= HEALTHY_AFTER:
            self._failures = 0
            self._told.clear()
        earlier, self._failures = self._failures, self._failures + 1
        delay = self._delay(error, earlier)
        self._resumed = now + delay
        return delay

    def _delay(self, error: Exception, earlier: int) -> float:
        asked = error.retry_after if isinstance(error, ReconcilerError) else None
        if asked and is_behind(error):
            return obey(asked, self._rng)  # no failure: the server has waited itself before it answered
        if isinstance(error, Expired) and not earlier and not asked:
            return 0.0
        return BACKOFF.delay(earlier, self._rng, asked=asked)

    def log(self, failure: Failure, delay: float) -> None:
        """Log a failure: the first of its kind since it was last healthy as a warning, the others for debugging."""
        error = failure.error
        detail = error.status if isinstance(error, APIError) else getattr(error, "kind", None)
        kind = (type(error), detail)
        level = logging.DEBUG if kind in self._told else logging.WARNING
        self._told.add(kind)
        unexpected = None if isinstance(error, ReconcilerError) else error
        _logger.log(level, "%s; next attempt in %.1f s", failure, delay, exc_info=unexpected)
