"""Put the client together."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from reconciler.client.config.configuration import ConfiguredTransport
from reconciler.client.session.defaults import Defaults
from reconciler.client.session.requests import FieldValidation, ObjectLike, split_kind_or_key
from reconciler.client.session.retry import RetryPolicy
from reconciler.client.session.session import Connection
from reconciler.client.transport.http11 import MAX_BODY
from reconciler.client.transport.pool import MAX_STREAMS
from reconciler.client.verbs.delete import Deleter
from reconciler.client.verbs.ensure import Ensurer
from reconciler.client.verbs.status_writer import ClientStatusWriter
from reconciler.client.verbs.subresources import Subresources
from reconciler.client.verbs.watch import Watcher
from reconciler.clock import Clock
from reconciler.http import Transport
from reconciler.meta import Request, check_field_manager, program_name
from reconciler.objects import AnyResource, KindLike

__all__ = ["Client"]


class Client(Watcher, Ensurer, Deleter, Subresources):
    """Speak to one API server; reads are consistent, writes are live, failures are typed.

    Kinds are given as a `Resource` class, whose instances are then returned, or as ``"group/version/Kind"``
    (``"v1/Kind"`` for the core group) or a GroupVersionKind, for which `Unstructured` objects are returned. Objects are
    given as any of these, as dicts, or as models of ``kubernetes`` or ``kubernetes_asyncio``.

    A request is repeated only where that is harmless: after 429 and refused connections any; after a lost answer or a
    5xx only reads, deletions of one incarnation, and creations by name.

    Use it with ``async with`` if it was made by `from_config`; around another transport that is not needed. It belongs
    to one event loop.

    Args:
        transport: anything with ``send``: an `APIServer`, a `KubernetesAsyncioTransport`, another client.
        user_agent: ``kube-reconciler/<version>`` by default.
        field_manager: the name that writes are recorded under. By default the program's, from `user_agent` or the
            command line, and inside a reconcile the controller's as well: ``"database-operator/database"``.
        retry: how often and how fast to repeat; see `RetryPolicy` for the defaults.
        field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``; its own
            default, ``"Warn"``, unless given here or with a call.
        dry_run: let the server check and answer every write, but store nothing; False by default.
        clock: the clock in force by default.
        rng: source of the jitter; a fresh one by default.

    Raises:
        TypeError: the transport has no ``send``.
        ValueError: an API server would refuse the field manager.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str | None = None,
        field_manager: str | None = None,
        retry: RetryPolicy | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check(transport)
        self._connection = Connection(transport, user_agent=user_agent, retry=retry, clock=clock, rng=rng)
        manager = check_field_manager(field_manager)
        self._defaults = Defaults(program_name(user_agent), manager, field_validation, dry_run)

    @classmethod
    def from_config(
        cls,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        user_agent: str | None = None,
        field_manager: str | None = None,
        retry: RetryPolicy | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> Self:
        """Make a client for the cluster that the configuration names; read and connected in ``async with``.

        The first of these that is there is used: `kubeconfig`; the files in ``KUBECONFIG``; the service account of the
        pod (unless `context` is given); ``~/.kube/config``. Credentials (certificates, tokens, passwords, exec plugins,
        OIDC) are renewed while the client is open.

        Requests go over connections of the client's own. Behind a proxy, and with an authentication provider that only
        ``kubernetes_asyncio`` knows, they go over that library's, which costs 50 MB of memory and CPU with each one.

        Args:
            kubeconfig: path of a kubeconfig file.
            context: the context in it; its current one by default.
            user_agent: ``kube-reconciler/<version>`` by default.
            field_manager: the name that writes are recorded under. By default the program's, from `user_agent` or the
                command line, and inside a reconcile the controller's as well: ``"database-operator/database"``.
            retry: how often and how fast to repeat; see `RetryPolicy` for the defaults.
            field_validation: what the server does about unknown fields; its own default if None.
            dry_run: let the server check and answer every write, but store nothing; False by default.
            max_streams: open watches at most, each of which takes a connection of its own; 1024 by default. They do not
                count against the 256 requests that may be in progress.
            max_response_bytes: bytes of an answer at most, decompressed, watches excepted; 256 MiB by default. A larger
                one is an `InvalidResponse`.

        Raises:
            ConfigurationError: in ``async with``: nothing was found, or what was found cannot be used.
        """
        transport = ConfiguredTransport(
            kubeconfig=kubeconfig, context=context, max_streams=max_streams, max_response_bytes=max_response_bytes
        )
        return cls(
            transport,
            user_agent=user_agent,
            field_manager=field_manager,
            retry=retry,
            field_validation=field_validation,
            dry_run=dry_run,
        )

    async def __aenter__(self) -> Self:
        """Open what `from_config` promised. Cancellation leaves nothing open.

        Raises:
            ConfigurationError: the configuration cannot be used, or time is virtual and sockets are not.
        """
        if isinstance(self._connection.transport, ConfiguredTransport):
            await self._connection.transport.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(self._connection.transport, ConfiguredTransport):
            await self._connection.transport.close()

    @property
    def live(self) -> Client:
        """Return the client that reads the server: this one."""
        return self

    def status_writer(
        self,
        obj_or_kind: KindLike | AnyResource | ObjectLike,
        name: str | None = None,
        namespace: str | None = None,
    ) -> ClientStatusWriter:
        """Return what a `StatusBatcher` writes one object's status with.

        Args:
            obj_or_kind: the object, or its kind with `name` and `namespace`.
            name: the object's name, for a kind.
            namespace: its namespace, for a kind.

        Raises:
            ValueError: a kind without name.
        """
        kind, key = split_kind_or_key(obj_or_kind)
        request = key or Request(name or "", namespace)
        if not request.name:
            raise ValueError(f"{obj_or_kind!r} names a kind: give the object's name too")
        return ClientStatusWriter(self, kind, request)

    def through(self, wrap: Callable[[Transport], Transport], *, retry: RetryPolicy | None = None) -> Self:
        """Return a client like this one whose requests go through what `wrap` puts around its transport.

        For what has to see or stop every request: counting, fencing, tests. Server, credentials, what is known of kinds
        and a cache are shared; this client stays the one to enter and to leave.

        Args:
            wrap: takes the transport and returns another one, which sends over it.
            retry: how often and how fast to repeat; this client's by default.
        """
        transport = wrap(self._connection.transport)
        _check(transport)
        derived = copy.copy(self)
        derived._connection = self._connection.through(transport, retry)  # noqa: SLF001 - of this class
        return derived

    def with_options(
        self,
        *,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
    ) -> Self:
        """Return a client like this one with other options for all calls that do not say otherwise.

        Everything else is shared, a cache included; this client stays the one to enter and to leave.

        Args:
            field_manager: the name that writes are recorded under; this client's by default.
            field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``; this
                client's by default.
            dry_run: let the server check and answer every write, but store nothing. Neither a call nor a client made
                of this one can undo it.

        Raises:
            ValueError: an API server would refuse the field manager.
        """
        return self._with(
            replace(
                self._defaults,
                field_manager=check_field_manager(field_manager) or self._defaults.field_manager,
                field_validation=field_validation or self._defaults.field_validation,
                dry_run=dry_run or self._defaults.dry_run,
            )
        )

    def in_namespace(self, namespace: str) -> Self:
        """Return a client like this one for one namespace: it fills the namespace in, and refuses any other.

        Lists, watches and `delete_all_of` are confined to the namespace; objects and names of cluster-scoped kinds pass
        as they are. Everything else is shared, a cache included.

        Raises:
            ValueError: no namespace, or this client is for another one. From the verbs: an object or a call names
                another namespace; nothing was sent then.
        """
        if not namespace:
            raise ValueError("in_namespace needs the name of a namespace")
        if self._defaults.namespace not in (None, namespace):
            raise ValueError(f"this client is for namespace {self._defaults.namespace!r}, not for {namespace!r}")
        return self._with(replace(self._defaults, namespace=namespace))

    def _with(self, defaults: Defaults) -> Self:
        derived = copy.copy(self)
        derived._defaults = defaults  # noqa: SLF001 - of this class
        return derived

    def _share(self, other: Client) -> None:
        """Use the connection of another client, what it knows of kinds, and its options; for subclasses."""
        self._connection = other._connection
        self._defaults = other._defaults


def _check(transport: Transport) -> None:
    if not hasattr(transport, "send"):
        raise TypeError(
            f"{type(transport).__name__} is no transport, it has no 'send': give an APIServer or a "
            "KubernetesAsyncioTransport(api_client), or make the client with Client.from_config()"
        )
