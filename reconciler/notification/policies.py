"""Channel policies: decisions about requests, the rates and quotas of namespaces, and the validating webhook."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from reconciler.cache import CacheEvent
from reconciler.errors import error_text
from reconciler.meta import Request
from reconciler.notification.api import ChannelPolicy, ChannelPolicySpec, NotificationRequest, NotificationRequestSpec
from reconciler.notification.channels.limits import Pacer
from reconciler.notification.redaction import listed
from reconciler.notification.router import Router, attributes_of
from reconciler.objects import InvalidObject
from reconciler.webhook import AdmissionRequest, Denied, Validator

if TYPE_CHECKING:
    from reconciler.cache import Cache

_log = logging.getLogger("reconciler.notification")

LISTED = 10
"""Maximum permitted values that a refusal lists."""


@dataclass(frozen=True, slots=True)
class PolicyRefusal:
    """The refusal of a request.

    Attributes:
        reason: ``PolicyDenied`` or ``QuotaExceeded``.
        message: what is not allowed, and what is.
    """

    reason: str
    message: str


class KeysByNamespace:
    """A set of keys, counted by namespace."""

    def __init__(self) -> None:
        self._keys: dict[str | None, set[Request]] = {}

    def add(self, key: Request) -> None:
        """Add a key."""
        self._keys.setdefault(key.namespace, set()).add(key)

    def discard(self, key: Request) -> None:
        """Remove a key, if it is there."""
        keys = self._keys.get(key.namespace, set())
        keys.discard(key)
        if not keys:
            self._keys.pop(key.namespace, None)

    def count(self, namespace: str | None) -> int:
        """Return the number of keys in a namespace."""
        return len(self._keys.get(namespace, ()))

    def __contains__(self, key: Request) -> bool:
        return key in self._keys.get(key.namespace, ())

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))


UNSAVED_LIMIT = 500
"""Number of requests with unsaved results from which on a namespace delivers only while it has none. Far below what a
controller keeps (1000), because a lost result means that a call is repeated."""

UNSAVED_NAMESPACE_LIMIT = 100
"""Maximum requests of a namespace with unsaved results; then no other request of the namespace is delivered."""


def may_deliver(request: Request, unsaved: KeysByNamespace) -> bool:
    """Return whether few enough results of other requests are unsaved for a request to be delivered."""
    most = UNSAVED_NAMESPACE_LIMIT if len(unsaved) < UNSAVED_LIMIT else 1
    return unsaved.count(request.namespace) < most or request in unsaved


class PolicyTable:
    """The current policies, by name.

    A request is allowed if every policy about its namespace allows it. A namespace that no policy is about may use
    everything.

    Attributes:
        is_complete: whether all policies are known. While they are not, no new request is delivered.
        unfinished: the requests that count for the quota of their namespace.
    """

    def __init__(self) -> None:
        self._policies: dict[str, ChannelPolicySpec] = {}
        self._invalid: dict[str, str] = {}
        self._pacers: dict[str, tuple[float, Pacer]] = {}
        self._about: dict[str, tuple[tuple[str, ChannelPolicySpec], ...]] = {}  # by namespace
        self.is_complete = True
        self.unfinished = KeysByNamespace()

    def set(self, name: str, policy: ChannelPolicySpec) -> None:
        """Add or change a policy."""
        self.remove(name)
        self._policies[name] = policy

    def set_invalid(self, name: str, problem: str) -> None:
        """Record that a policy cannot be read. Until it can, it allows nothing: its namespaces are unknown."""
        self.remove(name)
        self._invalid[name] = problem

    def remove(self, name: str) -> None:
        """Remove a policy."""
        self._policies.pop(name, None)
        self._invalid.pop(name, None)
        self._about.clear()

    def about(self, namespace: str) -> Sequence[tuple[str, ChannelPolicySpec]]:
        """Return the policies about a namespace with their names, sorted by name."""
        found = self._about.get(namespace)
        if found is None:
            found = self._about[namespace] = tuple(
                (name, policy)
                for name, policy in sorted(self._policies.items())
                if _matches(namespace, policy.namespaces) and not _matches(namespace, policy.except_namespaces)
            )
        return found

    # Decisions

    def refusal(self, namespace: str, spec: NotificationRequestSpec, channels: Sequence[str]) -> PolicyRefusal | None:
        """Return why a request may not be delivered over these channels, or None."""
        if self._invalid:
            name, problem = min(self._invalid.items())
            return PolicyRefusal("PolicyDenied", f"policy {name!r} is invalid, so it allows nothing: {problem}")
        for name, policy in self.about(namespace):
            what = next(_violations(policy, spec, channels), None)
            if what is not None:
                return PolicyRefusal("PolicyDenied", f"policy {name!r}: {what} in namespace {namespace}")
        return None

    def quota_refusal(self, request: Request) -> PolicyRefusal | None:
        """Return why the namespace of a request may have no further unfinished one, or None."""
        if request in self.unfinished:
            return None
        namespace, count = request.namespace or "", self.unfinished.count(request.namespace)
        for name, policy in self.about(namespace):
            if policy.max_unfinished is not None and count >= policy.max_unfinished:
                text = f"policy {name!r}: namespace {namespace} has {count} unfinished requests already"
                return PolicyRefusal("QuotaExceeded", f"{text}; the maximum is {policy.max_unfinished}")
        return None

    # Rates

    def rate_refusal(self, namespace: str) -> str | None:
        """Return why no delivery of a namespace may start now, or None."""
        pacer = self.pacer(namespace)
        if pacer is None or (seconds := pacer.wait()) <= 0:
            return None
        name, rate = min(
            ((name, policy.rate_per_minute) for name, policy in self.about(namespace) if policy.rate_per_minute),
            key=lambda found: found[1],
        )
        return f"policy {name!r} allows namespace {namespace} {rate:g} deliveries a minute; the next in {seconds:.0f} s"

    def pacer(self, namespace: str) -> Pacer | None:
        """Return the rate limit of a namespace's deliveries: the lowest rate of all policies about it, if any."""
        if not self._policies:
            self._pacers.clear()
            return None
        rates = [policy.rate_per_minute for _, policy in self.about(namespace) if policy.rate_per_minute is not None]
        if not rates:
            self._pacers.pop(namespace, None)
            return None
        known = self._pacers.get(namespace)
        if known is None or known[0] != min(rates):
            known = self._pacers[namespace] = min(rates), Pacer(min(rates))
        return known[1]


