"""A replica of the operator: successive processes of ``reconciler run notification``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.faults.channels import CLOCK, PORT

ROOT = Path(__file__).parents[3]
STARTER = ROOT / "tests" / "notification" / "starter.py"


@dataclass
class ProcessLife:
    """One process, from start to end.

    Attributes:
        stopped: the periods during which it was stopped by SIGSTOP.
        code: its exit code; negative for a signal.
    """

    pid: int
    started: float
    ended: float = float("inf")
    stopped: list[tuple[float, float]] = field(default_factory=list)
    code: int | None = None


class Replica:
    """A process of the operator that is kept running.

    Args:
        user: its user in the control plane.
        options: the command line after ``reconciler``.
        directory: its working directory; ``site`` in it contains the channels.
        port: the port of the receiver.
    """

    def __init__(self, user: str, options: Sequence[str], directory: Path, port: str) -> None:
        self.user = user
        self.lives: list[ProcessLife] = []
        self._options = options
        self._directory = directory
        self._clock = directory / f"{user}.clock"
        self._port = port
        self._ending = False
        self._up = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def life(self) -> ProcessLife:
        return self.lives[-1]

    async def up(self) -> None:
        """Wait until a process is running."""
        if self._task.done():
            self._task.result()
        await self._up.wait()

    async def _run(self) -> None:
        path = os.pathsep.join([str(self._directory / "site"), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, PORT: self._port, CLOCK: str(self._clock)}
        with (self._directory / f"{self.user}.log").open("ab") as log:
            starter = await asyncio.create_subprocess_exec(
                sys.executable,
                str(STARTER),
                *self._options,
                cwd=self._directory,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert starter.stdin is not None
        assert starter.stdout is not None
        while not self._ending:
            starter.stdin.write(b"run\n")
            self.lives.append(ProcessLife(int(await starter.stdout.readline()), time.time()))
            self._up.set()
            self.life.code = int(await starter.stdout.readline())
            self._up.clear()
            self.life.ended = time.time()
        starter.stdin.close()
        await starter.wait()

    async def kill(self) -> None:
        """Kill the process with SIGKILL; the next one starts immediately."""
        await self.up()
        life = self.life
        os.kill(life.pid, signal.SIGKILL)
        while life.code is None:  # noqa: ASYNC110 - another task reads it
            await asyncio.sleep(0.01)

    def set_clock(self, wrong_by: float) -> None:
        """Set the wall clock of the process, and of those to come, to a wrong time."""
        file = self._clock.with_suffix(".new")
        file.write_text(str(wrong_by))
        file.replace(self._clock)

    async def stop_for(self, seconds: float) -> None:
        """Stop the process with SIGSTOP for some seconds."""
        await self.up()
        life, began = self.life, time.time()
        os.kill(life.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(life.pid, signal.SIGCONT)
            life.stopped.append((began, time.time()))

    async def end(self) -> int | None:
        """Terminate the process; return its exit code."""
        self._ending = True
        if self._up.is_set():
            os.kill(self.life.pid, signal.SIGTERM)
        await self._task
        return self.life.code

    async def abandon(self) -> None:
        """Kill the process if it is running."""
        self._ending = True
        if self._up.is_set() and self.life.code is None:
            os.kill(self.life.pid, signal.SIGKILL)
        await asyncio.wait({self._task}, timeout=10)
