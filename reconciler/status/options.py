"""Refuse options of a batcher that cannot be, or that do not go together."""

from __future__ import annotations

from typing import Literal, get_args

from reconciler.status.clients.binding import Binding
from reconciler.status.clients.official import OfficialWriter
from reconciler.status.writer import Strategy

__all__ = ["OnError", "check_client", "check_options"]

OnError = Literal["flush", "ledgers", "discard"]
"""What a block that ends with an exception writes: everything recorded, all but values that were set, or nothing."""

_STRATEGIES, _ON_ERROR = get_args(Strategy), get_args(OnError)


def check_options(
    strategy: Strategy,
    on_error: OnError,
    subresource: str | None,
    flush_timeout: float = 10.0,
    max_conflicts: int = 5,
    *,
    conditional: bool = True,
) -> None:
    """Look at a batcher's options, whatever its client is; a batcher does it by itself.

    Raises:
        ValueError: one is out of its range, or does not go with another.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(f"strategy must be 'merge', 'update' or 'apply', not {strategy!r}")
    if strategy != "merge" and not conditional:
        raise ValueError(f"conditional=False goes with strategy='merge': an {strategy} repeats what was read before")
    if strategy == "update" and subresource != "status":
        raise ValueError("strategy='update' goes with subresource='status': elsewhere it would write the whole object")
    if on_error not in _ON_ERROR:
        raise ValueError(f"on_error must be 'flush', 'ledgers' or 'discard', not {on_error!r}")
    if not flush_timeout > 0:
        raise ValueError(f"flush_timeout must be more than 0 seconds, not {flush_timeout!r}")
    if max_conflicts < 1:
        raise ValueError(f"max_conflicts must be 1 or more, not {max_conflicts!r}")


def check_client(binding: Binding, strategy: Strategy, *, conditional: bool) -> None:
    """Look at what a batcher's client cannot do.

    Raises:
        ValueError: it is asked for.
    """
    if binding.kopf is not None and (strategy != "merge" or not conditional):
        raise ValueError(
            f"inside kopf the write is kopf's, a JSON patch on a version: strategy={strategy!r} needs a client, "
            "so does conditional=False"
        )
    if strategy == "update" and isinstance(binding.writer, OfficialWriter):
        raise ValueError(
            "strategy='update' needs a reconciler.Client: the official clients send a PUT again by themselves when a "
            "connection breaks, and a second one meets the conflict that the first one made"
        )
