"""Scenario files, and a program in a closed world that calls a service which stands in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from aiohttp import web

from reconciler.errors import ConfigurationError
from reconciler.testing.explore.enclosure import missing_for_enclosure
from reconciler.testing.explore.program import ProgramWorld
from reconciler.testing.explore.scenarios import ScenarioFile

PROGRAM = """
import json, os, ssl, time, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
base = "https://%s:%s" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
context = ssl.create_default_context(cafile=place + "ca.crt")
headers = {"Authorization": "Bearer " + open(place + "token").read()}
known = set()
while True:
    request = urllib.request.Request(base + "/api/v1/namespaces/default/configmaps", headers=headers)
    for item in json.load(urllib.request.urlopen(request, context=context))["items"]:
        if item["metadata"]["name"] not in known:
            known.add(item["metadata"]["name"])
            urllib.request.urlopen("http://queue.default.svc:8080/queues/" + item["metadata"]["name"], data=b"{}")
    time.sleep(0.1)
"""


@pytest.mark.skipif(bool(missing_for_enclosure()), reason=missing_for_enclosure() or "namespaces are there")
async def test_calls_of_a_service_that_stands_in_are_effects_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    called = []

    async def create_queue(request: web.Request) -> web.Response:
        called.append(request.match_info["name"])
        return web.Response(text=json.dumps({}))

    app = web.Application()
    app.router.add_post("/queues/{name}", create_queue)
    command = [sys.executable, str(tmp_path / "program.py")]
    async with ProgramWorld(command, ("configmaps",), enclosed=True) as world:
        world.service("queue.default", app, port=8080)
        await world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}})
        await world.settle()
        effects = [event.effect for event in world.trace if event.effect is not None]
    assert called == ["a"]
    assert [(each.name, each.key) for each in effects] == [("POST queue.default", "/queues/a")]


async def test_namespaces_that_cannot_be_set_up_are_an_error_and_not_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    async with ProgramWorld(["true"], ("configmaps",), enclosed=True) as world:
        with pytest.raises(ConfigurationError, match="the namespaces of the closed world cannot be set up"):
            await world.start()


async def test_services_stand_in_only_in_a_closed_world() -> None:
    world = ProgramWorld(["true"], ("configmaps",))
    with pytest.raises(ConfigurationError, match="needs a closed world"):
        world.service("queue.default", web.Application())


def test_a_scenario_file_says_what_users_do_and_what_the_program_needs(tmp_path: Path) -> None:
    path = tmp_path / "steps.py"
    path.write_text(
        "environment = {'A': 'b'}\nserved_until = '1.21'\n"
        "async def grow(world): ...\nasync def _helper(world): ...\ndef object(): ...\nasync def shrink(world): ...\n"
    )
    found = ScenarioFile.load(path)
    assert list(found.scenarios) == ["grow", "shrink"]
    assert (found.environment, found.served_until) == ({"A": "b"}, "1.21")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("async def grow(world:\n", "steps.py, line 1: '.' was never closed"),
        ("x = 1\ny = x / 0\n", "steps.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "steps.py, line 1: ModuleNotFoundError"),
        ("x = 1\n", "has no scenario: write 'async def NAME.world.'"),
        ("async def grow(): ...\n", "the scenario grow must have one parameter"),
        ("environment = ['A']\nasync def grow(world): ...\n", "environment must be a dict of strings"),
        ("environment = {'A': 1}\nasync def grow(world): ...\n", "environment must be a dict of strings"),
        ("served_until = 1.21\nasync def grow(world): ...\n", "served_until must be a version such as '1.21'"),
    ],
)
def test_mistakes_in_a_scenario_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "steps.py"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        ScenarioFile.load(path)


def test_a_missing_scenario_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none.py: No such file"):
        ScenarioFile.load(tmp_path / "none.py")
