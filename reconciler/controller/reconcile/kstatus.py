"""``observedGeneration`` and the conditions ``Reconciling`` and ``Stalled``, by the rules of kstatus.

kstatus is how Flux and Helm, among others, decide for any kind whether an object is ready. An object is in progress
while ``observedGeneration`` is not its generation or ``Reconciling`` is true. It has failed if ``Stalled`` is true.
Both conditions are absent from an object that is ready.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from reconciler.controller.reconcile.outcome import error_message
from reconciler.controller.result import Outcome
from reconciler.objects import Resource
from reconciler.objects.kinds import original_document
from reconciler.status import StatusBatcher
from reconciler.status.record.mutations import Set

__all__ = [
    "RECONCILING",
    "STALLED",
    "has_status_field",
    "record_observed_generation",
    "record_outcome",
    "record_retry",
]

RECONCILING = "Reconciling"
STALLED = "Stalled"

_MAX_MESSAGE = 1024
"""Characters of a message, as in Events."""

_MAX_REASON = 1024
_NOT_IN_REASON = re.compile(r"[^A-Za-z0-9_]+")

_CANCELLED = "the reconcile was cancelled: its timeout expired, or something that it awaited was cancelled"


def record_outcome(status: StatusBatcher[Any], outcome: Outcome, terminal: BaseException | None) -> None:
    """Record the conditions after a reconcile that returned, or ended with a terminal error.

    Args:
        status: the object's batcher.
        outcome: what it returned.
        terminal: the terminal error; None if it returned.
    """
    if terminal is not None:
        _set(status, STALLED, _reason_of(terminal), error_message(terminal))
        _remove(status, RECONCILING)
        return
    _remove(status, STALLED)
    if outcome is not None and outcome.again:
        _set(status, RECONCILING, "Progressing", "a further step follows")
    else:
        _remove(status, RECONCILING)


def record_retry(status: StatusBatcher[Any], error: BaseException) -> None:
    """Record the conditions after a reconcile that is retried: it raised this, or was cancelled by its timeout."""
    message = error_message(error) if isinstance(error, Exception) else _CANCELLED
    _set(status, RECONCILING, "ProgressingWithRetry", message)
    _remove(status, STALLED)


def record_observed_generation(obj: Any, status: StatusBatcher[Any]) -> None:
    """Record which generation the status is the outcome of.

    Also if the status has it already: another writer may remove it before the write, which is then replayed.
    """
    if not isinstance(obj, Resource) or not has_status_field(obj.status_model, "observedGeneration"):
        return
    generation = original_document(obj)["metadata"].get("generation")
    if generation is None:
        return
    if status.observed_generation is not None:
        status.record(Set(("observedGeneration",), generation))
    elif status.get("observedGeneration") is not None:  # written when the generation was unknown: outdated forever
        status.remove("observedGeneration")


@functools.lru_cache(maxsize=256)  # called in every reconcile, with the few kinds of a program
def has_status_field(model: Any, wire_name: str) -> bool:
    """Return whether a status model has a field of this name on the wire."""
    return any(wire_name in (name, field.serialization_alias) for name, field in model.model_fields.items())


def _reason_of(error: BaseException) -> str:
    """Return the name of an error's class if the API server accepts it as a reason; otherwise what it accepts of it."""
    name = _NOT_IN_REASON.sub("", type(error).__name__).strip("_").lstrip("_0123456789")
    return name[:_MAX_REASON].rstrip("_") or "TerminalError"


def _set(status: StatusBatcher[Any], type: str, reason: str, message: str) -> None:
    status.set_condition(type, True, reason=reason, message=message[:_MAX_MESSAGE])


def _remove(status: StatusBatcher[Any], type: str) -> None:
    if any(condition.get("type") == type for condition in status.get("conditions", ())):
        status.remove("conditions", item={"type": type})
