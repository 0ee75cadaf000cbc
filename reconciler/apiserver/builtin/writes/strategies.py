"""The strategies of the built-in kinds: how the server completes, validates and finishes their objects."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.writes.pod_resize import check_resize, complete_resize
from reconciler.apiserver.builtin.writes.pod_validation import check_ephemeral_containers
from reconciler.apiserver.builtin.writes.preparation import COMPLETE, FINISH, Change, complete_pod
from reconciler.apiserver.builtin.writes.validation import validation_errors
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.wire import JSONObject

__all__ = ["Strategy", "strategy_of"]

Check = Callable[[JSONObject, JSONObject | None], list[FieldError]]


def _no_change(_doc: JSONObject, _before: JSONObject | None) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """The special treatment of a kind. Each function gets a document and, on an update, the stored one.

    Attributes:
        complete: completes a document in place. It may replace members, but not change them.
        check: returns the errors of a document.
        warn: returns the warnings for a document that is accepted.
        finish: sets the fields that nobody owns, in place, after field ownership was recorded. It may replace members,
            but not change them.
    """

    complete: Change = _no_change
    check: Check = lambda _doc, _before: []
    warn: Callable[[JSONObject], list[str]] = lambda _doc: []
    finish: Change = _no_change


@functools.lru_cache(maxsize=256)
def _built_in(group: str, plural: str, subresource: str) -> Strategy:
    if (plural, subresource) in _OF_SUBRESOURCES:
        return _OF_SUBRESOURCES[plural, subresource]
    kind = (group, plural)
    return Strategy(COMPLETE.get(kind, _no_change), validation_errors, finish=FINISH.get(kind, _no_change))


_OF_SUBRESOURCES = {
    ("pods", "ephemeralcontainers"): Strategy(
        complete_pod, lambda doc, before: list(check_ephemeral_containers(doc, before or doc))
    ),
    ("pods", "resize"): Strategy(complete_resize, lambda doc, before: list(check_resize(doc, before))),
}


def strategy_of(info: KindInfo, subresource: str = "") -> Strategy:
    """Return the strategy of a kind, or of a subresource that has one of its own."""
    return _built_in(info.group, info.plural, subresource)
