"""A warning about reconciles that assign to `obj.status`, which nothing writes."""

from __future__ import annotations

import logging
from typing import Any

from reconciler.objects import Resource
from reconciler.objects.kinds import original_document

__all__ = ["AssignedStatus"]

_log = logging.getLogger("reconciler.controller")

_CHECKS = 10
"""Reconciles of a controller that are checked, since a check costs the reading and dumping of the status."""


class AssignedStatus:
    """The check of one controller's first reconciles; it warns once.

    In controller-runtime, a reconcile assigns to the status of the object. Without this, nothing would show why the
    status stays empty.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _CHECKS

    def check(self, obj: Any) -> None:
        """Log a warning if the status of an object that a reconcile was given differs from the one that was read."""
        if not self._left or not isinstance(obj, Resource) or "status" not in vars(obj):  # not even read
            return
        self._left -= 1
        before = original_document(obj).get("status") or {}
        after = obj.to_dict().get("status") or {}
        fields = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if fields:
            self._left = 0
            _log.warning(
                "%s %s: the reconcile changed obj.status (%s), which is not written: "
                "record it with status.set(…), status.append(…) or status.set_condition(…)",
                obj.gvk.kind,
                obj.key,
                ", ".join(fields),
            )
