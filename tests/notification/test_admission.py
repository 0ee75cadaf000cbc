"""The policy webhook on a real kube-apiserver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

from reconciler.errors import Forbidden
from reconciler.notification import NotificationRequest
from reconciler.notification.api import ChannelPolicySpec
from reconciler.notification.policies import PolicyTable, PolicyValidator
from reconciler.testing.control_plane import ControlPlane
from reconciler.webhook import WebhookServer, webhook_configurations
from tests import real_server
from tests.notification.world import document
from tests.webhook.database import write_certificate
from tests.webhook.test_server import serving

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]


async def test_a_real_server_refuses_what_a_policy_does_not_allow(control_plane: ControlPlane, tmp_path: Path) -> None:
    ca = trustme.CA()
    write_certificate(tmp_path, ca)
    table = PolicyTable()
    table.set("tenants", ChannelPolicySpec(namespaces=["default"], channels=["log"]))
    server = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    server.add(PolicyValidator(table))
    async with serving(server) as url, control_plane.client() as client:
        await real_server.install(client, control_plane, NotificationRequest)
        (registered,) = webhook_configurations(server, name="policies", url=url, ca_bundle=ca.cert_pem.bytes())
        await client.apply(registered, force=True)
        try:
            async with asyncio.timeout(60):
                error = None
                while error is None:  # the API server takes a moment to read the configuration
                    try:
                        await client.create(document(["pager"], name="refused"))
                    except Forbidden as denied:
                        error = denied
                    else:
                        await client.delete(NotificationRequest, "refused", "default")
                        await asyncio.sleep(0.2)
            assert "policy 'tenants': channel 'pager' is not allowed (allowed: log)" in str(error)
            await client.create(document(["log"], name="allowed"))
            await client.delete(NotificationRequest, "allowed", "default")
        finally:
            await client.delete(f"{registered['apiVersion']}/{registered['kind']}", "policies")
