"""Targets on the command line: ``MODULE:ATTR`` names, their import, and the controllers that they stand for.

The pyproject.toml of the current directory may name the target of its project.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.manager import Manager
from reconciler.objects import Resource

PYPROJECT = Path("pyproject.toml")


def read_pyproject() -> dict[str, Any] | None:
    """Return the document; None if there is no such file.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{PYPROJECT}: not a readable TOML file: {error}") from error


def load_target(target: str) -> object:
    """Import ``MODULE:ATTR`` and return the attribute; modules in the current directory are found too.

    Raises:
        ConfigurationError: the target is invalid, the module or the attribute does not exist, or the import failed.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{target!r} is not a valid target: write MODULE:ATTR, such as 'my_operator.main:DatabaseReconciler', "
            "or 'notification'"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with one_line_errors(f"cannot import module {module_name!r}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise
            raise ConfigurationError(
                f"no module {module_name!r} on the Python path or in {here}: check the spelling, or install it"
            ) from error
    value: object = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            similar = difflib.get_close_matches(part, dir(value), n=1)
            hint = f". Did you mean {similar[0]!r}?" if similar else ""
            raise ConfigurationError(
                f"module {module_name!r} ({module.__file__}) has no {attribute!r}{hint}"
            ) from error
    return value


def load_resource(target: str) -> type[Resource]:
    """Return the Resource class that a target names; ``"notification"`` names `NotificationRequest`.

    Raises:
        ConfigurationError: the target is not a Resource class.
    """
    if target == "notification":
        from reconciler.notification import NotificationRequest

        return NotificationRequest
    found = load_target(target)
    if not (isinstance(found, type) and issubclass(found, Resource)):
        raise ConfigurationError(f"{target!r} must be a subclass of reconciler.Resource, not {found!r}")
    return found


def operator_name(target: str) -> str:
    """Return the default name of an operator's objects: that of its module."""
    module = target.partition(":")[0].rpartition(".")[2].lower()
    return re.sub(r"[^a-z0-9]+", "-", module).strip("-") or "operator"


def setup_function(found: object, target: str, *, workers: int = 1) -> Callable[[Manager], Coroutine[Any, Any, None]]:
    """Return the function that adds a target's controllers to a manager.

    Args:
        found: a Reconciler (class or instance), a sequence of them, or a function, plain or async, that takes the
            Manager.
        target: the name of the target, for messages.
        workers: workers per controller; a function sets them itself.

    Raises:
        ConfigurationError: the target is something else, or a class cannot be created without arguments.
    """
    reconcilers = [_instance(item, target) for item in _items(found)]
    if reconcilers:

        async def add_controllers(manager: Manager) -> None:
            for reconciler in reconcilers:
                manager.add_controller(reconciler, workers=workers)

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
