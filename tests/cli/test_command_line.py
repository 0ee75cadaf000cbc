"""Exit codes, and one line per mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    code = exit_.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


def test_version_names_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("kube-reconciler ")
    assert "reconciler" in out.split("(")[1]


@pytest.mark.parametrize("arguments", [["dmeo"], ["demo", "--sped", "3"], ["demo", "--speed", "fast"], ["run"]])
def test_usage_error_exits_2_with_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("reconciler: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dmeo"], """unknown command "dmeo". Did you mean "demo"? See 'reconciler --help'"""),
        (["run", "json:loads", "--leader-election"], "--leader-election needs a value. See 'reconciler run --help'"),
    ],
)
def test_usage_error_says_what_to_write(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run(capsys, *arguments) == (2, "", f"reconciler: {message}\n")


def test_a_negative_speed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "demo", "--speed=-1")
    assert code == 1
    assert "--speed" in err


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nonsense", "MODULE:ATTR"),
        ("no_such_module:Thing", "no module 'no_such_module'"),
        ("json:Thing", "has no 'Thing'"),
        ("json:lods", "has no 'lods'. Did you mean 'loads'?"),
        ("json:loads", "must be a subclass of reconciler.Resource"),
    ],
)
def test_invalid_target_is_one_line(capsys: pytest.CaptureFixture[str], target: str, says: str) -> None:
    code, _, err = run(capsys, "crd", target)
    assert code == 1
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_crd_prints_yaml_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "crd", "notification", "--output", "json")
    assert code == 0
    assert json.loads(out)["kind"] == "CustomResourceDefinition"
    code, out, _ = run(capsys, "crd", "notification")
    assert code == 0
    assert "kind: CustomResourceDefinition" in out


def test_demo_prints_the_timeline_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--output", "json")
    facts = json.loads(out)
    assert code == 0
    assert facts["fileAttemptsAt"] == pytest.approx([0, 30, 90, 210, 450], abs=0.01)
    assert facts["consoleDeliveries"] == 1
    assert facts["cycles"] == 5
    assert facts["statusWrites"] == 5
    assert facts["phase"] == "PartiallySent"
    assert facts["phaseAt"] == pytest.approx(450, abs=0.01)


def test_naive_demo_shows_the_storm(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--naive", "--output", "json")
    facts = json.loads(out)
    assert code == 0
    assert len(facts["fileAttemptsAt"]) == 5
    assert facts["fileAttemptsAt"][-1] < 1
    assert facts["statusWrites"] > 5


def test_demo_at_speed_0_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--speed", "0")
    assert code == 0
    assert "0 s, 30 s, 90 s, 210 s, 450 s" in out
    assert "once" in out
    assert "PartiallySent at 450 s" in out
    assert "reconciler apiserver" in out


def test_a_missing_kubeconfig_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "run", "notification", "--kubeconfig", str(tmp_path / "absent"))
    assert code == 1
    assert str(tmp_path / "absent") in err
    assert len(err.strip().splitlines()) == 1


def test_a_broken_kubeconfig_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text("clusters: [")
    code, _, err = run(capsys, "run", "notification", "--kubeconfig", str(broken))
    assert code == 1
    assert str(broken) in err
    assert len(err.strip().splitlines()) == 1


def test_missing_extra_names_the_package_to_install() -> None:
    program = "import sys; sys.modules['cyclopts'] = None; from reconciler.cli import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == ("reconciler: the command line needs cyclopts: pip install 'kube-reconciler[cli]'")


COMMANDS = ("apiserver", "crd", "demo", "dev", "explain", "manifests", "new", "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_stands_for_two_things(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    shown = re.findall(r"^│ {1,4}(--[a-z][a-z-]*)", out, re.MULTILINE)
    assert (code, len(shown)) == (0, len(set(shown)))
    assert shown


FULL = "reconciler: cannot write the output: No space left on device"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full", 1, FULL),
    ],
)
def test_an_output_that_cannot_be_written_is_no_traceback(output: str, code: int, message: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m reconciler crd reconciler.notification:NotificationRequest {output}"
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.strip()) == (code, message)
