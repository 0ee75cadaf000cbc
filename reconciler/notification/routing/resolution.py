"""Say which channels a request goes to when it names none: the seam between the passes and the routing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reconciler.notification.api.resource import NotificationRequest

__all__ = ["Resolution", "Router", "attributes_of"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Hold where a request goes.

    Attributes:
        receivers: names of the receivers that were reached, in order, each once.
        channels: names of their channels, in order, each once; empty when they have none.
        problem: why a newer configuration of the routing is not in force; None when it is the newest.
        pending: whether there is no configuration yet, so that the request has to wait. Default False.
    """

    receivers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    problem: str | None = None
    pending: bool = False


@runtime_checkable
class Router(Protocol):
    """Resolve the attributes of a request to receivers and channels."""

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        """Return where a request with these attributes goes; the same for the same attributes and configuration."""
        ...


def attributes_of(obj: NotificationRequest) -> dict[str, str]:
    """Return what routing can match: the extensions, and over them ``type``, ``priority``, ``namespace``, ``name``."""
    return {
        **(obj.spec.extensions or {}),
        "type": obj.spec.type,
        "priority": obj.spec.priority,
        "namespace": obj.namespace or "",
        "name": obj.name,
    }
