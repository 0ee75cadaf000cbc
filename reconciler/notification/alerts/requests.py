"""The NotificationRequest for a group of alerts."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from typing import get_args

from reconciler.notification.alerts.payload import Alert, AlertGroup
from reconciler.notification.api.types import (
    BODY_LIMIT,
    EXTENSION_LIMIT,
    IDENTIFIER_LENGTH,
    LINK_LIMIT,
    NAME_LENGTH,
    ActionLink,
    Incident,
    NotificationRequest,
    NotificationRequestSpec,
    Priority,
)
from reconciler.objects import ObjectMeta

__all__ = ["request_for"]

SHOWN = 50
"""Maximum alerts that the body describes."""

KEPT = 7 * 86_400
"""Seconds until a finished request is deleted. Until then repeats of the same alerts are recognized; Alertmanager's
``repeat_interval`` must be shorter (its default is 4 h)."""

_URL = re.compile(r"https?://[^\s<>|]+")
_PRIORITIES: dict[str, Priority] = {
    **dict.fromkeys(("critical", "emergency", "page", "p1", "disaster"), "Critical"),
    **dict.fromkeys(("error", "high", "major", "p2"), "High"),
    **dict.fromkeys(("info", "informational", "low", "none", "p4", "p5"), "Low"),
}


def request_for(group: AlertGroup, namespace: str, token: str) -> NotificationRequest:
    """Return the request for a group of alerts.

    Its name is derived from the group's key, the alerts that fire, or that have been resolved, and the senders' token.
    The same alerts have the same name, so a repeat is not another request, from any sender. Nobody without the token
    can take the name before.
    """
    resolved = group.status == "resolved"
    alerts = [alert for alert in group.alerts if resolved or alert.status == "firing"]
    content = "\n".join([group.status, *sorted(alert.identity for alert in alerts)])
    key = _digest(group.group_key)
    name = hmac.new(token.encode(), f"{key}\n{content}".encode(errors="replace"), hashlib.sha256).hexdigest()
    return NotificationRequest(
        metadata=ObjectMeta(name=f"alert-{key[:16]}-{name[:24]}", namespace=namespace),
        spec=NotificationRequestSpec(
            type="StatusUpdate" if resolved else "Escalation",
            priority=_priority(alerts),
            subject=_subject(group, alerts),
            body=_body(group, alerts),
            extensions=_extensions(group),
            action_links=list(_links(group, alerts))[:LINK_LIMIT] or None,
            incident=Incident(key=f"group-{key[:32]}", action="Resolve" if resolved else "Trigger"),
            correlation_id=group.group_key if len(group.group_key) <= IDENTIFIER_LENGTH else key,
            sender="grafana" if group.org_id is not None else "alertmanager",
            ttl_seconds_after_finished=KEPT,
        ),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _priority(alerts: Iterable[Alert]) -> Priority:
    """Return the highest priority that the label ``severity`` of an alert stands for; Medium for others."""
    found: list[Priority] = [_PRIORITIES.get(alert.labels.get("severity", "").lower(), "Medium") for alert in alerts]
    return min(found, key=get_args(Priority).index) if found else "Medium"


def _subject(group: AlertGroup, alerts: list[Alert]) -> str:
    state = "RESOLVED" if group.status == "resolved" else f"FIRING:{len(alerts) + group.truncated_alerts}"
    labels = {**group.group_labels, **group.common_labels}
    name = labels.pop("alertname", "") or group.receiver or "alerts"
    about = ", ".join(f"{key}={value}" for key, value in sorted(group.group_labels.items()) if key != "alertname")
    made = f"[{state}] {name}" + (f" ({about})" if about else "")
    return " ".join(group.title.split() or made.split())[:500]  # a template of Grafana's may leave a blank title


def _body(group: AlertGroup, alerts: list[Alert]) -> str:
    """Return Markdown: Grafana's message, or a paragraph for each alert."""
    text = group.message or "\n\n".join(_paragraph(alert) for alert in alerts[:SHOWN])
    left = len(alerts) - SHOWN + group.truncated_alerts if not group.message else 0
    if left > 0:
        text += f"\n\nand {left} more"
    return text[:BODY_LIMIT].strip() or group.status


def _paragraph(alert: Alert) -> str:
    title = alert.labels.get("alertname", "alert")
    about = alert.annotations.get("summary") or alert.annotations.get("description") or ""
    labels = ", ".join(f"{name}={value}" for name, value in sorted(alert.labels.items()) if name != "alertname")
    return f"**{title}** {about}\n{labels}\nsince {alert.starts_at}"


def _extensions(group: AlertGroup) -> dict[str, str]:
    """Return the attributes for routing: the common labels, ``receiver`` and ``status``, which take precedence."""
    own = {"receiver": group.receiver, "status": group.status}
    labels = {**own, **group.group_labels, **group.common_labels, **own}  # first, so that the limit keeps them
    kept = [(name, value[:1024]) for name, value in labels.items() if value and len(name) <= NAME_LENGTH]
    return dict(kept[:EXTENSION_LIMIT])


def _links(group: AlertGroup, alerts: Iterable[Alert]) -> Iterator[ActionLink]:
    sender = "grafana" if group.org_id is not None else "alertmanager"
    urls = [(sender, group.external_url, sender.capitalize())]
    for alert in alerts:
        urls += [
            ("grafana", alert.dashboard_url, "Dashboard"),
            ("grafana", alert.panel_url, "Panel"),
            ("prometheus", alert.generator_url, "Source"),
            ("grafana", alert.silence_url, "Silence"),
        ]
    seen: set[str] = set()
    for service, url, label in urls:
        if url not in seen and len(url) <= 2048 and _URL.fullmatch(url):
            seen.add(url)
            yield ActionLink(service=service, url=url, label=label)
