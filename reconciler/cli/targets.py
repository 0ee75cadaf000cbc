"""Targets on the command line: ``MODULE:ATTR`` names, and their import.

The pyproject.toml of the current directory may name the target of its project.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from reconciler.errors import ConfigurationError
from reconciler.manager.setup import one_line_errors
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
