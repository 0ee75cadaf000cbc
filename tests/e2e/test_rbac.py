"""The example operator on a real kube-apiserver with RBAC: it needs exactly the printed roles."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.database_operator import Database, DatabaseReconciler, DatabaseSpec, add_controllers
from reconciler import Client, ConditionedStatus, Manager, Model, ObjectMeta, Outcome, Resource, ResourceReconciler
from reconciler.cli import main
from reconciler.controller import CacheSyncTimeout
from reconciler.manager import LeaderElection
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.binaries import binaries_path
from tests import real_server

pytestmark = pytest.mark.control_plane

TARGET = "examples.database_operator:add_controllers"
DEPLOYMENT = "apps/v1/Deployment"
LONG = 30.0

_numbers = itertools.count(1)


@dataclass
class Installed:
    """An operator that was installed with roles: the administrator's client, and that of its service account."""

    admin: Client
    operator: Client
    user: str
    namespace: str


@contextlib.asynccontextmanager
async def installed(
    plane: ControlPlane,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *options: str,
    target: str = TARGET,
    kind: type[Resource] = Database,
    without: tuple[str, str] | None = None,
) -> AsyncIterator[Installed]:
    """Apply the printed manifests, optionally without some verbs of a resource, and log in as the operator."""
    number = next(_numbers)
    name, namespace = f"database-operator-{number}", f"rbac-{number}"
    arguments = [
        "manifests",
        target,
        f"--name={name}",
        f"--install-namespace={namespace}",
        "--output=json",
        "--leader-election=database-operator",
        *(option.format(namespace=namespace) for option in options),
    ]
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, arguments)
    documents = json.loads(capsys.readouterr().out)["items"]
    async with plane.client() as admin:
        await real_server.install(admin, plane, kind)
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        documents = [_less(document, *without) if without else document for document in documents]
        for document in documents:
            await admin.create(document)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = await admin.create_subresource("v1/ServiceAccount", name, namespace, subresource="token", body=request)
        kubeconfig = plane.kubeconfig()
        kubeconfig["users"][0]["user"] = {"token": answer.to_dict()["status"]["token"]}
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(json.dumps(kubeconfig))
        async with Client.from_config(kubeconfig=path) as operator:
            await real_server.notices_roles(operator, documents)
            yield Installed(admin, operator, f"system:serviceaccount:{namespace}:{name}", namespace)


def _less(document: dict[str, Any], verbs: str, resource: str) -> dict[str, Any]:
    rules = [
        rule
        | {"verbs": [verb for verb in rule["verbs"] if verb not in verbs.split() or resource not in rule["resources"]]}
        for rule in document.get("rules", ())
    ]
    return document | {"rules": [rule for rule in rules if rule["verbs"]]} if rules else document


@contextlib.asynccontextmanager
async def operating(it: Installed) -> AsyncIterator[None]:
    """Run the example as its service account."""
    manager = Manager(it.operator)
    add_controllers(manager)
    async with manager.running():
        yield


async def create_database(admin: Client, namespace: str) -> None:
    await admin.create(Database(metadata=ObjectMeta(name="db1", namespace=namespace), spec=DatabaseSpec(size=3)))


class Lock(Resource[Model, ConditionedStatus], group="rbac.reconciler.dev", version="v1", scope="Cluster"):
    """A cluster-scoped object that needs cleaning up."""


class Locks(ResourceReconciler[Lock]):
    """A reconciler that applies the status, records an event, and finalizes."""

    permissions = ()
    status_strategy = "apply"

    async def reconcile_object(self, obj: Lock, status: Any) -> Outcome:
        status.set_condition("Ready", True, reason="Locked")
        self.events.normal(obj, "Locked", "it is locked")
        return None

    async def finalize(self, obj: Lock, status: Any) -> Outcome:
        status.set_condition("Ready", False, reason="Unlocked")
        return None


