"""``--console`` of ``reconciler run`` and ``reconciler demo``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import run as run_module
from tests.cli.test_command_line import run


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        ([], None),
        (["--console"], "127.0.0.1:8082"),
        (["--console=127.0.0.1:9"], "127.0.0.1:9"),
        (["--console", "127.0.0.1:9"], "127.0.0.1:9"),
        (["--console", "[::1]:9"], "[::1]:9"),
        (["--console", "--workers", "2"], "127.0.0.1:8082"),
    ],
)
def test_the_address_may_be_omitted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], address: str | None
) -> None:
    options: list[Any] = []
    monkeypatch.setattr(run_module, "run_target", lambda _, given: options.append(given) or 0)
    assert run(capsys, "run", *arguments, "an_operator:Good")[0] == 0  # the target is not the address
    assert run(capsys, "run", "an_operator:Good", *arguments)[0] == 0
    assert [each.console for each in options] == [address, address]


def test_environment_and_file_set_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: list[Any] = []
    monkeypatch.setattr(run_module, "run_target", lambda _, given: options.append(given) or 0)
    file = tmp_path / "config.yaml"
    file.write_text("console: 127.0.0.1:7\n")
    run(capsys, "run", "an_operator:Good", "--config", str(file))
    monkeypatch.setenv("RECONCILER_RUN_CONSOLE", "127.0.0.1:8")
    run(capsys, "run", "an_operator:Good")
    assert [each.console for each in options] == ["127.0.0.1:7", "127.0.0.1:8"]


@pytest.mark.parametrize("naive", [False, True])
def test_the_demo_serves_the_timeline_until_it_is_interrupted(naive: bool) -> None:
    command = [sys.executable, "-m", "reconciler", "demo", "--console=127.0.0.1:0", *(["--naive"] if naive else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [process.stdout.readline() for _ in range(4)]
        address = re.search(r"http://\S+/key\?\S+", shown[1])
        assert address is not None, shown
        page = ""
        while "It ran last" not in page:
            with urllib.request.urlopen(address[0]) as answer:
                page = answer.read().decode()
        assert "default/disk-full-1" in page
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
