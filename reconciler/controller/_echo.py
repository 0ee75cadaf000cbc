"""Tell the echo of a controller's own write from a change that it has not considered.

A primary event is news if its version is newer than `seen`, the highest version of the object that a cycle of this
controller has considered. While a key is in hand four more values are kept:

``basis``
    the lowest version that the cycle read;
``tip``
    where the cycle's own writes have led from there: each was conditional on `tip`, and its answer is the new `tip`;
``late``
    the highest version that an event brought meanwhile;
``void``
    the object went, or history was rewritten: this cycle teaches nothing.

*Why no change is lost.* An event is dropped only if its version is at most `seen`, and `seen` rises only from a version
that was read, over writes that the server accepted on condition of the version before. Between the two versions of such
a write there is no third. So a foreign version at most `seen` is at most some `basis`: a cycle has read it.

*Why there is no echo.* Without foreign writes the last own version is `tip`, and `late` cannot be beyond it.

Versions are integers of one history (KEP-5504). A server of an aggregated API may answer other strings, which cannot be
ordered: then `seen` is the set of the versions in the last cycle's chain, and an event is dropped only if it is in it.

No I/O, no queue, no time. One event loop.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from reconciler.meta import Version

__all__ = ["EchoStatistics", "EchoTracker"]

K = TypeVar("K", bound=Hashable)

_MAX_OPAQUE = 64
"""How many opaque versions a cycle remembers; beyond it the cycle counts as overtaken, which costs one run."""


@dataclass(frozen=True, slots=True)
class EchoStatistics:
    """Count what the echo rule knows and did.

    Attributes:
        known: keys with a considered version.
        in_hand: keys in a worker's hands.
        dropped: events that were dropped because their version was considered already.
        overtaken: cycles during which a newer version came than the one they considered.
    """

    known: int
    in_hand: int
    dropped: int
    overtaken: int


class _Hand(msgspec.Struct):
    """Hold what one cycle knows of its object."""

    basis: Version | None = None
    tip: Version | None = None  # basis, moved on only by own writes conditional on it
    chain: list[str] = []  # opaque versions only: basis and own answers
    late: int | None = None
    late_opaque: set[str] = set()
    overflow: bool = False
    void: bool = False


_Seen = int | frozenset[str]


class EchoTracker(Generic[K]):
    """Keep, for each key, the version of its object that this controller has considered.

    One per controller: what one controller has considered is news to another.

    Args:
        own_writes: whether own writes count as considered. False restores controller-runtime's behaviour, where each
            own write wakes the controller.
    """

    def __init__(self, *, own_writes: bool = True) -> None:
        self._own_writes = own_writes
        self._seen: dict[K, _Seen] = {}
        self._hands: dict[K, _Hand] = {}
        self._dropped = 0
        self._overtaken = 0

    def hand_out(self, key: K) -> None:
        """Note that a worker has the key from now on."""
        self._hands[key] = _Hand()

    def saw(self, key: K, version: Version) -> None:
        """Note that the cycle read its object at a version; the lowest one counts."""
        hand = self._hands.get(key)
        if hand is None or hand.void:
            return
        if isinstance(version, int):
            if hand.basis is None or (isinstance(hand.basis, int) and version < hand.basis):
                hand.basis = hand.tip = version
        elif hand.basis is None:
            hand.basis = hand.tip = version
            hand.chain = [version]
        elif version not in hand.chain:  # older or newer than the first cannot be told: consider neither
            hand.void = True

    def wrote(self, key: K, *, before: Version, after: Version, exact: bool) -> None:
        """Note a write of the cycle to its own object, conditional on `before` and answered with `after`.

        It counts only if it stands on `tip` and its answer is what was computed; any other write may carry a foreign
        change, so its event is news.
        """
        hand = self._hands.get(key)
        if hand is None or hand.void or not self._own_writes:
            return
        if hand.tip is None or before != hand.tip or not exact:
            return
        hand.tip = after
        if isinstance(after, str):
            hand.chain.append(after)
            if len(hand.chain) > _MAX_OPAQUE:
                hand.void = True

    def admits(self, key: K, version: Version) -> bool:
        """Say whether an event of the object at a version is to be queued; False for one already considered."""
        if _covers(self._seen.get(key), version):
            self._dropped += 1
            return False
        hand = self._hands.get(key)
        if hand is None:
            return True
        if isinstance(version, int):
            hand.late = version if hand.late is None else max(hand.late, version)
        elif len(hand.late_opaque) < _MAX_OPAQUE:
            hand.late_opaque.add(version)
        else:
            hand.overflow = True
        return True

    def finish(self, key: K) -> bool:
        """Take the key back at the end of its cycle, whatever the outcome; say whether events overtook it.

        False means that every event of the object which came meanwhile is at most what was considered.
        """
        hand = self._hands.pop(key, None)
        if hand is None:
            return False
        self._raise_seen(key, hand)
        seen = self._seen.get(key)
        overtaken = (
            hand.overflow
            or (hand.late is not None and not _covers(seen, hand.late))
            or any(not _covers(seen, version) for version in hand.late_opaque)
        )
        self._overtaken += overtaken
        return overtaken

    def forget(self, key: K) -> None:
        """Drop what is known of a key: its object went, or another one took its name.

        The caller queues the key for a reason of its own. A cycle that has the key teaches nothing any more.
        """
        self._seen.pop(key, None)
        hand = self._hands.get(key)
        if hand is not None:
            hand.void = True

    def forget_all(self) -> None:
        """Drop everything: versions went backwards, so no number known is worth anything. The caller queues all."""
        self._seen.clear()
        for hand in self._hands.values():
            hand.void = True

    def in_hand(self, key: K) -> bool:
        """Say whether a worker has the key."""
        return key in self._hands

    def seen(self, key: K) -> _Seen | None:
        """Return the version considered; for opaque versions the set of them; None when nothing is known."""
        return self._seen.get(key)

    def statistics(self) -> EchoStatistics:
        """Return the counts at this moment."""
        return EchoStatistics(len(self._seen), len(self._hands), self._dropped, self._overtaken)

    def _raise_seen(self, key: K, hand: _Hand) -> None:
        if hand.void or hand.tip is None:
            return
        if isinstance(hand.tip, int):
            seen = self._seen.get(key)
            self._seen[key] = max(seen, hand.tip) if isinstance(seen, int) else hand.tip
        else:
            self._seen[key] = frozenset(hand.chain)


def _covers(seen: _Seen | None, version: Version) -> bool:
    if isinstance(seen, int):
        return isinstance(version, int) and version <= seen
    return seen is not None and version in seen
