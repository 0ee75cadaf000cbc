"""Reach the CEL engine, which is an optional dependency, from one place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.errors import MissingExtra

__all__ = ["CelType", "Overload", "cel_types", "new_environment", "require_engine"]

CelType = Any
"""A type of the engine; its stubs are not typed."""

Overload = tuple[str, bool, CelType, list[CelType], Callable[..., Any]]
"""A function: its name, whether it is called on its first argument, result, parameters, implementation."""


def require_engine() -> None:
    """Find out whether the engine is installed.

    Raises:
        MissingExtra: it is not.
    """
    try:
        import cel_expr_python  # type: ignore[import-untyped]  # noqa: F401 - asked only whether it is there
    except ModuleNotFoundError as error:
        purpose = "a CustomResourceDefinition with CEL rules on the embedded API server"
        raise MissingExtra("cel_expr_python", extra="apiserver", purpose=purpose) from error


def cel_types() -> Any:
    """Return the engine's types."""
    from cel_expr_python import cel

    return cel.Type


def new_environment(variables: Mapping[str, CelType], table: Callable[[], Sequence[Overload]]) -> Any:
    """Return an environment for compiling expressions.

    Args:
        variables: the variables that expressions may name, with their types.
        table: returns the functions beside the engine's own; called once.
    """
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_encoders, ext_optional, ext_strings  # type: ignore[import-untyped]

    extensions = [_extension(table), ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_encoders.ExtEncoders()]
    return cel.NewEnv(variables=variables, extensions=extensions)


@functools.cache
def _extension(table: Callable[[], Sequence[Overload]]) -> Any:
    from cel_expr_python import cel

    overloads: dict[str, list[Any]] = {}
    for name, member, result, parameters, implementation in table():
        known = overloads.setdefault(name, [])
        identity = f"k8s_{name.replace('.', '_')}_{len(known)}"
        known.append(cel.Overload(identity, result, parameters, member, impl=implementation))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()])
