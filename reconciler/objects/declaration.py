"""The class line of a `Resource`: its names, models and keywords, parsed and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from reconciler.objects.markers import CELRule, PrinterColumn, Scale
from reconciler.objects.model import ConditionedStatus, Model

Scope = Literal["Namespaced", "Cluster"]

T = TypeVar("T")

API_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
CAMEL_CASE = re.compile(r"[A-Z][A-Za-z0-9]*")
_LONGEST_LABEL = 63  # of RFC 1035
_LONGEST_WARNING = 256  # of apiextensions


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind's class keywords except its names: the input of its CustomResourceDefinition."""

    singular: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    own_columns: tuple[PrinterColumn, ...]
    printer_columns: tuple[PrinterColumn, ...]
    selectable_fields: tuple[str, ...]
    rules: tuple[CELRule, ...]
    scale: Scale | None
    deprecated: bool | str
    storage: bool
    served: bool
    description: str


def plural_of(kind: str) -> str:
    """Return a kind's plural in lower case, by the rules of English.

    That is s; es after a sibilant; ies for a y after a consonant. Give ``plural=`` where the rules are wrong
    (``Mouse``, or a kind that is already a plural).
    """
    word = kind.lower()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def string_tuple(owner: str, keyword: str, values: Sequence[str]) -> tuple[str, ...]:
    """Check that a keyword is a sequence of strings; return it as a tuple.

    Raises:
        TypeError: it is a single string, whose letters would become names.
    """
    if isinstance(values, str):
        raise TypeError(f"{owner}: {keyword} must be a sequence of strings: write ({values!r},)")
    return tuple(values)


def typed_tuple(owner: str, keyword: str, values: Iterable[T], kind: type[T], example: str) -> tuple[T, ...]:
    """Check that a keyword is a sequence of declarations; return it as a tuple.

    Raises:
        TypeError: it is a single one, or contains something else.
    """
    if isinstance(values, (str, kind)) or not isinstance(values, Iterable):
        raise TypeError(f"{owner}: {keyword} must be a sequence: write {keyword}=({example},)")
    result = tuple(values)
    wrong = next((value for value in result if not isinstance(value, kind)), None)
    if wrong is not None:
        raise TypeError(f"{owner}: {keyword} contains {wrong!r}, not a {kind.__name__}: write {example}")
    return result


def columns_of(own: tuple[PrinterColumn, ...], status: type[BaseModel]) -> tuple[PrinterColumn, ...]:
    """Return the columns of a kind: its own, and those of its status model, except those of the same name.

    Ages come last, as in Kubernetes' own kinds.
    """
    taken = {column.name.lower() for column in own}
    brought = [column for column in getattr(status, "printer_columns", ()) if column.name.lower() not in taken]
    return tuple(sorted([*own, *brought], key=lambda column: column in brought and column.type == "date"))


def check_deprecated(owner: str, deprecated: bool | str) -> bool | str:
    """Check the keyword ``deprecated``, and return it.

    Raises:
        TypeError: it is text that the API refuses as a warning.
    """
    if not isinstance(deprecated, (bool, str)):
        raise TypeError(f"{owner}: deprecated must be True or a warning, not {deprecated!r}")
    if isinstance(deprecated, str) and (not 0 < len(deprecated) <= _LONGEST_WARNING or not deprecated.isprintable()):
        raise TypeError(
            f"{owner}: deprecated must be True or a warning in one line of at most {_LONGEST_WARNING} characters"
        )
    return deprecated


def check_names(
    owner: str,
    *,
    group: str,
    version: str,
    kind: str,
    plural: str,
    singular: str,
    short_names: Sequence[str],
    categories: Sequence[str],
    scope: str,
) -> None:
    """Check the names of a kind by the API's rules.

    Raises:
        TypeError: a name is invalid; the message has the class, the keyword and the rule.
    """
    rules = (
        ("group", group, API_GROUP, "a domain in lower case with at least one dot, like 'example.com'"),
        ("version", version, _LABEL, "a word in lower case, like 'v1' or 'v1alpha1'"),
        ("kind", kind, CAMEL_CASE, "a word in CamelCase, like 'Database'"),
        ("plural", plural, _LABEL, "a word in lower case, like 'databases'"),
        ("singular", singular, _LABEL, "a word in lower case, like 'database'"),
        *(("short_names", name, _LABEL, "words in lower case, like 'db'") for name in short_names),
        *(("categories", name, _LABEL, "words in lower case, like 'all'") for name in categories),
    )
    for keyword, value, pattern, rule in rules:
        if not pattern.fullmatch(value):
            raise TypeError(f"{owner}: {keyword}={value!r} must be {rule}")
        if keyword != "group" and len(value) > _LONGEST_LABEL:
            raise TypeError(f"{owner}: {keyword}={value!r} must have at most {_LONGEST_LABEL} characters")
    if scope not in get_args(Scope):
        raise TypeError(f"{owner}: scope={scope!r} must be 'Namespaced' or 'Cluster'")


def models_of(cls: type, base: type) -> tuple[type[BaseModel], type[BaseModel]]:
    """Return the spec and status models that a subclass of the generic `base` names in its brackets.

    Raises:
        TypeError: one is not a pydantic model, or the status model has a field without a default.
    """
    for written in getattr(cls, "__orig_bases__", ()):
        if get_origin(written) is base:
            spec, status = (*get_args(written), ConditionedStatus)[:2]
            return _model(cls, "spec", spec), _status_model(cls, _model(cls, "status", status))
    return Model, ConditionedStatus


def _model(cls: type, part: str, model: Any) -> type[BaseModel]:
    if model is Any:
        return Model if part == "spec" else ConditionedStatus
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{cls.__name__}: {part} must be a pydantic model, a class, not {model!r}")
    return model


def _status_model(cls: type, model: type[BaseModel]) -> type[BaseModel]:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    if required:
        raise TypeError(
            f"{cls.__name__}: {model.__name__}.{required[0]} needs a default, since a new object has no status"
        )
    return model
