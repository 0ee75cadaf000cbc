"""Contender processes: started here, read by their marks, and measured from outside."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0
"""Seconds for a mark to come."""


class ContenderFailed(Exception):
    """A contender ended, or said nothing for too long."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: in tables.
        command: program and first arguments.
    """

    name: str
    command: tuple[str, ...]


def python(module: str, name: str, *arguments: str, interpreter: str = sys.executable) -> Contender:
    """Return a contender that is a module in `contenders`."""
    return Contender(name, (interpreter, "-m", f"tests.benchmarks.contenders.{module}", *arguments))


class Run:
    """One run of a contender, as an ``async with`` block."""

    def __init__(self, contender: Contender, arguments: Sequence[str]) -> None:
        self._command = (*contender.command, *arguments)
        self._name = contender.name
        self.marks: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 60)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def mark(self, name: str) -> dict[str, Any]:
        """Wait for a mark."""
        async with asyncio.timeout(PATIENCE):
            while name not in self.marks:
                line = await self._process.stdout.readline()  # type: ignore[union-attr]
                if not line:
                    raise ContenderFailed(f"{self._name} ended before its mark {name!r}")
                found = json.loads(line)
                self.marks[found["mark"]] = found
        return self.marks[name]

    async def say(self, word: str) -> None:
        """Write a line to the contender."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(word.encode() + b"\n")
        await stdin.drain()

    async def stats(self) -> dict[str, Any]:
        """Ask for its counts and CPU time now."""
        self.marks.pop("stats", None)
        await self.say("stats")
        return await self.mark("stats")

    def memory(self) -> tuple[float, float]:
        """Return its resident memory now and at its highest, in MB (10⁶ bytes)."""
        return memory(self._process.pid)


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process now and at its highest, in MB (10⁶ bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, peak


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
