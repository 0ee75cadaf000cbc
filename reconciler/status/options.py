"""The options of a batcher, and the policy that its flushes follow."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from reconciler._core.backoff import Backoff
from reconciler.clock import Clock
from reconciler.status.record.mutations import Path
from reconciler.status.record.schema import ValueForms
from reconciler.status.record.snapshot import Snapshot
from reconciler.status.writer import Strategy

__all__ = ["BACKOFF", "OnError", "Policy", "check_flush_timeout", "check_options"]

BACKOFF = Backoff(base=0.01, factor=4, maximum=1.0, jitter=0.5)
"""Before each retry: about 10, 40, 160, 640 ms. client-go's RetryOnConflict starts at 10 ms as well. The jitter keeps
replicas that collided once from colliding again."""

OnError = Literal["flush", "ledgers", "discard"]
"""What a block that ends with an exception writes: everything recorded, everything except decided values, or
nothing."""

_STRATEGIES, _ON_ERROR = get_args(Strategy), get_args(OnError)


def check_options(
    strategy: Strategy,
    on_error: OnError,
    subresource: str | None,
    flush_timeout: float = 10.0,
    max_conflicts: int = 5,
) -> None:
    """Check a batcher's options, whatever its client is. A batcher does it itself.

    Raises:
        ValueError: an option is out of range, or cannot be combined with another one.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(f"strategy must be 'merge', 'update' or 'apply', not {strategy!r}")
    if subresource not in ("status", None):
        raise ValueError(f"subresource must be 'status' or None, not {subresource!r}")
    if strategy == "update" and subresource != "status":
        raise ValueError("strategy='update' needs subresource='status': elsewhere it would write the whole object")
    if on_error not in _ON_ERROR:
        raise ValueError(f"on_error must be 'flush', 'ledgers' or 'discard', not {on_error!r}")
    check_flush_timeout(flush_timeout)
    if max_conflicts < 1:
        raise ValueError(f"max_conflicts must be 1 or more, not {max_conflicts!r}")


def check_flush_timeout(seconds: float) -> None:
    """Check a batcher's ``flush_timeout``.

    Raises:
        ValueError: it is not more than 0.
    """
    if not seconds > 0:
        raise ValueError(f"flush_timeout must be more than 0 seconds, not {seconds!r}")


class Policy(msgspec.Struct, frozen=True):
    """The options of a batcher that decide when, what and how it sends.

    Attributes:
        strategy: merge patch, update or apply.
        subresource: ``"status"``; None is the main resource.
        limit: the most writes, and the most reads, that one flush makes.
        token: the path where a write leaves a random id, which shows whether a write with a lost response was applied.
        clock: the time of what is learned about the server.
        rng: jitter and ids.
        typed: the class of the object that was given, or the given class.
        backoff: the pauses between retries.
        flush_timeout: seconds for one flush; inside kopf, where a retry costs an event, the least before giving up.
        on_error: what to write if the block ends with an exception.
        join: whether to join an open batcher.
    """

    strategy: Strategy
    subresource: str | None
    limit: int
    token: Path | None
    clock: Clock
    rng: random.Random
    typed: type = dict
    backoff: Backoff = BACKOFF
    flush_timeout: float = 10.0
    on_error: OnError = "flush"
    join: bool = True

    @property
    def forms(self) -> ValueForms | None:
        """Return which texts mean the same according to the kind's model; None for untyped kinds."""
        return ValueForms.of(self.typed)

    def snapshot(self, document: Mapping[str, Any], *, last: bool = False, private: bool = False) -> Snapshot:
        """Return what this kind of write needs of an object.

        Args:
            document: the whole object.
            last: no write follows, so the frame of an update is not needed.
            private: nobody can change the document's metadata.
        """
        with_frame = self.strategy == "update" and not last
        return Snapshot.of(document, with_rest=self.subresource is None, with_frame=with_frame, private=private)

    def new_mark(self) -> str:
        """Return a random id to leave at the token's path; ``""`` without a token."""
        return f"{self.rng.getrandbits(64):016x}" if self.token is not None else ""
