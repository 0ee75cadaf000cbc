"""The code of users that the library calls: what counts as its failure, and names that are misspelled.

A misspelled method would never be called, and a misspelled attribute never be read: both are refused when the class is
defined. What a metrics back end raises is logged, and does not reach what it measures.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reconciler.errors import RepeatedFailures

FAILURES = (Exception, asyncio.CancelledError)
"""What counts as a failure of user code, for ``except``.

Nobody can cancel a call that does not await, so a CancelledError that comes from one is a failure like any other.
Around an ``await``, check `is_cancelled` first.
"""


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any] | None]) -> None:
    """Cancel tasks and wait until they have ended, whatever they raise. If cancelled, it leaves them to themselves."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)  # not gather, whose own cancellation would cancel them a second time
    for task in running:
        if not task.cancelled():
            task.exception()  # else asyncio logs that nobody has asked for it


def is_cancelled() -> bool:
    """Return whether the current task was cancelled; False for a CancelledError that the code in it raised itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


_SIMILAR = 0.85
"""The similarity from which a name counts as a misspelled one: ``finalise`` and ``finalize_`` do, ``finalize_all`` does
not. Names are compared without underscores and case."""


def check_hooks(cls: type, base: type, hooks: Mapping[str, str]) -> None:
    """Check the methods of a subclass that the library calls, and the attributes that it reads.

    A method with a similar name is a mistake only if the class does not override the hook, and if the method takes the
    hook's arguments. An attribute with a name similar to that of a public attribute of `base` is one only if the class
    does not set that attribute. Private names are never mistakes.

    Args:
        cls: the subclass, in its ``__init_subclass__``.
        base: the class of the library that defines the hooks.
        hooks: the names that users may write, each with the hook that is meant by it.

    Raises:
        TypeError: a method or an attribute seems to be a misspelled one, or a hook cannot be called with its arguments.
    """
    own = own_members(cls, base)
    missing = [hook for hook in dict.fromkeys(hooks.values()) if hook not in own]
    attributes = {name: name for each in base.__mro__ for name, value in vars(each).items() if is_data(value)}
    for name, value in own.items():
        if name in hooks and hasattr(base, name):
            meant = hooks[name] if hooks[name] in missing and _takes(value, base, hooks[name]) else name
            _check_arguments(cls, name, value, _parameters(getattr(base, name)), meant)
        elif name.startswith("_"):
            continue
        elif inspect.isroutine(value):
            close = closest(name, hooks)
            if close in missing and _takes(value, base, close):
                raise TypeError(
                    f"{cls.__name__}.{name} would never be called: did you mean {close!r}? "
                    f"If it is a helper, call it '_{name}'"
                )
        elif is_data(value) and name not in attributes:
            close = closest(name, attributes)
            if close and close not in own:
                raise TypeError(
                    f"{cls.__name__}.{name} would never be read: did you mean {close!r}? "
                    f"If it is your own, call it '_{name}'"
                )


def own_members(cls: type, base: type) -> dict[str, Any]:
    """Return what a subclass and its bases define, without what `base` and its bases do."""
    subclasses = [each for each in reversed(cls.__mro__) if each not in base.__mro__]
    return {name: value for each in subclasses for name, value in vars(each).items()}


def is_data(value: object) -> bool:
    """Return whether a member of a class is an attribute that is neither computed nor a method."""
    return not hasattr(value, "__get__")


def closest(name: str, known: Mapping[str, str]) -> str:
    """Find the known name that is most similar, and return what it means; an empty string if none is similar."""
    from difflib import get_close_matches  # not needed unless a name is misspelled

    similar = get_close_matches(_plain(name), map(_plain, known), n=1, cutoff=_SIMILAR)
    return next((meant for written, meant in known.items() if _plain(written) in similar), "")


def _check_arguments(cls: type, name: str, value: Any, parameters: Sequence[str], meant: str) -> None:
    hint = f"; did you mean {meant!r}?" if meant != name else ""
    if not callable(value) and not hasattr(value, "__get__"):
        raise TypeError(f"{cls.__name__}.{name} must be a method, not {value!r}")
    if not _accepts(value, len(parameters)):
        raise TypeError(f"{cls.__name__}.{name} cannot be called with its arguments ({', '.join(parameters)}){hint}")


def _takes(value: Any, base: type, hook: str) -> bool:
    return _accepts(value, len(_parameters(getattr(base, hook))))


def _parameters(function: Any) -> tuple[str, ...]:
    """Return the names of a method's parameters, without ``self``."""
    return tuple(function.__code__.co_varnames[1 : function.__code__.co_argcount])


def _accepts(value: Any, arguments: int) -> bool:
    """Return whether a member of a class, called on an instance, accepts this number of positional arguments.

    True for what is not a plain method, such as a ``partialmethod``, and for decorators that accept anything. Not by
    `inspect.signature`, which reads annotations: from Python 3.14 on, they may name what exists for type checkers only.
    """
    if not isinstance(value, staticmethod):
        arguments += 1
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    if not inspect.isfunction(function):
        return True
    code, defaults = function.__code__, function.__defaults__ or ()
    if code.co_kwonlyargcount > len(function.__kwdefaults__ or ()):
        return False
    most = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    return code.co_argcount - len(defaults) <= arguments <= most


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


_failures = RepeatedFailures(
    logging.getLogger("reconciler.metrics"), logging.ERROR, "%s failed, so its metrics are wrong"
)


def report(method: Callable[..., object], /, *values: object, **named: object) -> None:
    """Call a method of a metrics back end, and log what it raises.

    What is called in each reconcile uses `log_metrics_failure` instead, without the cost of this call.
    """
    try:
        method(*values, **named)
    except FAILURES:
        log_metrics_failure(method)


def log_metrics_failure(method: Callable[..., object], /) -> None:
    """Log the exception that a method of a metrics back end has raised, once for each method and type of error.

    Call it in the ``except`` clause.
    """
    name, error = getattr(method, "__qualname__", repr(method)), sys.exc_info()[1]
    assert error is not None  # noqa: S101 - see above
    _failures.log(error, name, kind=(name, type(error)))
