"""Named health checks and their report, in controller-runtime's format."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from reconciler._core.cancellation import is_cancelled
from reconciler.errors import describe_error

__all__ = ["Check", "CheckResult", "Checks", "report"]

_log = logging.getLogger("reconciler.manager")

Check = Callable[[], object | Awaitable[object]]
"""A function, plain or ``async``, that fails by raising or by returning False."""

CHECK_TIMEOUT = 10.0
"""Timeout of one check, in seconds; the kubelet's own default is 1 s."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        reason: why it failed; None if it passed.
    """

    name: str
    reason: str | None


class Checks:
    """The checks of one endpoint.

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
            TypeError: the check is not a function.
            ValueError: the name is taken, empty, or contains a slash.
        """
        given: object = check
        if not callable(given):
            if inspect.iscoroutine(given):
                given.close()  # else Python warns that it was never awaited
            raise TypeError(
                f"a {self.endpoint} check is a function without parameters, not {given!r}: write it without ()"
            )
        if not name or "/" in name:
            raise ValueError(f"{name!r} is not a valid name of a {self.endpoint} check: pass a name without '/'")
        if name in self._checks:
            raise ValueError(f"a {self.endpoint} check named {name!r} already exists")
        self._checks[name] = check

    async def run(self, names: Sequence[str]) -> list[CheckResult]:
        """Run checks concurrently. Cancellation cancels them."""
        return list(await asyncio.gather(*(self._run(name) for name in names)))

    async def _run(self, name: str) -> CheckResult:
        reason = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                result = self._checks[name]()
                if inspect.isawaitable(result):
                    result = await result
            if result is False:
                reason = "returned False"
        except TimeoutError:
            reason = f"timed out after {CHECK_TIMEOUT:g} s"
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            reason = describe_error(error)
        self._log_change(name, reason)
        return CheckResult(name, reason)

    def _log_change(self, name: str, reason: str | None) -> None:
        """Log a check when it starts to fail and when it passes again, not at every probe."""
        if reason is not None and name not in self._failing:
            self._failing.add(name)
            _log.warning("%s check %s failed: %s", self.endpoint, name, reason)
        elif reason is None and name in self._failing:
            self._failing.discard(name)
            _log.info("%s check %s passes again", self.endpoint, name)


def report(endpoint: str, results: Sequence[CheckResult], excluded: Collection[str]) -> str:
    """Return the results in controller-runtime's format; the reasons of failures go to the log only."""
    lines = [
        f"[+]{result.name} ok" if result.reason is None else f"[-]{result.name} failed: reason withheld"
        for result in results
    ]
    lines += [f"[+]{name} excluded: ok" for name in excluded]
    failed = any(result.reason is not None for result in results)
    return "\n".join([*lines, f"{endpoint} check {'failed' if failed else 'passed'}", ""])