def _violations(policy: ChannelPolicySpec, spec: NotificationRequestSpec, channels: Iterable[str]) -> Iterator[str]:
    if policy.priorities is not None and spec.priority not in policy.priorities:
        yield f"priority {spec.priority} is not allowed (allowed: {listed(policy.priorities, LISTED)})"
    if policy.channels is not None:
        for channel in channels:
            if not _matches(channel, policy.channels):
                yield f"channel {channel!r} is not allowed (allowed: {listed(policy.channels, LISTED)})"
    for kind, recipients in (spec.recipients or {}).items():
        allowed: Mapping[str, Sequence[str]] = policy.recipients or {}
        if kind in allowed:
            for recipient in recipients:
                if not _matches(recipient.casefold(), [pattern.casefold() for pattern in allowed[kind]]):
                    yield f"a recipient of {kind} is not allowed (allowed: {listed(allowed[kind], LISTED)})"


def _matches(value: str, patterns: Iterable[str]) -> bool:
    # In linear time: it looks for each part between stars at its earliest place.
    return any(fnmatchcase(value, pattern) for pattern in patterns)


class PolicySource:
    """The ChannelPolicies of the cluster, watched on every replica and kept in a table.

    Args:
        table: the table. It is incomplete until all policies are listed; until then no new request is delivered.
    """

    def __init__(self, cache: Cache, table: PolicyTable) -> None:
        self._cache = cache
        self._table = table
        table.is_complete = False

    async def run(self) -> None:
        """Watch the policies until cancelled; they stay in use."""
        informer = await self._cache.informer(ChannelPolicy)
        registration = informer.add_handler(self._handle)
        try:
            await registration.wait_synced()
            self._table.is_complete = True
            await asyncio.Event().wait()
        finally:
            registration.remove()

    def _handle(self, event: CacheEvent) -> None:
        name = event.object.name
        if event.new is None:
            self._table.remove(name)
            return
        try:
            self._table.set(name, ChannelPolicy.from_dict(event.new.decode()).spec)
        except InvalidObject as error:
            self._table.set_invalid(name, error_text(error))
            _log.error("channel policy %s is invalid, so no new request is delivered: %s", name, error)


class PolicyValidator(Validator[NotificationRequest]):
    """A validating webhook for new NotificationRequests.

    It checks channels, recipients and priority. Quotas are left to the operator, which alone counts requests. If the
    policies are not listed yet, it allows the request: the operator checks again.

    Args:
        router: resolves requests that name no channels. Default: their channels are not checked here.
    """

    operations = ("CREATE",)

    def __init__(self, policies: PolicyTable, router: Router | None = None) -> None:
        super().__init__()
        self._policies = policies
        self._router = router

    def validate_create(self, obj: NotificationRequest, request: AdmissionRequest, /) -> None:
        """Refuse a request that a policy does not allow.

        Raises:
            Denied: with the policy's name.
        """
        channels: tuple[str, ...] = tuple(obj.spec.channels or ())
        if not channels and self._router is not None:
            channels = self._router.resolve(attributes_of(obj)).channels
        refusal = self._policies.refusal(request.namespace or obj.namespace or "", obj.spec, channels)
        if refusal is not None:
            raise Denied(refusal.message)
