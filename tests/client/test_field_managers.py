"""Field managers: one for each program and controller, the same after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
import zipapp
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Reconciler
from reconciler.manager import Manager
from reconciler.meta import Request
from reconciler.meta.field_managers import program_name

PROGRAM = """
from reconciler.apiserver import APIServer
from reconciler.client import Client
print(Client(APIServer()).field_manager)
"""


def ran(*command: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), *sys.path])}
    return subprocess.check_output([sys.executable, *command], cwd=cwd, env=environment, text=True).strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("one", "one/sub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "__main__.py").write_text(PROGRAM)
    (tmp_path / "script.py").write_text(PROGRAM)
    (tmp_path / "console-script").write_text(PROGRAM)
    (tmp_path / "launcher.py").write_text("import importlib, sys\nimportlib.import_module(sys.argv[1])\n")
    return tmp_path


def test_the_default_field_manager_is_the_program_that_was_started(package: Path) -> None:
    zipapp.create_archive(package / "one", package / "packed.pyz")
    names = {
        "-m one": ran("-m", "one", cwd=package),
        "-m one.sub": ran("-m", "one.sub", cwd=package),
        "script": ran(package / "script.py", cwd=package),
        "directory": ran("one", cwd=package),
        "console": ran("console-script", cwd=package),
        "zipapp": ran("packed.pyz", cwd=package),
        "launcher": ran("launcher.py", "script", cwd=package),
        "-c": ran("-c", PROGRAM, cwd=package),
    }
    assert names == {
        "-m one": "one",
        "-m one.sub": "one.sub",
        "script": "script",
        "directory": "one",
        "console": "console-script",
        "zipapp": "packed",
        "launcher": "launcher",
        "-c": "python",
    }


def test_the_user_agent_names_the_program() -> None:
    assert Client(APIServer(), user_agent="database-operator/1.0 (linux)").field_manager == "database-operator"
    assert Client(APIServer(), user_agent="database-operator (linux)").field_manager == "database-operator"
    assert Client(APIServer(), user_agent="a/1", field_manager="chosen").field_manager == "chosen"
    assert Client(APIServer(), user_agent=" ").field_manager == program_name()


@pytest.mark.parametrize("name", ["x" * 129, "é" * 65, "a\nb", "a\u200bb", ""])
def test_an_invalid_field_manager_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128 bytes and only printable"):
        Client(APIServer(), field_manager=name)
    with pytest.raises(ValueError, match="1 to 128 bytes and only printable"):
        Client(APIServer()).with_options(field_manager=name)


@pytest.mark.parametrize("character", ["x", "é", "\u200b", "\udce9", "日"])
def test_long_and_unprintable_program_names_stay_different(character: str) -> None:
    names = {Client(APIServer(), user_agent=f"p{character * 300}{end}").field_manager for end in "ab"}
    assert len(names) == 2
    for name in names:
        Client(APIServer(), field_manager=name)  # accepted


class Applies(Reconciler):
    """A reconciler that applies a ConfigMap and patches another, by clients of every kind."""

    def __init__(self, data: dict[str, str], foreign: Client) -> None:
        self.data, self.foreign = data, foreign

    async def reconcile(self, request: Request) -> None:
        await self.client.apply(config_map("shared", data=self.data))
        await self.foreign.apply(config_map("over-another-client", data=self.data))
        await self.client.live.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": self.data})


def config_map(name: str, **members: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **members}


def managers(document: Any) -> set[tuple[str, str]]:
    return {(e["manager"], e["operation"]) for e in document.to_dict()["metadata"]["managedFields"]}


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        yield server


@pytest.mark.virtual_time
async def test_two_controllers_of_a_process_can_apply_to_one_object(
    server: APIServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with Client(server, user_agent="prog/1") as client:
        manager = Manager(client)
        one = manager.add_controller(Applies({"one": "1"}, Client(server)), name="one", resource="v1/Node")
        manager.add_controller(Applies({"two": "2"}, Client(server)), name="two", resource="v1/Pod")
        assert one.field_manager == "prog/one"
        async with manager.running():
            for each in manager.controllers:
                each.enqueue(Request("primary", "default"))
            await client.create(config_map("primary", data={"zero": "0"}))
            both = {"one": "1", "two": "2"}
            await client.wait_for(
                "v1/ConfigMap", "primary", "default", until=lambda o: both.items() <= o["data"].items(), timeout=60
            )
    for name in ("shared", "over-another-client"):
        found = await Client(server).get("v1/ConfigMap", name, "default")
        assert found["data"] == both
    shared = await Client(server).get("v1/ConfigMap", "shared", "default")
    assert managers(shared) == {("prog/one", "Apply"), ("prog/two", "Apply")}
    over = await Client(server).get("v1/ConfigMap", "over-another-client", "default")
    assert managers(over) == {(f"{program_name()}/one", "Apply"), (f"{program_name()}/two", "Apply")}
    primary = await Client(server).get("v1/ConfigMap", "primary", "default")
    assert {("prog/one", "Update"), ("prog/two", "Update")} <= managers(primary)
    assert "one (field manager prog/one), two (field manager prog/two)" in caplog.text
