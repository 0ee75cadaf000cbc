"""Keep the stored form of a value where the kind's model says that another form means the same.

An untyped status is compared as JSON: whether a text is a time is a guess. A model knows: a field of type ``datetime``
is a time, whatever offset and fractions it is written with; a ``Decimal`` is a number; a field with
``schema_extra(format="quantity")`` is a quantity. Models are those of a `reconciler.Resource` and the generated ones of
the official clients; none of their libraries is loaded here.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from operator import is_
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from reconciler.meta import is_object, parse_quantity, parse_time

__all__ = ["StatusForms"]

_CONTAINER = re.compile(r"(?P<kind>list|dict)\[(?:str, ?)?(?P<item>.+)\]")


class _Known(NamedTuple):
    """Hold what a model says of a value.

    Attributes:
        annotation: apart from None and notes.
        read: reads a text as what it means; None when a text means itself.
    """

    annotation: Any
    read: Callable[[str], object] | None


class StatusForms:
    """Know the forms of a typed kind's status.

    Args:
        annotation: of the status: a model, or the name of one.
        module: where the classes are that are given by name; None when none are.
    """

    def __init__(self, annotation: Any, module: str | None = None) -> None:
        self._annotation = annotation
        self._module = module

    @classmethod
    def of(cls, obj_or_kind: object) -> StatusForms | None:
        """Find the status model of a typed object or its class; None for untyped ones."""
        return _forms_of(obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind))

    def keep(self, stored: Mapping[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """Return the wanted status, with the stored form of what means the same; itself, when that is no other."""
        kept: dict[str, Any] = self._kept(_known_as(self._annotation, "", self._module), stored, wanted)
        return kept

    def _kept(self, known: _Known, stored: Any, wanted: Any) -> Any:
        if isinstance(wanted, str):
            read = known.read
            return stored if read is not None and isinstance(stored, str) and _same(read, stored, wanted) else wanted
        if isinstance(wanted, dict) and is_object(stored):
            kept = wanted
            for key, item in wanted.items():
                before = stored.get(key)
                if before is not None and before != item:
                    after = self._kept(_member_of(known.annotation, key, self._module), before, item)
                    if after is not item:
                        kept = {**kept, key: after}
            return kept
        if isinstance(wanted, list) and isinstance(stored, list):
            item = _item_of(known.annotation, self._module)
            items = [self._kept(item, *pair) for pair in zip(stored, wanted, strict=False)]
            return wanted if all(map(is_, items, wanted)) else items + wanted[len(stored) :]
        return wanted


@functools.lru_cache(maxsize=256)
def _forms_of(typed: Any) -> StatusForms | None:
    if hasattr(typed, "status_model"):
        return StatusForms(typed.status_model)
    if isinstance(fields := getattr(typed, "model_fields", None), Mapping) and "status" in fields:
        return StatusForms(fields["status"].annotation)
    if isinstance(types := getattr(typed, "openapi_types", None), Mapping) and "status" in types:
        return StatusForms(types["status"], typed.__module__.rpartition(".")[0])
    return None


@functools.lru_cache(maxsize=1024)  # a program has few kinds, and asks for the same fields in every cycle
def _known_as(annotation: Any, form: str, module: str | None) -> _Known:
    annotation, form = _resolved(annotation, form, module)
    return _Known(annotation, _READERS.get(form or _name_of(annotation)))


def _resolved(annotation: Any, form: str, module: str | None) -> tuple[Any, str]:
    """Return what an annotation is apart from None and notes, and the format that the notes give."""
    while not isinstance(annotation, type):
        arguments, origin = get_args(annotation), get_origin(annotation)
        if isinstance(annotation, str):
            by_name = None if module is None else getattr(sys.modules.get(module), annotation, None)
            return (annotation if by_name is None else by_name), form
        if origin is Annotated:
            form = next(filter(None, map(_format_of, arguments[1:])), form)
            annotation = arguments[0]
        elif origin in (Union, UnionType):
            others = [argument for argument in arguments if argument is not NoneType]
            if len(others) != 1:
                return None, form
            annotation = others[0]
        else:
            return annotation, form
    return annotation, form


@functools.lru_cache(maxsize=1024)
def _member_of(annotation: Any, key: str, module: str | None) -> _Known:
    return _known_as(*_declared(annotation, key), module)


@functools.lru_cache(maxsize=1024)
def _item_of(annotation: Any, module: str | None) -> _Known:
    return _known_as(_inner(annotation), "", module)


def _declared(annotation: Any, key: str) -> tuple[Any, str]:
    """Return annotation and format of a member of an object."""
    fields = getattr(annotation, "model_fields", None)
    if isinstance(fields, Mapping):
        for name, field in fields.items():
            if key in (name, field.serialization_alias or field.alias):
                return field.annotation, _format_of(field)
        return None, ""
    names = getattr(annotation, "attribute_map", None)
    if isinstance(names, Mapping):
        return next((annotation.openapi_types[name] for name, wire in names.items() if wire == key), None), ""
    return _inner(annotation), ""


def _format_of(note: Any) -> str:
    extra = getattr(note, "json_schema_extra", None)
    return str(extra.get("format", "")) if isinstance(extra, Mapping) else ""


def _name_of(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else str(getattr(annotation, "__name__", ""))


def _inner(annotation: Any) -> Any:
    """Return the annotation of the items of a list, or of the values of a dict."""
    if isinstance(annotation, str):
        found = _CONTAINER.fullmatch(annotation)
        return None if found is None else found["item"]
    arguments = get_args(annotation)
    return arguments[-1] if arguments else None


def _same(read: Callable[[str], object], left: str, right: str) -> bool:
    try:
        return read(left) == read(right)
    except (ValueError, ArithmeticError):
        return False


def _decimal(text: str) -> object:
    from decimal import Decimal

    return Decimal(text)


_READERS: Mapping[str, Callable[[str], object]] = {
    "datetime": parse_time,
    "Decimal": _decimal,
    "quantity": parse_quantity,
}
