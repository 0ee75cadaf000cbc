"""Checks of the methods that users override: a misspelled one would never be called, a wrong one fails when it is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

__all__ = ["check_hooks"]

_SIMILAR = 0.85
"""The similarity from which a name counts as a misspelled one: ``finalise`` and ``finalize_`` do, ``finalize_all`` does
not. Names are compared without underscores and case."""


def check_hooks(cls: type, base: type, hooks: Mapping[str, str]) -> None:
    """Check the methods of a subclass that the library is to call.

    A method with a similar name is a mistake only if the class does not override the hook, and if the method takes the
    hook's arguments. Private methods are never mistakes.

    Args:
        cls: the subclass, in its ``__init_subclass__``.
        base: the class of the library that defines the hooks.
        hooks: the names that users may write, each with the hook that is meant by it.

    Raises:
        TypeError: a method seems to be a misspelled hook, or a hook cannot be called with its arguments.
    """
    subclasses = [each for each in reversed(cls.__mro__) if each not in base.__mro__]
    own = {name: value for each in subclasses for name, value in vars(each).items()}
    missing = [hook for hook in dict.fromkeys(hooks.values()) if hook not in own]
    for name, value in own.items():
        if name in hooks and hasattr(base, name):
            fitting = [hook for hook in missing if _takes(value, base, hook)]
            _check_arguments(cls, name, value, _parameters(getattr(base, name)), fitting)
        elif missing and not name.startswith("_") and inspect.isroutine(value):
            similar = get_close_matches(_plain(name), map(_plain, hooks), n=1, cutoff=_SIMILAR)
            meant = [hook for written, hook in hooks.items() if _plain(written) in similar]
            if meant and meant[0] in missing and _takes(value, base, meant[0]):
                raise TypeError(
                    f"{cls.__name__}.{name} would never be called: did you mean {meant[0]!r}? "
                    f"If it is a helper, call it '_{name}'"
                )


def _check_arguments(cls: type, name: str, value: Any, parameters: list[str], fitting: list[str]) -> None:
    hint = f"; did you mean {fitting[0]!r}?" if fitting else ""
    if not callable(value) and not hasattr(value, "__get__"):
        raise TypeError(f"{cls.__name__}.{name} must be a method, not {value!r}")
    if not _accepts(value, len(parameters)):
        raise TypeError(f"{cls.__name__}.{name} cannot be called with its arguments ({', '.join(parameters)}){hint}")


def _takes(value: Any, base: type, hook: str) -> bool:
    return _accepts(value, len(_parameters(getattr(base, hook))))


def _parameters(function: Any) -> list[str]:
    """Return the names of a method's parameters, without ``self``."""
    return list(inspect.signature(function).parameters)[1:]


def _accepts(value: Any, arguments: int) -> bool:
    """Return whether a member of a class, called on an instance, accepts this number of positional arguments.

    True for what is not a plain method, such as a ``partialmethod``, and for decorators that accept anything.
    """
    if isinstance(value, staticmethod):
        value = value.__func__
    elif isinstance(value, classmethod):
        value, arguments = value.__func__, arguments + 1
    elif inspect.isfunction(value):
        arguments += 1
    else:
        return True
    try:
        inspect.signature(value, follow_wrapped=False).bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
