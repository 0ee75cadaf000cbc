"""The printed roles are sufficient on a real kube-apiserver with RBAC."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager
from reconciler.cli import main
from reconciler.errors import NotFound
from reconciler.manager import LeaderElection
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from reconciler.testing.control_plane import ControlPlane
from tests import real_server
from tests.notification.world import document

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]

ROLES = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


@contextlib.asynccontextmanager
async def installed(
    plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str], namespace: str
) -> AsyncIterator[tuple[Client, Client]]:
    """Install the CRD and the printed roles; yield the client of the admin and that of the operator."""
    options = [f"--install-namespace={namespace}", f"--namespace={namespace}", f"--name={namespace}", "--output=json"]
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, ["manifests", "notification", *options])
    documents: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["items"]
    async with plane.client() as admin:
        await real_server.install(admin, plane, NotificationRequest)
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        documents = [each for each in documents if each["kind"] in ROLES]
        for each in documents:
            await admin.create(each)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = await admin.create_subresource(
            "v1/ServiceAccount", namespace, namespace, subresource="token", body=request
        )
        kubeconfig = plane.kubeconfig()
        kubeconfig["users"][0]["user"] = {"token": answer.to_dict()["status"]["token"]}
        path = tmp_path / "kubeconfig"
        await asyncio.to_thread(path.write_text, json.dumps(kubeconfig))
        async with Client.from_config(kubeconfig=path) as operator:
            await real_server.notices_roles(operator, documents)
            yield admin, operator


async def test_the_printed_roles_suffice_to_lead_deliver_record_events_and_delete(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = "notification-roles"
    async with installed(control_plane, tmp_path, capsys, namespace) as (admin, operator):
        manager = Manager(
            operator,
            namespaces=[namespace],
            leader_election=LeaderElection("notification-operator", namespace=namespace),
        )
        NotificationOperator(NotificationOptions()).add_to(manager)
        async with manager.running():
            request = document(["log"], spec={"ttlSecondsAfterFinished": 1, "delivery": "AtMostOnce"})
            request["metadata"]["namespace"] = namespace
            await admin.create(request)

            async def is_told() -> bool:
                events = [each.to_dict() for each in await admin.list("v1/Event", namespace)]
                return any(each["reason"] == "AllDeliveriesSucceeded" for each in events)

            async def is_gone() -> bool:
                try:
                    await admin.get(NotificationRequest, "disk-full", namespace)
                except NotFound:
                    return True
                return False

            await real_server.until(is_told)
            await real_server.until(is_gone)
