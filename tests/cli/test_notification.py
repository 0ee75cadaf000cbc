"""The notification operator on the command line: options from three sources, routes, and its manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli import run as _run
from reconciler.testing import Cluster
from tests.cli.test_command_line import run

ROUTING = """\
route:
  receiver: everybody
  routes:
    - {matchers: ['type = Approval'], receiver: chat, continue: true}
    - {matchers: ['team = storage'], receiver: mail}
receivers:
  - {name: everybody, channels: [console]}
  - {name: chat, slack_configs: [{url_credential: hook}]}
  - {name: mail, email_configs: [{host: mail.example.com, sender: a@example.com}]}
"""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the options of `run` instead of running."""
    seen: list[Any] = []

    def run_target(target: str, options: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(_run, "run_target", run_target)
    return seen


def test_command_line_takes_precedence_over_environment_over_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[Any]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "workers: 7\nmetrics: ':1'\nhealth: ':2'\nnamespace: [a, b]\naudit-file: /audit\nconsole-channel: false\n"
    )
    monkeypatch.setenv("RECONCILER_RUN_METRICS", ":3")
    assert run(capsys, "run", "notification", "--config", str(file), "--workers", "9")[0] == 0
    (options,) = taken
    assert (options.workers, options.metrics, options.health) == (9, ":3", ":2")
    assert list(options.namespaces) == ["a", "b"]
    assert (options.notification.audit_file, options.notification.console) == (Path("/audit"), False)
    monkeypatch.setenv("RECONCILER_RUN_CONFIG", str(file))
    assert run(capsys, "run", "notification")[0] == 0
    assert taken[1].workers == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wokers: 7", "wokers"),
        ("workers: many", "many"),
        ("delivery-timeout: -1", "delivery"),
        ("workers: [", ""),
        ("[" * 3000, "config.yaml"),
    ],
)
def test_invalid_key_or_value_in_the_config_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, taken: list[Any], text: str, words: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    code, _, err = run(capsys, "run", "notification", "--config", str(file))
    assert code in {1, 2}
    assert words in err
    assert taken == []


def test_missing_config_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "run", "notification", f"--config={tmp_path / 'none.yaml'}")
    assert code == 1
    assert "none.yaml: no such file" in err


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--routing-file", "route: {receiver: x}", "line 1: receivers: at least one receiver is required"),
        ("--routing-file", ROUTING, "credential 'hook' not found"),
        ("--routing-file", None, "cannot read the routing configuration"),
        ("--credentials", None, "cannot read the credentials directory"),
        ("--audit-file", None, "cannot write the audit file"),
    ],
)
def test_invalid_options_are_reported_before_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, content: str | None, words: str
) -> None:
    file = tmp_path / "directory" / "file"
    if content is not None:
        file.parent.mkdir()
        file.write_text(content)
    code, _, err = run(capsys, "run", "notification", option, str(file), "--kubeconfig", "/nowhere")
    assert code == 1
    assert err.count(words) == 1
    assert " ERROR " not in err


def test_two_sources_of_routing_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(
        capsys, "run", "notification", "--routing-file", str(tmp_path), "--routing-config-map", "default/rules"
    )
    assert (code, "set only one of" in err) == (1, True)
    code, _, err = run(capsys, "run", "notification", "--routing-config-map", "rules")
    assert (code, "NAMESPACE/NAME" in err) == (1, True)


# routes test


def test_routes_test_prints_receivers_and_channels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "routing.yaml"
    file.write_text(ROUTING)
    assert run(capsys, "routes", "test", str(file), "type=Simple")[1] == "everybody: console\n"
    out = run(capsys, "routes", "test", str(file), "type=Approval", "team=storage")[1]
    assert out == "chat: slack:chat\nmail: email:mail\n"
    request = tmp_path / "request.yaml"
    spec = {"type": "Approval", "subject": "s", "body": "b", "extensions": {"team": "storage"}}
    kind = {"apiVersion": "notify.reconciler.dev/v1alpha1", "kind": "NotificationRequest"}
    request.write_text(yaml.safe_dump({**kind, "metadata": {"name": "n", "namespace": "prod"}, "spec": spec}))
    code, out, _ = run(capsys, "routes", "test", str(file), "--request", str(request), "--output", "json")
    assert code == 0
    assert json.loads(out) == {
        "attributes": {
            "team": "storage",
            "type": "Approval",
            "priority": "Medium",
            "namespace": "prod",
            "name": "n",
        },
        "receivers": ["chat", "mail"],
        "channels": ["slack:chat", "email:mail"],
    }


