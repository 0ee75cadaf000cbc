"""Commands that are interrupted: they end soon, with what they found."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recording.incident import record

OPERATOR = """
import time
from tests.recording.incident import Sizes

class Hangs(Sizes):
    async def reconcile(self, request):
        if request.name == "bad":
            print("hangs", flush=True)
            time.sleep(600)
        return await super().reconcile(request)

class HangsInThread(Sizes):
    def reconcile(self, request):
        print("hangs", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("name", "number", "code", "said"),
    [
        ("Hangs", signal.SIGINT, 130, "after the interrupt were not replayed"),
        ("Hangs", signal.SIGTERM, 143, "after the interrupt were not replayed"),
        ("HangsInThread", signal.SIGTERM, 143, ""),  # its thread cannot be interrupted
    ],
)
def test_a_signal_ends_a_command_whose_operator_hangs(
    tmp_path: Path, name: str, number: signal.Signals, code: int, said: str
) -> None:
    record(tmp_path / "recording")
    (tmp_path / "hanging.py").write_text(OPERATOR)
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "replay", "recording", f"hanging:{name}", "--all"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    while "hangs" not in shown:
        shown += process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert said in out
    assert "Traceback" not in err
    assert err.splitlines()[0].startswith("replaying ")
