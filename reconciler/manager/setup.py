"""Operators as values: a Reconciler, several, or a function that adds controllers to a manager."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeGuard

from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.manager.manager import Manager


def setup_function(found: object, target: str, **options: Any) -> Callable[[Manager], Coroutine[Any, Any, None]]:
    """Return the function that adds a target's controllers to a manager.

    Args:
        found: a Reconciler (class or instance), a sequence of them, or a function, plain or async, that takes the
            Manager.
        target: the name of the target, for messages.
        options: options of each controller; a function sets them itself.

    Raises:
        ConfigurationError: the target is something else, or a class cannot be created without arguments.
    """
    reconcilers = [_instance(item, target) for item in _items(found)]
    if reconcilers:

        async def add_controllers(manager: Manager) -> None:
            for reconciler in reconcilers:
                manager.add_controller(reconciler, **options)

        return add_controllers
    if isinstance(found, type) or not _takes_manager(found):
        raise ConfigurationError(
            f"{target!r} must be a Reconciler, a sequence of them, or a function that takes the Manager, not {found!r}"
        )

    async def call(manager: Manager) -> None:
        with one_line_errors(f"{target!r} failed"):
            result = found(manager)
            if inspect.isawaitable(result):
                await result

    return call


@contextlib.contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn an exception of the user's code into a one-line error with file and line.

    Args:
        what: what failed; the beginning of the line.

    Raises:
        ConfigurationError: in place of any exception that is not a `ReconcilerError`.
    """
    try:
        yield
    except ReconcilerError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{what}: {type(error).__name__}: {error}{_location(error)}") from error


def _location(error: Exception) -> str:
    """Return where an exception was raised; ``""`` if that is here, or for a SyntaxError, which says so itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames or frames[-1].filename == __file__:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _takes_manager(found: object) -> TypeGuard[Callable[[Manager], object]]:
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # written in C: its signature is unknown
    return True


def _items(found: object) -> Sequence[object]:
    if isinstance(found, (list, tuple)):
        return found
    is_class = isinstance(found, type) and issubclass(found, Reconciler)
    return [found] if is_class or isinstance(found, Reconciler) else []


def _instance(item: object, target: str) -> Reconciler:
    if isinstance(item, type) and issubclass(item, Reconciler):
        with one_line_errors(f"{target!r}: {item.__name__} cannot be created without arguments"):
            return item()
    if isinstance(item, Reconciler):
        return item
    raise ConfigurationError(f"{target!r} contains {item!r}, which is not a Reconciler")