@pytest.mark.parametrize("text", ["[" * 3000, "- a", "kind: [", "spec: 2026-13-01"])
def test_routes_test_refuses_an_invalid_request(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    file, request = tmp_path / "routing.yaml", tmp_path / "request.yaml"
    file.write_text(ROUTING)
    request.write_text(text)
    code, _, err = run(capsys, "routes", "test", str(file), "--request", str(request))
    assert (code, "request.yaml: not a valid NotificationRequest" in err) == (1, True)


def test_routes_test_lists_every_mistake_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "routing.yaml"
    file.write_text("route:\n  receiver: x\n  routs: []\nreceivers:\n  - nam: y\n")
    code, out, err = run(capsys, "routes", "test", str(file))
    assert (code, out) == (1, "")
    assert "line 2: route.receiver: unknown receiver 'x'" in err
    assert "line 3: route.routs: unknown key; a route has" in err
    assert "line 5: receivers[0]: a receiver needs a name" in err
    assert run(capsys, "routes", "test", str(tmp_path / "none"))[0] == 1
    assert run(capsys, "routes", "test", str(file), "nonsense")[0] == 1


# manifests


def manifests(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    code, out, err = run(capsys, "manifests", "notification", *arguments)
    assert (code, err) == (0, "")
    return list(yaml.safe_load_all(out))


def test_manifests_contain_the_complete_installation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    documents = manifests(capsys, "--install-namespace", "ops", "--image", "registry.example/n:1")
    kinds = {document["kind"] for document in documents}
    assert {
        "CustomResourceDefinition",
        "ServiceAccount",
        "ClusterRole",
        "Deployment",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    } <= kinds
    by_kind = {document["kind"]: document for document in documents}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example/n:1"
    config = next(each for each in documents if each["kind"] == "ConfigMap" and "config.yaml" in each["data"])
    (tmp_path / "config.yaml").write_text(config["data"]["config.yaml"])
    routing = next(each for each in documents if each["kind"] == "ConfigMap" and "routing.yaml" in each["data"])
    (tmp_path / "routing.yaml").write_text(routing["data"]["routing.yaml"])
    assert run(capsys, "routes", "test", str(tmp_path / "routing.yaml"))[1] == "default: log\n"
    verbs = {
        resource: sorted(rule["verbs"]) for rule in by_kind["ClusterRole"]["rules"] for resource in rule["resources"]
    }
    assert verbs == {
        "notificationrequests": ["delete", "get", "list", "watch"],
        "notificationrequests/status": ["update"],
        "channelpolicies": ["get", "list", "watch"],
        "events": ["create", "patch"],
    }


def test_run_accepts_the_printed_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, taken: list[Any]
) -> None:
    documents = manifests(capsys, "--namespace", "prod", "--install-namespace", "ops")
    config = next(each for each in documents if each["kind"] == "ConfigMap" and "config.yaml" in each["data"])
    (tmp_path / "config.yaml").write_text(config["data"]["config.yaml"])
    assert run(capsys, "run", "notification", "--config", str(tmp_path / "config.yaml"))[0] == 0
    (options,) = taken
    assert (options.leader_election, options.leader_election_namespace) == ("notification-operator", "ops")
    assert list(options.namespaces) == ["prod"]
    elsewhere = manifests(capsys, "--install-namespace", "ops", "--leader-election-namespace", "leases")
    assert [each["metadata"]["namespace"] for each in elsewhere if each["kind"] == "Role"] == ["leases"]
    assert options.notification.routing_file == Path("/etc/notification/routing/routing.yaml")


async def test_api_server_accepts_the_printed_manifests(capsys: pytest.CaptureFixture[str], cluster: Cluster) -> None:
    documents = manifests(capsys, "--name", "manifests-test", "--install-namespace", cluster.namespace)
    for document in documents:
        if document["kind"] == "CustomResourceDefinition":
            await cluster.install(document)
        elif document["kind"] != "ServiceMonitor":  # not a built-in kind
            await cluster.client.create(document, field_validation="Strict")
