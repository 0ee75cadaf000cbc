"""Best-effort parsing of a document that does not fit its model: valid fields typed, others as they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["read_leniently"]


def read_leniently(annotation: Any, data: Any) -> Any:
    """Return data parsed as an annotation; if that fails, its parts, and in the end the data itself.

    A model gets each field that is valid on its own. A missing or null field gets its default, or None if it is
    required. Validators of the model as a whole are skipped.
    """
    try:
        return _adapter(annotation).validate_python(data)
    except Exception:  # noqa: BLE001 - a user's validator may raise anything
        return _by_parts(annotation, data)


def _by_parts(annotation: Any, data: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _by_parts(arguments[0], data)
    if origin in (Union, UnionType):
        models = [argument for argument in arguments if argument is not type(None)]
        return _by_parts(models[0], data) if len(models) == 1 else data
    if isinstance(data, list) and origin is list:
        return [read_leniently(arguments[0], item) for item in data]
    if isinstance(data, Mapping) and origin is dict:
        return {key: read_leniently(arguments[1], item) for key, item in data.items()}
    if isinstance(data, Mapping) and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return data if issubclass(annotation, RootModel) else _model(annotation, data)
    return data


def _model(model: type[BaseModel], data: Mapping[str, Any]) -> BaseModel:
    refused = _refused(model, data)
    values: dict[str, Any] = {}
    known: set[str] = set()
    for name, field in model.model_fields.items():
        names = _names(model, name, field)
        known.update(names)
        wire = next((each for each in names if data.get(each) is not None), None)
        if wire is not None:
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            values[name] = (_by_parts if refused.intersection(names) else read_leniently)(annotation, data[wire])
    result = model.model_construct(_fields_set=set(values))
    # Not through model_construct: it confuses a field's name with another field's equal alias.
    fields = vars(result)
    defaults = dict(fields)
    fields.clear()
    fields.update({name: values.get(name, defaults.get(name)) for name in model.model_fields})
    if result.__pydantic_extra__ is not None:
        result.__pydantic_extra__.update({key: value for key, value in data.items() if key not in known})
    return result


def _refused(model: type[BaseModel], data: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields that validation of the whole model rejects, some through its own validators."""
    try:
        _adapter(model).validate_python(data)
    except ValidationError as error:
        return {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
    except Exception:  # noqa: BLE001 - as above
        return set()
    return set()


def _names(model: type[BaseModel], name: str, field: FieldInfo) -> list[str]:
    """Return the keys that a field is read from, the wire name first."""
    alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
    by_name = alias is None or model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    return [each for each in (alias, name if by_name else None) if each is not None]


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # its metadata cannot be hashed
        return TypeAdapter(annotation)


@functools.lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)
