"""Users, tokens, roles and impersonation, as a test of an operator uses them."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import APIError, ConfigurationError, Forbidden, NotFound
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.testing import Cluster

RBAC = "rbac.authorization.k8s.io/v1"
WHOAMI = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def role(name: str, *rules: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    """Return a Role."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": list(rules)}


def binding(name: str, *subjects: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    """Return the binding of a role of the same name."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    metadata = {"name": name, "namespace": namespace}
    made = {"apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata, "roleRef": reference}
    return {**made, "subjects": list(subjects)}


def account(name: str, namespace: str = "default") -> dict[str, Any]:
    """Return a ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def config_map(name: str, namespace: str = "default") -> dict[str, Any]:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


READ = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}


@pytest.mark.virtual_time
async def test_a_service_account_may_do_what_its_role_allows() -> None:
    async with APIServer(rbac=True) as server:
        subject = {"kind": "ServiceAccount", "name": "robot"}
        await server.apply(account("robot"), role("reader", READ), binding("reader", subject), config_map("a"))
        async with Client(server.service_account("robot")) as client:
            assert (await client.get("v1/ConfigMap", "a", "default")).name == "a"
            with pytest.raises(Forbidden) as refused:
                await client.create(config_map("b"))
        assert refused.value.message == (
            'configmaps is forbidden: User "system:serviceaccount:default:robot" cannot create resource "configmaps" '
            'in API group "" in the namespace "default"'
        )
        (denied,) = server.requests(status=403)
        assert (denied.verb, denied.resource, denied.namespace) == ("create", "configmaps", "default")
        assert denied.user == "system:serviceaccount:default:robot"
        assert "by kube-reconciler" in str(denied)
        assert "(system:serviceaccount:default:robot): 403 Forbidden" in str(denied)


