"""``reconciler --install-completion``, and ``python -m reconciler``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_command_line import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "completed"),
    [("reconciler de", "demo"), ("reconciler ro", "routes"), ("reconciler demo --spe", "--speed")],
)
def test_a_new_bash_completes_commands_and_options(
    capsys: pytest.CaptureFixture[str], home: Path, line: str, completed: str
) -> None:
    code, out, err = run(capsys, "--install-completion", "--shell", "bash")
    assert (code, err) == (0, "")
    assert "takes effect in a new shell" in out
    words = line.split()
    script = f"""
        . "$HOME/.bashrc"
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        _reconciler; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert completed in done.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_file(capsys: pytest.CaptureFixture[str], home: Path, shell: str) -> None:
    assert run(capsys, "--install-completion", "--shell", shell)[0] == 0
    assert any("reconciler" in path.name for path in home.rglob("*") if path.is_file())


def test_what_cannot_be_installed_is_one_line(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, "--install-completion", "--shell", "tcsh")
    assert (code, len(err.splitlines())) == (2, 1)
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    code, _, err = run(capsys, "--install-completion", "--shell", "fish")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "cannot write" in err


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from cyclopts.completion import detect

    def fails() -> str:
        raise detect.ShellDetectionError("unknown")

    monkeypatch.setattr(detect, "detect_shell", fails)
    code, _, err = run(capsys, "--install-completion")
    assert (code, err) == (1, "reconciler: cannot detect the shell: pass --shell bash, zsh or fish\n")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "reconciler", "dmeo"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("reconciler: ")
