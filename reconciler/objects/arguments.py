"""Read the kind out of the type argument of a generic class: ``ResourceReconciler[Database]``."""

from __future__ import annotations

from typing import Any, TypeVar, get_args, get_origin

from typing_extensions import get_original_bases

from reconciler.errors import ConfigurationError
from reconciler.objects.convert import KindLike
from reconciler.objects.resource import Resource
from reconciler.objects.unstructured import Unstructured

__all__ = ["kind_argument"]


def kind_argument(cls: type, generic: type) -> KindLike | None:
    """Return the kind that a class gives to a generic base class, or to one derived from that; None for none.

    Args:
        cls: the class.
        generic: the base class that takes a kind.

    Raises:
        ConfigurationError: the argument cannot be a kind.
    """
    for base in get_original_bases(cls):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, generic)):
            continue
        for argument in get_args(base):
            if isinstance(argument, type) and issubclass(argument, Resource) and argument is not Resource:
                return argument
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar) or argument in (Any, Unstructured):
            return None
        raise ConfigurationError(
            f"{cls.__name__}: {generic.__name__}[{argument!r}] names no kind: give a subclass of Resource itself, or "
            "Unstructured and resource='group/version/Kind'"
        )
    return None