@pytest.mark.parametrize("options", [(), ("--namespace={namespace}",)], ids=["cluster", "namespace"])
async def test_finalizers_applied_statuses_and_events_of_cluster_scoped_objects_are_allowed(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    target = f"{__name__}:Locks"
    async with installed(control_plane, tmp_path, capsys, *options, target=target, kind=Lock) as it:
        name = f"lock-{it.namespace}"
        manager = Manager(it.operator, namespaces=[it.namespace] if options else None)
        manager.add_controller(Locks())
        async with manager.running():
            await it.admin.create(Lock(metadata=ObjectMeta(name=name), spec=Model()))
            await it.admin.wait_for(Lock, name, until=lambda lock: bool(lock.status.conditions), timeout=LONG)
            await it.admin.delete(Lock, name)
            await it.admin.wait_gone(Lock, name, timeout=LONG)

            async def told() -> bool:
                return any(record.resource == "events" for record in control_plane.audit() if record.user == it.user)

            await real_server.until(told)
        asked = [record for record in control_plane.audit() if record.user == it.user]
        assert [record for record in asked if record.code in (401, 403)] == []
        assert {"locks", "locks/status", "events"} <= {
            f"{record.resource}/{record.subresource}".rstrip("/")
            for record in asked
            if record.verb in ("patch", "create")
        }


def election(namespace: str) -> LeaderElection:
    return LeaderElection("database-operator", namespace=namespace)


@pytest.mark.parametrize("options", [(), ("--namespace={namespace}",)], ids=["cluster", "namespace"])
async def test_the_example_runs_with_the_printed_roles(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    async with installed(control_plane, tmp_path, capsys, *options) as it:
        manager = Manager(
            it.operator,
            namespaces=[it.namespace] if options else None,
            leader_election=election(it.namespace),
        )
        add_controllers(manager)
        async with manager.running():
            await create_database(it.admin, it.namespace)
            await it.admin.wait_for(
                Database, "db1", it.namespace, until=lambda db: db.status.phase == "Provisioning", timeout=LONG
            )
            await it.admin.patch(
                DEPLOYMENT,
                "db1",
                it.namespace,
                patch={"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}},
                subresource="status",
            )
            await it.admin.wait_for(
                Database, "db1", it.namespace, until=lambda db: db.status.phase == "Ready", timeout=LONG
            )
        asked = [record for record in control_plane.audit() if record.user == it.user]
        assert {record.code for record in asked} & {401, 403} == set()
        used = {(record.verb, f"{record.resource}/{record.subresource}".rstrip("/")) for record in asked}
        assert used >= {
            ("watch", "databases"),
            ("update", "databases/status"),
            ("watch", "deployments"),
            ("patch", "deployments"),
            ("create", "leases"),
            ("create", "events"),
        }


@pytest.mark.parametrize(
    ("verb", "resource", "says"),
    [
        ("watch", "databases", 'cannot watch resource "databases" in API group "example.com"'),
        ("watch", "deployments", 'cannot watch resource "deployments" in API group "apps"'),
        ("update", "databases/status", 'cannot update resource "databases/status" in API group "example.com"'),
        ("patch", "deployments", 'cannot patch resource "deployments" in API group "apps"'),
        ("create", "deployments", 'cannot create resource "deployments" in API group "apps"'),
    ],
)
async def test_missing_verb_is_named_in_the_log(
    control_plane: ControlPlane,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    verb: str,
    resource: str,
    says: str,
) -> None:
    async with installed(control_plane, tmp_path, capsys, without=(verb, resource)) as it:
        with caplog.at_level(logging.WARNING, "reconciler"):
            async with operating(it):
                await create_database(it.admin, it.namespace)

                async def said() -> bool:
                    return any(says in record.getMessage() for record in caplog.records)

                await real_server.until(said)


async def test_printed_roles_are_necessary_and_sufficient_with_owner_reference_protection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    guarded = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"
    async with ControlPlane(binaries=binaries_path(), apiserver_flags=[guarded]) as plane:
        async with installed(plane, tmp_path, capsys) as it, operating(it):
            await create_database(it.admin, it.namespace)
            await it.admin.wait_for(DEPLOYMENT, "db1", it.namespace, until=lambda _: True, timeout=LONG)
        less = ("update", "databases/finalizers")
        async with installed(plane, tmp_path, capsys, without=less) as it, operating(it):
            await create_database(it.admin, it.namespace)

            async def said() -> bool:
                return "cannot set blockOwnerDeletion" in caplog.text

            await real_server.until(said)


@pytest.mark.parametrize("kind", ["databases", "deployments"])
async def test_kind_without_list_or_watch_permission_is_named_at_the_start(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    async with installed(control_plane, tmp_path, capsys, without=("list watch", kind)) as it:
        manager = Manager(it.operator)
        manager.add_controller(DatabaseReconciler(), owns=[DEPLOYMENT], sync_timeout=10)  # the refusal comes before it
        with pytest.raises(CacheSyncTimeout, match=f'cannot (list|watch) resource "{kind}"'):
            async with manager.running():
                await asyncio.sleep(LONG)


async def test_missing_lease_permission_is_named_in_the_log(
    control_plane: ControlPlane,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with installed(control_plane, tmp_path, capsys, without=("create", "leases")) as it:
        manager = Manager(it.operator, leader_election=election(it.namespace))
        add_controllers(manager)
        with caplog.at_level(logging.WARNING, "reconciler.manager"):
            async with manager.running():

                async def said() -> bool:
                    return any('cannot create resource "leases"' in each.getMessage() for each in caplog.records)

                await real_server.until(said)
