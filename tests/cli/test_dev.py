"""``reconciler dev`` in a process of its own: what a developer sees while the code changes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler import Client
from reconciler.errors import Forbidden
from tests.real_server import until

pytestmark = pytest.mark.timeout(180)

OPERATOR = '''
from reconciler import Manager, Model, Resource, ResourceReconciler
from reconciler.webhook import Defaulter, Denied, Validator

class Spec(Model):
    size: int

class Disk(Resource[Spec], group="example.com", version="v1"):
    """A disk."""

class Disks(ResourceReconciler[Disk]):
    async def reconcile_object(self, obj, status):
        status.set_condition("Ready", True, reason=obj.labels["owner"])
        print("reconciled by the first", obj.name, flush=True)

class Rules(Validator[Disk]):
    def validate_create(self, obj, request, /):
        if obj.spec.size > 9:
            raise Denied("too large")

class Defaults(Defaulter[Disk]):
    def default(self, obj, request, /):
        obj.metadata.labels["owner"] = "Somebody"

def setup(manager: Manager) -> None:
    manager.add_controller(Disks())
    manager.add_webhooks(Rules(), Defaults())
'''
DISK = {
    "apiVersion": "example.com/v1",
    "kind": "Disk",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"size": 1},
}


def has_default_in_status(disk: Any) -> bool:
    conditions = (disk.to_dict().get("status") or {}).get("conditions") or [{}]
    return conditions[0].get("reason") == "Somebody"


class Dev:
    """A running ``reconciler dev``, and what it has printed."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self.directory = directory
        self.process = process
        self.printed = ""

    async def until(self, text: str) -> str:
        """Wait for a line with this string; return what was printed since the last call."""
        assert self.process.stdout is not None
        new = ""
        while text not in new:
            line = await self.process.stdout.readline()
            assert line, f"{text!r} was not printed:\n{self.printed}"
            new += line.decode()
            self.printed += line.decode()
        return new

    def change(self, before: str, after: str) -> None:
        file = self.directory / "disks.py"
        file.write_text(file.read_text().replace(before, after))

    def client(self) -> Client:
        return Client.from_config(kubeconfig=str(self.directory / "reconciler.kubeconfig"))

    def processes(self) -> list[str]:
        """Return the command lines of the processes that work in the directory."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (each / "cwd").readlink() == self.directory:
                    found.append((each / "cmdline").read_text().replace("\0", " "))
        return found


@contextlib.asynccontextmanager
async def developing(directory: Path, *options: str, source: str = OPERATOR) -> AsyncIterator[Dev]:
    """Run ``reconciler dev`` in a directory with the operator; kill what is left at the end."""
    (directory / "disks.py").write_text(source)
    with _alone():
        async with _developing(directory, *options) as dev:
            yield dev


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Exclude the tests of other processes: it looks for the same ports, and listens there a moment later."""
    with Path(tempfile.gettempdir(), f"reconciler-dev-{os.getuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.asynccontextmanager
async def _developing(directory: Path, *options: str) -> AsyncIterator[Dev]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "reconciler", "dev", "disks:setup", *options),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Dev(directory, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_operator_restarts_on_a_change_and_the_objects_stay(tmp_path: Path) -> None:
    async with developing(tmp_path) as dev:
        begin = await dev.until(f"watching {tmp_path}; Ctrl-C ends everything")
        assert f"export KUBECONFIG={tmp_path / 'reconciler.kubeconfig'}" in begin
        (console,) = re.findall("In a browser: (http://127.0.0.1:[0-9]+)", begin)
        async with aiohttp.ClientSession() as session, session.get(console) as response:
            assert (response.status, "disk" in await response.text()) == (200, True)
        async with dev.client() as client:
            with pytest.raises(Forbidden, match="too large"):
                await client.create({**DISK, "spec": {"size": 10}})
            await client.create(DISK)
            await dev.until("reconciled by the first a")
            await client.wait_for("example.com/v1/Disk", "a", "default", until=has_default_in_status, timeout=60)

            dev.change("by the first", "by the second")
            shown = await dev.until("reconciled by the second a")
            assert "disks.py changed: restarting" in shown

            dev.change("class Spec(Model):", "class Spec(Model:")
            shown = await dev.until("starts again when a file changes")
            assert "cannot import module 'disks': SyntaxError" in shown
            assert "Traceback" not in shown

            dev.change("class Spec(Model:", "class Spec(Model):\n    color: str = 'red'")
            await dev.until("reconciled by the second a")
            assert (await client.get("example.com/v1/Disk", "a", "default")).to_dict()["spec"]["color"] == "red"
        dev.process.send_signal(signal.SIGINT)
        assert await dev.process.wait() == 0
        assert dev.processes() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_process_stays_if_it_is_killed(tmp_path: Path) -> None:
    async with developing(tmp_path) as dev:
        await dev.until("started controllers")
        dev.process.kill()
        await dev.process.wait()
        async with asyncio.timeout(30):
            while dev.processes():  # noqa: ASYNC110 - the processes tell nobody that they have ended
                await asyncio.sleep(0.05)


async def test_an_operator_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    async with developing(tmp_path) as dev:
        await dev.until("started controllers")
        dev.change("obj.name, flush=True)", "obj.name, flush=True); import time; time.sleep(600)")
        await dev.until("started controllers")
        async with dev.client() as client:
            await client.create(DISK)
        await dev.until("reconciled by the first a")
        dev.change("time.sleep(600)", "pass")
        assert "killing it" in await dev.until("reconciled by the first a")
        dev.process.send_signal(signal.SIGTERM)
        assert await dev.process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["notification"], "'notification' is not a valid target"),
        (["disks:setup", "--workers", "0"], "--workers must be 1 or more"),
        (["disks:setup", "--kubeconfig", "absent/kubeconfig"], "--kubeconfig absent/kubeconfig: cannot write"),
        (["disks:setup", "--kubeconfig", "mine.yaml"], "is not that of an earlier run, so it is not overwritten"),
        (
            ["disks:setup", "--control-plane", "--data", "d"],
            "--data and --controller are options of the embedded server",
        ),
        ([], "missing argument target"),
    ],
)
async def test_invalid_input_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "mine.yaml").write_text("notes")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "reconciler", "dev", *arguments),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == (1 if arguments else 2)
    assert says in err.decode()
    assert len(err.splitlines()) == 1
    assert (tmp_path / "mine.yaml").read_text() == "notes"


