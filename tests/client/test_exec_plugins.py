"""A credential plugin that hangs, fails or prints too much delays no request beyond its own timeout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.client import Client, Retries
from reconciler.client import credentials as _credentials
from reconciler.clock import SystemClock, use_clock
from reconciler.errors import ConfigurationError, NotSent, Unauthorized
from reconciler.http import HTTPRequest
from tests.client.kubeconfigs import SECRET, kubeconfig, problem
from tests.client.test_credentials import Server, ask, server

pytestmark = pytest.mark.usefixtures("bare_environment")

__all__ = ["server"]

VERSION = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, code: str, **config: Any) -> dict[str, Any]:
    """Write a plugin that notes its process and runs some code, in which `give` prints a credential."""
    script = tmp_path / "plugin"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, subprocess, sys, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "with (folder / 'pids').open('a') as pids: print(os.getpid(), file=pids)\n"
        "runs = len((folder / 'pids').read_text().split())\n"
        f"def show(kind, status, version={VERSION!r}):\n"
        "    print(json.dumps(dict(apiVersion=version, kind=kind, status=status)))\n"
        "def give(token, **status):\n"
        "    show('ExecCredential', dict(token=token, **status))\n"
        f"{code}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": VERSION, "command": str(script), **config}}


def hang(tmp_path: Path, *, first: str = "") -> str:
    """Return code that starts a child and waits with it forever; the code in `first` replaces the first run."""
    return (
        f"if runs == 1 and {bool(first)!r}:\n    {first or 'pass'}\nelse:\n"
        f"    child = subprocess.Popen(['sleep', '1000'])\n"
        "    with (folder / 'pids').open('a') as pids: print(child.pid, file=pids)\n"
        "    child.wait()\n"
    )


async def pids(tmp_path: Path, number: int) -> list[int]:
    """Wait until so many processes have begun."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
            if len(found) >= number:
                return found
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    while is_running(pid):  # noqa: ASYNC110 - nothing tells of this moment
        await asyncio.sleep(0.01)


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_plugin_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_credentials, "TIME_LIMIT", 5.0)
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, hang(tmp_path)))
    assert "plugin did not end within 5 s and was killed" in await problem(kubeconfig=path)
    for pid in await pids(tmp_path, 2):
        await gone(pid)


async def test_a_cancelled_opening_kills_the_plugin(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, hang(tmp_path)))
    task = asyncio.create_task(Client.from_config(kubeconfig=path).__aenter__())
    started = await pids(tmp_path, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in started:
        await gone(pid)


async def test_an_opening_that_is_cancelled_while_the_plugin_starts_kills_it_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = asyncio.create_subprocess_exec

    async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*command, **options)
        await pids(tmp_path, 2)
        opening.cancel()
        await asyncio.sleep(0)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, hang(tmp_path)))
    opening = asyncio.create_task(Client.from_config(kubeconfig=path).__aenter__())
    with pytest.raises(asyncio.CancelledError):
        await opening
    for pid in await pids(tmp_path, 2):
        await gone(pid)


async def test_while_a_plugin_hangs_the_valid_credential_is_used_and_closing_kills_the_plugin(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    server.good.add("one")
    code = hang(tmp_path, first=f"give('one', expirationTimestamp={at(60)!r})")
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, code))
    async with Client.from_config(kubeconfig=path) as client:
        for _ in range(3):
            await ask(client)
        started = await pids(tmp_path, 3)
        await ask(client)
    for pid in started:
        await gone(pid)
    assert server.tokens == ["one"] * 4


async def test_without_a_valid_credential_requests_wait_for_a_plugin_no_longer_than_their_timeout(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    code = hang(tmp_path, first=f"give('one', expirationTimestamp={at(-60)!r})")
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, code))
    async with Client.from_config(kubeconfig=path) as client:
        patient = asyncio.create_task(client.send(HTTPRequest("GET", "/x", timeout=1000)))
        with pytest.raises(NotSent, match="the credentials have expired, and were not renewed in time"):
            await client.send(HTTPRequest("GET", "/x", timeout=0.3))
        impatient = asyncio.create_task(client.send(HTTPRequest("GET", "/x", timeout=1000)))
        await pids(tmp_path, 3)
        impatient.cancel()
        await asyncio.wait({impatient})
        assert not patient.done()
        patient.cancel()
        await asyncio.wait({patient})
    assert server.tokens == []


async def test_a_cancelled_waiter_does_not_cancel_the_renewal(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    code = (
        f"if runs == 1: give('one', expirationTimestamp={at(-60)!r})\n"
        "else:\n"
        "    while not (folder / 'go').exists(): time.sleep(0.01)\n"
        "    give('two', expirationTimestamp='2999-01-01T00:00:00Z')\n"
    )
    server.good.add("two")
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, code))
    async with Client.from_config(kubeconfig=path) as client:
        tasks = [asyncio.create_task(ask(client)) for _ in range(4)]
        await pids(tmp_path, 2)
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        (tmp_path / "go").touch()
        await asyncio.gather(*tasks[1:])
    assert server.tokens == ["two"] * 3
    assert len(await pids(tmp_path, 2)) == 2


async def test_a_refused_request_waits_for_a_plugin_no_longer_than_its_timeout(tmp_path: Path, server: Server) -> None:
    code = hang(tmp_path, first="give('one')")
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, code))
    async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
        with pytest.raises(Unauthorized):
            await client.session.connection.once(HTTPRequest("GET", "/x", timeout=3))  # enough to start it
    for pid in await pids(tmp_path, 3):
        await gone(pid)


