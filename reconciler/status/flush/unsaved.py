"""What a flush could not save, for a later batcher on the same object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.meta import Version, equal, format_path
from reconciler.status.record.mutations import Mutation

__all__ = ["MAX_MUTATIONS", "Doubts", "Unsaved"]

MAX_MUTATIONS = 1000
"""Mutations kept for one object; a controller that fails to save for so long loses the oldest, counted."""


MAX_SENDS = 8
"""Writes without an answer that are remembered for one object; an older one can hardly be applied any more."""


class Doubts(NamedTuple):
    """Writes that may have been applied, or may yet be; the token stored in the object tells which one was.

    Attributes:
        base: the token that was stored when they were sent.
        version: the resourceVersion that the first was conditional on.
        sends: the token of each write, and the mutations in it.
    """

    base: Any
    version: Version
    sends: tuple[tuple[str, tuple[Mutation, ...]], ...] = ()

    def settle(
        self, token: Any, version: Version, mutations: Sequence[Mutation]
    ) -> tuple[list[Mutation], Doubts | None]:
        """Return the mutations that are still to be written, and what stays in doubt.

        A version older than the writes tells nothing: a write conditional on it is refused, and the object read again.
        Where another token is stored than one of these, it cannot be told; see `undecided`.

        Args:
            token: the token that a version of the object has.
            version: its resourceVersion.
            mutations: those in doubt, and others.
        """
        older = isinstance(version, int) and isinstance(self.version, int) and version < self.version
        if older or equal(token, self.base):
            return list(mutations), self
        applied = next((set(map(id, sent)) for mark, sent in self.sends if mark == token), None)
        if applied is not None:
            return [each for each in mutations if id(each) not in applied], None
        return self.undecided(mutations), None

    def undecided(self, mutations: Sequence[Mutation]) -> list[Mutation]:
        """Return the mutations without those in doubt that must not be repeated."""
        doubtful = {id(each) for _, sent in self.sends for each in sent}
        return [each for each in mutations if id(each) not in doubtful or each.may_be_repeated()]

    def and_sent(self, mark: str, mutations: Sequence[Mutation]) -> Doubts:
        """Return these doubts and one more write."""
        return Doubts(self.base, self.version, (*self.sends, (mark, tuple(mutations)))[-MAX_SENDS:])


@dataclass(frozen=True, slots=True)
class Unsaved:
    """Mutations that are not saved, and what they were decided on.

    The batcher hands it to the running cycle, and the next cycle's batcher takes it back: the body then sees the object
    with them in place. To everybody in between it is opaque but for these:

    Attributes:
        mutations: in the order of their calls.
        considered: the status that they were recorded on; not to be changed.
        dropped: how many older ones were dropped because there were too many.
        doubts: the writes of them that may have been applied; None if none was.
    """

    mutations: tuple[Mutation, ...]
    considered: Mapping[str, Any]
    dropped: int = 0
    doubts: Doubts | None = None

    @classmethod
    def of(cls, mutations: Sequence[Mutation], considered: Mapping[str, Any], doubts: Doubts | None = None) -> Unsaved:
        """Keep the newest mutations up to the bound."""
        over = max(0, len(mutations) - MAX_MUTATIONS)
        return cls(tuple(mutations[over:]), considered, over, doubts)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths that they write, each once, for logs."""
        return tuple(dict.fromkeys(format_path(path) for mutation in self.mutations for path in mutation.paths))

    def __len__(self) -> int:
        return len(self.mutations)
