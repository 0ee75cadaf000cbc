"""The decorator that makes a pytest test of a scenario."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from reconciler._core.durations import DurationLike
from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError
from reconciler.testing.explore.exploration import Budget, Exploration, Failure, Outcome
from reconciler.testing.explore.oracles import ORACLES
from reconciler.testing.explore.report import page_of, report
from reconciler.testing.explore.run import Subject


class ExplorationFailed(AssertionError):
    """An exploration found something. The message is the report."""


def operator(
    reconciler: object,
    /,
    *,
    owns: Sequence[object] = (),
    budget: Budget | DurationLike | None = None,
    seed: int = 0,
    disturbances: Collection[str] | None = None,
    oracles: Collection[str] | None = None,
    without: Collection[str] = (),
    pairs: bool = False,
    roles: bool = True,
    definitions: Sequence[object] = (),
    **options: Any,
) -> Callable[[Callable[..., Awaitable[object]]], Callable[..., None]]:
    """Make a pytest test of a scenario, which explores an operator: crashes, late views, lost responses, other writers.

    The decorated function is ``async``, takes a `World`, and says what users do. It runs many times, each time in a new
    world. The test is an ordinary function for pytest, and for a script that calls it without arguments; fixtures that
    it names are shared by all runs. It raises `ExplorationFailed`.

    Args:
        reconciler: a Reconciler class, several, or a function that takes a Manager and adds controllers to it.
        owns: the kinds that its objects own, as for `Manager.add_controller`.
        budget: seconds of CPU, or a `Budget`. Default: 30 s.
        seed: the seed of everything random. Default 0.
        disturbances: the families to try. Default: all.
        oracles: the oracles to ask. Default: all.
        without: oracles that are not asked. Default: none.
        pairs: whether each crash is also combined with each lagging watch. Default False.
        roles: whether the operator runs once with no more permissions than its roles have. Default True.
        definitions: CustomResourceDefinitions and other objects that exist before; those of the operator's kinds are
            added.
        options: further options of the controllers.

    Raises:
        ConfigurationError: an argument is invalid.
        TypeError: the decorated function is not ``async``, or takes no world.
    """
    is_class = isinstance(reconciler, (list, tuple)) or (
        isinstance(reconciler, type) and issubclass(reconciler, Reconciler)
    )
    if owns:
        options["owns"] = list(owns)
    if options and not is_class:
        raise ConfigurationError(f"{', '.join(options)}: a function that adds controllers sets their options itself")
    limit = budget if isinstance(budget, Budget) or budget is None else Budget(seconds=budget)
    asked = [name for name in (ORACLES if oracles is None else oracles) if name not in without]

    def decorate(scenario: Callable[..., Awaitable[object]]) -> Callable[..., None]:
        signature = inspect.signature(scenario)
        if not inspect.iscoroutinefunction(scenario) or not signature.parameters:
            raise TypeError(f"explore.operator is for an 'async def' function that takes a World, not {scenario!r}")
        fixtures = list(signature.parameters.values())[1:]

        @functools.wraps(scenario)
        def test(*, request: Any = None, **given: Any) -> None:
            __tracebackhide__ = True
            subject = Subject(reconciler, functools.partial(_with_fixtures, scenario, given), options, definitions)
            exploration = Exploration(
                subject, budget=limit, seed=seed, families=disturbances, oracles=asked, pairs=pairs, roles=roles
            )
            token = "" if request is None else request.config.getoption("--explore-run")
            outcome = _repeated(exploration, token) if token else exploration.explore()
            if outcome.failures:
                text = _report(outcome.failures[0], outcome, request)
                raise ExplorationFailed(text)

        keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in fixtures]
        requested = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY)
        named = [each for each in keyword if each.name != "request"]
        test.__signature__ = inspect.Signature([requested, *named])  # type: ignore[attr-defined]
        del test.__wrapped__  # pytest would look for the fixtures of the scenario
        return test

    return decorate


def _with_fixtures(scenario: Callable[..., Awaitable[object]], given: dict[str, Any], world: object) -> Any:
    return scenario(world, **given)


def _repeated(exploration: Exploration, token: str) -> Outcome:
    failure = exploration.repeat(token)
    return Outcome([failure] if failure.findings else [])


def _report(failure: Failure, outcome: Outcome, request: Any) -> str:
    test = "FILE::TEST" if request is None else request.node.nodeid
    text = report(failure, outcome, repeat=f"pytest '{test}' --explore-run='{failure.token}'")
    if request is None:
        return text
    page = request.config.getoption("--explore-html")
    if page:
        Path(page).write_text(page_of(failure, title=request.node.nodeid, text=text), encoding="utf-8")
        text += f"\n\nThe same as a page: {page}"
    return text
