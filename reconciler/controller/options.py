"""`ControllerOptions`: the options of a controller, and the checks that report a mistake where it is made."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, Unpack, get_args

from reconciler._core.durations import DurationLike, OptionalSeconds, Seconds, positive_seconds
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
from reconciler.controller.wake.watches import (
    ChannelSource,
    OwnerMapper,
    SourceLike,
    Watch,
    controller_owner,
)
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


@dataclass(frozen=True, kw_only=True)
class ControllerOptions:
    """The options of a controller; every default is what most controllers need.

    `Controller` and ``Manager.add_controller`` take them as ``options=``, as keywords, or both; keywords take
    precedence. Options are checked when they are used, because some depend on the reconciler.

    Attributes:
        resource: the kind of the primary objects, which the keys name. Default None: the kind of a
            `ResourceReconciler`, which states it in its class.
        name: the controller's name in metrics, logs and the default finalizer: letters, digits and ``-._``, at most 63;
            unique in a manager. Default None: the kind in lower case, as in controller-runtime.
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
        sync_timeout: the duration for each watched kind to be installed and listed at the start. Default 120,
            controller-runtime's ``CacheSyncTimeout``.
    """

    resource: KindLike | None = None
    name: str | None = None
    owns: Sequence[KindLike | Watch] = ()
    watches: Sequence[Watch] = ()
    sources: Sequence[SourceLike] = ()
    predicates: Sequence[EventFilter] = ()
    workers: int = 1
    timeout: OptionalSeconds = OptionalSeconds(None)
    stuck_after: OptionalSeconds = OptionalSeconds(60.0)
    rate_limiter: RateLimiter | None = None
    debounce: OptionalSeconds = OptionalSeconds(None)
    wake_on_own_status: bool = False
    failure_events: bool = True
    adaptive_concurrency: bool = True
    sync_timeout: Seconds = Seconds(120.0)

    def __post_init__(self) -> None:
        """Turn iterators into tuples, because the options are read several times."""
        for name in ("owns", "watches", "sources", "predicates"):
            given: object = getattr(self, name)
            if isinstance(given, Iterator):
                object.__setattr__(self, name, tuple(given))

    def replace(self, **keywords: Unpack[ControllerKeywords]) -> ControllerOptions:
        """Return the options with some of them replaced.

        Raises:
            TypeError: a keyword is not an option.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in keywords if name not in known]
        if unknown:
            meant = _GO_NAMES.get(unknown[0])
            hint = f"it is called {meant!r} here" if meant else f"the options are {', '.join(known)}"
            raise TypeError(f"unknown option {unknown[0]!r} of a controller; {hint}")
        return replace(self, **keywords)

    def checked_for(self, reconciler: Reconciler) -> CheckedOptions:
        """Check the options, and derive from the reconciler what they leave open.

        Raises:
            ConfigurationError: an option is invalid; the message says which, and why.
        """
        kind = _kind_of(reconciler, self.resource)
        name = self.name or gvk_from(kind).kind.lower()
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"controller name {name!r} is invalid: use letters, digits and '-._', at most 63, e.g. 'database'"
            )
        prefix = f"controller {name!r}: "
        _check_class(prefix, type(reconciler))
        _check_count(prefix + "workers", self.workers)
        workers = reconciler.pool_size(self.workers)
        _check_count(prefix + "the result of pool_size", workers)
        for option, seconds in (
            ("timeout", self.timeout),
            ("stuck_after", self.stuck_after),
            ("debounce", self.debounce),
        ):
            if seconds is not None:
                positive_seconds(prefix + option, seconds)
        try:
            guarded_limiter(self.rate_limiter)
        except TypeError as error:
            raise ConfigurationError(f"{prefix}rate_limiter: {error}") from None
        strategy, subresource = _status_target(prefix, reconciler, kind)
        _check_permissions(prefix, reconciler)
        return CheckedOptions(
            kind=kind,
            name=name,
            workers=workers,
            predicates=_predicates(prefix, self.predicates),
            watches=_watches(prefix, self.owns, self.watches),
            sources=_sources(prefix, self.sources),
            strategy=strategy,
            subresource=subresource,
        )


