"""Let many things go wrong by chance, in one call."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from reconciler.apiserver.faults.faults import Fault, Faults

__all__ = ["Chaos", "let_loose"]

_WRITES = ("create", "update", "patch", "delete")

_REFUSED: Mapping[str, Mapping[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "retry_after": 1.0},
    "lost": {"lost": True},
    "409": {"status": 409, "verb": ("update", "patch")},
    "500 after the write": {"status": 500, "after_commit": True, "verb": _WRITES},
    "lost after the write": {"lost": True, "after_commit": True, "verb": _WRITES},
    "410": {"expired": True, "verb": ("watch",)},
    "cut watches": {"cut_watches": True, "verb": _WRITES},
}
"""What stands in the way of a request, or of those who watch it."""

_SHADED: Mapping[str, Mapping[str, Any]] = {
    "stale": {"stale": 2.0, "verb": ("get", "list", "watch")},
    "event order": {"event_order": "seeded", "verb": _WRITES},
}
"""What a real server does in quiet times as well, so that it may come often."""


class Chaos:
    """Hold the faults of one call of `Faults.chaos`; take them away with `stop`, or by leaving a ``with`` block.

    Attributes:
        faults: each fault by a name that says what it does.
    """

    def __init__(self, faults: Mapping[str, Fault]) -> None:
        self.faults = faults

    @property
    def hits(self) -> dict[str, int]:
        """Return how many requests were struck, by what."""
        return {name: fault.hits for name, fault in self.faults.items()}

    def stop(self) -> None:
        """Take the faults away; harmless when they are gone."""
        for fault in self.faults.values():
            fault.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def let_loose(
    faults: Faults, *, seed: int, rate: float, latency: float, without: Sequence[str], match: Mapping[str, Any]
) -> Chaos:
    """Add the faults of `Faults.chaos`."""
    known = [*_REFUSED, *_SHADED, "latency"]
    unknown = set(without) - set(known)
    if unknown:
        raise ValueError(f"chaos has no {', '.join(sorted(unknown))}: it has {', '.join(known)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a share of the requests, from 0 to 1, not {rate}")
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    kinds = {name: (options, rate / len(_REFUSED)) for name, options in _REFUSED.items()}
    kinds |= {name: (options, min(1.0, 2 * rate)) for name, options in _SHADED.items()}
    if latency:
        kinds["latency"] = ({"latency": (0.0, latency)}, 0.5)
    found: dict[str, Fault] = {}
    for name, (options, probability) in kinds.items():
        verbs = _both(match.get("verb"), options.get("verb"))
        if name not in without and verbs != ():
            chosen = {**match, **options, "verb": verbs}
            found[name] = faults.add(times=None, probability=probability, rng=rng, **chosen)
    return Chaos(found)


def _both(one: str | Collection[str] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the verbs that are in both; None stands for all."""
    if one is None:
        return other
    verbs = (one,) if isinstance(one, str) else tuple(one)
    return verbs if other is None else tuple(verb for verb in verbs if verb in other)
