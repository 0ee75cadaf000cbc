"""Declare the kind NotificationRequest; its two halves stand in `_spec` and `_status`."""

from __future__ import annotations

from reconciler.notification.api.spec import NotificationRequestSpec
from reconciler.notification.api.status import NotificationRequestStatus
from reconciler.objects import PrinterColumn, Resource, rule

__all__ = ["NotificationRequest"]


class NotificationRequest(
    Resource[NotificationRequestSpec, NotificationRequestStatus],
    group="notify.reconciler.dev",
    version="v1alpha1",
    short_names=("notif", "notifs"),
    printer_columns=(
        PrinterColumn("Type", ".spec.type"),
        PrinterColumn("Priority", ".spec.priority"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Attempts", ".status.totalAttempts"),
        PrinterColumn("Reason", ".status.reason", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    ),
    rules=(
        rule(
            "self.spec == oldSelf.spec",
            message="a notification cannot be changed once it was created: delete it and create another one",
            field_path=".spec",
        ),
    ),
):
    """A message that is to be delivered over one or more channels, with retries."""
