"""Find what a person named on the command line as MODULE:ATTR."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from reconciler.errors import ConfigurationError

__all__ = ["load_target"]


def load_target(target: str) -> object:
    """Import ``MODULE:ATTR`` and return the attribute; the current directory is searched too.

    Raises:
        ConfigurationError: the text has another form, or there is no such module or attribute.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{target!r} names nothing: write MODULE:ATTR, like 'my_operator.main:DatabaseReconciler'"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
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
