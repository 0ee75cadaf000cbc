"""A webhook for Alertmanager and Grafana that creates a NotificationRequest for each new state of a group of alerts.

ALERT_TOKEN=... python examples/notification/alerts.py [--port 9095] [--namespace default]

The sender proves itself with ``Authorization: Bearer TOKEN``. The name of a request is derived from the group, its
alerts and the token, so a repeat, or a second sender, creates no second request.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
from typing import Any

from aiohttp import web

from reconciler import Client, ObjectMeta
from reconciler.errors import AlreadyExists
from reconciler.notification import NotificationRequest, NotificationRequestSpec
from reconciler.notification.api import Incident, Priority

SEVERITIES: dict[str, Priority] = {"critical": "Critical", "page": "Critical", "error": "High", "info": "Low"}


def request_for(group: dict[str, Any], namespace: str, token: str) -> NotificationRequest:
    """Return the request for the webhook's payload."""
    resolved = group["status"] == "resolved"
    alerts = [alert for alert in group["alerts"] if resolved or alert["status"] == "firing"]
    labels = group["commonLabels"]
    state = [group["status"], group["groupKey"], *sorted(f"{a['fingerprint']}@{a['startsAt']}" for a in alerts)]
    name = hmac.new(token.encode(), json.dumps(state).encode(), hashlib.sha256).hexdigest()
    lines = (alert.get("annotations", {}).get("summary") or json.dumps(alert["labels"]) for alert in alerts)
    subject = " ".join((group.get("title") or f"[{group['status']}] {labels.get('alertname', 'alerts')}").split())
    key = hashlib.sha256(group["groupKey"].encode()).hexdigest()
    return NotificationRequest(
        metadata=ObjectMeta(name=f"alert-{name[:40]}", namespace=namespace),
        spec=NotificationRequestSpec(
            type="StatusUpdate" if resolved else "Escalation",
            priority=SEVERITIES.get(labels.get("severity", ""), "Medium"),
            subject=subject[:500],
            body=(group.get("message") or "\n".join(lines))[:65_536],
            extensions={name: value[:1024] for name, value in list(labels.items())[:64]},
            incident=Incident(key=key[:32], action="Resolve" if resolved else "Trigger"),
            sender="alerts",
            ttl_seconds_after_finished=7 * 86_400,  # repeats are recognized until then
        ),
    )


def application(client: Client, namespace: str, token: str) -> web.Application:
    """Return the server; an error of the API server is a response 500, after which the sender repeats the webhook."""

    async def receive(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {token}".encode()):
            return web.Response(status=401)
        try:
            await client.create(request_for(await request.json(), namespace, token))
        except AlreadyExists:
            return web.Response(text="known\n")
        except (KeyError, TypeError, ValueError) as error:
            return web.Response(status=400, text=f"not a group of alerts: {error!r}\n")
        return web.Response(text="created\n")

    server = web.Application(client_max_size=4 * 2**20)
    server.router.add_post("/", receive)
    return server


async def main(port: int, namespace: str) -> None:
    """Serve for the cluster of the kubeconfig until interrupted."""
    async with Client.from_config() as client:
        runner = web.AppRunner(application(client, namespace, os.environ["ALERT_TOKEN"]))
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Create NotificationRequests for the alerts of Alertmanager or Grafana."
    )
    parser.add_argument("--port", type=int, default=9095)
    parser.add_argument("--namespace", default="default")
    asyncio.run(main(**vars(parser.parse_args())))