async def test_kept_data_and_the_clusters_controllers(tmp_path: Path) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}}

    def is_ready(found: Any) -> bool:
        return bool(found["status"].get("readyReplicas"))

    async with developing(tmp_path, "--data", "kept", "--controller", "deployments") as dev:
        assert "its data is kept in kept" in await dev.until("started controllers")
        async with dev.client() as client:
            await client.create({**web, "spec": spec})
            await client.wait_for("apps/v1/Deployment", "web", "default", until=is_ready, timeout=60)
    async with developing(tmp_path, "--data", "kept") as dev:
        await dev.until("started controllers")
        async with dev.client() as client:
            assert (await client.get("apps/v1/Deployment", "web", "default"))["status"]["readyReplicas"] == 1


async def test_port_0_is_a_free_port(tmp_path: Path) -> None:
    async with developing(tmp_path, "--console", "127.0.0.1:0", "--metrics", "127.0.0.1:0") as dev:
        begin = await dev.until("started controllers")
        urls = re.findall("http://127.0.0.1:[0-9]+(?= is the console)|(?<=--endpoint )http://[^ \n]+", begin)
        async with aiohttp.ClientSession() as session:
            for url, path in zip(urls, ("/metrics", "/"), strict=True):
                async with session.get(url + path) as response:
                    assert response.status == 200


async def test_a_converter_that_is_not_called_is_named(tmp_path: Path) -> None:
    old = (
        'class OldDisk(Resource[Spec], group="example.com", version="v1beta1", kind="Disk", storage=False):\n    pass\n'
    )
    source = OPERATOR.replace(", Validator", ", Validator, Converter").replace("class Disks(", f"{old}\nclass Disks(")
    source = source.replace(
        "manager.add_webhooks(",
        'both = Converter("example.com", "Disk", hub="v1")\n'
        '    both.add("v1beta1", to_hub=lambda disk: None, from_hub=lambda disk: None)\n'
        "    manager.add_webhooks(both, ",
    )
    async with developing(tmp_path, source=source) as dev:
        printed = await dev.until("started controllers")
    (line,) = (line for line in printed.splitlines() if "--control-plane" in line)
    assert "WARNING" in line
    assert "Disk: the converter is not called here" in line


@pytest.mark.control_plane
async def test_a_control_plane_calls_the_webhooks(tmp_path: Path) -> None:
    async with developing(tmp_path, "--control-plane") as dev:
        await dev.until("started controllers")
        async with dev.client() as client:

            async def is_refused() -> bool:  # the API server notices the webhooks a moment later
                try:
                    await client.create({**DISK, "spec": {"size": 10}}, dry_run=True)
                except Forbidden as refused:
                    return "too large" in str(refused)
                return False

            await until(is_refused)
            await client.create(DISK)
            await dev.until("reconciled by the first a")
            dev.change("obj.spec.size > 9", "obj.spec.size > 99")
            await dev.until("started controllers")
            await client.create({**DISK, "metadata": {"name": "b", "namespace": "default"}, "spec": {"size": 10}})
        dev.process.send_signal(signal.SIGINT)
        assert await dev.process.wait() == 0


async def test_each_start_is_checked_with_an_example(tmp_path: Path) -> None:
    (tmp_path / "disk.yaml").write_text(json.dumps(DISK))
    source = OPERATOR.replace('obj.labels["owner"]', '"Written"')  # the webhooks are not called in a check
    async with developing(tmp_path, "--check", "disk.yaml", source=source) as dev:
        await dev.until("nothing was found")
        dev.change(
            "async def reconcile_object(self, obj, status):",
            "async def reconcile_object(self, obj, status):\n        1 / 0",
        )
        await dev.until("Nothing was disturbed yet, and already this is wrong.")
