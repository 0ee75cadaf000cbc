"""The status model of a kind: the names of the fields, and which strings mean the same.

Models are those of a `reconciler.Resource` (a class with `status_model`). pydantic is not loaded here.

**Names.** The first key of a path is checked, and further keys as long as each field's annotation is a model, or a
model or None. ``observedGeneration`` and ``conditions`` are part of every generated schema, so they are always valid. A
plain model that allows extra fields accepts any name. A subclass of `reconciler.objects.Model` does not: it allows
extra fields only to keep what it reads. For free content use a field of type ``dict[str, Any]``.

**Forms.** An untyped status is compared as JSON, since nothing says which strings are times. A model defines it: a
field of type ``datetime`` is a time, whatever its offset and fractions; a ``Decimal`` is a number; a field with
``schema_extra(format="quantity")`` is a quantity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

from reconciler.meta.documents import encodable, format_path, is_object, parse_path, parse_quantity, parse_time
from reconciler.meta.metadata import check_condition
from reconciler.status.documents import to_json
from reconciler.status.errors import UnknownStatusField
from reconciler.status.mutations import (
    Append,
    Increment,
    Merge,
    Mutation,
    Path,
    PathLike,
    Remove,
    RemoveItem,
    Set,
    SetCondition,
    Upsert,
)

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler._core.wire import JSONObject

_ALWAYS = {
    "observedGeneration": "observedGeneration",
    "observed_generation": "observedGeneration",
    "conditions": "conditions",
}


UNSET: Any = object()
"""The default of an argument for which None is a value."""


class StatusFields:
    """The fields of a status: translates Python names into wire names, rejects unknown ones, and builds mutations.

    Args:
        model: the status model of a typed kind; None accepts every name as it is.
        kind: the kind, for messages.

    Attributes:
        demands_api_conditions: whether the definition that is generated for the kind accepts only conditions that are a
            metav1.Condition. Other definitions, and those of kinds without a class, are not known here.
    """

    def __init__(self, model: Any, kind: object) -> None:
        self._model = model if hasattr(model, "model_fields") else None
        self._kind = kind
        self.demands_api_conditions = self._model is not None and _demands_api_conditions(model, kind)

    def path(self, path: PathLike) -> Path:
        """Return the wire keys of a path.

        Raises:
            PathError: the path is empty.
            UnknownStatusField: the status model has no such field.
        """
        return _path_of(self._model, self._kind, path if isinstance(path, str) else tuple(path))

    def members(self, document: Mapping[str, Any]) -> JSONObject:
        """Return a document with wire names at the top level; deeper names stay as they are."""
        return {self.path((str(key),))[-1]: to_json(value, str(key)) for key, value in document.items()}

    def model_values(self, model: Any) -> JSONObject:
        """Return the fields that were set in a status model, a mapping or a dataclass, as JSON.

        The names in an instance of the status model are not checked: the model declares them, or has read them.

        Raises:
            TypeError: it is something else.
        """
        values = to_json(model, "status")
        if not isinstance(values, dict):
            raise TypeError(f"a status is a model or a mapping, not a {type(model).__name__}; a path needs a value")
        return values if self._model is not None and isinstance(model, self._model) else self.members(values)

    # The mutations for the arguments of a batcher's verbs. `StatusBatcher` documents the arguments.

    def set(self, target: Any, value: object, overwrite: bool | None, fields: Mapping[str, object]) -> list[Mutation]:
        """Build one mutation for each field."""
        found: list[Mutation] = []
        if value is not UNSET:
            path = self.path(target)
            found.append(Set(path, to_json(value, ".".join(path)), overwrite))
        elif isinstance(target, str):
            raise TypeError(f"set({target!r}) needs a value: set({target!r}, value)")
        elif target is not None:
            found += [Set((key,), item, overwrite) for key, item in self.model_values(target).items()]
        for name, item in fields.items():
            found.append(Set(_path_of(self._model, self._kind, (name,)), to_json(item, name), overwrite))
        return found

    def merge(self, target: Any, document: Any, fields: Mapping[str, object]) -> list[Mutation]:
        """Build one mutation; none if there is nothing to merge."""
        if document is not None:
            path = self.path(target)
            return [Merge(path, _object(to_json(document, ".".join(path))))]
        members = self.members({**_object(target if target is not None else {}), **fields})
        return [Merge((), members)] if members else []

    def append(
        self, path: PathLike, item: object, keep_last: int | None, count_dropped: PathLike | None, key: PathLike | None
    ) -> Mutation:
        """Build an append."""
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last must be 1 or more, not {keep_last}; remove() empties a list")
        if count_dropped is not None and keep_last is None:
            raise ValueError("count_dropped counts the entries that keep_last drops: pass both")
        keys, value = self._item(path, item)
        counter = None if count_dropped is None else self.path(count_dropped)
        return Append(keys, value, keep_last, None if key is None else _key_of(value, key), counter)

    def upsert(self, path: PathLike, item: object, key: PathLike) -> Mutation:
        """Build an upsert."""
        keys, value = self._item(path, item)
        return Upsert(keys, value, _key_of(value, key))

    def increment(self, path: PathLike, by: float) -> Mutation:
        """Build an increment."""
        if isinstance(by, bool) or not isinstance(by, (int, float)):
            raise TypeError(f"increment adds a number, not a {type(by).__name__}")
        if not math.isfinite(by):
            raise ValueError("increment adds a finite number")
        return Increment(self.path(path), by)

    def remove(self, path: PathLike, item: Mapping[str, Any] | None) -> Mutation:
        """Build the removal of a field, or of list items."""
        if item is None:
            return Remove(self.path(path))
        keys, members = self._item(path, item)
        if not isinstance(members, dict) or not members:
            raise ValueError("item names the members of the items to remove: {'name': 'mail'}; without it all go")
        return RemoveItem(keys, members)

    def set_condition(
        self,
        type: str,
        status: bool | str,
        *,
        reason: str,
        message: str,
        path: PathLike,
        generation: int | None,
        now: datetime,
    ) -> Mutation:
        """Build the mutation that sets a condition."""
        keys = self.path(path)
        try:
            sendable = (type + reason + message).isascii()
        except (TypeError, AttributeError):  # not texts
            sendable = False
        if not sendable:
            type, reason, message = _text("type", type), _text("reason", reason), _text("message", message)  # noqa: A001
        if keys == ("conditions",) and self.demands_api_conditions:
            check_condition(type, reason, message)
        return SetCondition(keys, type, status, reason, message, generation, now)

    def _item(self, path: PathLike, item: object) -> tuple[Path, Any]:
        keys = self.path(path)
        return keys, to_json(item, ".".join(keys))


@functools.lru_cache(maxsize=256)  # a program has few kinds, and opens a batcher in every reconcile
def fields_of(typed: type, kind: object) -> StatusFields:
    """Return the fields for the class of a typed object; anything else accepts every name."""
    return StatusFields(getattr(typed, "status_model", None), kind)


@functools.lru_cache(maxsize=1024)  # a program uses few fields, each in every reconcile
def _path_of(model: Any, kind: object, path: str | Path) -> Path:
    keys = parse_path(path)
    if model is None:
        return keys
    if keys[0] in _ALWAYS:
        return (_ALWAYS[keys[0]], *keys[1:])
    wire: list[str] = []
    for key in keys:
        name = _member_name(model, kind, key, (*wire, key)) if model is not None else None
        wire.append(_wire_name(model, name) if name is not None else key)
        model = _model_of(model.model_fields[name].annotation) if model is not None and name is not None else None
    return tuple(wire)


def _member_name(model: Any, kind: object, key: str, path: Path) -> str | None:
    for name in model.model_fields:
        if key in (name, _wire_name(model, name)):
            return str(name)
    if _accepts_any_name(model):
        return None
    known = ", ".join(sorted(_wire_name(model, name) for name in model.model_fields))
    raise UnknownStatusField(
        f"{kind} has no status field {format_path(path)!r}, so the server would drop it; "
        f"{model.__name__} has {known}. Add the field to the model, and its CRD to the cluster."
    )


def _demands_api_conditions(model: Any, kind: object) -> bool:
    group = str(getattr(kind, "group", ""))
    if "." not in group or group.endswith(".k8s.io"):  # Kubernetes' own, whose conditions differ
        return False
    conditions = _declared(model, "conditions")[0]
    item = _resolved(_inner(_resolved(conditions, "")[0]), "")[0]
    is_own = _name_of(item) == "Condition" and item.__module__.startswith("reconciler.objects")
    return conditions is None or is_own  # a model without the field has it in the definition


def _wire_name(model: Any, name: str) -> str:
    field = model.model_fields[name]
    return str(field.serialization_alias or field.alias or name)


def _accepts_any_name(model: Any) -> bool:
    keeps_only = any(c.__name__ == "Model" and c.__module__.startswith("reconciler.objects") for c in model.__mro__)
    return model.model_config.get("extra") == "allow" and not keeps_only


def _model_of(annotation: Any) -> Any:
    """Return the model in an annotation ``Model`` or ``Model | None``; None for any other annotation."""
    found = _resolved(annotation, "")[0]
    return found if hasattr(found, "model_fields") else None


# The forms of values.


class _ValueType(NamedTuple):
    """The type of a value according to its model.

    Attributes:
        annotation: without ``None`` and ``Annotated``.
        read: parses a string into its meaning; None if a string means itself.
    """

    annotation: Any
    read: Callable[[str], object] | None


class ValueForms:
    """The forms of the values in a typed kind's status.

    Args:
        annotation: of the status.
    """

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    def keep(self, stored: Mapping[str, Any], wanted: JSONObject) -> JSONObject:
        """Return the wanted status with the stored form of each value that means the same.

        If there is no such value, that is `wanted` itself.
        """
        kept: JSONObject = self._kept(_value_type(self._annotation, ""), stored, wanted)
        return kept

    def _kept(self, value_type: _ValueType, stored: Any, wanted: Any) -> Any:
        if isinstance(wanted, str):
            read = value_type.read
            return stored if read is not None and isinstance(stored, str) and _same(read, stored, wanted) else wanted
        if isinstance(wanted, dict) and (type(stored) is dict or is_object(stored)):
            kept = wanted
            for key, item in wanted.items():
                before = stored.get(key)
                if before is None or before == item:
                    continue
                member = _member_of(value_type.annotation, key)
                if member.read is not None or isinstance(item, (dict, list)):
                    after = self._kept(member, before, item)
                    if after is not item:
                        kept = {**kept, key: after}
            return kept
        if isinstance(wanted, list) and isinstance(stored, list):
            item = _value_type(_inner(value_type.annotation), "")
            items = [self._kept(item, *pair) for pair in zip(stored, wanted, strict=False)]
            return wanted if all(map(is_, items, wanted)) else items + wanted[len(stored) :]
        return wanted


@functools.lru_cache(maxsize=256)
def forms_of(typed: type) -> ValueForms | None:
    """Return the forms for the class of a typed object; None for untyped ones."""
    if hasattr(typed, "status_model"):
        return ValueForms(typed.status_model)
    if isinstance(fields := getattr(typed, "model_fields", None), Mapping) and "status" in fields:
        return ValueForms(fields["status"].annotation)
    return None


@functools.lru_cache(maxsize=1024)  # a program has few kinds, and uses the same fields in every reconcile
def _value_type(annotation: Any, form: str) -> _ValueType:
    annotation, form = _resolved(annotation, form)
    return _ValueType(annotation, _READERS.get(form or _name_of(annotation)))


def _resolved(annotation: Any, form: str) -> tuple[Any, str]:
    """Return an annotation without ``None`` and ``Annotated``, and the format given in the latter."""
    while not isinstance(annotation, type):
        arguments, origin = get_args(annotation), get_origin(annotation)
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
def _member_of(annotation: Any, key: str) -> _ValueType:
    return _value_type(*_declared(annotation, key))


def _declared(annotation: Any, key: str) -> tuple[Any, str]:
    """Return the annotation and format of an object's member."""
    fields = getattr(annotation, "model_fields", None)
    if isinstance(fields, Mapping):
        for name, field in fields.items():
            if key in (name, field.serialization_alias or field.alias):
                return field.annotation, _format_of(field)
        return None, ""
    return _inner(annotation), ""


def _format_of(note: Any) -> str:
    extra = getattr(note, "json_schema_extra", None)
    return str(extra.get("format", "")) if isinstance(extra, Mapping) else ""


def _name_of(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", ""))


def _inner(annotation: Any) -> Any:
    """Return the annotation of a list's items or a dict's values."""
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


def _text(name: str, value: object) -> str:
    if name == "message" and isinstance(value, str):
        return encodable(value)  # it may be the text of an error, which names a file
    text = to_json(value, f"the {name} of a condition")
    if not isinstance(text, str):
        raise TypeError(f"the {name} of a condition must be a string, not a {type(value).__name__}")
    return text


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"merge takes an object, not a {type(value).__name__}")
    return value


def _key_of(item: Any, key: str | Sequence[str]) -> Path:
    members = (key,) if isinstance(key, str) else tuple(key)
    if not members:
        raise TypeError("a key must name at least one member of an item")
    missing = [member for member in members if not isinstance(item, Mapping) or item.get(member) is None]
    if missing:
        raise TypeError(f"the item has no {', '.join(missing)}: every item of a keyed list must have its key")
    return members
