"""Reach the CEL engine, which is an optional dependency, from one place.

Rules are compiled in one environment and run in another. The first knows the types that Kubernetes adds; since the
engine takes no types from outside, each is a map of a kind that nothing else is. The second knows how functions are
carried out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.errors import MissingExtra

__all__ = [
    "CelType",
    "Function",
    "cel_type",
    "checking_environment",
    "named_types",
    "require_engine",
    "running_environment",
]

CelType = Any
"""A type of the engine; its stubs are not typed."""

_CONFIG = """
name: kubernetes
extensions:
- name: lists
- name: optional
- name: sets
- name: strings
  version: 2
- name: two-var-comprehensions
"""
_SCALARS = ("bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "uint")
_APART = ("bytes", "duration", "timestamp")
"""The types of results that the engine has to be told of."""
_ADDED = {
    "kubernetes.NamedFormat": "double",
    "kubernetes.Quantity": "bool",
    "kubernetes.Semver": "int",
    "kubernetes.URL": "uint",
    "net.CIDR": "bytes",
    "net.IP": "string",
}
"""The types that Kubernetes adds, each a map of texts to maps of truths to this."""


@dataclass(frozen=True, slots=True)
class Function:
    """Hold a function that Kubernetes adds.

    Attributes:
        name: how rules call it.
        result: the type of its result, as `cel_type` reads it.
        parameters: the types of its parameters.
        run: carries it out.
        member: whether it is called on its first parameter.
        runs_as: the name under which it is carried out, if that depends on its types.
    """

    name: str
    result: str
    parameters: tuple[str, ...]
    run: Callable[..., Any]
    member: bool = True
    runs_as: str = ""


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


def cel_type(name: str) -> CelType:
    """Return the type that messages call by a name, such as ``list(string)`` or ``net.IP``."""
    from cel_expr_python import cel

    if name in _ADDED:
        return cel.Type.Map(cel.Type.STRING, cel.Type.Map(cel.Type.BOOL, cel_type(_ADDED[name])))
    if name.startswith("list("):
        return cel.Type.List(cel_type(name[5:-1]))
    if name.startswith("map("):
        key, _, value = name[4:-1].partition(", ")
        return cel.Type.Map(cel_type(key), cel_type(value))
    return getattr(cel.Type, name.upper())


_PLAIN = re.compile(r"map\(string, map\(bool, (\w+)\)\)")
_NAMES = {inner: name for name, inner in _ADDED.items()}


def named_types(message: str) -> str:
    """Return a message of the engine with the types that Kubernetes adds called by their names."""
    return _PLAIN.sub(lambda found: _NAMES.get(found[1], found[0]), message)


def checking_environment(variables: Mapping[str, CelType], functions: Callable[[], Sequence[Function]]) -> Any:
    """Return an environment for compiling expressions.

    Args:
        variables: the variables that expressions may name, with their types.
        functions: returns the functions beside the engine's own; called once.
    """
    return _new_environment(variables, _declared(functions))


@functools.cache
def running_environment(functions: Callable[[], Sequence[Function]]) -> Any:
    """Return the environment for running expressions that were compiled in another one."""
    return _new_environment({}, _carried_out(functions))


def pattern_problem(pattern: str) -> str:
    """Return what is wrong with a regular expression in the words of Go's parser, or nothing."""
    outcome = _matcher().eval(data={"pattern": pattern})
    if outcome.type().name() != "ERROR":
        return ""
    what, _, where = str(outcome.value()).partition("invalid regular expression: ")[2].partition(": ")
    if where.startswith("(?<"):
        what, where = "invalid named capture", pattern[pattern.index("(?<") :]
    return f"error parsing regexp: {_OF_PATTERNS.get(what, what)}: `{where}`"


_OF_PATTERNS = {
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
}


@functools.cache
def _matcher() -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")


def _new_environment(variables: Mapping[str, CelType], extension: Any) -> Any:
    from cel_expr_python import cel

    config = cel.NewEnvConfigFromYaml(_CONFIG)
    return cel.NewEnv(config=config, variables=variables, extensions=[extension])


@functools.cache
def _declared(functions: Callable[[], Sequence[Function]]) -> Any:
    from cel_expr_python import cel

    overloads: dict[str, list[Any]] = {}
    for function in functions():
        known = overloads.setdefault(function.name, [])
        identity = function.runs_as or f"k8s_{function.name}_{len(known)}"
        parameters = [cel_type(name) for name in function.parameters]
        known.append(cel.Overload(identity, cel_type(function.result), parameters, function.member))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()])


@functools.cache
def _carried_out(functions: Callable[[], Sequence[Function]]) -> Any:
    from cel_expr_python import cel

    overloads: dict[str, list[Any]] = {}
    seen = set()
    for function in functions():
        name = function.runs_as or function.name
        kinds = tuple(map(_kind, function.parameters))
        if (name, function.member, kinds) in seen:
            continue
        seen.add((name, function.member, kinds))
        known = overloads.setdefault(name, [])
        parameters = [cel_type(kind) for kind in kinds]
        result = cel_type(function.result if function.result in _APART else "dyn")
        known.append(cel.Overload(f"run_{name}_{len(known)}", result, parameters, function.member, impl=function.run))
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()])


def _kind(name: str) -> str:
    """Return what tells parameters apart when an expression runs."""
    return "map(string, dyn)" if name in _ADDED else "list(dyn)" if name.startswith("list(") else name
