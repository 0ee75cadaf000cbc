"""The embedded API server: one object that turns requests into responses, with or without sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from reconciler._core.durations import DurationLike
from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import ClusterStorage
from reconciler.apiserver.encoding.versions import NEWEST, checked_version, known_version
from reconciler.apiserver.faults import EventOrder, OneOrMore
from reconciler.apiserver.fork import NAMESPACES, Fork, Progress
from reconciler.apiserver.manifests import documents_of
from reconciler.apiserver.serving.handler import IMMEDIATE, Handler, chosen_controllers, stand_ins_of
from reconciler.apiserver.serving.handler_chain import ChangeFollower, HandlerChain, ServerStatistics
from reconciler.apiserver.serving.kubelet import ExecCallback, Kubelet, LogCallback
from reconciler.apiserver.serving.listener import SocketListener, UserConnection, serving_certificate
from reconciler.apiserver.serving.removed_versions import RemovedVersions, upgraded_definition
from reconciler.apiserver.serving.request_log import LoggedRequest, RequestConditions, RequestLog
from reconciler.apiserver.state import DataDirectory, ForkReport, State, read_state, state_of
from reconciler.apiserver.users import StaticTokens, UserInfo, with_groups
from reconciler.apiserver.verbs.watch import WatchHold
from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse, Transport

if TYPE_CHECKING:
    from reconciler._workloads import WorkloadControllers


class APIServer:
    """A Kubernetes API server in memory.

    It is a `Transport`: hand it to a client, or `send` requests. Other programs reach it through `url` or
    `write_kubeconfig`. Use it with ``async with``; leaving the block ends all watches and sockets.

    Args:
        clock: the source of timestamps and bookmark times; the current clock by default.
        seed: the seed of uids, generated names and everything random in faults; 0 by default.
        history: how many events of each kind are kept at least for watches and paged lists; 4096 by default.
        log: how many requests are logged; 10,000 by default.
        event_order: whether watches receive the event of a write ``"before"`` its response, ``"after"`` it (the
            default), ``"late"``, or ``"seeded"``: one of these, drawn for each write. A real server shows both orders.
        provision_namespaces: create the missing namespace of an object that is created, as a real server does with the
            admission plugin NamespaceAutoProvision; True by default, so that tests need not. A namespace that was
            deleted is not created again. False answers 404, as a real server without that plugin.
        rbac: let users do only what roles allow, as a real server does with ``--authorization-mode=RBAC``; the roles
            and bindings that a real server brings exist then. False, the default, allows everything to everyone.
        data: a directory to keep the state in; the next server with this directory continues from it, with the same
            token. By default the state is lost with the server.
        controllers: the cluster's own controllers that the server plays: ``"garbage"`` and ``"namespaces"``, which
            follow each write at once and are the default, and stand-ins for ``"deployments"``, ``"statefulsets"``,
            ``"daemonsets"``, ``"jobs"``, every other one of the ``"pods"``, ``"claims"``, ``"endpoints"`` and
            ``"disruptionbudgets"``; ``"all"`` is each of them. A mapping gives each stand-in the duration until its
            pods are ready, or end; 1 by default.
        tls: serve over TLS, with a new certificate, as a real server does; needs the extra ``develop``. False, the
            default, serves without.
        version: the version of Kubernetes: ``"1.33"``, ``"1.34"``, ``"1.35"`` or ``"1.36"``, or a patch release of
            one, such as ``"v1.34.2"``. It decides which kinds, fields and features there are. Default: the newest; of a
            fork, the version of the cluster if it is one of these.
        served_until: also serve the versions of kinds that this release of Kubernetes served and that were removed
            later, such as ``"1.21"`` for ``policy/v1beta1`` and CustomResourceDefinitions in
            ``apiextensions.k8s.io/v1beta1``, as views of today's versions. None, the default, answers 404.

    Attributes:
        faults: the injected faults; see `Faults.add`.

    Raises:
        MissingExtra: `tls` is set, and the extra ``develop`` is not installed.
        ConfigurationError: a controller is unknown, or its seconds are not a number, negative or infinite; the version
            is unknown, or does not have a feature that is set; `served_until` adds no version.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        history: int = 4096,
        log: int = 10_000,
        event_order: EventOrder = "after",
        provision_namespaces: bool = True,
        rbac: bool = False,
        data: str | os.PathLike[str] | None = None,
        controllers: Collection[str] | Mapping[str, DurationLike] = IMMEDIATE,
        tls: bool = False,
        version: str | None = None,
        served_until: str | None = None,
    ) -> None:
        self._asked_version = None if version is None else checked_version(version)
        release = self._asked_version or NEWEST
        self._removed_versions = None if served_until is None else RemovedVersions(served_until)
        controllers = chosen_controllers(controllers)
        clock = clock or current_clock()
        rng = random.Random(seed)  # noqa: S311 - reproducible on purpose; the token guards loopback only
        self._credentials = StaticTokens()
        self._open = False
        self._clock = clock
        self._stand_ins = stand_ins_of(controllers)
        self._kubelet = Kubelet(serves="pods" in self._stand_ins)
        self._workloads: WorkloadControllers | None = None
        self._data = None if data is None else DataDirectory(Path(data))
        self._fork: Fork | None = None
        self._kinds_at_once: Sequence[str] = ()
        self._webhook_servers: dict[str, Transport] = {}
        context, self.authority = serving_certificate() if tls else (None, "")
        self._listener = SocketListener(self.send, lambda: self._handler_chain.handler.access, clock, context)
        self._new_handler = functools.partial(
            Handler,
            clock,
            rng,
            history=history,
            provision_namespaces=provision_namespaces,
            webhook_servers=self._webhook_servers,
            credentials=self._credentials,
            rbac=rbac,
            controllers=controllers,
            release=release,
            kubelet=self._kubelet,
        )
        self._handler_chain = HandlerChain(self._new_handler(), clock, rng, log=log, event_order=event_order)
        self.faults = self._handler_chain.faults

    # lifecycle

    @classmethod
    def fork(
        cls,
        client: Transport,
        *,
        kinds: Sequence[object] = (),
        namespaces: Sequence[str] = (),
        selectors: Mapping[str, str] | None = None,
        copy_secrets: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> Self:
        """Return a server that begins as a copy of another cluster: ``async with APIServer.fork(client) as server``.

        ``await APIServer.fork(client)`` also starts it; `close` stops it then. Definitions, namespaces and webhook
        configurations are copied at the start, the objects of any other kind before the first request for it. They
        keep their uids and versions. From then on the server lives by itself, and nothing follows the cluster.

        The cluster is only read: nothing but GET requests is sent to it. Its webhooks are not called, and count as
        webhooks that allow everything; `forked` has what the fork lacks. A `snapshot` of the server is a fixture.

        Args:
            client: an open `reconciler.Client` of the cluster, or anything with ``send``.
            kinds: kinds that are copied at the start: ``"apps/v1/Deployment"``, a name that kubectl accepts, or a class
                with a ``gvk``. All others are copied when they are asked for.
            namespaces: the namespaces of which objects are copied. Default: all.
            selectors: label selectors by kind, for kinds of which only some objects are copied.
            copy_secrets: whether the values of Secrets are copied. Default False: they are replaced by values of the
                same shape.
            progress: called after each page of a list with the name of the kind and the number of objects so far.
            options: of the server, as its class describes, except `data`.

        Raises:
            ConfigurationError: at the start: a kind does not exist, or the cluster answered something else.
            APIError: at the start, or by a request that copies: the cluster refused.
            TransportError: likewise: the cluster did not respond.
        """
        for each, value in (("kinds", kinds), ("namespaces", namespaces)):
            if isinstance(value, str):
                raise ConfigurationError(f"{each} must be a list of names, not the string {value!r}")
        if "data" in options:
            raise ConfigurationError("a fork keeps no data= directory: write its snapshot() to a file")
        server = cls(**options)
        report = ForkReport(namespaces=list(namespaces), selectors=dict(selectors or {}))
        server._fork = Fork(client, server._clock, report, copies_secrets=copy_secrets, progress=progress)
        server._kinds_at_once = [str(getattr(kind, "gvk", kind)) for kind in kinds]
        return server

    @property
    def forked(self) -> Fork | None:
        """Return what a fork has of the other cluster, and lacks; None for other servers."""
        return self._fork

    def __await__(self) -> Generator[Any, None, Self]:
        """Start the server, as ``async with`` does; `close` stops it."""
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Start the server.

        Cancellation closes it.

        Raises:
            ConfigurationError: the data directory is in use, damaged or not writable.
            APIError, TransportError: the cluster of a fork cannot be read.
        """
        if self._fork is not None and not self._open:
            await self._copy(self._fork)
        if self._data is not None:
            self._use(self._data)
        self._open = True
        self._listener.attach(asyncio.get_running_loop())
        try:
            if self._stand_ins:
                from reconciler._workloads import WorkloadControllers

                self._workloads = WorkloadControllers(self, self._stand_ins, clock=self._clock)
                await self._workloads.start()
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def _cluster(self) -> ClusterStorage:
        return self._handler_chain.handler.cluster

    def _take_version(self, version: str) -> None:
        """Take the version of a cluster, such as ``v1.34.2-gke.100``, unless another was asked for or it is unknown."""
        release = self._asked_version or known_version(version) or NEWEST
        self._new_handler = functools.partial(self._new_handler, release=release)

    async def _copy(self, fork: Fork) -> None:
        self._take_version(await fork.server_version())
        self._handler_chain.replace_handler(self._new_handler())
        state = await fork.definitions(self._cluster)
        self._handler_chain.replace_handler(self._forked_handler(state, fork))
        for kind in self._kinds_at_once:
            await fork.copy(kind)

    def _forked_handler(self, state: State, fork: Fork) -> Handler:
        # Without permission to list namespaces, those of the copied objects are unknown, and must not be missed.
        unlisted = NAMESPACES in fork.report.denied
        handler = self._new_handler(state=state, unasked=fork.unasked, provision_namespaces=unlisted)
        fork.attach(handler)
        return handler

    def _use(self, data: DataDirectory) -> None:
        try:
            state, token = data.open(self._credentials.token)
            self._credentials.use(token)
            self._handler_chain.data = data
            self._handler_chain.replace_handler(self._new_handler(state=state))
        except BaseException:
            data.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all watches, fail stalled requests and stop listening.

        Cancellation may leave sockets to the event loop, which closes them.
        """
        workloads, self._workloads = self._workloads, None
        if workloads is not None:
            await workloads.stop()
        self._open = False
        try:
            self._handler_chain.close()
        finally:
            if self._data is not None:
                self._data.close()
                self._handler_chain.data = None
            await self._listener.close()

    async def restart(self, *, wipe: bool = False) -> None:
        """Break off watches and connections and drop the history, as a restart of the real server does.

        Cancellation leaves the server restarted.

        Args:
            wipe: drop the data as well; versions start at the beginning, as after etcd was replaced by an empty one.
        """
        if wipe:
            self._fork = None
            await self._continue_with(self._new_handler(), "the server restarted and lost its data")
        else:
            self._handler_chain.restart()
            self._listener.abort_connections()
            await asyncio.sleep(0)

    def snapshot(self) -> bytes:
        """Return all objects and the version of the server, for `restore`; lines of JSON, to be kept in a file.

        That of a fork has the kinds that were copied so far.
        """
        report = None if self._fork is None else self._fork.report
        return b"".join(state_of(self._cluster, report).lines())

    async def restore(self, snapshot: bytes, *, bump_revision: int | None = None) -> None:
        """Replace the state by a snapshot, as when etcd is restored from a backup; this or another server took it.

        Objects have the uids and versions of the snapshot. Watches and connections break off, and the history is lost.
        After the snapshot of a fork, this server is a fork that copies nothing more. Cancellation leaves the state
        replaced.

        Args:
            snapshot: from `snapshot`.
            bump_revision: increase the server's version by this much and mark older ones as compacted, as recommended
                for Kubernetes. None, the default, continues from the version of the snapshot, so that versions are
                used a second time.

        Raises:
            ConfigurationError: it is not a snapshot, or a part of one, or the version would exceed 2**62; nothing was
                replaced.
        """
        state = read_state(snapshot, "the snapshot").bumped(bump_revision)
        fork = None if state.fork is None else Fork.restored(state, self._clock)
        if fork is not None:
            self._take_version(fork.report.server_version)
        handler = self._new_handler(state=state) if fork is None else self._forked_handler(state, fork)
        await self._continue_with(handler, "the server was restored from a snapshot")
        self._fork = fork

    async def _continue_with(self, handler: Handler, why: str) -> None:
        self._handler_chain.replace_handler(handler)
        self._listener.abort_connections()
        self._handler_chain.note(why)
        await asyncio.sleep(0)

    def compact(self) -> None:
        """Drop all history: watches from older versions and continue tokens are then answered with 410."""
        self._handler_chain.compact()

    def cut_watches(self, resource: OneOrMore | None = None, *, user_agent: OneOrMore | None = None) -> int:
        """Break off open watches, and return how many.

        Args:
            resource: the plural name of the kind, or several; None for all.
            user_agent: a part of the User-Agent header of their client; None for all clients.
        """
        return self._handler_chain.cut_watches({"resource": resource, "user_agent": user_agent})

    def stall_watches(self, resource: OneOrMore | None = None, *, user_agent: OneOrMore | None = None) -> int:
        """Keep open watches, as chosen for `cut_watches`, silent until their timeout ends them; return how many.

        They receive not even bookmarks. This cannot be undone; ``hold_watches(later=False)`` can.
        """
        return self._handler_chain.stall_watches({"resource": resource, "user_agent": user_agent})

    def hold_watches(
        self, resource: OneOrMore | None = None, *, user_agent: OneOrMore | None = None, later: bool = True
    ) -> WatchHold:
        """Let watches lag: they receive events and bookmarks only after `WatchHold.release`, all and in order.

        ::

            with server.hold_watches("configmaps", user_agent="my-operator"):
                ...  # the operator does not learn of changes of ConfigMaps

        Args:
            resource: as for `cut_watches`.
            user_agent: as for `cut_watches`.
            later: hold watches that open before the release, too, except for their initial objects; True by default.
        """
        return self._handler_chain.hold_watches({"resource": resource, "user_agent": user_agent}, later=later)

    # requests

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Return the response to one request.

        A write takes effect at one moment inside the call; a cancelled call may have taken effect.

        Raises:
            NotSent: the server is not running.
            OutcomeUnknown: a fault withheld the response, or the request's timeout passed.
        """
        if not self._open:
            raise NotSent("the embedded API server is not running: use it inside 'async with'")
        # Yields once, as any transport does: a client that sends requests in a loop must not starve the others.
        await asyncio.sleep(0)
        if self._removed_versions is not None:
            return await self._removed_versions.send(request, self._answer)
        if self._fork is not None:
            await self._fork.prepare(request)
        return await self._handler_chain.handle(request)

    async def _answer(self, request: HTTPRequest) -> HTTPResponse:
        if self._fork is not None:
            await self._fork.prepare(request)
        return await self._handler_chain.handle(request)

    def connect_webhooks(self, address: str, webhooks: Transport | Iterable[Any]) -> None:
        """Call the webhooks at an address in this process, without sockets; works under virtual time.

        The applied ValidatingWebhookConfigurations and MutatingWebhookConfigurations say which requests call them.
        Webhooks at other addresses are called over HTTPS.

        Args:
            address: where the configurations place the webhooks: ``namespace/name`` of the Service, or the origin of
                their URL, such as ``https://webhooks.example``.
            webhooks: what answers there, as for `reconciler.webhook.webhook_configurations`: a `WebhookServer`, or
                validators, defaulters and converters, such as ``manager.webhooks``; or anything with ``send``.
        """
        if isinstance(webhooks, Iterable):
            from reconciler.webhook import WebhookServer

            server = WebhookServer()
            for webhook in webhooks:
                server.add(webhook)
            webhooks = server
        self._webhook_servers[address.rstrip("/")] = webhooks

    def on_exec(self, callback: ExecCallback) -> None:
        """Answer commands in pods (``pods/exec``), which otherwise succeed without output if the server plays ``pods``.

        Args:
            callback: takes the namespace, the pod, the container and the command, a list; returns the output and the
                exit code. It may be ``async``.
        """
        self._kubelet.on_exec = callback

    def on_log(self, callback: LogCallback) -> None:
        """Answer requests for logs (``pods/log``), which otherwise are empty if the server plays ``pods``.

        Args:
            callback: takes the namespace, the pod and the container; returns the log. It may be ``async``.
        """
        self._kubelet.on_log = callback

    # request log

    @property
    def log(self) -> RequestLog:
        """Return the request log: `RequestLog.writes`, `RequestLog.cycles`, `RequestLog.timeline`."""
        return self._handler_chain.log

    def requests(self, **conditions: Unpack[RequestConditions]) -> list[LoggedRequest]:
        """Return the logged requests that meet all conditions, oldest first.

        The writes of `apply` are not among them. `RequestConditions` has the conditions; others raise a TypeError.
        """
        return self.log.find(**conditions)

    def status_writes(self, name: str | None = None, *, kind: str | None = None) -> list[LoggedRequest]:
        """Return the logged requests that tried to write a ``/status``."""
        return self.requests(verb=("update", "patch"), subresource="status", name=name, kind=kind)

    def statistics(self) -> ServerStatistics:
        """Return the current counts."""
        return self._handler_chain.statistics()

    # content

    async def apply(self, *things: object) -> None:
        """Create or replace objects; return when CustomResourceDefinitions among them are served.

        Cancellation leaves the objects that were already applied.

        Args:
            things: classes with a ``crd()`` method, documents, or paths of YAML or JSON files with any number of
                documents, or of directories of such files, whose definitions are applied first. A namespaced object
                without a namespace goes to ``default``. CustomResourceDefinitions may have the removed version
                ``apiextensions.k8s.io/v1beta1``.

        Raises:
            APIError: the server refused an object; the message says which and why.
            ConfigurationError: a file cannot be read, or a document has a kind that is not served.
            MissingExtra: a definition needs a library that is not installed.
        """
        for thing in things:
            for found in documents_of(thing):
                document = upgraded_definition(found)
                if self._removed_versions is not None:
                    document = self._removed_versions.upgraded(document)
                if self._fork is not None:
                    await self._fork.prepare_kind(document)
                await self._handler_chain.handler.apply(document)
                self._handler_chain.log_commits("by apply()")
        await asyncio.sleep(0)

    def objects(self) -> list[JSONObject]:
        """Return the documents of all stored objects, in the version that is stored. Do not modify them."""
        own = [resource for resource in self._cluster.registry.resources() if resource.info.stored_as is None]
        return [stored.doc for resource in own for stored in resource.store.objects.values()]

    def follow_changes(self, follower: ChangeFollower) -> None:
        """Call `follower` with each change of an object from now on, when it is stored; it must not raise.

        Args:
            follower: takes the documents of the object before (None if it was created) and after (None if it is gone).
        """
        self._handler_chain.followers.append(follower)

    # sockets

    @property
    def token(self) -> str:
        """Return the bearer token that requests over sockets must carry; it is random."""
        return self._credentials.token

    @property
    def url(self) -> str:
        """Return the server's URL. The first use starts listening on a free port of 127.0.0.1.

        Raises:
            ConfigurationError: time is virtual, or no event loop is running.
        """
        return self._listener.url

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen on a loopback address and return the URL. If the server listens already, `port` 0 returns that URL.

        Cancellation leaves the port unused.

        Args:
            host: a loopback address; 127.0.0.1 by default.
            port: 0, the default, uses a free port.

        Raises:
            ConfigurationError: time is virtual, the address is not loopback, the port is in use, or the server listens
                already on another address or port.
        """
        return await self._listener.listen(host, port)

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket of yours as well, such as one in another network namespace.

        The server closes it. Cancellation leaves it to you.
        """
        await self._listener.serve(listening)

    def kubeconfig(self) -> JSONObject:
        """Return a kubeconfig for this server, as `UserConnection.kubeconfig`."""
        return UserConnection(self.token, self).kubeconfig()

    def write_kubeconfig(self, path: str | Path) -> Path:
        """Write the kubeconfig to a file that only its owner can read, and return its path."""
        return UserConnection(self.token, self).write_kubeconfig(path)

    # users

    def user(self, name: str, *, groups: Sequence[str] = ()) -> UserConnection:
        """Return a connection of a user; a new one with a token of its own at each call.

        Args:
            name: the name.
            groups: the groups, besides ``system:authenticated``, which every user but ``system:anonymous`` is in.

        Raises:
            ConfigurationError: ``groups`` is a string, which would be a group for each of its letters.
        """
        if isinstance(groups, str):
            raise ConfigurationError(f"groups must be a list of names, not the string {groups!r}")
        return UserConnection(self._credentials.add(with_groups(UserInfo(name, tuple(groups)), ())), self)

    def service_account(self, name: str, namespace: str = "default") -> UserConnection:
        """Return a connection of a service account, with a token that is valid for ten years of the server's clock.

        Raises:
            NotFound: there is no such service account.
        """
        return UserConnection(self._handler_chain.handler.account_token(name, namespace), self)
