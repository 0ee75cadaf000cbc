"""Tenants and policies: what a namespace may use, how much of it, and with whose credentials."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.notification import (
    ChannelPolicy,
    Credentials,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    Redactor,
    RetryableDeliveryError,
    credentials,
)
from reconciler.notification.api import ChannelPolicySpec
from reconciler.notification.channels.http import HTTPChannel, OutgoingRequest
from reconciler.notification.credentials import SECRETS
from reconciler.notification.policies import PolicyTable, PolicyValidator, _matches
from reconciler.webhook import AdmissionRequest
from tests.notification.receivers import answer, receiver
from tests.notification.world import Recorder, document, virtual, world


def policies(**specs: dict[str, Any]) -> PolicyTable:
    table = PolicyTable()
    for name, spec in specs.items():
        table.set(name, ChannelPolicySpec.model_validate(spec))
    return table


def policy(name: str, **spec: Any) -> dict[str, Any]:
    head = {"apiVersion": "notify.reconciler.dev/v1alpha1", "kind": "ChannelPolicy", "metadata": {"name": name}}
    return {**head, "spec": spec}


async def request(client: Client, namespace: str, *channels: str, name: str = "n", **spec: Any) -> None:
    made = document(channels, name=name, spec=spec)
    made["metadata"]["namespace"] = namespace
    await client.create(made)


async def status(client: Client, namespace: str, name: str = "n") -> Any:
    return (await client.get(NotificationRequest, name, namespace)).status


@contextlib.asynccontextmanager
async def operator(*channels: Any, **options: Any) -> AsyncIterator[tuple[APIServer, Client]]:
    """Run the whole operator on a server with both kinds."""
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest, ChannelPolicy)
        manager = Manager(client)
        settings = NotificationOptions(console=False, log=False, channels=channels, policies=True, **options)
        NotificationOperator(settings).add_to(manager)
        async with manager.running():
            yield server, client


# What is allowed


@virtual
@pytest.mark.parametrize(
    ("spec", "asked", "why"),
    [
        ({"channels": ["log", "slack:team-*"]}, {}, "channel 'pager' is not allowed (allowed: log, slack:team-*)"),
        ({"channels": []}, {}, "channel 'pager' is not allowed (allowed: none)"),
        ({"priorities": ["Low"]}, {}, "priority High is not allowed (allowed: Low)"),
        (
            {"recipients": {"email": ["*@example.com"]}},
            {"recipients": {"email": ["ann@example.com", "eve@elsewhere.example"]}},
            "a recipient of email is not allowed (allowed: *@example.com)",
        ),
    ],
)
async def test_a_request_that_is_not_allowed_fails_with_the_name_of_the_policy(
    spec: dict[str, Any], asked: dict[str, Any], why: str
) -> None:
    pager = Recorder("pager")
    async with operator(pager) as (_, client):
        await client.create(policy("tenants", namespaces=["team-*"], **spec))
        await asyncio.sleep(1)
        await request(client, "team-a", "pager", **asked)
        await request(client, "ops", "pager", **asked)
        await asyncio.sleep(10)
        refused, delivered = await status(client, "team-a"), await status(client, "ops")
        events = [event.to_dict() for event in await client.list("v1/Event", "team-a")]
    message = f"policy 'tenants': {why} in namespace team-a"
    assert (refused.phase, refused.reason, refused.message) == ("Failed", "PolicyDenied", message)
    assert refused.completion_time is not None
    assert "elsewhere" not in refused.message
    assert delivered.phase == "Sent"
    assert [each.namespace for each in pager.messages] == ["ops"]
    assert [(event["type"], event["reason"]) for event in events] == [("Warning", "PolicyDenied")]


@virtual
async def test_every_policy_about_a_namespace_must_allow_a_request() -> None:
    pager = Recorder("pager")
    async with operator(pager) as (_, client):
        await client.create(policy("all", channels=["pager"], exceptNamespaces=["kube-*"]))
        await client.create(policy("quiet", namespaces=["dev"], priorities=["Low"]))
        await asyncio.sleep(1)
        await request(client, "dev", "pager")
        await request(client, "dev", "pager", name="low", priority="Low")
        await request(client, "kube-system", "other")
        await asyncio.sleep(10)
        assert "policy 'quiet'" in (await status(client, "dev")).message
        assert (await status(client, "dev", "low")).phase == "Sent"
        assert (await status(client, "kube-system")).reason == "UnknownChannel"


@virtual
async def test_a_changed_policy_counts_for_new_requests_and_not_for_those_that_have_started() -> None:
    pager = Recorder("pager", [ConnectionError("down"), None])
    async with operator(pager) as (_, client):
        await request(client, "a", "pager")
        await asyncio.sleep(1)
        await client.create(policy("none", channels=[]))
        await asyncio.sleep(1)
        await request(client, "a", "pager", name="late")
        await asyncio.sleep(100)
        assert (await status(client, "a")).phase == "Sent"
        assert (await status(client, "a", "late")).reason == "PolicyDenied"
        await client.delete(ChannelPolicy, "none")
        await asyncio.sleep(1)
        await request(client, "a", "pager", name="again")
        await asyncio.sleep(10)
        assert (await status(client, "a", "again")).phase == "Sent"


@virtual
async def test_nothing_is_delivered_before_the_policies_are_listed() -> None:
    pager = Recorder("pager")
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest, ChannelPolicy)
        await client.create(policy("none", channels=[]))
        server.faults.add(status=503, times=1000, resource="channelpolicies")
        await request(client, "a", "pager")
        manager = Manager(client)
        options = NotificationOptions(console=False, log=False, channels=[pager], policies=True)
        NotificationOperator(options).add_to(manager)
        async with manager.running():
            await asyncio.sleep(60)
            assert (await status(client, "a")).phase is None
            server.faults.clear()
            await asyncio.sleep(60)
            assert (await status(client, "a")).reason == "PolicyDenied"
    assert pager.calls == []


def test_an_invalid_policy_allows_nothing_until_it_is_valid_or_gone() -> None:
    table = policies()
    spec = NotificationRequest.from_dict(document(["pager"])).spec
    assert table.refusal("a", spec, ["pager"]) is None
    table.set_invalid("broken", "spec.channels: not a list")
    refusal = table.refusal("a", spec, ["pager"])
    assert refusal is not None
    assert refusal.message == "policy 'broken' is invalid, so it allows nothing: spec.channels: not a list"
    table.remove("broken")
    assert table.refusal("a", spec, ["pager"]) is None


@given(st.text("ab*", max_size=12).filter(bool), st.text("ab", max_size=30))
def test_a_star_in_a_pattern_stands_for_any_text(pattern: str, value: str) -> None:
    expected = re.fullmatch(".*".join(pattern.split("*")), value) is not None
    assert _matches(value, [pattern]) == expected


# How much


@virtual
async def test_the_rate_of_a_namespace_delays_no_other() -> None:
    pager = Recorder("pager")
    table = policies(slow={"namespaces": ["a"], "ratePerMinute": 6})
    async with world() as w, w.operator(pager, policies=table, workers=4):
        for number in range(4):
            await request(w.client, "a", "pager", name=f"n-{number}")
        for number in range(4):
            await request(w.client, "b", "pager", name=f"n-{number}")
        await asyncio.sleep(100)
        assert w.writes == 8, "waiting writes nothing"
    times = {
        space: [t for t, m in zip(pager.calls, pager.messages, strict=True) if m.namespace == space] for space in "ab"
    }
    assert [round(time - times["a"][0]) for time in times["a"]] == [0, 10, 20, 30]
    assert max(times["b"]) - min(times["b"]) < 1


@virtual
async def test_a_namespace_has_a_quota_of_unfinished_requests() -> None:
    pager = Recorder("pager", [ConnectionError("down")])
    fine = Recorder("fine")
    table = policies(small={"maxUnfinished": 2})
    async with world() as w:
        async with w.operator(pager, fine, policies=table, workers=4):
            for number in range(3):
                await request(w.client, "a", "pager", name=f"n-{number}")
                await asyncio.sleep(1)
            await request(w.client, "b", "pager")
            await asyncio.sleep(1)
            refused = await status(w.client, "a", "n-2")
            assert refused.reason == "QuotaExceeded"
            assert refused.message == "policy 'small': namespace a has 2 unfinished requests already; the maximum is 2"
            assert (await status(w.client, "b")).phase == "Retrying"
            await w.client.delete(NotificationRequest, "n-0", "a")
            await asyncio.sleep(1)
            await request(w.client, "a", "fine", name="n-3")
            await asyncio.sleep(5)
            assert (await status(w.client, "a", "n-3")).phase == "Sent"
        table = policies(small={"maxUnfinished": 1})
        pager.errors = [None]
        async with w.operator(pager, fine, policies=table, workers=4):  # those that have started continue
            await asyncio.sleep(1)
            await request(w.client, "a", "fine", name="n-4")
            await asyncio.sleep(500)
        assert (await status(w.client, "a", "n-1")).phase == "Sent"
        assert (await status(w.client, "a", "n-4")).reason == "QuotaExceeded"


# At admission


async def test_the_webhook_refuses_with_the_name_of_the_policy() -> None:
    validator = PolicyValidator(policies(tenants={"namespaces": ["team-*"], "channels": ["log"]}))

    async def review(namespace: str, *channels: str) -> Any:
        made = document(channels)
        made["metadata"]["namespace"] = namespace
        return await validator.review(
            AdmissionRequest(uid="1", operation="CREATE", namespace=namespace, document={"object": made})
        )

    denied = await review("team-a", "pager")
    assert (denied.allowed, denied.code) == (False, 403)
    assert "policy 'tenants': channel 'pager' is not allowed" in denied.message
    assert (await review("team-a", "log")).allowed
    assert (await review("ops", "pager")).allowed


@pytest.mark.parametrize("restricted", [True, False])
async def test_operator_with_policies_brings_the_webhook(restricted: bool) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        NotificationOperator(NotificationOptions(policies=restricted)).add_to(manager)
        assert [type(each) for each in manager.webhooks] == ([PolicyValidator] if restricted else [])


# Credentials of a namespace


def secret(namespace: str, **values: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "notify",
            "namespace": namespace,
            "labels": {"notify.reconciler.dev/credentials": "true"},
        },
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
    }


async def until_phase(client: Client, namespace: str, phase: str, name: str = "n") -> Any:
    return await client.wait_for(
        NotificationRequest, name, namespace, until=lambda found: found.status.phase == phase, timeout=20
    )


async def test_a_receiver_uses_the_credentials_of_the_request_s_namespace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    routing = tmp_path / "routing.yaml"
    entry = {"url_credential": "hook", "credentials_of": "namespace", "allow_local_addresses": True}
    routing.write_text(
        yaml.safe_dump({"route": {"receiver": "own"}, "receivers": [{"name": "own", "discord_configs": [entry]}]})
    )
    async with (
        receiver(answer(503)) as broken,
        receiver() as working,
        operator(routing_file=routing, namespace_credentials=True) as (_, client),
    ):
        await client.create(secret("a", hook=broken.url + "/AAAA-SECRET"))
        await client.create(secret("b", hook=working.url + "/BBBB-SECRET"))
        retry = {"jitter": 0, "maxAttempts": 10, "initialBackoffSeconds": 1, "backoffMultiplier": 1}
        for number in range(6):  # enough to open a circuit breaker
            await request(client, "a", name=f"n-{number}", retryPolicy=retry)
        for number in range(6):
            await until_phase(client, "a", "Retrying", f"n-{number}")
        with caplog.at_level(logging.INFO):
            await request(client, "b")
            await until_phase(client, "b", "Sent")
        await request(client, "c")
        missing = await until_phase(client, "c", "Retrying")
        seen = json.dumps([each.to_dict() for each in await client.list(NotificationRequest, None)])
    assert [each.path for each in working.requests] == ["/hook/T0P5ECRET/BBBB-SECRET"]
    assert {each.path for each in broken.requests} == {"/hook/T0P5ECRET/AAAA-SECRET"}
    expected = "credential 'hook' not found in the labelled Secrets of namespace c"
    assert missing.status.channels[0].last_error is not None
    assert expected in missing.status.channels[0].last_error
    assert "AAAA-SECRET" not in seen + caplog.text


@virtual
async def test_a_delivery_waits_for_the_list_of_secrets_and_uses_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def send(_self: Any, message: Any, request: OutgoingRequest) -> None:
        message.mark_sent()
        sent.append(request.url)

    monkeypatch.setattr(HTTPChannel, "send", send)  # no sockets under virtual time
    routing = tmp_path / "routing.yaml"
    entry = {"url_credential": "hook", "credentials_of": "namespace"}
    routing.write_text(
        yaml.safe_dump({"route": {"receiver": "own"}, "receivers": [{"name": "own", "discord_configs": [entry]}]})
    )
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        await client.create(secret("a", hook="https://example.com/hook"))
        for namespace in ("a", "b"):
            await request(client, namespace, retryPolicy={"maxAttempts": 1})
        server.faults.add(verb="list", resource="secrets", status=403, times=1)
        server.faults.add(verb="watch", resource="secrets", status=403, times=1)
        manager = Manager(client)
        NotificationOperator(NotificationOptions(routing_file=routing, namespace_credentials=True)).add_to(manager)
        async with manager.running():
            found = await until_phase(client, "a", "Sent")
            missing = await until_phase(client, "b", "Failed")
    assert sent == ["https://example.com/hook"]
    assert found.status.total_attempts == 1
    assert "not found in the labelled Secrets of namespace b" in (missing.status.message or "")


def test_a_credential_that_is_in_use_is_redacted_however_many_others_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "NAMESPACE_VALUES", 2)
    known = Credentials()
    redactor = Redactor(known.values, of_namespace=known.values_of_namespace)
    known.set_namespace("a", {"hook": "violet-turtle"})
    for number in range(5):
        known.set_namespace("a", {"hook": "violet-turtle", "other": f"rotated-{number}"})
    assert known.of_namespace("a").get("hook") == "violet-turtle"
    assert redactor.redact("violet-turtle rotated-3 rotated-0", "a") == "[REDACTED] [REDACTED] rotated-0"
    known.set_namespace("a", {})
    with pytest.raises(RetryableDeliveryError, match="'hook' not found in the labelled Secrets of namespace a"):
        known.of_namespace("a").get("hook")


def test_a_credential_of_a_namespace_is_redacted_in_its_texts_only() -> None:
    known = Credentials()
    redactor = Redactor(known.values, of_namespace=known.values_of_namespace)
    known.set_namespace("a", {"word": "cluster", "name": "password"})
    assert redactor.redact("the cluster is down", "b") == "the cluster is down"
    assert redactor.redact("the cluster is down") == "the cluster is down"
    assert redactor.redact("the cluster is down", "a") == "the [REDACTED] is down"
    for namespace in ("a", "b"):
        assert redactor.redact("password=hunter2", namespace) == "password=[REDACTED]"


def test_the_credentials_of_a_namespace_are_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "NAMESPACE_SIZE", 100)
    known = Credentials()
    assert known.set_namespace("a", {"hook": "x" * 100})
    assert not known.set_namespace("a", {"hook": "y" * 60, "other": "z" * 60})
    assert known.of_namespace("a").get("hook") == "y" * 60
    with pytest.raises(RetryableDeliveryError, match="'other' not found"):
        known.of_namespace("a").get("other")
    for number in range(10):
        known.set_namespace("a", {"hook": f"{number}" * 60})
    assert sum(map(len, known.values_of_namespace("a"))) <= 200


@virtual
async def test_many_secrets_of_a_namespace_are_read_once_and_within_its_budget(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read: list[str] = []
    set_namespace = Credentials.set_namespace

    def noted(self: Credentials, name: str, values: dict[str, str]) -> bool:
        read.append(name)
        return set_namespace(self, name, values)

    monkeypatch.setattr(Credentials, "set_namespace", noted)
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        for number in range(SECRETS + 10):
            given = secret("a", **{f"key-{number}": f"value-{number}"})
            given["metadata"]["name"] = f"s-{number:03}"
            await client.create(given)
        manager = Manager(client)
        operator = NotificationOperator(NotificationOptions(namespace_credentials=True))
        operator.add_to(manager)
        async with manager.running():
            await asyncio.sleep(5)
    assert read == ["a"]
    assert len(operator.credentials.values_of_namespace("a")) == SECRETS
    assert "namespace a exceeds" in caplog.text


def test_the_printed_roles_contain_what_the_options_need() -> None:
    def rules(**options: Any) -> set[str]:
        manager = Manager(Client(APIServer()))
        NotificationOperator(NotificationOptions(**options)).add_to(manager)
        (role,) = (each for each in manager.rbac("n") if each["kind"] == "ClusterRole")
        return {resource for rule in role["rules"] for resource in rule["resources"]}

    assert not {"channelpolicies", "secrets"} & rules()
    assert {"channelpolicies", "secrets"} <= rules(policies=True, namespace_credentials=True)


async def test_the_example_policies_do_what_their_comments_say() -> None:
    file = Path(__file__).parents[2] / "examples" / "notification" / "policies.yaml"
    documents = [each for each in yaml.safe_load_all(file.read_text()) if each["kind"] == "ChannelPolicy"]
    async with APIServer() as server, Client(server) as client:
        await server.apply(ChannelPolicy)
        for each in documents:
            await client.create(each, field_validation="Strict")
    table = policies(**{each["metadata"]["name"]: each["spec"] for each in documents})
    spec = NotificationRequest.from_dict(document(["log"])).spec
    assert table.refusal("team-a", spec, ["slack:team-a"]) is None
    assert table.refusal("team-a", spec, ["slack:on-call"]) is not None
    assert table.refusal("platform", spec, ["slack:on-call"]) is None
    assert table.refusal("elsewhere", spec, ["log"]) is not None
