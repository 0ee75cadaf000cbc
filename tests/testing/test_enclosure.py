"""A closed world: what a program in it reaches, and what it does not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reconciler.apiserver import APIServer
from reconciler.testing.explore.enclosure import ClusterAccess, Enclosure, HostNames, missing_for_enclosure

pytestmark = pytest.mark.skipif(bool(missing_for_enclosure()), reason=missing_for_enclosure() or "namespaces are there")

_ANSWER = "import json, os, socket, sys; arguments = sys.argv[1:]\ndef answer(x): print(json.dumps(x), flush=True)\n"


async def enclosed(
    directory: Path,
    program: str,
    *arguments: str,
    apps: Mapping[tuple[str, int], web.Application] = {},
) -> tuple[Any, int]:
    """Run a Python program in an enclosure; return what it answered, and its exit code."""
    async with APIServer(tls=True) as server, contextlib.AsyncExitStack() as stack:
        port = int((await server.listen()).rpartition(":")[2])
        hosts = HostNames(directory / "hosts")
        listen = [(hosts.address(name), port) for name, port in apps]
        access = ClusterAccess(port, server.token, base64.b64decode(server.authority).decode())
        enclosure = Enclosure(access, hosts, listen)

        async def serve(sockets: Sequence[socket.socket]) -> None:
            await server.serve(sockets[0])
            for app, listening in zip(apps.values(), sockets[1:], strict=True):
                runner = web.AppRunner(app)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.SockSite(runner, listening).start()

        process = await asyncio.create_subprocess_exec(
            *enclosure.command([sys.executable, "-I", "-c", _ANSWER + program, *arguments]),
            pass_fds=[enclosure.descriptor],
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **access.environment},
        )
        await enclosure.open(serve)
        printed, _ = await process.communicate()
        return json.loads(printed or "null"), process.returncode or 0


_CONNECT = """
found = {}
for each in arguments:
    host, _, port = each.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        found[each] = "connected"
    except OSError as error:
        found[each] = type(error).__name__
answer(found)
"""


async def test_nothing_outside_is_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        here = f"127.0.0.1:{host.getsockname()[1]}"
        outside = [here, "192.0.2.1:443", "169.254.169.254:80", "[2001:db8::1]:443", "example.com:80"]
        answered, _ = await enclosed(tmp_path, _CONNECT, *(each.replace("[", "").replace("]", "") for each in outside))
    assert set(answered) == {each.replace("[", "").replace("]", "") for each in outside}
    assert "connected" not in answered.values()


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield str(path)


_UNIX = """
found = []
for each in arguments:
    try:
        socket.socket(socket.AF_UNIX).connect(each)
        found.append("connected")
    except OSError as error:
        found.append(type(error).__name__)
answer(found)
"""


async def test_unix_sockets_of_the_machine_are_hidden(tmp_path: Path) -> None:
    with unix_socket(tmp_path / "host.sock") as path, unix_socket(tmp_path / "other one.sock") as spaced:
        answered, _ = await enclosed(tmp_path, _UNIX, path, spaced)
        assert [each == "connected" for each in answered] == [False, False]
        with socket.socket(socket.AF_UNIX) as outside:
            outside.connect(path)  # it is hidden in the enclosure only


async def test_the_in_cluster_configuration_reaches_the_server(tmp_path: Path) -> None:
    answered, _ = await enclosed(
        tmp_path,
        """
import ssl, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://%s:%s" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
headers = {"Authorization": "Bearer " + open(place + "token").read()}
request = urllib.request.Request(url + "/api/v1/namespaces/default", headers=headers)
context = ssl.create_default_context(cafile=place + "ca.crt")
found = json.load(urllib.request.urlopen(request, context=context))
answer([found["metadata"]["name"], open(place + "namespace").read()])
""",
    )
    assert answered == ["default", "default"]


async def test_a_name_leads_to_the_service_that_stands_in(tmp_path: Path) -> None:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    program = "import urllib.request\nanswer(urllib.request.urlopen('http://queue.prod.svc:8080/').read().decode())"
    answered, _ = await enclosed(tmp_path, program, apps={("queue.prod", 8080): app})
    assert answered == "hello"


@pytest.mark.parametrize(
    "undo",
    [
        ["umount", "/etc/hosts"],
        ["umount", "/run"],
        ["mount", "-t", "tmpfs", "x", "/mnt"],
        ["unshare", "-Urm", "umount", "/run"],
    ],
    ids=" ".join,
)
async def test_the_program_cannot_undo_its_enclosure(tmp_path: Path, undo: Sequence[str]) -> None:
    program = "import subprocess; answer(subprocess.run(arguments, stderr=subprocess.DEVNULL).returncode)"
    answered, _ = await enclosed(tmp_path, program, *undo)
    assert answered != 0


async def test_processes_of_the_machine_are_not_there(tmp_path: Path) -> None:
    program = "answer(sorted(int(each) for each in os.listdir('/proc') if each.isdigit()))"
    answered, _ = await enclosed(tmp_path, program)
    assert answered[0] == 1
    assert len(answered) == 2  # the first process, and the program


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)])
async def test_the_exit_code_is_that_of_the_program(tmp_path: Path, ending: str, code: int) -> None:
    assert (await enclosed(tmp_path, ending))[1] == code


async def test_what_the_program_left_behind_ends_with_it(tmp_path: Path) -> None:
    program = """
import subprocess
child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
answer("left")
"""
    answered, _ = await enclosed(tmp_path, program)
    assert answered == "left"
    assert "sleep 300" not in commands()


def commands() -> str:
    """Return the commands of the processes of this machine."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout.decode()
