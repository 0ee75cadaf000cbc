"""The pyproject.toml of the project in the current directory."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from reconciler.errors import ConfigurationError

__all__ = ["PYPROJECT", "read_pyproject"]

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
