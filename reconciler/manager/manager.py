"""The manager: connects cache, client, controllers and endpoints, and runs them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import JSONObject
from reconciler._version import __version__
from reconciler.cache import Cache, CachedClient
from reconciler.cache.cache import CacheStatistics
from reconciler.client import Client, Retries
from reconciler.controller import Controller, ControllerOptions, Reconciler
from reconciler.controller.controller import ControllerStatistics
from reconciler.controller.observers import observe_reconciles
from reconciler.controller.options import checked_options, reusable_options
from reconciler.errors import ConfigurationError
from reconciler.events import EventRecorder
from reconciler.http import Transport
from reconciler.manager.election import (
    Elector,
    FencedTransport,
    LeaderElection,
    UrgentTransport,
    Watchdog,
    complete_election,
)
from reconciler.manager.endpoints.handlers import Check, Checks, Turns, debug_recording, health, metrics
from reconciler.manager.endpoints.keys import ReportedProcess, debug_keys
from reconciler.manager.endpoints.security import EndpointSecurity, Guard, Reviewer
from reconciler.manager.endpoints.server import Address, MainLoop, Servers
from reconciler.manager.event_loop import BlockedLoopWatchdog
from reconciler.manager.lifecycle import Lifecycle, State
from reconciler.manager.process import enlarge_stacks, handled_signals, tuned_garbage_collector
from reconciler.manager.rbac import rbac_documents
from reconciler.manager.runnables import ManagerError, Runnable, name_and_call
from reconciler.manager.sharding import Sharding, new_shard
from reconciler.manager.waiting import Wait, waits
from reconciler.meta.metadata import ResourceType
from reconciler.recording.collector import Collector, RecordSink
from reconciler.recording.recording import Recording
from reconciler.telemetry.logs import NamedValues
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.tracing import ObservedTransport, tracer

if TYPE_CHECKING:
    from reconciler.manager.console.server import Console
    from reconciler.webhook import Converter, Defaulter, Validator, WebhookServer

    Webhook = Validator | Defaulter | Converter


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """A snapshot of a manager's figures.

    Attributes:
        state: the manager's state.
        leading: whether this process is the leader, or holds its shard's Lease; None if there is no Lease.
        shard: the name or the index of this process's shard; None without sharding.
        controllers: the figures of each controller, in the order in which they were added.
        cache: the figures of the cache.
    """

    state: State
    leading: bool | None
    shard: str | None
    controllers: tuple[ControllerStatistics, ...]
    cache: CacheStatistics


class Manager:
    """A process that runs controllers and everything that they need. A manager runs only once.

    Args:
        client: the connection to the API server, whose clock and source of jitter the manager uses, too. Its creator
            opens and closes it.
        namespaces: the namespaces that informers watch. Default: all.
        leader_election: the lease's name, or a `LeaderElection`. Default: no election, all replicas are active.
        sharding: how active replicas share the objects: a `ShardRing` or a `ShardByIndex`, instead of leader election.
            Default: no sharding.
        metrics: ``host:port`` for ``/metrics``, ``/debug/queue`` and ``/debug/keys``; port 0 for a free one. Default:
            not served.
        health: ``host:port`` for ``/healthz``, ``/readyz`` and the debug paths; may be the same address. Default: not
            served.
        webhooks: ``host:port`` on which webhooks are served. Default ``0.0.0.0:9443``, controller-runtime's port.
        webhook_certificates: directory with ``tls.crt`` and ``tls.key`` for the webhooks. Default: they are not served,
            for example in a test or on a developer's machine.
        security: TLS and authentication for ``/metrics``, ``/debug`` and the console. ``/healthz`` and ``/readyz`` stay
            open; the address of `health` serves no debug paths then. Default: neither.
        console: ``host:port`` for the console, a page for the browser; needs the extra ``console``. Default: not
            served.
        grace_period: the duration (seconds, a timedelta or ``"30s"``) that work in progress has to finish when the
            manager stops, before it is cancelled. Default 30, controller-runtime's number.
        recording: where to record what the reconciles depend on: a `Recording` on disk, or a `Trace` in memory.
            Default: nothing is recorded.

    Attributes:
        cache: the informers, for runnables that read from stores. Controllers declare their kinds themselves.
        client: reads of declared kinds come from the cache. With leader election, writes are refused unless this
            process is the leader; in a ring of shards, unless it holds its Lease.
        metrics: all counters, and the Prometheus registry for your own collectors.
        console: the console, for pages of your own; None without one.
        recording: as given.

    Raises:
        ConfigurationError: an option is invalid; the message names it and the reason.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        leader_election: str | LeaderElection | None = None,
        sharding: Sharding | None = None,
        metrics: str | None = None,
        health: str | None = None,
        webhooks: str = "0.0.0.0:9443",
        webhook_certificates: str | os.PathLike[str] | None = None,
        security: EndpointSecurity | None = None,
        console: str | None = None,
        grace_period: DurationLike = 30.0,
        recording: RecordSink | None = None,
    ) -> None:
        grace = seconds_of("grace_period", grace_period, zero=True)
        _check_client(client)
        if security is not None and not isinstance(security, EndpointSecurity):
            raise ConfigurationError(f"security takes an EndpointSecurity, not {type(security).__name__}")
        self._client = client
        connection = client.session.connection
        self._clock, self._rng = connection.clock, connection.rng
        self.recording = recording
        self._collector = None if recording is None else Collector(self._clock, recording)
        if self._collector is not None:
            self._clock = self._collector.clock
        self.metrics = MetricsRegistry()
        self._namespaces = namespaces
        self._elector: Elector | None = None
        self._shard = new_shard(sharding, leader_election, namespaces=namespaces, metrics=self.metrics)
        self._election = self._shard.election
        if leader_election is not None:
            self._election = complete_election(leader_election, namespaces)
        if self._election is not None:
            self._elector = self._make_elector(client, self._election)
        own = client.through(self._wrap_transport)
        self.cache = self._make_cache(own)
        self.metrics.cached_kinds = self.cache.kinds
        self.client = CachedClient(own, self.cache)
        self._live, self._ready = Checks("healthz"), Checks("readyz")
        self._security = security
        watchdog = BlockedLoopWatchdog(self._clock, self.metrics.event_loop)
        self._main_loop = MainLoop(watchdog)
        guard = None if security is None else self._make_guard(client, security)
        self._servers = Servers(self._clock, self._main_loop, security, guard)
        self._lifecycle = Lifecycle(
            servers=self._servers,
            cache=self.cache,
            elector=self._elector,
            warm_up=self._election is not None and self._election.warm_up,
            grace=grace,
            clock=self._clock,
            watchdog=watchdog,
            banner=self._banner,
        )
        self._serve(metrics, health)
        self._webhook_address, self._webhook_certificates = webhooks, webhook_certificates
        self._webhook_server: WebhookServer | None = None
        self._served_webhooks: WebhookServer | None = None
        self._webhooks: list[Webhook] = []
        self.console: Console | None = None if console is None else self._serve_console(console)

    def add_controller(self, reconciler: Reconciler, **options: Unpack[ControllerOptions]) -> Controller:
        """Add a controller that runs a reconciler. Added while the manager runs, it starts immediately.

        Args:
            reconciler: the reconciler; one instance per controller.
            options: such as ``owns=`` or ``workers=``; see `ControllerOptions` for each and its default.

        Raises:
            ConfigurationError: an option is invalid, or another controller of the manager has this name or reconciler.
            ManagerError: the manager is stopping.
            TypeError: a keyword is not an option.
        """
        self._lifecycle.check_open()
        options = reusable_options(options)
        checked = checked_options(reconciler, options)
        name = checked.name
        for each in self._lifecycle.controllers:
            if each.name == name:
                raise ConfigurationError(f"a controller named {name!r} already exists: pass another name=")
            if each.reconciler is reconciler:
                raise ConfigurationError(
                    f"controller {name!r}: this {type(reconciler).__name__} already belongs to the controller "
                    f"{each.name!r}: create one instance per controller"
                )
        with contextlib.nullcontext() if self._collector is None else observe_reconciles(self._collector):
            controller = Controller(
                reconciler,
                cache=self.cache,
                client=self.client,
                clock=self._clock,
                metrics=self.metrics.controller(name),
                queue_metrics=self.metrics.queue(name),
                status_metrics=self.metrics.status(name),
                check_leader=self.check_leader,
                shard_filter=self._shard.shard_filter(name, checked.kind, checked.watches, self.client),
                **options,
            )
        self._lifecycle.add_controller(controller)
        return controller

    def add(self, runnable: Runnable | Callable[[], Awaitable[object]], *, leader_only: bool = False) -> None:
        """Add a runnable beside the controllers. It starts before they do, and is cancelled after they have stopped.

        The manager continues when it returns; when it raises, the manager stops and raises the same exception. If the
        manager is already running, the runnable starts immediately.

        Args:
            runnable: an object with ``async def run(self)``, or an async function without parameters.
            leader_only: whether it runs only while this process leads, like the controllers. Default False: on every
                replica.

        Raises:
            TypeError: the object is not a runnable.
            ManagerError: the manager is stopping or has stopped.
        """
        self._lifecycle.check_open()
        group = self._lifecycle.leader_runnables if leader_only else self._lifecycle.runnables
        group.add(*name_and_call(runnable))

    def add_webhooks(self, *webhooks: Webhook | WebhookServer) -> None:
        """Add validators, defaulters and converters, or a server of your own with some.

        Webhooks run on every replica, add metrics to ``/metrics`` and a check to ``/readyz``. They start before the
        cache lists anything, because lists of a kind with several versions need its conversion webhook, and stop after
        the cache. Without `webhook_certificates` the manager serves only servers of your own.

        Raises:
            ConfigurationError: a webhook's path is used by another, the certificate cannot be loaded, or the manager
                has another webhook server.
            TypeError: something else was given.
            ManagerError: the manager is stopping or has stopped.
        """
        from reconciler.webhook import WebhookServer

        self._lifecycle.check_open()
        for webhook in webhooks:
            if isinstance(webhook, WebhookServer):
                self._add_webhook_server(webhook)
            else:
                self._own_webhook_server().add(webhook)
                self._webhooks.append(webhook)

    @property
    def webhooks(self) -> tuple[Webhook, ...]:
        """Return the validators, defaulters and converters, in the order in which they were added."""
        return tuple(self._webhooks)

    def _own_webhook_server(self) -> WebhookServer:
        from reconciler.webhook import WebhookServer

        if self._webhook_server is None:
            server = WebhookServer(self._webhook_address, certificates=self._webhook_certificates)
            if self._webhook_certificates is not None:
                self._add_webhook_server(server)
            self._webhook_server = server
        return self._webhook_server

    def _add_webhook_server(self, server: WebhookServer) -> None:
        if self._served_webhooks is not None:
            raise ConfigurationError(
                "the manager already has a webhook server: add the webhooks to that one, or omit webhook_certificates"
            )
        server.observe(self.metrics.registry)
        self._lifecycle.add_webhooks(server)
        self._served_webhooks = server
        self.add_ready_check("webhooks", server.check_started)

    def add_health_check(self, name: str, check: Check) -> None:
        """Add a check to ``/healthz``. While it fails, the liveness probe fails and Kubernetes restarts the process.

        Args:
            name: a unique name; the check alone is served at ``/healthz/<name>``.
            check: a function without parameters, plain or ``async``, that fails by raising or by returning False.

        Raises:
            TypeError: the check is not a function.
            ValueError: the name is taken, empty, or contains a slash.
        """
        self._live.add(name, check)

    def add_ready_check(self, name: str, check: Check) -> None:
        """Add a check to ``/readyz``; arguments and errors are those of `add_health_check`."""
        self._ready.add(name, check)

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`, then drain.

        A signal stops all managers that run in the main thread; a second one exits immediately with exit code 1. In
        another thread signals are not handled: call `stop`. Cancellation also drains, and is raised afterwards; a
        second cancellation cuts the grace period short. While the manager runs, the garbage collector ignores the
        objects that existed when it had started (``gc.freeze``), unless the program has frozen objects itself.

        Raises:
            ManagerError: the manager has run before.
            ConfigurationError: an address cannot be listened on, or another ring of this process has its Lease.
            CacheSyncTimeout: a kind could not be listed in time; the message names it and the server's response.
            LeadershipLost: the lease was lost; exit, and let Kubernetes restart the process.
            GracePeriodExceeded: something did not stop in time; the message names it.
            Exception: the exception of a runnable.
        """
        with handled_signals(self.stop), tuned_garbage_collector() as freeze:
            async with self._prepared(), self._lifecycle:
                freeze()
                await self._lifecycle.wait_for_stop()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run during an ``async with`` block: started and synced on entry, drained on exit. Signals are not handled.

        With leader election the entry does not wait for the election; controllers start once this process is elected.
        When a part fails, the block is cancelled and the failure raised instead. Cancellation drains as in `run`.

        Raises:
            Exception: the same exceptions as `run`.
        """
        async with self._prepared(), self._lifecycle:
            yield self

    def stop(self) -> None:
        """Make `run` drain and return. Safe to call from any thread, and before `run`."""
        self._lifecycle.stop()

    def check_leader(self) -> None:
        """Raise unless this process may act: it is the leader now, or there is no leader election.

        Call it right before an effect outside the cluster that must not happen in two processes at once. Writes of
        `client` are already checked. Safe to call from any thread.

        Raises:
            NotLeader: this process is not the leader.
        """
        if self._elector is not None:
            self._elector.check()

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return the controllers, in the order in which they were added, without those that were stopped alone."""
        return tuple(self._lifecycle.controllers)

    def rbac(self, name: str, *, namespace: str = "default") -> list[JSONObject]:
        """Return manifests of the service account, roles and bindings that this manager and its controllers need.

        The rules cover what the controllers watch, the framework's own writes, and the `Reconciler.permissions` of each
        reconciler. With `namespaces` there is a role in each of them instead of a cluster role. If the API
        server authenticates the clients of the endpoints, there are two more cluster roles, to be bound to those who
        may read ``/metrics`` (``NAME-metrics-reader``), and ``/debug`` and the console (``NAME-debug-reader``).

        Args:
            name: the name of the service account, the roles and the bindings.
            namespace: the service account's namespace. Default ``"default"``.

        Raises:
            ConfigurationError: a name is invalid.
        """
        return rbac_documents(
            [each.access for each in self._lifecycle.controllers],
            self.cache.informers,
            name=name,
            namespace=namespace,
            namespaces=self._namespaces,
            lease=self._election,
            lease_is_named=self._shard.name is None,
            with_reviews=self._security is not None and self._security.authentication == "kubernetes",
        )

    @property
    def metrics_url(self) -> str | None:
        """Return ``http://host:port`` or ``https://host:port`` of the metrics endpoint; None while it is not served."""
        return self._servers.url("metrics")

    @property
    def health_url(self) -> str | None:
        """Return ``http://host:port`` of the health endpoint; None while it is not served."""
        return self._servers.url("health")

    @property
    def console_url(self) -> str | None:
        """Return the URL of the console; None while it is not served."""
        return self._servers.url("console")

    def statistics(self) -> ManagerStatistics:
        """Return a snapshot of the manager's figures."""
        return ManagerStatistics(
            state=self._lifecycle.state,
            leading=None if self._elector is None else self._elector.leading,
            shard=self._shard.name,
            controllers=tuple(each.statistics() for each in self._lifecycle.controllers),
            cache=self.cache.statistics(),
        )

    def _make_cache(self, client: Client) -> Cache:
        try:
            return Cache(
                client, namespaces=self._namespaces, partition=self._shard.partition, clock=self._clock, rng=self._rng
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    def _make_elector(self, client: Client, election: LeaderElection) -> Elector:
        # The elector retries by itself; a request that the client repeats would arrive too late.
        own = client.through(
            lambda transport: UrgentTransport(ObservedTransport(transport, self.metrics.requests)),
            retries=Retries(attempts=1),
        )
        events = EventRecorder(own, source="leader-election", clock=self._clock, rng=self._rng)
        return Elector(
            own,
            election,
            counters=self.metrics.leader(election.name),
            clock=self._clock,
            rng=self._rng,
            watchdog=Watchdog(self._clock),
            labels={**election.labels, **self._shard.lease_labels},
            events=events if self._shard.name is None else None,
        )

    def _make_guard(self, client: Client, security: EndpointSecurity) -> Guard:
        # Not the manager's own client: a standby must answer scrapes, too.
        own = client.through(lambda transport: ObservedTransport(transport, self.metrics.requests))
        return Guard(security, Reviewer(own, self._clock), self._clock)

    def _wrap_transport(self, transport: Transport) -> Transport:
        transport = ObservedTransport(transport, self.metrics.requests, tracer())
        return transport if self._elector is None else FencedTransport(transport, self._elector.check)

    def _serve(self, metrics_address: str | None, health_address: str | None) -> None:
        process, turns = self._process, Turns(self._clock)
        debug = {
            "/debug/queue": debug_keys(process, turns, queued=True),
            "/debug/keys": debug_keys(process, turns),
            "/debug/recording": debug_recording(self._segments),
        }
        self._ready.add("manager", self._is_running)
        self._ready.add("credentials", self._check_credentials)
        if self._elector is not None:
            self._live.add("leader-election", self._elector.check_renewed)
        if metrics_address is not None:
            self._servers.serve(Address.parse("metrics", metrics_address), {"/metrics": metrics(self.metrics), **debug})
        if health_address is not None:
            address = Address.parse("health", health_address)
            checks = {
                "/healthz": health(self._live, self._main_loop, live=True),
                "/readyz": health(self._ready, self._main_loop, live=False, waits=self._waits),
            }
            self._servers.serve(address, checks if self._security else {**checks, **debug}, open_paths=checks)

    def _serve_console(self, address: str) -> Console:
        from reconciler.manager.console.server import Console
        from reconciler.manager.console.state import Parts

        console = Console(
            Parts(
                cluster=self._cluster,
                namespaces=self._namespaces,
                process=self._process,
                informers=lambda: self.cache.informers,
                elector=self._elector,
                identity=None if self._election is None else self._election.identity,
            )
        )
        parsed = Address.parse("console", address)
        if not parsed.is_loopback and not (self._security and self._security.authenticates):
            raise ConfigurationError(
                f"console={address!r}: other machines could read it: write '127.0.0.1:{parsed.port}' and use "
                "'kubectl port-forward', or ask for a token with security="
            )
        self._servers.serve(parsed, {"": console.handle}, background=console.run)
        return console

    @contextlib.asynccontextmanager
    async def _prepared(self) -> AsyncIterator[None]:
        """Claim the shard and enlarge the stacks of threads; record while the block runs, if that was asked for."""
        enlarge_stacks()
        transport = self._client.session.connection.transport
        with self._shard.claimed(getattr(transport, "host", "") or transport):
            if self.recording is None or self._collector is None:
                yield
                return
            if isinstance(self.recording, Recording):
                self.metrics.recording = self.recording.statistics
            self.recording.start(self._known_kinds)
            try:
                with self._collector.recording():
                    yield
            finally:
                await self.recording.stop()

    @property
    def _process(self) -> ReportedProcess:
        return ReportedProcess(
            controllers=lambda: self._lifecycle.controllers,
            role=self._role,
            waits=self._waits,
            shard=self._shard.debug_info,
            clock=self._clock,
        )

    def _waits(self) -> Sequence[Wait]:
        refused = self.metrics.requests.latest == "401"
        return waits(self.cache.informers, self._elector, credentials_refused=refused)

    def _check_credentials(self) -> None:
        if self.metrics.requests.latest == "401":
            raise ManagerError("the API server refuses the credentials: its latest response was 401 Unauthorized")

    def _known_kinds(self) -> list[ResourceType]:
        discovered = self._client.session.connection.discovery.known()
        watched = [each.served_as for each in self.cache.informers]
        return [*discovered, *(each for each in watched if each is not None)]

    def _segments(self) -> Sequence[Path]:
        return self.recording.segments() if isinstance(self.recording, Recording) else ()

    @property
    def _cluster(self) -> str:
        """Return the address of the cluster, without credentials."""
        return str(getattr(self.client.live.session.connection.transport, "host", "")) or "in this process"

    def _banner(self) -> NamedValues:
        """Return the first log line: the version, the cluster without credentials, and the options."""
        election, shard = self._election, self._shard.name
        parts = {
            "cluster": self._cluster,
            "namespaces": "all" if self._namespaces is None else " ".join(self._namespaces),
            "controllers": " ".join(each.name for each in self._lifecycle.controllers) or "none",
            "metrics": self.metrics_url or "not served",
            "health": self.health_url or "not served",
            "console": self.console_url,
            "authentication": self._authentication,
            "shard": shard,
            "leader election": "none" if election is None and shard is None else None,
            "recording": None if self.recording is None else str(self.recording),
            "lease": None if election is None else f"{election.namespace}/{election.name} as {election.identity}",
        }
        return NamedValues(f"kube-reconciler {__version__}", {name: text for name, text in parts.items() if text})

    @property
    def _authentication(self) -> str | None:
        security = self._security
        return None if security is None else security.authentication or ("token" if security.authenticates else None)

    def _role(self) -> str:
        standby = self._elector is not None and not self._elector.leading
        return "standby" if standby and self._lifecycle.state == "running" else self._lifecycle.state

    def _is_running(self) -> None:
        # Lists need the converter, and a Service routes to ready pods only: to wait for the cache would be a deadlock.
        converts = self._served_webhooks is not None and self._served_webhooks.converts
        state = self._lifecycle.state
        if not (self._lifecycle.complete or (converts and state in ("starting", "running"))):
            raise ManagerError(f"the manager is {'warming up' if state == 'running' else state}")


def _check_client(client: object) -> None:
    if isinstance(client, Client):
        return
    hint = f"write Client({type(client).__name__.lower()}) for a transport such as the embedded API server, or "
    if isinstance(client, Manager):
        hint = "`reconciler run` passes the manager itself to your function; in other programs write "
    raise ConfigurationError(f"a Manager takes a Client, not {client!r}: {hint}Client.from_config()")
