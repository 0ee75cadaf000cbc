"""Tokens of service accounts and their RBAC decide who reads the endpoints, on the embedded and on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.manager import EndpointSecurity, LeaderElection
from reconciler.manager.endpoints import security as reviews
from reconciler.testing.control_plane import ControlPlane
from tests.real_server import notices_roles

pytestmark = pytest.mark.timeout(120)

KUBERNETES = EndpointSecurity(authentication="kubernetes")
RBAC = "rbac.authorization.k8s.io"

_numbers = itertools.count(1)
_Server = APIServer | ControlPlane


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[_Server]:
    if request.param == "real":
        yield request.getfixturevalue("control_plane")
    else:
        async with APIServer(rbac=True) as running:
            yield running


def refused(server: _Server, user: str) -> list[int]:
    """Return the refusals that a user got from a server."""
    if isinstance(server, ControlPlane):
        codes = [each.code for each in server.audit(user=user)]
    else:
        codes = [each.status for each in server.requests() if each.user == user]
    return [code for code in codes if code in (401, 403)]


async def token_of(admin: Client, account: str, namespace: str, **spec: Any) -> str:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await admin.create_subresource("v1/ServiceAccount", account, namespace, subresource="token", body=request)
    token: str = answer.to_dict()["status"]["token"]
    return token


@contextlib.asynccontextmanager
async def installed(server: _Server, tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Client, Manager, str]]:
    """Run a manager with its printed roles; there are service accounts ``prometheus`` and ``nobody``."""
    namespace = f"endpoints-{next(_numbers)}"
    async with server.client() if isinstance(server, ControlPlane) else Client(server) as admin:
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        election = LeaderElection("operator", namespace=namespace, identity="other")
        documents = Manager(admin, leader_election=election, security=KUBERNETES).rbac(namespace, namespace=namespace)
        for each in documents:
            await admin.create(each)
        for name in ("prometheus", "nobody"):
            meta = {"name": name, "namespace": namespace}
            await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        await admin.create(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{namespace}-prometheus"},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"{namespace}-metrics-reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
            }
        )
        kubeconfig = server.kubeconfig()
        kubeconfig["users"][0]["user"] = {"token": await token_of(admin, namespace, namespace)}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(kubeconfig))
        async with Client.from_config(kubeconfig=path) as operator:
            await notices_roles(operator, documents)
            manager = Manager(operator, namespaces=[namespace], metrics="127.0.0.1:0", security=KUBERNETES, **options)
            async with manager.running():
                yield admin, manager, namespace


async def get(manager: Manager, path: str, token: str) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{manager.metrics_url}{path}", headers=headers, ssl=False) as r,
    ):
        return r.status, await r.text()


async def until(manager: Manager, path: str, token: str, status: int) -> str:
    """Wait for a status: the authorizer of the API server watches roles, and refusals are cached for ten seconds."""
    async with asyncio.timeout(60):
        while True:
            found, text = await get(manager, path, token)
            if found == status:
                return text
            await asyncio.sleep(0.5)


async def test_a_service_account_reads_what_its_role_allows(server: _Server, tmp_path: Path) -> None:
    async with installed(server, tmp_path) as (admin, manager, namespace):
        prometheus = await token_of(admin, "prometheus", namespace)
        nobody = await token_of(admin, "nobody", namespace)
        assert "controller_runtime" in await until(manager, "/metrics", prometheus, 200)
        status, text = await get(manager, "/metrics", nobody)
        user = f"system:serviceaccount:{namespace}:nobody"
        assert (status, text) == (
            403,
            f"403: {user!r} may not get /metrics: grant it with nonResourceURLs in a ClusterRole\n",
        )
        assert (await get(manager, "/debug/keys", prometheus))[0] == 403
        for token in (
            "nonsense",
            prometheus[:-2],
            prometheus + "x",
            f"{prometheus}.x",
            ".".join(nobody.split(".")[:2]),
        ):
            assert (await get(manager, "/metrics", token))[0] == 401
        foreign = await token_of(admin, "prometheus", namespace, audiences=["another-service"])
        assert (await get(manager, "/metrics", foreign))[0] == 401
        await admin.create(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{namespace}-debug"},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"{namespace}-debug-reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
            }
        )
        for path in ("/debug/keys", "/debug/queue"):
            assert "controllers" in await until(manager, path, prometheus, 200)
        assert refused(server, f"system:serviceaccount:{namespace}:{namespace}") == []


async def test_a_deleted_account_is_refused_when_its_decision_has_expired(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "ACCEPTED_SECONDS", 1.0)
    async with installed(server, tmp_path) as (admin, manager, namespace):
        token = await token_of(admin, "prometheus", namespace)
        await until(manager, "/metrics", token, 200)
        await admin.delete("v1/ServiceAccount", "prometheus", namespace)
        await until(manager, "/metrics", token, 401)


async def test_without_permission_for_reviews_nobody_new_is_admitted(server: _Server, tmp_path: Path) -> None:
    async with installed(server, tmp_path) as (admin, manager, namespace):
        known, fresh = [await token_of(admin, "prometheus", namespace) for _ in range(2)]
        await until(manager, "/metrics", known, 200)
        role = f"{RBAC}/v1/ClusterRoleBinding"
        await admin.delete(role, namespace)  # that of the operator: it may not create reviews any more

        async with asyncio.timeout(60):
            while (found := await get(manager, "/metrics", fresh))[0] != 503:
                fresh = await token_of(admin, "prometheus", namespace)
        assert found[1] == "503: the token cannot be checked now; the log of this process has the reason\n"
        assert (await get(manager, "/metrics", known))[0] == 200


@pytest.mark.control_plane
async def test_an_api_server_that_hangs_admits_nobody_new(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with installed(control_plane, tmp_path) as (admin, manager, namespace):
        known, fresh = [await token_of(admin, "prometheus", namespace) for _ in range(2)]
        await until(manager, "/metrics", known, 200)
        os.kill(control_plane.pid("kube-apiserver"), signal.SIGSTOP)
        try:
            assert (await get(manager, "/metrics", fresh))[0] == 503
            assert (await get(manager, "/metrics", known))[0] == 200
        finally:
            os.kill(control_plane.pid("kube-apiserver"), signal.SIGCONT)
        await until(manager, "/metrics", fresh, 200)
