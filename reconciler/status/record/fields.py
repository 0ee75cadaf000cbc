"""Know the fields of a typed kind's status, so that a name that is not on the wire fails where it is written.

A typed kind is a class with `status_model`, a model of pydantic; pydantic itself is not loaded here. What is checked is
the first key of a path, and further keys as long as each field's annotation is a model, or a model or None.
``observedGeneration`` and ``conditions`` are part of every generated schema, so they are always known. A plain model
that allows extra fields takes any name; a subclass of `reconciler.objects.Model` does not, since it allows them only to
keep what it reads: give it a field of type ``dict[str, Any]`` for free content.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from reconciler.meta import format_path, parse_path
from reconciler.status.errors import UnknownStatusField
from reconciler.status.record.json_values import plain
from reconciler.status.record.mutations import Path

__all__ = ["StatusFields"]

_ALWAYS = {
    "observedGeneration": "observedGeneration",
    "observed_generation": "observedGeneration",
    "conditions": "conditions",
}


class StatusFields:
    """Turn the names that callers write into names on the wire, and refuse unknown ones.

    Args:
        model: the status model of a typed kind; None takes every name as it is.
        kind: the kind, for messages.
    """

    def __init__(self, model: Any, kind: object) -> None:
        self._model = model if hasattr(model, "model_fields") else None
        self._kind = kind

    @classmethod
    def of(cls, obj_or_kind: object, kind: object) -> StatusFields:
        """Find the status model of a typed object or its class; anything else takes every name."""
        return _fields_of(obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind), kind)

    def path(self, path: str | Sequence[str]) -> Path:
        """Return the keys on the wire of a path.

        Raises:
            PathError: it is empty.
            UnknownStatusField: the status model has no such field.
        """
        return _path_of(self._model, self._kind, path if isinstance(path, str) else tuple(path))

    def members(self, document: Mapping[str, Any], path: Path = ()) -> dict[str, Any]:
        """Return a document whose top-level names are on the wire; deeper ones are taken as they are."""
        return {self.path((*path, str(key)))[-1]: plain(value, str(key)) for key, value in document.items()}

    def model_values(self, model: Any) -> dict[str, Any]:
        """Return the fields that were set in a status model, a mapping or a dataclass, as JSON.

        What an instance of the status model holds is not checked: it has the fields, or it read them.

        Raises:
            TypeError: it is none of these.
        """
        values = plain(model, "status")
        if not isinstance(values, dict):
            raise TypeError(f"a status is a model or a mapping, not a {type(model).__name__}; a path needs a value")
        return values if self._model is not None and isinstance(model, self._model) else self.members(values)


@functools.lru_cache(maxsize=256)  # a program has few kinds, and opens a batcher in every cycle
def _fields_of(typed: type, kind: object) -> StatusFields:
    return StatusFields(getattr(typed, "status_model", None), kind)


@functools.lru_cache(maxsize=1024)  # a program names few fields, each in every cycle
def _path_of(model: Any, kind: object, path: str | Path) -> Path:
    keys = parse_path(path)
    if model is None:
        return keys
    if keys[0] in _ALWAYS:
        return (_ALWAYS[keys[0]], *keys[1:])
    wire: list[str] = []
    for key in keys:
        name = _field(model, kind, key, (*wire, key)) if model is not None else None
        wire.append(_wire_name(model, name) if name is not None else key)
        model = _model_of(model.model_fields[name].annotation) if model is not None and name is not None else None
    return tuple(wire)


def _field(model: Any, kind: object, key: str, path: Path) -> str | None:
    for name in model.model_fields:
        if key in (name, _wire_name(model, name)):
            return str(name)
    if _is_open(model):
        return None
    known = ", ".join(sorted(_wire_name(model, name) for name in model.model_fields))
    raise UnknownStatusField(
        f"{kind} has no status field {format_path(path)!r}, so the server would drop it; "
        f"{model.__name__} has {known}. Add the field to the model, and its CRD to the cluster."
    )


def _wire_name(model: Any, name: str) -> str:
    field = model.model_fields[name]
    return str(field.serialization_alias or field.alias or name)


def _is_open(model: Any) -> bool:
    keeps_only = any(c.__name__ == "Model" and c.__module__.startswith("reconciler.objects") for c in model.__mro__)
    return model.model_config.get("extra") == "allow" and not keeps_only


def _model_of(annotation: Any) -> Any:
    """Return the model that an annotation names, alone or beside None; else None."""
    if get_origin(annotation) in (Union, UnionType):
        others = [argument for argument in get_args(annotation) if argument is not NoneType]
        annotation = others[0] if len(others) == 1 else None
    return annotation if isinstance(annotation, type) and hasattr(annotation, "model_fields") else None
