"""The CEL engine, an optional dependency: its environments and the types and functions that Kubernetes adds to it.

Rules are compiled in one environment and run in another. The first has the types that Kubernetes adds. Since the engine
accepts no external types, each of them is a map of a type that rules cannot have otherwise. The second has the
implementations of the functions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver.encoding.text import data_file
from reconciler.errors import MissingExtra

CelType = Any
"""A type of the engine, whose stubs are not typed."""

_DECLARED_RESULTS = ("bytes", "duration", "timestamp")
"""The result types that the engine must know when it runs an expression."""
_ADDED_TYPES = {
    "kubernetes.NamedFormat": "double",
    "kubernetes.Quantity": "bool",
    "kubernetes.Semver": "int",
    "kubernetes.URL": "uint",
    "net.CIDR": "bytes",
    "net.IP": "string",
}
"""The types that Kubernetes adds, each a map of strings to maps of booleans to values of this type."""
_PLAIN = re.compile(r"map\(string, map\(bool, (\w+)\)\)")
_NAMES = {inner: name for name, inner in _ADDED_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that Kubernetes adds.

    Attributes:
        name: its name in rules.
        result: the type of its result, as `cel_type` parses it.
        parameters: the types of its parameters.
        run: the implementation.
        member: whether it is a method of its first parameter.
        runs_as: the name of the implementation, if each type of parameter needs its own.
    """

    name: str
    result: str
    parameters: tuple[str, ...]
    run: Callable[..., Any]
    member: bool = True
    runs_as: str = ""


def require_engine() -> None:
    """Raise `MissingExtra` if the engine is not installed."""
    try:
        import cel_expr_python  # type: ignore[import-untyped]  # noqa: F401 - imported to see whether it is installed
    except ModuleNotFoundError as error:
        purpose = "a CustomResourceDefinition with CEL rules on the embedded API server"
        raise MissingExtra("cel_expr_python", extra="apiserver", purpose=purpose) from error


def cel_type(name: str) -> CelType:
    """Return the type with a name as messages write it, such as ``list(string)`` or ``net.IP``."""
    from cel_expr_python import cel

    if name in _ADDED_TYPES:
        return cel.Type.Map(cel.Type.STRING, cel.Type.Map(cel.Type.BOOL, cel_type(_ADDED_TYPES[name])))
    if name.startswith("list("):
        return cel.Type.List(cel_type(name[5:-1]))
    if name.startswith("map("):
        key, _, value = name[4:-1].partition(", ")
        return cel.Type.Map(cel_type(key), cel_type(value))
    return getattr(cel.Type, name.upper())


def named_types(message: str) -> str:
    """Return an error message of the engine with the types that Kubernetes adds under their own names."""
    return _PLAIN.sub(lambda found: _NAMES.get(found[1], found[0]), message)


def checking_environment(variables: Mapping[str, CelType], functions: Callable[[], Sequence[Function]]) -> Any:
    """Return an environment for compiling expressions."""
    return _new_environment(variables, _declarations(functions))


@functools.cache
def running_environment(functions: Callable[[], Sequence[Function]]) -> Any:
    """Return the environment for running expressions that were compiled in a checking environment."""
    return _new_environment({}, _implementations(functions))


def _new_environment(variables: Mapping[str, CelType], extension: Any) -> Any:
    from cel_expr_python import cel

    config = cel.NewEnvConfigFromYaml(data_file("cel/environment.yaml").decode())
    return cel.NewEnv(config=config, variables=variables, extensions=[extension])


@functools.cache
def _declarations(functions: Callable[[], Sequence[Function]]) -> Any:
    from cel_expr_python import cel

    overloads: dict[str, list[Any]] = {}
    for function in functions():
        known = overloads.setdefault(function.name, [])
        identity = function.runs_as or f"k8s_{function.name}_{len(known)}"
        parameters = [cel_type(name) for name in function.parameters]
        known.append(cel.Overload(identity, cel_type(function.result), parameters, function.member))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()])


@functools.cache
def _implementations(functions: Callable[[], Sequence[Function]]) -> Any:
    from cel_expr_python import cel

    overloads: dict[str, list[Any]] = {}
    seen = set()
    for function in functions():
        name = function.runs_as or function.name
        types = tuple(map(_runtime_type, function.parameters))
        if (name, function.member, types) in seen:
            continue
        seen.add((name, function.member, types))
        known = overloads.setdefault(name, [])
        parameters = [cel_type(type_name) for type_name in types]
        result = cel_type(function.result if function.result in _DECLARED_RESULTS else "dyn")
        known.append(cel.Overload(f"run_{name}_{len(known)}", result, parameters, function.member, impl=function.run))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()])


def _runtime_type(name: str) -> str:
    """Return the type of a parameter as far as it is known when an expression runs."""
    return "map(string, dyn)" if name in _ADDED_TYPES else "list(dyn)" if name.startswith("list(") else name
