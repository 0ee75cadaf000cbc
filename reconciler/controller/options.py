"""Check what a controller is given, so that a mistake is told where it is made and not when a watch fails."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from reconciler.cache import CacheEvent
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import ResourceReconciler
from reconciler.controller.wake.watches import Watch, controller_owner
from reconciler.errors import ConfigurationError
from reconciler.objects import KindLike, gvk_from
from reconciler.status import check_options

__all__ = ["check_numbers", "check_status", "kind_of", "name_of", "predicates_of", "watches_of"]

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def kind_of(reconciler: object, resource: KindLike | None) -> KindLike:
    """Return the kind of the primary objects.

    Raises:
        ConfigurationError: nobody says it, it is none, or what is to run is no instance of a Reconciler.
    """
    if not isinstance(reconciler, Reconciler):
        what = reconciler.__name__ if isinstance(reconciler, type) else repr(reconciler)
        hint = f"{what}()" if isinstance(reconciler, type) else "of a subclass of Reconciler"
        raise ConfigurationError(f"{what} is no reconciler: give an instance, {hint}")
    declared = type(reconciler).resource if isinstance(reconciler, ResourceReconciler) else None
    if resource is not None:
        _check_kind("resource", resource)
    if declared is not None and (resource is None or gvk_from(declared) == gvk_from(resource)):
        return declared  # the class rather than its name: with it, objects are read as the override expects them
    if resource is not None:
        return resource
    name = type(reconciler).__name__
    what = "write ResourceReconciler[YourKind], or give" if isinstance(reconciler, ResourceReconciler) else "give"
    raise ConfigurationError(f"{name} does not say which kind it is for: {what} resource=, such as 'v1/Node'")


def name_of(kind: KindLike, name: str | None) -> str:
    """Return the controller's name: the one given, else the kind in lower case.

    Raises:
        ConfigurationError: it cannot be a name.
    """
    name = name or gvk_from(kind).kind.lower()
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"controller name {name!r}: use letters, digits and '-._', at most 63, e.g. 'database'"
        )
    return name


def watches_of(name: str, owns: Sequence[KindLike | Watch], watches: Sequence[Watch]) -> list[Watch]:
    """Return the watches of all kinds beside the primary one.

    Raises:
        ConfigurationError: an entry is none, or names no kind.
    """
    owned = [_owned(name, entry) for entry in _entries(name, "owns", owns, "kinds: ['apps/v1/Deployment']")]
    for watch in _entries(name, "watches", watches, "Watch(kind, mapper=…)"):
        if not isinstance(watch, Watch):
            raise ConfigurationError(f"controller {name!r}: watches holds {watch!r}: write Watch({watch!r}, mapper=…)")
        _check_kind("watches", watch.kind)
    for watch in (*owned, *watches):
        check_seconds(f"controller {name!r}: mapper_timeout of the watch of {watch.kind}", watch.mapper_timeout)
    return [*owned, *watches]


def predicates_of(
    name: str, predicates: Sequence[Callable[[CacheEvent], bool]]
) -> tuple[Callable[[CacheEvent], bool], ...]:
    """Return the predicates.

    Raises:
        ConfigurationError: one cannot be called.
    """
    found = tuple(_entries(name, "predicates", predicates, "functions of the event"))
    for predicate in found:
        if not callable(predicate):
            raise ConfigurationError(f"controller {name!r}: predicates holds {predicate!r}, which is no function")
    return found


def check_numbers(name: str, *, workers: object, timeout: object, debounce: object = None) -> None:
    """Check what is counted or measured.

    Raises:
        ConfigurationError: a number is out of its range, or none.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigurationError(f"controller {name!r}: workers must be 1 or more, not {workers!r}")
    for option, seconds in (("timeout", timeout), ("debounce", debounce)):
        if seconds is not None:
            check_seconds(f"controller {name!r}: {option}", seconds)


def check_seconds(what: str, seconds: object) -> None:
    """Check a number of seconds.

    Raises:
        ConfigurationError: it is not a finite number above 0; the message begins with `what`.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{what} must be a number of seconds above 0, not {seconds!r}")


def check_status(name: str, reconciler: Reconciler) -> None:
    """Check how a status is to be written, which would be found at the first reconcile only.

    Raises:
        ConfigurationError: a class attribute is out of its range, or does not go with another.
    """
    if isinstance(reconciler, ResourceReconciler):
        try:
            check_options(reconciler.status_strategy, reconciler.status_on_error, reconciler.status_subresource)
        except ValueError as error:
            raise ConfigurationError(f"controller {name!r}: status_{error}") from None


def _entries(name: str, option: str, given: Any, of: str) -> Iterable[Any]:
    if isinstance(given, (str, Watch, type)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"controller {name!r}: {option} is a sequence of {of}, not {given!r}")
    return given


def _owned(name: str, entry: KindLike | Watch) -> Watch:
    if not isinstance(entry, Watch):
        _check_kind(f"controller {name!r}: owns", entry)
        return Watch(entry, mapper=controller_owner)
    _check_kind(f"controller {name!r}: owns", entry.kind)
    return entry if entry.mapper is not None else replace(entry, mapper=controller_owner)


def _check_kind(option: str, kind: KindLike) -> None:
    try:
        gvk_from(kind)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{option}: {error}") from error