class ControllerKeywords(TypedDict, total=False):
    """The fields of `ControllerOptions` as keywords, for type checkers."""

    resource: KindLike | None
    name: str | None
    owns: Sequence[KindLike | Watch]
    watches: Sequence[Watch]
    sources: Sequence[SourceLike]
    predicates: Sequence[EventFilter]
    workers: int
    timeout: DurationLike | None
    stuck_after: DurationLike | None
    rate_limiter: RateLimiter | None
    debounce: DurationLike | None
    wake_on_own_status: bool
    failure_events: bool
    adaptive_concurrency: bool
    sync_timeout: DurationLike


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    """The result of `ControllerOptions.checked_for`.

    Attributes:
        kind: the primary kind.
        name: the controller's name.
        workers: how many keys may be in progress at a time.
        predicates: filters of events of the primary objects.
        watches: the watches on other kinds, including those of ``owns``.
        sources: what else enqueues keys.
        strategy: how a `ResourceReconciler` sends the status.
        subresource: where it is written to; None for the object itself.
    """

    kind: KindLike
    name: str
    workers: int
    predicates: Sequence[EventFilter]
    watches: Sequence[Watch]
    sources: Sequence[SourceLike]
    strategy: Strategy
    subresource: str | None


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
    if declared is not None and (resource is None or gvk_from(declared) == gvk_from(resource)):
        return declared  # the class rather than its name: objects are then read as instances of it
    if isinstance(declared, type) and isinstance(resource, str):
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
    options = {*ControllerKeywords.__annotations__} - {*dir(ResourceReconciler)}
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


def _watches(prefix: str, owns: Sequence[KindLike | Watch], watches: Sequence[Watch]) -> list[Watch]:
    owned = [_owned(prefix, entry) for entry in _entries(prefix, "owns", owns, "kinds: ['apps/v1/Deployment']")]
    for watch in _entries(prefix, "watches", watches, "Watch(kind, mapper=…)"):
        if not isinstance(watch, Watch):
            raise ConfigurationError(f"{prefix}watches contains {watch!r}: write Watch({watch!r}, mapper=…)")
        _check_kind("watches", watch.kind)
    for watch in (*owned, *watches):
        positive_seconds(f"{prefix}mapper_timeout of the watch of {watch.kind}", watch.mapper_timeout)
        _predicates(f"{prefix}watch of {watch.kind}: ", watch.predicates)
    return [*owned, *watches]


def _owned(prefix: str, entry: KindLike | Watch) -> Watch:
    if not isinstance(entry, Watch):
        _check_kind(f"{prefix}owns", entry)
        return Watch(entry, mapper=controller_owner)
    _check_kind(f"{prefix}owns", entry.kind)
    return entry if entry.mapper is not None else replace(entry, mapper=controller_owner)


def _predicates(prefix: str, predicates: Sequence[EventFilter]) -> tuple[EventFilter, ...]:
    found = tuple(_entries(prefix, "predicates", predicates, "functions of the event"))
    for predicate in found:
        check_predicate(predicate, prefix)
    return found


def _sources(prefix: str, sources: Sequence[SourceLike]) -> tuple[SourceLike, ...]:
    found = tuple(_entries(prefix, "sources", sources, "sources"))
    for source in found:
        if not callable(source) and not inspect.iscoroutinefunction(getattr(source, "run", None)):
            raise ConfigurationError(
                f"{prefix}sources contains {source!r}: pass ChannelSource(…), an async function of enqueue, "
                "or an object with 'async def run(self, enqueue)'"
            )
    return found


def _entries(prefix: str, option: str, given: Any, of: str) -> Iterable[Any]:
    if isinstance(given, (str, Watch, ChannelSource, type)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{prefix}{option} must be a sequence of {of}, not {given!r}")
    return given


def _check_kind(option: str, kind: KindLike) -> None:
    try:
        gvk_from(kind)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{option}: {error}") from error
