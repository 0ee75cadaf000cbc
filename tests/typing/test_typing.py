"""Both type checkers accept every correct use and report every wrong one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = [str(HERE / "right_uses.py"), str(HERE / "wrong_uses.py")]
MYPY = [sys.executable, "-m", "mypy", "--strict", "--disallow-any-unimported", "--no-error-summary"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]

# A cold mypy reads the models of two Kubernetes clients.
pytestmark = pytest.mark.timeout(300)


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280).stdout


def test_mypy_accepts_the_right_uses_and_reports_each_wrong_one(tmp_path: Path) -> None:
    """Each ignore comment stands for one report. One run checks all: a cold one takes a minute."""
    lines = (HERE / "wrong_uses.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# type: ignore[" in line}
    stripped = tmp_path / "stripped.py"
    stripped.write_text("\n".join(line.partition("  # type: ignore[")[0] for line in lines))
    answer = run(*MYPY, *FILES, str(stripped)).splitlines()
    assert [line for line in answer if "stripped.py:" not in line] == []
    assert {int(number) for line in answer for number in re.findall(r"stripped\.py:(\d+): error", line)} == expected
    assert len(expected) > 40


def test_pyright_accepts_the_right_uses_and_reports_the_wrong_ones() -> None:
    answer = run(*PYRIGHT, *FILES)
    assert answer.strip() == "0 errors, 0 warnings, 0 informations"
