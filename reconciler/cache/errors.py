"""Errors of cached reads, and failures of lists and watches with the backoff that follows them."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from reconciler._core.backoff import Backoff, retry_after_delay
from reconciler.clock import Clock, current_clock
from reconciler.errors import APIError, Expired, ReconcilerError, ServerTimeout, error_text
from reconciler.meta.reference import ResourceType

__all__ = ["BackoffManager", "CacheNotSynced", "Failure", "NotCached", "WatchError", "action_on", "is_behind"]


class NotCached(ReconcilerError):
    """No informer holds the object or kind; ``client.live`` reads it from the server."""


class CacheNotSynced(ReconcilerError):
    """The initial list is incomplete; the message names the informers and the server's last response."""


BACKOFF = Backoff(base=0.8, factor=2.0, maximum=30.0, jitter=0.5)
"""The delays after failures: 800 ms, factor 2, at most 30 s, as in client-go's reflector and kube-rs' watcher."""

HEALTHY_AFTER = 120.0
"""Seconds without a failure after which the backoff starts again at the shortest delay, as in client-go."""

_logger = logging.getLogger("reconciler.cache")


class WatchError(ReconcilerError):
    """A list or watch that the server accepted but whose content is unusable.

    Attributes:
        kind: a short label for logs and decisions.
        must_relist: whether only a new, consistent list can help.
    """

    def __init__(self, message: str, *, kind: str, must_relist: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.must_relist = must_relist


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a list or watch; ``str()`` gives a readable text.

    Attributes:
        action: the verb and its target (``"list databases.example.com in namespace prod"``).
        error: the exception.
        at: the time of the failure.
    """

    action: str
    error: Exception
    at: datetime

    def __str__(self) -> str:
        return f"{self.action}: {_describe(self.error)}"


def action_on(verb: str, resource: ResourceType, namespace: str | None) -> str:
    """Return verb, resource and scope as the subject of an error message."""
    plural = f"{resource.plural}.{resource.gvk.group}" if resource.gvk.group else resource.plural
    if not resource.namespaced:
        return f"{verb} {plural}"
    return f"{verb} {plural} in {f'namespace {namespace}' if namespace else 'all namespaces'}"


def is_behind(error: Exception) -> bool:
    """Return whether the server answered that it has not reached the requested version yet."""
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


class BackoffManager:
    """The delays between one reflector's attempts.

    Every failure is followed by a jittered delay that doubles up to a maximum, or by the server's Retry-After if that
    is longer. An expired version is retried immediately, but only the first time.

    Args:
        clock: measures the time without failures. Default: the current clock.
        rng: source of the jitter.
    """

    def __init__(self, *, clock: Clock | None = None, rng: random.Random) -> None:
        self._clock = clock or current_clock()
        self._rng = rng
        self._failures = 0
        self._resumed = self._clock.monotonic()
        self._logged: set[Hashable] = set()

    def delay(self, error: Exception) -> float:
        """Record a failure and return the seconds to wait."""
        now = self._clock.monotonic()
        if now - self._resumed >= HEALTHY_AFTER:
            self._failures = 0
            self._logged.clear()
        earlier, self._failures = self._failures, self._failures + 1
        delay = self._delay(error, earlier)
        self._resumed = now + delay
        return delay

    def _delay(self, error: Exception, earlier: int) -> float:
        asked = error.retry_after if isinstance(error, ReconcilerError) else None
        if asked and is_behind(error):
            return retry_after_delay(asked, self._rng)  # not a failure: the server itself waited before it answered
        if isinstance(error, Expired) and not earlier and not asked:
            return 0.0
        return BACKOFF.delay(earlier, self._rng, retry_after=asked)

    def log(self, failure: Failure, delay: float) -> None:
        """Log a failure: at WARNING for the first of its kind since the last healthy period, else at DEBUG."""
        error = failure.error
        detail = error.status if isinstance(error, APIError) else getattr(error, "kind", None)
        kind = (type(error), detail)
        level = logging.DEBUG if kind in self._logged else logging.WARNING
        self._logged.add(kind)
        unexpected = None if isinstance(error, ReconcilerError) else error
        _logger.log(level, "%s; next attempt in %.1f s", failure, delay, exc_info=unexpected)