async def test_a_plugin_that_keeps_failing_is_not_run_for_each_request(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"if runs > 1: sys.exit('Authorization: Bearer {SECRET}; log in')\ngive('one')"
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, code))
    async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
        for _ in range(5):
            with pytest.raises(Unauthorized):
                await ask(client)
    assert len(await pids(tmp_path, 2)) == 2
    assert "exec: process returned 1. Authorization: [REDACTED]" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("while True: print('x' * 2**20)", "the plugin printed more than 1 MiB"),
        ("while True: print('x' * 2**20, file=sys.stderr)", "the plugin printed more than 1 MiB"),
        (f"print({SECRET!r})", "the output of the plugin is not JSON"),
        ("sys.stdout.buffer.write(bytes(range(256)))", "the output of the plugin is not JSON"),
        ("print('[' * 100000)", "the output of the plugin is not JSON"),
        ("pass", "the output of the plugin is not JSON"),
        (f"print(json.dumps([{SECRET!r}]))", "the output of the plugin is not an ExecCredential"),
        ("show('Secret', dict(token='x'))", "is not an ExecCredential"),
        ("show('ExecCredential', dict(token='x'), 'v1')", "the apiVersion of the plugin's output is not"),
        ("show('ExecCredential', None)", "has no valid status"),
        ("give(5)", "has no valid status"),
        ("give('a b')", "the token contains white space"),
        ("give('x', expirationTimestamp=5)", "has no valid status"),
        (f'sys.exit(\'cannot use {{"token": "{SECRET}"}}\')', 'process returned 1. cannot use {"token": "[REDACTED]"}'),
        (f"print({SECRET!r}); sys.exit(3)", "exec: process returned 3"),
        ("os.kill(os.getpid(), 9)", "exec: process returned -9"),
    ],
)
async def test_what_a_plugin_prints_is_checked_and_never_quoted(tmp_path: Path, code: str, words: str) -> None:
    started = time.monotonic()
    text = await problem(kubeconfig=kubeconfig(tmp_path / "config", **plugin(tmp_path, code)))
    assert words in text
    assert time.monotonic() - started < _credentials.TIME_LIMIT


async def test_a_plugin_is_told_that_it_has_no_terminal(tmp_path: Path, server: Server) -> None:
    code = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "(folder / 'seen').write_text(json.dumps([sys.stdin.read(), info, os.environ['A'], sys.argv[1:]]))\n"
        "give('one')\n"
    )
    server.good.add("one")
    config = plugin(
        tmp_path,
        code,
        args=["-x"],
        env=[{"name": "A", "value": "b"}],
        provideClusterInfo=True,
        interactiveMode="IfAvailable",
    )
    path = kubeconfig(tmp_path / "config", server=server.url, **config)
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
    spec = {"interactive": False, "cluster": {"server": server.url}}
    assert json.loads((tmp_path / "seen").read_text()) == [
        "",
        {"apiVersion": VERSION, "kind": "ExecCredential", "spec": spec},
        "b",
        ["-x"],
    ]


class SteppedClock(SystemClock):
    """A machine's clocks, of which a test sets the wall clock alone, or lets time pass."""

    ahead = passed = 0.0

    def boottime(self) -> float:  # type: ignore[override]
        return SystemClock.boottime() + self.passed

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.passed + self.ahead)


@pytest.mark.parametrize("step", [7200.0, -7200.0])
async def test_a_step_of_the_wall_clock_does_not_move_the_expiry(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    server.good |= {"one"}
    path = kubeconfig(
        tmp_path / "config", server=server.url, **plugin(tmp_path, f"give('one', expirationTimestamp={at(900)!r})")
    )
    with use_clock(SteppedClock()) as clock:
        async with Client.from_config(kubeconfig=path) as client:
            clock.ahead = step
            await ask(client)
            await ask(client)
            assert len(await pids(tmp_path, 1)) == 1
            clock.passed = 900.0
            await ask(client)  # waits for the plugin
            assert len(await pids(tmp_path, 2)) >= 2


async def test_an_expired_credential_is_logged(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, f"give('one', expirationTimestamp={at(-60)!r})"))
    async with Client.from_config(kubeconfig=path):
        pass
    assert caplog.text.count("the plugin gave an expired credential") == 1


async def test_a_plugin_loads_no_other_library(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, "give('one')"))
    code = (
        "import asyncio, sys\nfrom reconciler import Client\n"
        "async def main():\n"
        f"    async with Client.from_config(kubeconfig={str(path)!r}): pass\n"
        "asyncio.run(main())\n"
        "assert 'kubernetes_asyncio' not in sys.modules\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


# token files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe\x00", "contains white space or other characters"),
        (b"one\ntwo\n", "contains white space or other characters"),
        (b"one\r\nX-Injected: 1", "contains white space or other characters"),
    ],
)
async def test_an_invalid_token_file_is_an_error_at_first_and_later_leaves_the_current_token(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    words: str,
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    token = tmp_path / "token"
    token.write_bytes(content)
    path = kubeconfig(tmp_path / "config", server=server.url, tokenFile="token")
    assert f"the token file {token} {words}" in await problem(kubeconfig=path)
    token.write_text("one\n")
    server.good |= {"one", "two"}
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
        token.write_bytes(content)
        await ask(client)
        token.write_text("two")
        await ask(client)
    assert server.tokens == ["one", "one", "two"]
    assert f"the token file {token} {words}" in caplog.text


async def test_opening_can_be_tried_again_after_a_plugin_failed(tmp_path: Path, server: Server) -> None:
    path = kubeconfig(
        tmp_path / "config", server=server.url, **plugin(tmp_path, "if runs == 1: sys.exit(1)\ngive('one')")
    )
    server.good.add("one")
    client = Client.from_config(kubeconfig=path)
    with pytest.raises(ConfigurationError):
        await client.__aenter__()
    async with client:
        await ask(client)
