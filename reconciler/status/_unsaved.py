"""Hold what a flush could not save, for a later batcher on the same object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.meta import format_path
from reconciler.status._mutations import Mutation

__all__ = ["MAX_MUTATIONS", "Unsaved"]

MAX_MUTATIONS = 1000
"""Mutations kept for one object; a controller that fails to save for so long loses the oldest, counted."""


@dataclass(frozen=True, slots=True)
class Unsaved:
    """Be mutations that are not saved, and what they were decided on.

    The batcher hands it to the running cycle, and the next cycle's batcher takes it back: the body then sees the object
    with them in place. To everybody in between it is opaque but for these:

    Attributes:
        mutations: in the order of their calls.
        considered: the status that they were recorded on; not to be changed.
        dropped: how many older ones were dropped because there were too many.
    """

    mutations: tuple[Mutation, ...]
    considered: Mapping[str, Any]
    dropped: int = 0

    @classmethod
    def of(cls, mutations: Sequence[Mutation], considered: Mapping[str, Any]) -> Unsaved:
        """Keep the newest mutations up to the bound."""
        over = max(0, len(mutations) - MAX_MUTATIONS)
        return cls(tuple(mutations[over:]), considered, over)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths that they write, each once, for logs."""
        return tuple(dict.fromkeys(format_path(path) for mutation in self.mutations for path in mutation.paths))

    def __len__(self) -> int:
        return len(self.mutations)