@pytest.mark.virtual_time
async def test_users_and_groups_and_the_administrator() -> None:
    async with APIServer(rbac=True) as server:
        group = {"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}
        await server.apply(role("reader", READ), binding("reader", group), config_map("a"))
        async with Client(server.user("jane", groups=["team"])) as jane, Client(server.user("joe")) as joe:
            assert len(await jane.list("v1/ConfigMap", "default")) == 1
            with pytest.raises(Forbidden):
                await joe.list("v1/ConfigMap", "default")
        async with Client(server) as admin:
            await admin.create(config_map("b"))


@pytest.mark.virtual_time
async def test_without_rbac_everybody_may_do_everything_and_is_still_somebody() -> None:
    async with APIServer() as server:
        await server.apply(account("robot"))
        robot = server.service_account("robot")
        async with Client(robot) as client:
            await client.create(config_map("a"))
            found = await whoami(client)
        assert found["username"] == "system:serviceaccount:default:robot"
        assert found["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
        async with Client(server) as client:
            found = await whoami(client, **{"impersonate-user": "jane", "impersonate-group": "a\nb"})
        assert found == {"username": "jane", "groups": ["a", "b", "system:authenticated"]}
        assert [write.resource for write in server.log.writes()] == ["configmaps"]
        assert [review.user for review in server.requests(kind="SelfSubjectReview")] == [
            "system:serviceaccount:default:robot",
            "jane",
        ]
        with pytest.raises(NotFound, match='serviceaccounts "nobody" not found'):
            server.service_account("nobody")


@pytest.mark.virtual_time
async def test_a_watch_keeps_running_and_the_next_one_is_refused_when_a_role_is_taken_away() -> None:
    async with APIServer(rbac=True) as server, Client(server) as admin:
        subject = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
        await server.apply(role("reader", READ), binding("reader", subject), config_map("a"))
        async with Client(server.user("jane")) as jane:
            listed = await jane.list("v1/ConfigMap", "default")
            watch = jane.watch("v1/ConfigMap", "default", resource_version=listed.resource_version)
            opened = asyncio.create_task(anext(watch))
            await asyncio.sleep(1)
            await admin.delete(f"{RBAC}/RoleBinding", "reader", "default")
            await admin.create(config_map("b"))
            assert (await opened).object.name == "b"
            await watch.aclose()
            for refused in (jane.get("v1/ConfigMap", "a", "default"), anext(jane.watch("v1/ConfigMap", "default"))):
                with pytest.raises(Forbidden):
                    await refused


@pytest.mark.virtual_time
async def test_one_string_is_not_a_list_of_groups() -> None:
    async with APIServer() as server:
        with pytest.raises(ConfigurationError, match="groups must be a list of names, not the string 'team'"):
            server.user("jane", groups="team")


@pytest.mark.virtual_time
async def test_aggregated_roles_gather_their_rules() -> None:
    async with APIServer(rbac=True) as server, Client(server) as admin:
        for name in ("view", "edit", "admin"):
            assert (await admin.get(f"{RBAC}/ClusterRole", name)).to_dict()["rules"]
        label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
        rule = {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}
        made = {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "widgets", "labels": label}}
        await admin.create({**made, "rules": [rule]})
        for name in ("view", "edit", "admin"):
            assert rule in (await admin.get(f"{RBAC}/ClusterRole", name)).to_dict()["rules"]
        await admin.delete(f"{RBAC}/ClusterRole", "widgets")
        for name in ("view", "edit", "admin"):
            assert rule not in (await admin.get(f"{RBAC}/ClusterRole", name)).to_dict()["rules"]


@pytest.mark.virtual_time
async def test_a_long_chain_of_aggregated_roles_passes_its_rules_on() -> None:
    rule, last = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, 250
    async with APIServer(rbac=True) as server, Client(server) as admin:
        for number in range(last + 1):
            named = {"name": f"chain-{number:03}", "labels": {"chain": str(number)}}
            gathers = {"clusterRoleSelectors": [{"matchLabels": {"chain": str(number - 1)}}]} if number else None
            role = {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": named, "rules": []}
            await admin.create({**role, "aggregationRule": gathers} if gathers else role)
        await admin.patch(f"{RBAC}/ClusterRole", "chain-000", patch={"rules": [rule]})
        assert (await admin.get(f"{RBAC}/ClusterRole", f"chain-{last}")).to_dict()["rules"] == [rule]


async def whoami(client: Client, **headers: str) -> dict[str, Any]:
    """Return what the server says about the user of a client."""
    answer = await post(client, "/apis/authentication.k8s.io/v1/selfsubjectreviews", WHOAMI, **headers)
    info: dict[str, Any] = answer["status"]["userInfo"]
    return info


async def post(client: Client, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Send a document and return the response."""
    sent = {"content-type": "application/json", **headers}
    response = await client.send(HTTPRequest("POST", path, headers=sent, body=json.dumps(body).encode()))
    answer: dict[str, Any] = json.loads(response.body)
    if response.status >= 400:
        raise AssertionError(answer["message"])
    return answer


async def try_to(ask: Awaitable[Any]) -> str:
    """Return ``allowed``, or the message of the refusal."""
    try:
        await ask
    except APIError as error:
        return error.message
    return "allowed"


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: str = "allowed") -> None:
    """Ask until the answer is as wanted; a real server notices changed roles a moment later."""
    said = ""
    for _ in range(200):
        said = await try_to(ask())
        if said == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(said)


async def test_impersonation_must_be_allowed(cluster: Cluster) -> None:
    ns, who = cluster.namespace, f"system:serviceaccount:{cluster.namespace}:robot"
    rule = {"apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"], "verbs": ["impersonate"]}
    name, group = f"impersonator-{ns}", "rbac.authorization.k8s.io"
    await cluster.client.create(account("robot", ns))
    async with cluster.service_account("robot") as robot:
        assert (await whoami(robot))["username"] == who

        async def refused(**headers: str) -> str:
            with pytest.raises(AssertionError) as found:
                await whoami(robot, **headers)
            return str(found.value)

        first = "selfsubjectreviews.authentication.k8s.io is forbidden"
        assert await refused(**{"impersonate-user": "jane"}) == (
            f'{first}: User "{who}" cannot impersonate-on:user-info:create resource "selfsubjectreviews" '
            'in API group "authentication.k8s.io" at the cluster scope'
        )
        assert "cannot impersonate-on:serviceaccount:create" in await refused(
            **{"impersonate-user": "system:serviceaccount:a:b"}
        )
        assert "cannot impersonate-on:arbitrary-node:create" in await refused(**{"impersonate-user": "system:node:a"})
        assert await refused(**{"impersonate-user": "system:serviceaccount:a:b", "impersonate-group": "c"}) == (
            f'serviceaccounts "b" is forbidden: User "{who}" cannot impersonate resource "serviceaccounts" '
            'in API group "" in the namespace "a"'
        )
        made = {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}
        await cluster.client.create(made)
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": ns}
        reference = {"apiGroup": group, "kind": "ClusterRole", "name": name}
        made = {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "subjects": [subject]}
        await cluster.client.create({**made, "roleRef": reference})

        found: dict[str, Any] = {}
        for _ in range(200):
            try:
                found = await whoami(robot, **{"impersonate-user": "jane"})
                break
            except AssertionError:
                await asyncio.sleep(0.05)
        assert found == {"username": "jane", "groups": ["system:authenticated"]}


async def test_a_token_is_for_its_audience_only(cluster: Cluster) -> None:
    await cluster.client.create(account("robot", cluster.namespace))
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/robot/token"
    for audiences, status in ((["vault"], 401), ([], 200)):
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences}}
        token = (await post(cluster.client, path, body))["status"]["token"]
        kubeconfig = cluster.server.kubeconfig()["clusters"][0]["cluster"]
        trust: Any = False
        if "certificate-authority-data" in kubeconfig:
            trust = ssl.create_default_context(
                cadata=base64.b64decode(kubeconfig["certificate-authority-data"]).decode()
            )
        url = f"{kubeconfig['server']}/apis/apps/v1"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"authorization": f"Bearer {token}"}, ssl=trust) as answer,
        ):
            assert answer.status == status


async def test_a_binding_to_a_service_account_takes_effect(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.client.create(account("robot", ns))
    async with cluster.service_account("robot") as robot:
        said = await try_to(robot.list("v1/ConfigMap", ns))
        assert said == (
            f'configmaps is forbidden: User "system:serviceaccount:{ns}:robot" cannot list resource "configmaps" '
            f'in API group "" in the namespace "{ns}"'
        )
        await cluster.client.create(role("reader", READ, namespace=ns))
        subject = {"kind": "ServiceAccount", "name": "robot"}
        await cluster.client.create(binding("reader", subject, namespace=ns))
        await eventually(lambda: robot.list("v1/ConfigMap", ns))
        assert "cannot create" in await try_to(robot.create(config_map("a", ns)))


@pytest.mark.virtual_time
async def test_a_token_expires_on_the_clock_of_the_server() -> None:
    async with APIServer() as server, Client(server) as admin:
        await server.apply(account("robot"))
        path = "/api/v1/namespaces/default/serviceaccounts/robot/token"
        spec = {"spec": {"expirationSeconds": 600}}
        answer = await post(admin, path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", **spec})
        assert answer["status"]["expirationTimestamp"] == "2026-01-01T00:10:00Z"
        headers = {"authorization": f"Bearer {answer['status']['token']}"}
        asked = HTTPRequest("GET", "/api/v1/namespaces/default/configmaps", headers=headers)
        await asyncio.sleep(599)
        assert (await server.send(asked)).status == 200
        await asyncio.sleep(1)
        assert (await server.send(asked)).status == 401
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        body = {**review, "spec": {"token": answer["status"]["token"]}}
        found = await post(admin, "/apis/authentication.k8s.io/v1/tokenreviews", body)
        assert found["status"] == {"user": {}, "error": "[invalid bearer token, service account token has expired]"}


class OnlyJane:
    """A webhook that allows the writes of one user."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        asked = json.loads(request.body)["request"]
        allowed = asked["userInfo"]["username"] == "jane" and "team" in asked["userInfo"]["groups"]
        review: dict[str, Any] = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return HTTPResponse(
            200, body=json.dumps({**review, "response": {"uid": asked["uid"], "allowed": allowed}}).encode()
        )


@pytest.mark.virtual_time
async def test_admission_knows_the_user() -> None:
    async with APIServer() as server:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
        hook: dict[str, Any] = {"name": "only.jane.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None"}
        hook |= {"clientConfig": {"url": "https://webhooks.example/"}, "rules": [rule]}
        condition = {"name": "people", "expression": "request.userInfo.username != 'admin'"}
        hooks = [{**hook, "matchConditions": [condition]}]
        group, kind = "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"
        await server.apply({"apiVersion": group, "kind": kind, "metadata": {"name": "only-jane"}, "webhooks": hooks})
        server.connect_webhooks("https://webhooks.example", OnlyJane())
        for user, said in (
            (server.user("jane", groups=["team"]), "allowed"),
            (server.user("jane"), "denied the request"),
            (server.user("admin"), "allowed"),
        ):
            async with Client(user) as client:
                assert said in await try_to(client.create(config_map("a"), dry_run=True))


@pytest.mark.virtual_time
async def test_a_server_that_lost_its_data_has_roles_again() -> None:
    async with APIServer(rbac=True) as server, Client(server) as admin:
        jane = server.user("jane")
        await server.restart(wipe=True)
        assert await admin.get(f"{RBAC}/ClusterRole", "cluster-admin")
        async with Client(jane) as client:
            assert (await whoami(client))["username"] == "jane"


@pytest.mark.virtual_time
async def test_tokens_and_roles_outlive_a_server_that_keeps_its_data(tmp_path: Path) -> None:
    async with APIServer(data=tmp_path / "data", rbac=True) as server:
        subject = {"kind": "ServiceAccount", "name": "robot"}
        await server.apply(account("robot"), role("reader", READ), binding("reader", subject))
        token, known = server.service_account("robot").token, server.statistics().objects
        async with Client(server) as admin:
            await admin.delete(f"{RBAC}/ClusterRole", "view")
    asked = HTTPRequest("GET", "/api/v1/namespaces/default/configmaps", headers={"authorization": f"Bearer {token}"})
    other = HTTPRequest("GET", "/api/v1/namespaces/default/secrets", headers={"authorization": f"Bearer {token}"})
    async with APIServer(data=tmp_path / "data", rbac=True) as server:
        assert [(await server.send(each)).status for each in (asked, other)] == [200, 403]
        # A role of the server that is missing comes back, as on a real one.
        assert server.statistics().objects == known
    async with APIServer(rbac=True) as stranger:
        assert (await stranger.send(asked)).status == 401


async def test_other_programs_are_users_through_their_kubeconfig(tmp_path: Path) -> None:
    async with APIServer(rbac=True) as server:
        await server.apply(account("robot"))
        for connection, username in (
            (server.user("jane", groups=["team"]), "jane"),
            (server.service_account("robot"), "system:serviceaccount:default:robot"),
        ):
            place = connection.write_kubeconfig(tmp_path / "kubeconfig")
            assert place.stat().st_mode & 0o777 == 0o600
            async with Client.from_config(kubeconfig=place) as client:
                assert (await whoami(client))["username"] == username
                assert "cannot list" in await try_to(client.list("v1/ConfigMap", "default"))


async def test_a_token_that_is_not_valid_is_refused_over_sockets() -> None:
    async with APIServer() as server, aiohttp.ClientSession() as session:
        for path, headers in (
            ("/api", {}),
            ("/api", {"authorization": "Bearer a.b.c"}),
            ("/api", {"authorization": f"Basic {server.token}"}),
            (f"/{server.token}/api", {"authorization": "Bearer wrong"}),
        ):
            async with session.get(f"{server.url}{path}", headers=headers) as answer:
                assert answer.status == 401
