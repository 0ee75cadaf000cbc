"""Keep the reasons of an entry in as little as possible: None, one text, or a set of texts.

Nearly every entry has one reason, so nothing is allocated for it.
"""

from __future__ import annotations

__all__ = ["MAX_REASONS", "Reasons", "named", "with_reason", "without_reason"]

MAX_REASONS = 32
"""How many different reasons an entry tells apart; further ones count as an add that gave none."""

Reasons = str | set[str] | None
"""None: not pending. ``""`` is the reason of an add that gave none; it holds the entry like any other."""


def with_reason(reasons: str | set[str], reason: str) -> str | set[str]:
    """Return the reasons with one more; a set is changed in place."""
    if isinstance(reasons, str):
        return reasons if reasons == reason else {reasons, reason}
    if reason not in reasons:
        reasons.add(reason if len(reasons) < MAX_REASONS else "")
    return reasons


def without_reason(reasons: Reasons, reason: str) -> tuple[bool, Reasons]:
    """Say whether a reason was there, and return what is left; a set is changed in place."""
    if not isinstance(reasons, set):
        return (True, None) if reasons == reason else (False, reasons)
    if reason not in reasons:
        return False, reasons
    reasons.remove(reason)
    return True, reasons or None


def named(reasons: Reasons) -> frozenset[str]:
    """Return the reasons that have a name."""
    if not reasons:
        return frozenset()
    return frozenset((reasons,)) if isinstance(reasons, str) else frozenset(reasons) - {""}
