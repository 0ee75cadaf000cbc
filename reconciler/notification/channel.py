"""Say what a channel is, and keep the channels that a process has."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from reconciler.errors import ConfigurationError, error_text
from reconciler.notification.message import Message

__all__ = ["CHANNEL_PATTERN", "ENTRY_POINT_GROUP", "Channel", "ChannelRegistry", "installed_channels"]

CHANNEL_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.:]{0,61}[A-Za-z0-9])?$"
"""What a channel may be called: the rule of label values, and ``:`` to qualify a receiver (``slack:oncall``)."""

ENTRY_POINT_GROUP = "reconciler.channels"
"""The group of entry points under which a distribution offers channels."""

_log = logging.getLogger("reconciler.notification")
_name = re.compile(CHANNEL_PATTERN)


@runtime_checkable
class Channel(Protocol):
    """Deliver messages over one medium.

    Attributes:
        name: what ``spec.channels`` calls it; matches `CHANNEL_PATTERN`.
    """

    @property
    def name(self) -> str:
        """Return the channel's name."""
        ...

    async def deliver(self, message: Message) -> None:
        """Deliver one message: return when it was delivered, raise when not.

        May be called for several messages at the same time, and is cancelled at shutdown or when it takes too long.
        Cancellation leaves behind whatever has already been sent. A delivery that is cancelled at shutdown is no
        attempt, unless it called ``message.mark_sent()`` before.

        Raises:
            RetryableDeliveryError: it was not delivered, and another attempt may succeed.
            UnknownDeliveryError: it may have been delivered: no answer came. So says any exception not named here.
            PermanentDeliveryError: no further attempt can.
            DeferredDeliveryError: it was not tried; come back later.
        """
        ...


class ChannelRegistry:
    """Keep channels by name.

    Args:
        channels: those to begin with.
        close_after: seconds until a channel that was replaced is closed; deliveries that have begun on it should have
            ended by then. Default 60.

    Raises:
        ConfigurationError: a name is used twice or cannot be written in a request, or an item is no channel.
    """

    def __init__(self, channels: Iterable[Channel] = (), *, close_after: float = 60.0) -> None:
        self._close_after = close_after
        self._channels: dict[str, Channel] = {}
        self._owned: dict[str, frozenset[str]] = {}
        self._retired: list[Channel] = []
        self._expected: set[str] = set()
        self._change = asyncio.Event()
        for channel in channels:
            self.register(channel)

    def register(self, channel: Channel) -> None:
        """Add a channel.

        Raises:
            ConfigurationError: see the class.
        """
        _check(channel)
        if channel.name in self._channels:
            raise ConfigurationError(f"two channels are called {channel.name!r}: give one of them another name")
        self._channels[channel.name] = channel

    def expect(self, owner: str) -> None:
        """Note that an owner's channels are still to come, by `replace`."""
        self._expected.add(owner)

    @property
    def is_complete(self) -> bool:
        """Say whether every channel is there that is expected."""
        return not self._expected

    def replace(self, owner: str, channels: Iterable[Channel]) -> None:
        """Put an owner's channels in the place of those it had, in one step.

        Deliveries that have begun end on the channel that they began on.

        Args:
            owner: whose they are.
            channels: all of its channels.

        Raises:
            ConfigurationError: see the class; then nothing has changed.
        """
        before = self._owned.get(owner, frozenset())
        others = {name: channel for name, channel in self._channels.items() if name not in before}
        found = ChannelRegistry(channels)
        for name in found:
            if name in others:
                raise ConfigurationError(f"two channels are called {name!r}: give one of them another name")
        kept = {id(channel) for channel in found._channels.values()}
        self._retired += [self._channels[name] for name in before if id(self._channels[name]) not in kept]
        self._owned[owner] = frozenset(found)
        self._expected.discard(owner)
        self._channels = {**others, **found._channels}
        self._change.set()

    def names(self, *, but: str | None = None) -> list[str]:
        """Return the names in order; without those of the owner `but`."""
        left_out = self._owned.get(but, frozenset()) if but is not None else frozenset()
        return [name for name in self if name not in left_out]

    async def run(self) -> None:
        """Close the channels that were replaced, a while later, and all when it is cancelled.

        A channel is closed by its method ``close``, if it has one.
        """
        try:
            while True:
                await self._change.wait()
                self._change.clear()
                retired, self._retired = self._retired, []
                await asyncio.sleep(self._close_after)
                await _close(retired)
        finally:
            await _close([*self._retired, *self._channels.values()])

    def get(self, name: str) -> Channel | None:
        """Return the channel of a name, or None."""
        return self._channels.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._channels))

    def __len__(self) -> int:
        return len(self._channels)


async def _close(channels: Iterable[Channel]) -> None:
    for channel in channels:
        close = getattr(channel, "close", None)
        if close is None:
            continue
        try:
            closing = close()
            if inspect.isawaitable(closing):
                await closing
        except Exception:  # noqa: BLE001 - a channel is foreign code
            _log.exception("the channel %s could not be closed", channel.name)


def _check(candidate: object) -> None:
    if isinstance(candidate, type) or not isinstance(candidate, Channel):
        raise ConfigurationError(f"{candidate!r} is no channel: it needs a name and a method deliver(message)")
    name: object = candidate.name
    if not (isinstance(name, str) and _name.match(name)):
        raise ConfigurationError(
            f"channel name {name!r} of {type(candidate).__name__} cannot be used in spec.channels: "
            "write at most 63 letters, digits, '-', '_', '.' or ':', with a letter or digit at both ends"
        )


def installed_channels() -> list[Channel]:
    """Make the channels that installed distributions offer as entry points of the group ``reconciler.channels``.

    Each entry point names something that is called without arguments and returns a channel: a class or a function.

    Raises:
        ConfigurationError: one of them cannot be imported or made; it is named.
    """
    channels: list[Channel] = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            channels.append(entry.load()())
        except Exception as error:
            origin = f" of {entry.dist.name}" if entry.dist else ""
            raise ConfigurationError(
                f"channel {entry.name!r}{origin} ({entry.value}) cannot be made: {error_text(error)}"
            ) from error
    return channels
