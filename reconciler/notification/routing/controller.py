"""The controller of RoutingConfig objects: it loads the one that the operator uses, and says how that went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from reconciler.clock import current_clock
from reconciler.controller import Outcome, Permission, ResourceReconciler, Result
from reconciler.meta.scalars import format_micro_time
from reconciler.notification.api.routing import (
    ERROR_LIMIT,
    RoutingConfigObject,
    RoutingConfigStatus,
    RoutingError,
)
from reconciler.notification.routing.config import RoutingConfigError
from reconciler.notification.routing.router import RoutingTable
from reconciler.status import StatusBatcher

__all__ = ["RoutingConfigReconciler"]

RETRY = 60.0
"""Seconds until an invalid configuration is checked again: a credential that it names may have been added."""


class RoutingConfigReconciler(ResourceReconciler[RoutingConfigObject]):
    """A reconciler that loads the RoutingConfig of one name into a routing table, and writes its status.

    An invalid configuration leaves the previous one in use. So does the deletion of the object.

    Args:
        name: name of the RoutingConfig. Others are ignored.
        redact: redacts the errors. Default: no change.
    """

    permissions: ClassVar[Sequence[Permission] | None] = ()

    def __init__(self, name: str, table: RoutingTable, *, redact: Callable[[str], str] = str) -> None:
        super().__init__()
        self._name = name
        self._table = table
        self._redact = redact

    async def reconcile_object(
        self, obj: RoutingConfigObject, status: StatusBatcher[RoutingConfigStatus], /
    ) -> Outcome:
        """Load the configuration, and record the result."""
        if obj.name != self._name:
            return None
        try:
            changed = self._table.load(obj.spec.config, name=f"RoutingConfig {obj.name}", again=True)
        except RoutingConfigError as error:
            found = [
                RoutingError(line=problem.line, place=problem.place, message=self._redact(problem.message))
                for problem in error.problems[:ERROR_LIMIT]
            ]
            return self._invalid(status, found)
        if changed or obj.status.active_generation != obj.metadata.generation or obj.status.in_force_since is None:
            now = format_micro_time(current_clock().now() + self.client.clock_offset)
            status.set(active_generation=obj.metadata.generation, in_force_since=now)
        status.set(valid=True, errors=[])
        status.set_condition("Ready", True, reason="Loaded", message="the configuration is in use")
        return None

    def _invalid(self, status: StatusBatcher[RoutingConfigStatus], errors: Sequence[RoutingError]) -> Outcome:
        documents = [error.model_dump(mode="json", by_alias=True) for error in errors]
        status.set(valid=False, errors=documents)
        first = errors[0]
        text = f"line {first.line}: {first.place}: {first.message}" if first.line else first.message
        in_use = "the previous one is in use" if self._table.config is not None else "none is in use"
        status.set_condition("Ready", False, reason="Invalid", message=f"{text}; {in_use}")
        return Result(requeue_after=RETRY)
