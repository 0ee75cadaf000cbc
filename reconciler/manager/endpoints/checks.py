"""Answer whether the process lives and is ready: named checks, in controller-runtime's format."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from reconciler.errors import error_text

__all__ = ["Check", "Checks", "Verdict", "report"]

_log = logging.getLogger("reconciler.manager")

Check = Callable[[], object | Awaitable[object]]
"""A function, plain or ``async``. It fails by raising, or by returning False."""

CHECK_TIMEOUT = 10.0
"""Seconds that one check may take; the kubelet gives up much earlier unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say how one check went.

    Attributes:
        name: of the check.
        reason: why it fails, None when it passes.
    """

    name: str
    reason: str | None


class Checks:
    """Hold the checks of one endpoint.

    Args:
        endpoint: ``healthz`` or ``readyz``.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._checks: dict[str, Check] = {"ping": lambda: True}
        self._failing: set[str] = set()

    @property
    def names(self) -> Collection[str]:
        """Return the names of all checks."""
        return self._checks.keys()

    def add(self, name: str, check: Check) -> None:
        """Add a check.

        Raises:
            ValueError: the name is taken, empty, or holds a slash.
        """
        if not name or "/" in name:
            raise ValueError(f"a {self.endpoint} check needs a name without '/', not {name!r}")
        if name in self._checks:
            raise ValueError(f"there is a {self.endpoint} check {name!r} already")
        self._checks[name] = check

    async def run(self, names: Sequence[str]) -> list[Verdict]:
        """Run some checks side by side. Cancellation cancels them."""
        return list(await asyncio.gather(*(self._run(name) for name in names)))

    async def _run(self, name: str) -> Verdict:
        reason = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                result = self._checks[name]()
                if inspect.isawaitable(result):
                    result = await result
            if result is False:
                reason = "it returned False"
        except TimeoutError:
            reason = f"no answer within {CHECK_TIMEOUT:g} s"
        except Exception as error:  # noqa: BLE001 - a check fails by raising whatever it likes
            reason = f"{type(error).__name__}: {error_text(error)}"
        self._log_change(name, reason)
        return Verdict(name, reason)

    def _log_change(self, name: str, reason: str | None) -> None:
        """Log a check when it begins to fail and when it passes again, not each time somebody asks."""
        if reason is not None and name not in self._failing:
            self._failing.add(name)
            _log.warning("%s check %s fails: %s", self.endpoint, name, reason)
        elif reason is None and name in self._failing:
            self._failing.discard(name)
            _log.info("%s check %s passes again", self.endpoint, name)


def report(endpoint: str, verdicts: Sequence[Verdict], excluded: Collection[str]) -> str:
    """Write a list of verdicts as controller-runtime does; reasons go to the log, not to whoever asks."""
    lines = [
        f"[+]{verdict.name} ok" if verdict.reason is None else f"[-]{verdict.name} failed: reason withheld"
        for verdict in verdicts
    ]
    lines += [f"[+]{name} excluded: ok" for name in excluded]
    failed = any(verdict.reason is not None for verdict in verdicts)
    return "\n".join([*lines, f"{endpoint} check {'failed' if failed else 'passed'}", ""])
