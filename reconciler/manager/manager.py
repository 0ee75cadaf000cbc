"""Put a process together: what a user makes, fills and runs."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from reconciler.cache import Cache, CachedClient
from reconciler.client import Client, RetryPolicy
from reconciler.clock import Clock, current_clock
from reconciler.controller import Controller, ControllerKeywords, ControllerOptions, Reconciler
from reconciler.errors import ConfigurationError
from reconciler.events import EventRecorder
from reconciler.http import Transport
from reconciler.manager.election.leader import Elector
from reconciler.manager.election.options import LeaderElection, settled
from reconciler.manager.election.watchdog import Watchdog
from reconciler.manager.endpoints.endpoints import debug_queue, health, metrics
from reconciler.manager.endpoints.health import Check, Checks
from reconciler.manager.endpoints.http import Address, Servers
from reconciler.manager.errors import ManagerError
from reconciler.manager.heap import settled_heap
from reconciler.manager.lifecycle import Lifecycle
from reconciler.manager.rbac import rbac_documents
from reconciler.manager.runnables import Entry, Runnable, entry_of
from reconciler.manager.sharding.options import Sharding
from reconciler.manager.sharding.shard import shard_of
from reconciler.manager.signals import handled_signals
from reconciler.manager.statistics import ManagerStatistics
from reconciler.manager.transports import Counted, Fenced, Traced, Urgent
from reconciler.telemetry import MetricsRegistry, tracer

if TYPE_CHECKING:
    from reconciler.webhook import WebhookServer

__all__ = ["Manager"]


class Manager:
    """Run controllers, and what belongs to them, from start to drained end. It runs once.

    Args:
        client: speaks to the server; whoever made it opens and closes it.
        namespaces: what informers watch. Default: all namespaces.
        list_in_pages: how informers list; see `Cache`. Default False.
        leader_election: the lease's name, or a `LeaderElection` with times. Default: none, every replica works.
        leader_election_namespace: where the lease is. Default: the pod's own namespace, or the one in `namespaces`.
        sharding: how active replicas share the objects: a `ShardRing` or a `ShardByIndex`, in place of a leader
            election. Default: none.
        warm_up: let a replica that waits for its election watch and queue, so that it works at once when it is elected;
            before its first reconcile it catches up with the leader before it. It costs the memory and the watches of a
            leader. Default True.
        metrics: ``host:port`` for ``/metrics`` and ``/debug/queue``; port 0 for a free one. Default: not served.
        health: ``host:port`` for ``/healthz``, ``/readyz`` and ``/debug/queue``; may be the same. Default: not served.
        grace_period: seconds that work in progress has to end when the manager stops, after which it is cancelled.
            Default 30, controller-runtime's number.
        clock: source of time. Default: the clock in force.
        rng: spreads delays of cache and election. Default: a fresh one.

    Attributes:
        cache: the informers, for runnables that read stores; controllers declare their kinds by themselves.
        client: reads of declared kinds come from the cache. With leader election, writes are refused while this process
            does not lead; in a ring of shards, while it does not hold its Lease.
        metrics: all counters, and the Prometheus registry for collectors of your own.

    Raises:
        ConfigurationError: an option cannot be used; the message says which, and why.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        list_in_pages: bool = False,
        leader_election: str | LeaderElection | None = None,
        leader_election_namespace: str | None = None,
        sharding: Sharding | None = None,
        warm_up: bool = True,
        metrics: str | None = None,
        health: str | None = None,
        grace_period: float = 30.0,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not (grace_period >= 0 and math.isfinite(grace_period)):
            raise ConfigurationError(f"grace_period must be a number of seconds, 0 or more, not {grace_period!r}")
        given: object = client
        if not isinstance(given, Client):
            hint = f"write Client({type(given).__name__.lower()}) for a transport such as the embedded API server, or "
            if isinstance(given, Manager):
                hint = "a function that `reconciler run` calls is given the manager itself; elsewhere "
            raise ConfigurationError(f"a Manager takes a Client, not {given!r}: {hint}Client.from_config()")
        self._clock = clock or current_clock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads load
        self.metrics = MetricsRegistry()
        self._namespaces = namespaces
        self._elector: Elector | None = None
        self._shard = shard_of(sharding, leader_election, namespaces=namespaces, metrics=self.metrics)
        self._election = self._shard.election
        if leader_election is not None:
            self._election = settled(leader_election, namespace=leader_election_namespace, namespaces=namespaces)
        if self._election is not None:
            self._elector = self._make_elector(client, self._election)
        own = client.through(self._around)
        try:
            self.cache = Cache(
                own,
                namespaces=namespaces,
                list_in_pages=list_in_pages,
                partition=self._shard.partition,
                clock=self._clock,
                rng=self._rng,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self.metrics.unreadable = self.cache.unreadable
        self.client = CachedClient(own, self.cache)
        self._live, self._ready = Checks("healthz"), Checks("readyz")
        self._servers = Servers(self._clock)
        self._lifecycle = Lifecycle(
            servers=self._servers,
            cache=self.cache,
            elector=self._elector,
            warm_up=warm_up,
            grace=grace_period,
            clock=self._clock,
        )
        self._serve(metrics, health)

    # Filling

    def add_controller(
        self,
        reconciler: Reconciler,
        *,
        options: ControllerOptions | None = None,
        **keywords: Unpack[ControllerKeywords],
    ) -> Controller:
        """Add a controller that runs a reconciler. Added while the manager runs, it starts at once.

        Args:
            reconciler: the reconciler; one instance per controller.
            options: see `ControllerOptions` for each option and its default. Default: all defaults.
            keywords: options as keywords, such as ``owns=`` or ``workers=``; they take precedence over `options`.

        Raises:
            ConfigurationError: an option is invalid, or another controller of the manager has this name.
            ManagerError: the manager is stopping.
            TypeError: a keyword is not an option.
        """
        self._lifecycle.check_open()
        options = (options or ControllerOptions()).replace(**keywords)
        checked = options.checked_for(reconciler)
        name = checked.name
        if any(each.name == name for each in self._lifecycle.controllers):
            raise ConfigurationError(f"a controller named {name!r} already exists: give this one another name=")
        controller = Controller(
            reconciler,
            cache=self.cache,
            client=self.client,
            options=options,
            clock=self._clock,
            metrics=self.metrics.controller(name),
            queue_metrics=self.metrics.queue(name),
            status_metrics=self.metrics.status(name),
            check_leader=self.check_leader,
            shard_filter=self._shard.responsibility(name, checked.kind, checked.watches, self.client),
        )
        self._lifecycle.add_controller(controller)
        return controller

    def add(self, runnable: Runnable | Callable[[], Awaitable[object]], *, leader_only: bool = False) -> None:
        """Add something that runs beside the controllers: it starts before them, and is cancelled after they stopped.

        When it returns, nothing happens; when it raises, the manager stops and raises that. Added while the manager
        runs, it starts at once.

        Args:
            runnable: an object with ``async def run(self)``, or an async function without arguments.
            leader_only: run it with the controllers, while this process leads. Default False: on every replica.

        Raises:
            TypeError: it is none of the two.
            ManagerError: the manager stops.
        """
        self._lifecycle.check_open()
        name, call = entry_of(runnable)
        self._lifecycle.add_runnable(Entry(name, call, leader_only))

    def add_webhooks(self, server: WebhookServer) -> None:
        """Serve webhooks on every replica, count them at ``/metrics``, and be ready when they listen.

        They start before the cache lists anything, since a kind of several versions is listed by way of its conversion
        webhook, and stop after it.

        Raises:
            ManagerError: the manager stops.
        """
        self._lifecycle.check_open()
        server.observe(self.metrics.registry)
        self._lifecycle.add_webhooks(server)
        self.add_ready_check("webhooks", server.check_started)

    def add_health_check(self, name: str, check: Check) -> None:
        """Add a check to ``/healthz``: when it fails, Kubernetes restarts the process.

        Args:
            name: unique; served alone under ``/healthz/<name>``.
            check: plain or ``async``, without arguments. It fails by raising, or by returning False.

        Raises:
            ValueError: the name is taken, empty, or holds a slash.
        """
        self._live.add(name, check)

    def add_ready_check(self, name: str, check: Check) -> None:
        """Add a check to ``/readyz``; arguments and errors are those of `add_health_check`."""
        self._ready.add(name, check)

    # Running

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`, then drain.

        A second signal ends the process at once, with exit code 1. Cancellation drains as well and is raised then; a
        second one cuts the grace period short. While it runs, the garbage collector leaves alone what was there when
        everything had started (``gc.freeze``): a program that runs a manager is there for that.

        Raises:
            ManagerError: it was run before.
            ConfigurationError: an address cannot be listened on.
            CacheSyncTimeout: a kind could not be listed in time; the message says which, and what the server answered.
            LeadershipLost: the lease was lost; end the process, and let Kubernetes start it anew.
            GracePeriodExceeded: something had not ended in time; the message says what.
            Exception: what a runnable raised.
        """
        with handled_signals(self.stop), settled_heap() as settle:
            async with self._lifecycle:
                settle()
                await self._lifecycle.stop_asked()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run during an ``async with`` block: started and synced on entry, drained on exit. No signals are handled.

        With leader election the entry does not wait to be elected; controllers start when this process is.

        A failure of a part cancels the block and is raised in its place. Cancellation drains as in `run`.

        Raises:
            Exception: as `run`.
        """
        async with self._lifecycle:
            yield self

    def stop(self) -> None:
        """Ask `run` to drain and return."""
        self._lifecycle.stop()

    # Looking

    def check_leader(self) -> None:
        """Return if this process may act: it leads at this moment, or there is no leader election.

        Call it right before an effect outside the cluster that two processes must not have at once; writes of `client`
        are checked already. From any thread.

        Raises:
            NotLeader: it may not.
        """
        if self._elector is not None:
            self._elector.check()

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return the controllers, in the order in which they were added."""
        return tuple(self._lifecycle.controllers)

    def rbac(self, name: str, *, namespace: str = "default") -> list[dict[str, Any]]:
        """Return the service account, roles and bindings that this manager and its controllers need, as documents.

        They hold what the controllers watch, the writes of the framework, and what each reconciler declares in
        `Reconciler.permissions`; with `namespaces`, roles in these in place of a cluster role.

        Args:
            name: of the service account, and the beginning of all other names.
            namespace: where the service account is. Default ``"default"``.

        Raises:
            ConfigurationError: a name cannot be one.
        """
        return rbac_documents(
            [each.access for each in self._lifecycle.controllers],
            self.cache.informers,
            name=name,
            namespace=namespace,
            namespaces=self._namespaces,
            lease=self._election,
            lease_is_named=self._shard.name is None,
        )

    @property
    def metrics_url(self) -> str | None:
        """Return ``http://host:port`` where metrics are served, None while they are not."""
        return self._servers.url("metrics")

    @property
    def health_url(self) -> str | None:
        """Return ``http://host:port`` where health is served, None while it is not."""
        return self._servers.url("health")

    def statistics(self) -> ManagerStatistics:
        """Return a snapshot of all figures."""
        return ManagerStatistics(
            state=self._lifecycle.state,
            leading=None if self._elector is None else self._elector.leading,
            shard=self._shard.name,
            controllers=tuple(each.statistics() for each in self._lifecycle.controllers),
            cache=self.cache.statistics(),
        )

    # Inside

    def _make_elector(self, client: Client, election: LeaderElection) -> Elector:
        # Its own retries are the election's; a request that is repeated behind its back would come too late.
        own = client.through(
            lambda transport: Urgent(Counted(transport, self.metrics.requests)), retry=RetryPolicy(attempts=1)
        )
        told = self._shard.name is None
        return Elector(
            own,
            election,
            counters=self.metrics.leader(election.name),
            clock=self._clock,
            rng=self._rng,
            watchdog=Watchdog(self._clock),
            labels={**election.labels, **self._shard.lease_labels},
            events=EventRecorder(own, source="leader-election", clock=self._clock, rng=self._rng) if told else None,
        )

    def _around(self, transport: Transport) -> Transport:
        spans = tracer()
        counted: Transport = Counted(transport, self.metrics.requests)
        counted = counted if spans is None else Traced(counted, spans)
        return counted if self._elector is None else Fenced(counted, self._elector.check)

    def _serve(self, metrics_address: str | None, health_address: str | None) -> None:
        debug = {"/debug/queue": debug_queue(lambda: self._lifecycle.controllers, self._clock, self._shard.told)}
        self._ready.add("manager", self._is_running)
        if self._elector is not None:
            self._live.add("leader-election", self._elector.check_renewed)
        if metrics_address is not None:
            address = Address.parse("metrics", metrics_address)
            self._servers.serve(address, {"/metrics": metrics(self.metrics), **debug})
        if health_address is not None:
            address = Address.parse("health", health_address)
            checks = {"/healthz": health(self._live), "/readyz": health(self._ready)}
            self._servers.serve(address, {**checks, **debug})

    def _is_running(self) -> None:
        if self._lifecycle.state != "running":
            raise ManagerError(f"the manager is {self._lifecycle.state}")
