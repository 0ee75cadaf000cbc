"""Chaos: many kinds of faults at random, reproducible by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from reconciler.apiserver.faults.effects import CutWatches, Delay, Effect, Lose, Refuse, ReorderEvents, Stale
from reconciler.apiserver.faults.fault import Fault, Match

__all__ = ["Chaos", "plan"]

_WRITES = ("create", "update", "patch", "delete")

_FAILURES: Mapping[str, tuple[Effect, tuple[str, ...] | None]] = {
    "500": (Refuse(500), None),
    "503": (Refuse(503), None),
    "429": (Refuse(429, retry_after=1.0), None),
    "lost": (Lose(), None),
    "409": (Refuse(409), ("update", "patch")),
    "500 after the write": (Refuse(500, after_commit=True), _WRITES),
    "lost after the write": (Lose(after_commit=True), _WRITES),
    "410": (Refuse(410, as_event=True), ("watch",)),
    "cut watches": (CutWatches(), _WRITES),
}
"""Faults that a request, or its kind's watches, must recover from, and the verbs that they apply to."""

_IRREGULARITIES: Mapping[str, tuple[Effect, tuple[str, ...] | None]] = {
    "stale": (Stale(2.0), ("get", "list", "watch")),
    "event order": (ReorderEvents("seeded"), _WRITES),
}
"""What a healthy server does as well, so that it may happen more often."""


@dataclass(frozen=True, eq=False)
class Chaos:
    """The faults of one call of `Faults.chaos`. `stop`, or the end of a ``with`` block, removes them.

    Attributes:
        faults: each fault by a name that says what it does.
    """

    faults: Mapping[str, Fault]

    @property
    def hits(self) -> dict[str, int]:
        """Return how many requests each fault has hit."""
        return {name: fault.hits for name, fault in self.faults.items()}

    def stop(self) -> None:
        """Remove the faults; does nothing if they are removed already."""
        for fault in self.faults.values():
            fault.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def plan(
    *, rate: float, latency: float, without: Sequence[str], match: Match
) -> Iterator[tuple[str, Match, Effect, float]]:
    """Yield the name, the requests, the effect and the probability of the faults of `Faults.chaos`.

    Raises:
        ValueError: `rate` is not between 0 and 1, or `without` has an unknown name.
    """
    known = [*_FAILURES, *_IRREGULARITIES, "latency"]
    unknown = set(without) - set(known)
    if unknown:
        raise ValueError(f"unknown kind of chaos: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a share of the requests, from 0 to 1, not {rate}")
    kinds = [(name, *kind, rate / len(_FAILURES)) for name, kind in _FAILURES.items()]
    kinds += [(name, *kind, min(1.0, 2 * rate)) for name, kind in _IRREGULARITIES.items()]
    if latency:
        kinds.append(("latency", Delay((0.0, latency)), None, 0.5))
    for name, effect, verbs, probability in kinds:
        both = _intersection(match, verbs)
        if name not in without and both != ():
            yield name, replace(match, verb=both), effect, probability


def _intersection(match: Match, verbs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the verbs that a match and a kind of fault have in common; None for all."""
    if match.verb is None:
        return verbs
    wanted = (match.verb,) if isinstance(match.verb, str) else tuple(match.verb)
    return wanted if verbs is None else tuple(verb for verb in wanted if verb in verbs)
