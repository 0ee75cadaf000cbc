"""Turn what a person named into what gives a manager its controllers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeGuard

from reconciler.cli.targets import told_in_a_line
from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager

__all__ = ["adder_of"]


def adder_of(found: object, target: str, *, workers: int = 1) -> Callable[[Manager], Coroutine[Any, Any, None]]:
    """Return the function that gives a manager the controllers that were found.

    Args:
        found: a Reconciler (class or instance), a sequence of them, or a function, plain or async, that takes the
            Manager.
        target: under which name it was found.
        workers: of each controller, unless the function says it.

    Raises:
        ConfigurationError: it is something else, or a class cannot be made without arguments.
    """
    reconcilers = [_instance(item, target) for item in _items(found)]
    if reconcilers:

        async def add(manager: Manager) -> None:
            for reconciler in reconcilers:
                manager.add_controller(reconciler, workers=workers)

        return add
    if isinstance(found, type) or not _takes_a_manager(found):
        raise ConfigurationError(
            f"{target!r} is {found!r}: name a Reconciler, a sequence of them, or a function that takes the Manager"
        )

    async def call(manager: Manager) -> None:
        with told_in_a_line(f"{target!r} failed"):
            added = found(manager)
            if inspect.isawaitable(added):
                await added

    return call


def _takes_a_manager(found: object) -> TypeGuard[Callable[[Manager], object]]:
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # written in C, and nothing tells what it takes
    return True


def _items(found: object) -> Sequence[object]:
    if isinstance(found, (list, tuple)):
        return found
    is_class = isinstance(found, type) and issubclass(found, Reconciler)
    return [found] if is_class or isinstance(found, Reconciler) else []


def _instance(item: object, target: str) -> Reconciler:
    if isinstance(item, type) and issubclass(item, Reconciler):
        with told_in_a_line(f"{target!r}: {item.__name__} cannot be made without arguments"):
            return item()
    if isinstance(item, Reconciler):
        return item
    raise ConfigurationError(f"{target!r} holds {item!r}, which is no Reconciler")
