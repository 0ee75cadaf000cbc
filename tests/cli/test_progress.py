"""What commands say on stderr while they work."""

import io

import pytest

from reconciler.cli.progress import Progress
from reconciler.clock import SystemClock


class ManualClock(SystemClock):
    """A clock that the test sets."""

    time = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(progress: Progress, clock: ManualClock) -> None:
    """Work through two phases, each of which reports its progress every second."""
    for name in ("copying", "comparing"):
        progress.phase(name)
        for done in range(1, 26):
            clock.time += 1
            progress.update(f"{done} of 25")


def test_a_file_gets_a_line_for_each_phase_and_at_most_one_every_ten_seconds() -> None:
    clock, stream = ManualClock(), io.StringIO()
    with Progress(stream, clock=clock) as progress:
        work(progress, clock)
    assert stream.getvalue().splitlines() == [
        "copying",
        "copying: 10 of 25",
        "copying: 20 of 25",
        "comparing",
        "comparing: 10 of 25",
        "comparing: 20 of 25",
    ]


def test_a_terminal_shows_one_line_that_changes_fits_and_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = ManualClock(), Terminal()
    with Progress(stream, clock=clock) as progress:
        progress.phase("copying")
        clock.time = 0.05
        progress.update("too soon to be read")
        clock.time = 61
        progress.update("1 of 25")
        clock.time = 62
        progress.update("far too long for it")
    shown = stream.getvalue()
    lines = [line.strip() for line in shown.replace("\x1b[2K", "").split("\r") if line.strip()]
    assert lines[:2] == ["0:00 copying", "1:01 copying: 1 of 25"]
    assert lines[2].startswith("1:02 copying: far")
    assert len(lines[2]) <= 24
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[2K"), "the line is removed"
