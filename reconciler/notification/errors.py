"""Errors of a delivery. The type decides what happens next, never the text."""

from __future__ import annotations

from reconciler.errors import ReconcilerError


class DeliveryError(ReconcilerError):
    """The base class of the errors that channels raise on purpose.

    The text is stored in the request's status, redacted and truncated. It should say what was tried and what the
    response was.
    """


class RetryableDeliveryError(DeliveryError):
    """The message was not delivered, and another attempt may succeed.

    Exceptions of other types count as this one. Under ``delivery: AtMostOnce`` they count as `UnknownDeliveryError`,
    because the message may have arrived.

    Args:
        message: what happened.
        retry_after: seconds that the receiver asked to wait, or None. The longer of this and the backoff applies; more
            than an hour counts as an hour.
        doubtful: whether the receiver may have processed the message although it reported a failure, such as HTTP 500.
            Under ``delivery: AtMostOnce`` the delivery is not retried then. Default False.
        concerns_receiver: whether other messages may fail for the same reason, so that the failure counts for the
            receiver's circuit breaker. Default True.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        doubtful: bool = False,
        concerns_receiver: bool = True,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.doubtful = doubtful
        self.concerns_receiver = concerns_receiver


class PermanentDeliveryError(DeliveryError):
    """No further attempt can succeed. The channel fails immediately."""


class UnknownDeliveryError(DeliveryError):
    """The message may have been delivered: it was sent, and there was no response.

    The delivery is retried as after `RetryableDeliveryError`. Under ``delivery: AtMostOnce`` the channel ends
    ``Unknown`` instead.
    """


class DeferredDeliveryError(DeliveryError):
    """The delivery was not attempted and should be attempted later. Uses no attempt.

    For a receiver that sheds load, or an open circuit breaker. After 24 h of consecutive deferrals the next one counts
    as a failed attempt.

    Args:
        message: why the delivery was not attempted.
        retry_after: seconds to wait; limited to 1 to 3600.
    """

    def __init__(self, message: str = "", *, retry_after: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
