"""Stop calling a receiver that is down, and find out with one call whether it is back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from reconciler.notification.errors import DeferredDeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BreakerState", "CircuitBreaker"]

BreakerState = Literal["closed", "open", "half-open"]
"""Calls go through; none does; one does, to see."""


class CircuitBreaker:
    """Count failures in a row; after too many refuse calls for a while, then let one through.

    What the receiver refuses for good (HTTP 404) is no failure of the receiver, and closes the breaker: it answered. A
    call that was cancelled tells nothing.

    Args:
        name: of the receiver, for the refusal.
        clock: returns monotonic seconds.
        failures: in a row, until it opens. Default 5.
        open_seconds: until one call is let through. Default 30.
        on_change: hears of each new state.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        failures: int = 5,
        open_seconds: float = 30.0,
        on_change: Callable[[str, BreakerState], None] = lambda _name, _state: None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._limit = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._failures = 0
        self._opened: float | None = None
        self._probing = False
        self._told: BreakerState = "closed"

    @property
    def state(self) -> BreakerState:
        """Return the state at this moment."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._probing or self._left() <= 0 else "open"

    @property
    def seconds_left(self) -> float:
        """Return the seconds until a call is let through; 0 or less for now."""
        return self._left()

    @contextmanager
    def call(self, failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Make a call inside the block; of what it raises, these types count as failures of the receiver.

        Raises:
            DeferredDeliveryError: the call must not be made now; says when.
        """
        self._enter()
        try:
            yield
        except failures:
            self._failed()
            raise
        except Exception:
            self._succeeded()
            raise
        except BaseException:
            self._probing = False
            raise
        self._succeeded()

    def check(self) -> None:
        """Raise if a call would be refused at this moment; claims nothing.

        Raises:
            DeferredDeliveryError: it would be; says when to come back.
        """
        if self._opened is None:
            return
        left = self._left()
        if left > 0 or self._probing:
            wait = left if left > 0 else self._open_seconds
            why = "is being tried by another message" if self._probing else "has failed too often"
            raise DeferredDeliveryError(f"{self._name} {why}; it is not called for a while", retry_after=wait)

    def _enter(self) -> None:
        self.check()
        if self._opened is not None:
            self._probing = True
            self._tell()

    def _left(self) -> float:
        return 0.0 if self._opened is None else self._opened + self._open_seconds - self._clock()

    def _failed(self) -> None:
        self._failures += 1
        if self._probing or self._failures >= self._limit:
            self._opened = self._clock()
        self._probing = False
        self._tell()

    def _succeeded(self) -> None:
        self._failures, self._opened, self._probing = 0, None, False
        self._tell()

    def _tell(self) -> None:
        state = self.state
        if state != self._told:
            self._told = state
            self._on_change(self._name, state)
