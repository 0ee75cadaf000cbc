"""The files of examples/notification work unchanged: routing, dashboard, container."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.cli import main
from reconciler.manager import LeaderElection
from reconciler.notification import Message, NotificationOperator, NotificationOptions, NotificationRequest
from reconciler.notification.channel import message_document
from reconciler.notification.channels.template import render_template
from tests.notification.world import document

EXAMPLES = Path(__file__).parents[2] / "examples" / "notification"
ROUTING = EXAMPLES / "routing.yaml"


@pytest.mark.parametrize(
    ("attributes", "channels"),
    [
        ("priority=Low", ["log"]),
        ("priority=Critical env=dev", ["log"]),
        ("priority=Critical", ["webhook:on-call", "slack:on-call"]),
        ("priority=Critical team=storage", ["webhook:on-call", "slack:on-call", "slack:storage"]),
        (
            "team=storage type=Approval namespace=prod",
            ["email:storage-leads", "pagerduty:storage-leads", "teams:storage-leads"],
        ),
        ("team=storage type=Approval namespace=sandbox", ["slack:storage"]),
    ],
)
def test_the_example_routing_matches_its_comments(
    attributes: str, channels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["routes", "test", str(ROUTING), *attributes.split(), "--output", "json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["channels"] == channels


def operator(tmp_path: Path) -> NotificationOperator:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    names = ("alerts-token", "alerts-signing-key", "slack-on-call", "slack-storage", "smtp-password")
    for name in (*names, "pagerduty-storage", "teams-storage-leads"):
        (credentials / name).write_text("https://hooks.example.com/x")
    return NotificationOperator(
        NotificationOptions(credentials=credentials, routing_file=ROUTING, audit_file=tmp_path / "audit.jsonl")
    )


@pytest.mark.parametrize("extensions", [{}, {"team": 'sto"rage'}])
async def test_the_example_template_renders_json_for_any_message(extensions: dict[str, str]) -> None:
    (receiver,) = (each for each in yaml.safe_load(ROUTING.read_text())["receivers"] if each["name"] == "on-call")
    template = receiver["webhook_configs"][0]["template"]
    message = Message(
        name="n",
        namespace="prod",
        uid="u",
        type="Simple",
        priority="Low",
        subject='a "quote"',
        body="b\n\\",
        channel="webhook:on-call",
        extensions=extensions,
    )
    written = json.loads(await render_template(template, "on-call", message_document(message)))
    assert (written["title"], written["text"]) == (message.subject, message.body)
    assert written["team"] == extensions.get("team")


def queried() -> set[str]:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    words = {word for text in expressions for word in re.findall(r"[a-z_]+_[a-z_]+", re.sub(r'"[^"]*"', "", text))}
    return words - {"histogram_quantile", "__rate_interval", "_rate_interval"}


async def test_every_metric_of_the_dashboard_exists(tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        manager = Manager(
            client, metrics="127.0.0.1:0", leader_election=LeaderElection("notifications", namespace="default")
        )
        operator(tmp_path).add_to(manager)
        async with manager.running():
            await client.create(NotificationRequest.from_dict(document(["log"])))
            await client.wait_for(
                NotificationRequest, "disk-full", "default", until=lambda n: n.status.phase == "Sent", timeout=30
            )
            await asyncio.sleep(0)
            async with aiohttp.ClientSession() as http:
                text = await (await http.get(f"{manager.metrics_url}/metrics")).text()
    families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    samples = {re.split(r"[{ ]", line)[0] for line in text.splitlines()}
    offered = families | samples | {f"{name}_bucket" for name in families}
    assert queried() - offered == set()
    told = {name for name in families if name.startswith("notification_") and not name.endswith("_created")}
    assert {name.removesuffix("_bucket") for name in queried() if name.startswith("notification_")} >= told


def test_the_example_configuration_is_valid_and_missing_credentials_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = operator(tmp_path).channels
    assert "slack:on-call" in channels
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit):
        main(["run", "notification", "--routing-file", str(ROUTING), "--credentials", str(tmp_path / "none")])
    err = capsys.readouterr().err
    names = ("alerts-token", "alerts-signing-key", "slack-on-call", "slack-storage", "smtp-password")
    for name in (*names, "pagerduty-storage", "teams-storage-leads"):
        assert f"credential '{name}' not found" in err


def test_the_container_runs_the_command_of_the_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (EXAMPLES / "Containerfile").read_text().splitlines()
    command = next(json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    user = next(line.removeprefix("USER ").partition(":")[0] for line in lines if line.startswith("USER "))
    with pytest.raises(SystemExit):
        main(["manifests", "notification"])
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(capsys.readouterr().out))
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert (command, int(user)) == (pod["containers"][0]["args"], pod["securityContext"]["runAsUser"])
