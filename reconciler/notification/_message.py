"""Hold what a channel is given to deliver."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Message"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Be one message for one channel.

    Attributes:
        name: of the NotificationRequest.
        namespace: of the NotificationRequest.
        uid: of the NotificationRequest: a request that was deleted and made again is another one.
        type: what it is about, ``"Escalation"`` or another of `NotificationType`.
        priority: ``"Critical"``, ``"High"``, ``"Medium"`` or ``"Low"``.
        subject: one line.
        body: the text.
        channel: the name of the channel that is to deliver it.
        attempt: 1 for the first attempt on this channel.
    """

    name: str
    namespace: str
    uid: str
    type: str
    priority: str
    subject: str
    body: str
    channel: str
    attempt: int = 1

    @property
    def idempotency_key(self) -> str:
        """Return what stays the same over all attempts of this message on this channel, for receivers that know it.

        A process that dies between the call and the write of its result calls again: a receiver that takes a key
        (``Idempotency-Key``, a dedup key) then shows the message once.
        """
        return f"{self.uid}/{self.channel}"
