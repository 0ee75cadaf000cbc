"""Name the ways in which a delivery can fail; the type decides what happens next, never the text."""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = [
    "DeferredDeliveryError",
    "DeliveryError",
    "PermanentDeliveryError",
    "RetryableDeliveryError",
    "UnknownDeliveryError",
]


class DeliveryError(ReconcilerError):
    """Be the base of what a channel raises on purpose.

    The text ends up in the request's status, redacted and cut: say what was tried and what the answer was.
    """


class RetryableDeliveryError(DeliveryError):
    """Say that it was not delivered, and another attempt may succeed.

    Every exception of a type not named here counts as this one; under ``delivery: AtMostOnce`` as
    `UnknownDeliveryError`, since nobody said that the message did not arrive.

    Args:
        message: what happened.
        retry_after: seconds that the receiver asked to wait, or None. The wait is this or the back-off, whichever is
            longer; more than an hour counts as an hour.
        doubtful: whether the receiver may have acted on the message although it says that it failed, as behind an HTTP
            500. Under ``delivery: AtMostOnce`` it is not tried again then. Default False.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, doubtful: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.doubtful = doubtful


class PermanentDeliveryError(DeliveryError):
    """Say that no further attempt can succeed: the channel ends at once."""


class UnknownDeliveryError(DeliveryError):
    """Say that the message may have been delivered: it was sent, and no answer came.

    Tried again as after `RetryableDeliveryError`, except under ``delivery: AtMostOnce``, where it ends the channel.
    """


class DeferredDeliveryError(DeliveryError):
    """Say that the message was not tried, and when to come back: it spends no attempt.

    For a receiver that sheds load, or a breaker that is open. Deferring ends after 24 h in a row; the next deferral
    then counts as a failed attempt.

    Args:
        message: why it was not tried.
        retry_after: seconds until it makes sense to try; at least 1 and at most 3600 are waited.
    """

    def __init__(self, message: str = "", *, retry_after: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
