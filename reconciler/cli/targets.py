"""Find what a person named on the command line as MODULE:ATTR, and say in one line where their code fails."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import ConfigurationError, ReconcilerError

__all__ = ["load_target", "told_in_a_line"]


def load_target(target: str) -> object:
    """Import ``MODULE:ATTR`` and return the attribute; the current directory is searched too.

    Raises:
        ConfigurationError: the text has another form, there is no such module or attribute, or importing it failed.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{target!r} names nothing: write MODULE:ATTR, like 'my_operator.main:DatabaseReconciler'"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with told_in_a_line(f"module {module_name!r} cannot be imported"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise
            raise ConfigurationError(
                f"there is no module {module_name!r} on the path or in {here}: check the spelling, or install it"
            ) from error
    value: object = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            raise ConfigurationError(f"module {module_name!r} ({module.__file__}) has no {attribute!r}") from error
    return value


@contextlib.contextmanager
def told_in_a_line(what: str) -> Iterator[None]:
    """Turn what a person's own code raises into one line that names the place.

    Args:
        what: what failed, as the beginning of the line.

    Raises:
        ConfigurationError: in place of any exception that is not one of this library's.
    """
    try:
        yield
    except ReconcilerError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{what}: {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: Exception) -> str:
    """Return where an exception came from, as people look it up; a SyntaxError names its place itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"
