"""`ControllerOptions`: the options of a controller, and the checks that report a mistake where it is made."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, TypedDict, cast, get_args

from reconciler._core.durations import DurationLike, InvalidDuration, OptionalSeconds, Seconds
from reconciler._core.user_code import closest, is_data, own_members
from reconciler.controller.permissions import Permission
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import (
    ResourceReconciler,
    defines_finalize,
    has_status_field,
    status_target,
)
from reconciler.controller.wake.predicates import EventFilter, check_predicate
from reconciler.controller.wake.watches import ChannelSource, OwnerMapper, SourceLike, Watch, controller_owner
from reconciler.errors import ConfigurationError
from reconciler.objects import Resource
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.status.strategies import STRATEGIES, check_options
from reconciler.status.writer import Strategy
from reconciler.workqueue import RateLimiter
from reconciler.workqueue.rate_limiters import guarded_limiter

_log = logging.getLogger("reconciler.controller")

_STRATEGIES = ("auto", *get_args(Strategy))

_GO_NAMES = {
    "max_concurrent_reconciles": "workers",
    "reconciliation_timeout": "timeout",
    "cache_sync_timeout": "sync_timeout",
}
"""Options that have another name in controller-runtime."""

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class ControllerOptions(TypedDict, total=False):
    """The options of a controller: the keywords of ``Manager.add_controller``. All have a default that suits most.

    They concern how a controller runs. What follows from the code of a reconciler is stated by its class: see
    `Reconciler` and `ResourceReconciler`. Options are checked by ``add_controller``. Controllers share options so::

        patient = ControllerOptions(timeout="5m", workers=4)
        manager.add_controller(SiteReconciler(), **patient)

    Attributes:
        resource: the kind of the primary objects, which the keys name: of a `Reconciler`, or a `ResourceReconciler`
            whose class states none. Default: the kind in the class header.
        name: the controller's name in metrics, logs and the default finalizer: letters, digits and ``-._``, at most 63;
            unique in a manager. Default: the kind in lower case, as in controller-runtime.
        owns: kinds whose objects the primary ones own; a change enqueues the owner that is marked as controller. An
            entry may be a `Watch` with predicates, or with `every_owner` as its mapper. Default: none.
        watches: other kinds, each with a mapper to keys. Default: none.
        sources: what else enqueues keys: a `ChannelSource`, or an async function of `Enqueue`. Default: none.
        predicates: filters of events of the primary objects; an event must pass all. Default: none, because the echo
            rule already drops the controller's own writes, and any other change may matter.
        workers: how many keys are reconciled concurrently. Default 1, controller-runtime's: a reconciler need not be
            safe for concurrent calls.
        timeout: the duration of a reconcile (seconds, a timedelta or ``"30s"``), after which it is cancelled, which
            counts as an error. Default None: no limit, because only the reconciler knows how long its work may take.
        stuck_after: the duration after which a reconcile in progress counts as stuck: a warning and, with
            `failure_events`, a Warning Event (``ReconcileStuck``) name the line of your code where it waits. They are
            repeated while it lasts, first after as long again and at last once an hour. Default 60, because most
            reconciles take less than a second. None: never.
        rate_limiter: computes the backoff after errors, and between successive ``Result(again=True)``. Default None:
            exponential per key, from 5 ms to 1000 s, controller-runtime's numbers, and to 5 s between successive steps.
        debounce: the duration that a fresh change waits, so that the changes that follow are reconciled with it; a
            later change does not prolong the wait. Default None: none, for the shortest reaction.
        wake_on_own_status: let the controller's own status and finalizer writes wake it, as in controller-runtime: for
            ported code that proceeds from step to step by its own events. Default False, so that a status write does
            not cause another reconcile.
        failure_events: record a Warning Event (``ReconcileFailed``) on an object whose reconcile fails for the third
            time in a row, or with a `TerminalError`, a timeout or a refused status, and a Normal Event
            (``ReconcileSucceeded``) when it succeeds again. Default True, because ``kubectl describe`` is where the
            owner of an object looks. The message is the type and the text of the exception.
        adaptive_concurrency: reconcile fewer keys of low priority at once while the API server rejects requests (429),
            or becomes slower because of them, so that a backlog delays neither fresh changes nor other clients. The
            existing objects at the start and resyncs have a low priority: any below 0. Default True.
        sync_timeout: the duration for each watched kind to be installed and listed at the start; it begins again
            while objects of the list arrive. Default 120, controller-runtime's ``CacheSyncTimeout``.
    """

    resource: KindLike | None
    name: str | None
    owns: Iterable[KindLike | Watch]
    watches: Iterable[Watch]
    sources: Iterable[SourceLike]
    predicates: Iterable[EventFilter]
    workers: int
    timeout: DurationLike | None
    stuck_after: DurationLike | None
    rate_limiter: RateLimiter | None
    debounce: DurationLike | None
    wake_on_own_status: bool
    failure_events: bool
    adaptive_concurrency: bool
    sync_timeout: DurationLike


@dataclass(frozen=True, kw_only=True)
class CheckedOptions:
    """The options of one controller after the check: given ones, defaults, and what its reconciler states.

    Attributes:
        kind: the primary kind.
        watches: the watches on other kinds, including those of ``owns``.
        workers: how many keys may be in progress at a time.
        strategy: how a `ResourceReconciler` sends the status.
        subresource: where it is written to; None for the object itself.
    """

    kind: KindLike
    name: str
    watches: Sequence[Watch]
    sources: Sequence[SourceLike]
    predicates: Sequence[EventFilter]
    workers: int
    strategy: Strategy
    subresource: str | None
    timeout: OptionalSeconds = OptionalSeconds(None)
    stuck_after: OptionalSeconds = OptionalSeconds(60.0)
    rate_limiter: RateLimiter | None = None
    debounce: OptionalSeconds = OptionalSeconds(None)
    wake_on_own_status: bool = False
    failure_events: bool = True
    adaptive_concurrency: bool = True
    sync_timeout: Seconds = Seconds(120.0)


def reusable_options(options: ControllerOptions) -> ControllerOptions:
    """Return the options with tuples in place of iterators, so that they can be checked more than once."""
    found = {name: tuple(value) if isinstance(value, Iterator) else value for name, value in options.items()}
    return cast("ControllerOptions", found)


def checked_options(reconciler: Reconciler, options: ControllerOptions) -> CheckedOptions:
    """Check the options of a controller, and derive from the reconciler what they leave open.

    Raises:
        ConfigurationError: an option is invalid; the message says which, and why.
        TypeError: a keyword is not an option.
    """
    _check_names(reconciler, options)
    kind = _kind_of(reconciler, options.get("resource"))
    name = options.get("name") or gvk_from(kind).kind.lower()
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"controller name {name!r} is invalid: use letters, digits and '-._', at most 63, e.g. 'database'"
        )
    prefix = f"controller {name!r}: "
    _check_class(prefix, type(reconciler))
    given = options.get("workers", 1)
    _check_count(prefix + "workers", given)
    workers = reconciler.pool_size(given)
    _check_count(prefix + "the result of pool_size", workers)
    try:
        guarded_limiter(options.get("rate_limiter"))
    except TypeError as error:
        raise ConfigurationError(f"{prefix}rate_limiter: {error}") from None
    strategy, subresource = _status_target(prefix, reconciler, kind)
    _check_permissions(prefix, reconciler)
    with_default = {each.name for each in fields(CheckedOptions) if each.default is not MISSING}
    simple: dict[str, Any] = {each: value for each, value in options.items() if each in with_default}
    try:
        return CheckedOptions(
            kind=kind,
            name=name,
            watches=_watches(prefix, options.get("owns", ()), options.get("watches", ())),
            sources=_sources(prefix, options.get("sources", ())),
            predicates=_predicates(prefix, options.get("predicates", ())),
            workers=workers,
            strategy=strategy,
            subresource=subresource,
            **simple,
        )
    except InvalidDuration as error:
        raise InvalidDuration(prefix + str(error)) from None


def required_permissions(reconciler: Reconciler, checked: CheckedOptions) -> list[Permission]:
    """Return everything that a controller needs; the permissions that its reconciler declares come last.

    A finalizer is added and removed by a patch of the object. A controller that sets owner references needs ``update``
    of the owners' ``finalizers`` if the admission plugin OwnerReferencesPermissionEnforcement is on, as in OpenShift.
    """
    kind = checked.kind
    permissions = [Permission(kind, "get", "list", "watch")]
    finalizes = False
    if isinstance(reconciler, ResourceReconciler):
        strategy = STRATEGIES[checked.strategy]
        if checked.subresource is not None:
            permissions.append(Permission(kind, strategy.verb, subresource="status"))
        finalizes = defines_finalize(reconciler)
        # Without the subresource the status is part of the object. An apply takes over earlier patches
        # by a patch of the object's managed fields.
        if checked.subresource is None or strategy.is_owned or finalizes or reconciler.finalizer is not None:
            permissions.append(Permission(kind, "patch"))
    if finalizes or any(isinstance(watch.mapper, OwnerMapper) for watch in checked.watches):
        permissions.append(Permission(kind, "update", subresource="finalizers"))
    permissions += [Permission(watch.kind, "get", "list", "watch") for watch in checked.watches]
    permissions.append(Permission("v1/Event", "create", "patch"))
    return [*permissions, *(reconciler.permissions or ())]


def _check_names(reconciler: object, options: ControllerOptions) -> None:
    """Check that keywords are options, and say where else a name belongs."""
    known = ControllerOptions.__annotations__
    for name in options.keys() - known.keys():
        hint = f"the options are {', '.join(known)}"
        if meant := _GO_NAMES.get(name):
            hint = f"it is called {meant!r} here"
        elif name == "options":
            hint = "pass them as keywords: add_controller(reconciler, **options)"
        elif meant := next((each for each in (name, f"status_{name}") if hasattr(ResourceReconciler, each)), ""):
            hint = f"the class states it: write '{meant} = …' in the body of {type(reconciler).__name__}"
        raise TypeError(f"unknown option {name!r} of a controller; {hint}")


def _check_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{what} must be 1 or more, not {value!r}")


def _kind_of(reconciler: object, resource: KindLike | None) -> KindLike:
    """Return the kind of the primary objects."""
    if not isinstance(reconciler, Reconciler):
        given = reconciler.__name__ if isinstance(reconciler, type) else repr(reconciler)
        hint = f"{given}()" if isinstance(reconciler, type) else "of a subclass of Reconciler"
        raise ConfigurationError(f"{given} is not a reconciler: pass an instance, {hint}")
    declared = type(reconciler).resource if isinstance(reconciler, ResourceReconciler) else None
    if resource is not None:
        _check_kind("resource", resource)
    if declared is not None:
        if resource is None or gvk_from(declared) == gvk_from(resource):
            return declared  # the class rather than its name: objects are then read as instances of it
        raise ConfigurationError(
            f"resource={resource!r} is not the kind of {type(reconciler).__name__}, which is {gvk_from(declared)}"
        )
    if resource is not None:
        return resource
    name = type(reconciler).__name__
    what = "write ResourceReconciler[YourKind], or pass" if isinstance(reconciler, ResourceReconciler) else "pass"
    raise ConfigurationError(f"{name} does not state its kind: {what} resource=, such as 'v1/Node'")


def _check_class(prefix: str, cls: type[Reconciler]) -> None:
    """Warn of options that are attributes of the class, where the controller does not read them.

    They may be the class's own, as the fields of a dataclass are.
    """
    options = {*ControllerOptions.__annotations__} - {*dir(ResourceReconciler)}
    for name, value in own_members(cls, ResourceReconciler).items():
        option = name if name in options else closest(name, _GO_NAMES)
        private = name.startswith("_")
        if option and not private and is_data(value) and name not in getattr(cls, "__dataclass_fields__", ()):
            _log.warning(
                "%s%s.%s is not read: pass add_controller(…, %s=…). If it is your own, call it '_%s'",
                prefix,
                cls.__name__,
                name,
                option,
                name,
            )


def _status_target(prefix: str, reconciler: Reconciler, kind: KindLike) -> tuple[Strategy, str | None]:
    """Return how and where the status is written.

    It checks the class attributes for the status, which would otherwise fail in the first reconcile.
    """
    if not isinstance(reconciler, ResourceReconciler):
        return "merge", None
    given: str = reconciler.status_strategy
    if given not in _STRATEGIES:
        raise ConfigurationError(f"{prefix}status_strategy must be one of {', '.join(_STRATEGIES)}, not {given!r}")
    strategy, subresource = status_target(reconciler, kind)
    try:
        check_options(strategy, reconciler.status_on_error, subresource)
    except ValueError as error:
        raise ConfigurationError(f"{prefix}status_{error}") from None
    options = [name for name in ("kstatus_conditions", "ready_condition") if getattr(reconciler, name)]
    model = kind.status_model if isinstance(kind, type) and issubclass(kind, Resource) else None
    if options and model is not None and not has_status_field(model, "conditions"):
        raise ConfigurationError(
            f"{prefix}{options[0]} needs a status with conditions: derive {model.__name__} from ConditionedStatus"
        )
    return strategy, subresource


def _check_permissions(prefix: str, reconciler: Reconciler) -> None:
    given: Any = reconciler.permissions
    form = "Permission objects: [Permission('v1/ConfigMap', 'apply')]"
    for entry in () if given is None else _entries(prefix, "permissions", given, form):
        if not isinstance(entry, Permission):
            raise ConfigurationError(f"{prefix}permissions must be a sequence of {form}, not of {entry!r}")


def _watches(prefix: str, owns: Iterable[KindLike | Watch], watches: Iterable[Watch]) -> list[Watch]:
    owned = [_owned(prefix, entry) for entry in _entries(prefix, "owns", owns, "kinds: ['apps/v1/Deployment']")]
    watched = _entries(prefix, "watches", watches, "Watch(kind, mapper=…)")
    for watch in watched:
        if not isinstance(watch, Watch):
            raise ConfigurationError(f"{prefix}watches contains {watch!r}: write Watch({watch!r}, mapper=…)")
        _check_kind("watches", watch.kind)
    for watch in (*owned, *watched):
        _predicates(f"{prefix}watch of {watch.kind}: ", watch.predicates)
    return [*owned, *watched]


def _owned(prefix: str, entry: KindLike | Watch) -> Watch:
    if not isinstance(entry, Watch):
        _check_kind(f"{prefix}owns", entry)
        return Watch(entry, mapper=controller_owner)
    _check_kind(f"{prefix}owns", entry.kind)
    return entry if entry.mapper is not None else replace(entry, mapper=controller_owner)


def _predicates(prefix: str, predicates: Iterable[EventFilter]) -> tuple[EventFilter, ...]:
    found = _entries(prefix, "predicates", predicates, "functions of the event")
    for predicate in found:
        check_predicate(predicate, prefix)
    return found


def _sources(prefix: str, sources: Iterable[SourceLike]) -> tuple[SourceLike, ...]:
    found = _entries(prefix, "sources", sources, "sources")
    for source in found:
        if not callable(source) and not inspect.iscoroutinefunction(getattr(source, "run", None)):
            raise ConfigurationError(
                f"{prefix}sources contains {source!r}: pass ChannelSource(…), an async function of enqueue, "
                "or an object with 'async def run(self, enqueue)'"
            )
    return found


def _entries(prefix: str, option: str, given: Any, of: str) -> tuple[Any, ...]:
    if isinstance(given, (str, Watch, ChannelSource, type)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{prefix}{option} must be a sequence of {of}, not {given!r}")
    return tuple(given)


def _check_kind(option: str, kind: KindLike) -> None:
    try:
        gvk_from(kind)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{option}: {error}") from error
