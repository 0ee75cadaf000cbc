"""The `Client`: the verbs of the Kubernetes API."""

# ruff: noqa: ASYNC109 - the server enforces the timeout of a watch; that of a wait is described in its error

from __future__ import annotations

import copy
import os
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self, Unpack, cast, overload

from reconciler._core.durations import DurationLike
from reconciler._core.wire import JSONObject
from reconciler.client import reads as _reads
from reconciler.client import writes as _writes
from reconciler.client.configuration import ConfiguredTransport
from reconciler.client.connection import ClientStatistics, Connection
from reconciler.client.http11 import MAX_BODY
from reconciler.client.pool import MAX_STREAMS
from reconciler.client.reads import WatchEvent
from reconciler.client.requests import (
    ApplyOptions,
    DeleteAllOptions,
    DeleteOptions,
    FieldValidation,
    ListOptions,
    ListResult,
    ObjectLike,
    PatchDocument,
    PatchOptions,
    StatusSubresource,
    WatchOptions,
    WriteOptions,
    split_kind_or_key,
)
from reconciler.client.retry import Retries
from reconciler.client.session import ClientSession, ClientStatusWriter, Options
from reconciler.client.writes import Ensure, Written
from reconciler.clock import Clock
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.field_managers import check_field_manager, program_name
from reconciler.meta.metadata import ResourceType
from reconciler.objects import Unstructured
from reconciler.objects.kinds import KindLike, KindOf, R, TypedObject, from_document, gvk_from


class Client:
    """A client of one API server: reads are consistent, writes return the server's response, failures are typed.

    A *kind* is a `Resource` class, whose instances are then returned; or ``"group/version/Kind"`` (``"v1/Kind"`` for
    the core group) or a GroupVersionKind, for which `Unstructured` objects are returned. An *object* is an instance of
    a `Resource` class, an `Unstructured`, a dict, or a model of ``kubernetes`` or ``kubernetes_asyncio``.

    A request is retried only where that is safe. After 429 and refused connections any request is. After a lost
    response or a 5xx only reads, deletions with a uid, and creations by name are.

    A client from `from_config` must be opened with ``async with``; around another transport that is optional. It
    belongs to one event loop.

    The ``namespace`` of a verb is None for a cluster-scoped kind. In lists and watches, None also means all namespaces.
    The ``options`` of the verbs are keyword arguments, described by `ListOptions`, `WatchOptions`, `WriteOptions`,
    `PatchOptions`, `ApplyOptions` and `DeleteOptions`.

    All verbs raise these errors:

    * `NotServed`, a `NotFound`: the server does not serve the kind.
    * `APIError`: the server reported a failure. Its subclasses say which.
    * `TransportError`: there was no response, after all attempts. For a write it is `NotSent` (the connection could not
      be made, nothing was written) or `OutcomeUnknown` (the write may have taken effect).
    * `InvalidObject`: the object that was read does not fit the class.
    * `ValueError`: a name or a namespace is missing or invalid. Nothing was sent.

    Args:
        transport: anything with ``send``: an `APIServer`, a `KubernetesAsyncioTransport`, another client.
        user_agent: ``kube-reconciler/<version>`` by default.
        field_manager: the name that writes are recorded under. By default the program's name, from `user_agent` or the
            command line, and inside a reconcile also the controller's: ``"database-operator/database"``.
        retries: how often and how fast requests are retried; see `Retries` for the defaults.
        field_validation: what the server does about unknown fields; None for the server's default, ``"Warn"``.
        dry_run: the server validates and answers every write, but stores nothing; False by default.
        clock: the current clock by default.
        rng: source of the jitter; a fresh one by default.

    Attributes:
        session: the internal interface for other parts of this library; see `reconciler.client.session`.

    Raises:
        TypeError: the transport has no ``send``.
        ValueError: an API server would refuse the field manager.
    """

    session: ClientSession

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str | None = None,
        field_manager: str | None = None,
        retries: Retries | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check(transport)
        credentials = transport.session.connection if isinstance(transport, Client) else transport
        self.session = ClientSession(
            Connection(
                transport, credentials=credentials, user_agent=user_agent, retries=retries, clock=clock, rng=rng
            ),
            Options(program_name(user_agent), check_field_manager(field_manager), field_validation, dry_run),
        )

    @classmethod
    def from_config(
        cls,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        user_agent: str | None = None,
        field_manager: str | None = None,
        retries: Retries | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> Self:
        """Return a client for the cluster in the configuration, which is read when ``async with`` opens the client.

        The first of these that exists is used: `kubeconfig`; the files in ``KUBECONFIG``; the pod's service account
        (unless `context` is given); ``~/.kube/config``. Credentials (certificates, tokens, passwords, exec plugins)
        are renewed while the client is open.

        Args:
            kubeconfig: path of a kubeconfig file.
            context: the context in it; its current context by default.
            user_agent: see `Client`; likewise for the arguments up to `dry_run`.
            max_streams: watches that may be open at once, each with its own connection; 1024 by default. They do not
                count toward the 256 requests that may be in progress.
            max_response_bytes: the largest decompressed response, other than a watch; 256 MiB by default. A larger one
                is an `InvalidResponse`.

        Raises:
            ConfigurationError: in ``async with``: no configuration was found, or the one found cannot be used.
        """
        transport = ConfiguredTransport(
            kubeconfig=kubeconfig, context=context, max_streams=max_streams, max_response_bytes=max_response_bytes
        )
        return cls(
            transport,
            user_agent=user_agent,
            field_manager=field_manager,
            retries=retries,
            field_validation=field_validation,
            dry_run=dry_run,
        )

    @classmethod
    def over(cls, session: ClientSession) -> Client:
        """Return a client over the session of another one; for other parts of this library."""
        client = Client.__new__(Client)
        client.session = session
        return client

    async def __aenter__(self) -> Self:
        """Open the configuration of `from_config`. Cancellation leaves nothing open.

        Raises:
            ConfigurationError: the configuration cannot be used, or time is virtual, which sockets are not.
        """
        if isinstance(self.session.connection.transport, ConfiguredTransport):
            await self.session.connection.transport.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self.session.connection.transport, ConfiguredTransport):
            await self.session.connection.transport.close()

    # Derived clients.

    @property
    def live(self) -> Client:
        """The client that reads from the server: this one, unless it reads from a cache."""
        return self

    def with_options(
        self,
        *,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
        dry_run: bool = False,
    ) -> Self:
        """Return a client with other defaults for its calls.

        Everything else is shared, including a cache. This client remains the one to open and close.

        Args:
            field_manager: the name that writes are recorded under; this client's by default.
            field_validation: what the server does about unknown fields; this client's by default.
            dry_run: the server validates and answers every write, but stores nothing. Neither a call nor a derived
                client can turn it off.

        Raises:
            ValueError: an API server would refuse the field manager.
        """
        options = self.session.options
        return self._derived(
            replace(
                options,
                field_manager=check_field_manager(field_manager) or options.field_manager,
                field_validation=field_validation or options.field_validation,
                dry_run=dry_run or options.dry_run,
            )
        )

    def in_namespace(self, namespace: str) -> Self:
        """Return a client for one namespace: it fills the namespace in, and refuses any other.

        Lists, watches and `delete_all_of` are limited to the namespace. Cluster-scoped kinds are not affected.
        Everything else is shared, including a cache.

        Raises:
            ValueError: the namespace is empty, or this client is for another one. Raised by the verbs when a call or
                an object names another namespace; nothing was sent.
        """
        options = self.session.options
        if not namespace:
            raise ValueError("in_namespace needs the name of a namespace")
        if options.namespace not in (None, namespace):
            raise ValueError(f"this client is for namespace {options.namespace!r}, not for {namespace!r}")
        return self._derived(replace(options, namespace=namespace))

    def through(self, wrap: Callable[[Transport], Transport], *, retries: Retries | None = None) -> Self:
        """Return a client whose requests go through a wrapper around this client's transport.

        For code that must see or stop every request: counting, fencing, tests. Server, credentials, discovered kinds
        and a cache are shared. This client remains the one to open and close.

        Args:
            wrap: takes the transport and returns one that sends through it.
            retries: how often and how fast requests are retried; this client's by default.
        """
        connection = self.session.connection
        transport = wrap(connection.transport)
        _check(transport)
        derived = copy.copy(self)
        derived.session = replace(self.session, connection=connection.through(transport, retries))
        return derived

    def _derived(self, options: Options) -> Self:
        derived = copy.copy(self)
        derived.session = replace(self.session, options=options)
        return derived

    # Reads.

    async def get(self, kind: KindOf[R], name: str, namespace: str | None = None) -> R:
        """Read one object, consistently. Cancellation has no effect on the server.

        Raises:
            NotFound: the object does not exist.
        """
        return from_document(kind, await self.session.get(kind, name, namespace))

    async def list(
        self, kind: KindOf[R], namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> ListResult[R]:
        """Read all objects of a kind, consistently, page by page.

        If the pages expire before the last one is read, the list is read once more, in one response. An object that
        cannot be decoded or does not fit the class is left out, listed in `ListResult.invalid`, and logged once for
        each version. Cancellation has no effect on the server.

        Args:
            options: keywords, such as ``label_selector=``; see `ListOptions`.
        """
        return await _reads.list_all(self.session, kind, namespace, metadata_only=False, **options)

    def list_pages(
        self, kind: KindOf[R], namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> AsyncGenerator[ListResult[R], None]:
        """Read all objects of a kind from the server and yield them page by page.

        All pages show the version of the first. Invalid objects are left out as in `list`, and listed by their page.
        Leave the loop early to read no more. Cancellation has no effect on the server.

        Args:
            options: keywords, such as ``label_selector=``; see `ListOptions`.

        Raises:
            Expired: the version expired before the last page was read, usually after five minutes: start again.
                `list` does so by itself; this method has already yielded some of the objects.
        """
        return _reads.list_pages(self.session, kind, namespace, **options)

    async def get_metadata(self, kind: KindLike, name: str, namespace: str | None = None) -> Unstructured:
        """Read only the metadata of an object from the server: no spec, status or data is transferred.

        The result has the object's apiVersion and kind. It can be passed to `delete`. Otherwise the same as `get`.
        Cancellation has no effect on the server.
        """
        return await _reads.get_metadata(self.session, kind, name, namespace)

    async def list_metadata(
        self, kind: KindLike, namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> ListResult[Unstructured]:
        """Read only the metadata of all objects of a kind from the server. Otherwise the same as `list`.

        Cancellation has no effect on the server.

        Args:
            options: keywords, such as ``label_selector=``; see `ListOptions`.
        """
        return await _reads.list_all(self.session, kind, namespace, metadata_only=True, **options)

    def watch(
        self, kind: KindOf[R], namespace: str | None = None, **options: Unpack[WatchOptions]
    ) -> AsyncGenerator[WatchEvent[R], None]:
        """Yield the events of a kind until the server ends the watch.

        This is one connection. It neither resumes nor retries; `reconciler.cache` does. Cancellation closes it, and so
        does leaving the loop, at once inside ``async with contextlib.aclosing(client.watch(…)) as events``.

        Args:
            options: keywords, such as ``resource_version=``; see `WatchOptions`.

        Raises:
            Expired: `resource_version` is too old: list again.
        """
        return _reads.watch(self.session, kind, namespace, **options)

    @overload
    async def wait_for(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[R], object],
        timeout: DurationLike | None,
    ) -> R: ...
    @overload
    async def wait_for(
        self,
        kind: str | GroupVersionKind,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Unstructured], object],
        timeout: DurationLike | None,
    ) -> Unstructured: ...
    async def wait_for(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Any], object],
        timeout: DurationLike | None,
    ) -> TypedObject | Unstructured:
        """Wait until an object is in the wanted state, and return it. It need not exist yet.

        Watches the object on the server. Broken watches and transient failures are retried. Cancellation ends the
        watch.

        Args:
            until: called with each new state. The first state for which it is true is returned; its exceptions are
                raised.
            timeout: a duration: seconds, a timedelta or ``"30s"``; None to wait indefinitely.

        Raises:
            TimeoutError: the message contains the last state that was seen.
        """

        def wanted(obj: Any) -> object:
            return obj is not None and until(obj)

        return cast(
            "TypedObject", await _reads.wait(self.session, kind, name, namespace, wanted=wanted, timeout=timeout)
        )

    async def wait_gone(
        self, kind: KindLike, name: str, namespace: str | None = None, *, timeout: DurationLike | None
    ) -> None:
        """Wait until no object of this name exists. Otherwise the same as `wait_for`. Cancellation ends the watch."""
        await _reads.wait(self.session, kind, name, namespace, wanted=lambda obj: obj is None, timeout=timeout)

    # Writes.

    async def create(self, obj: R | ObjectLike, **options: Unpack[WriteOptions]) -> R:
        """Create an object and return it as stored. A cancelled call may have created it.

        A creation by name is retried if its outcome is unknown. If the name is then taken, the existing object is
        returned if this call provably created it: it has all fields that were sent, and the same controller. Otherwise
        `OutcomeUnknown` is raised. A creation with ``generateName`` is never retried.

        Args:
            options: keywords, such as ``dry_run=``; see `WriteOptions`.

        Raises:
            AlreadyExists: the name is taken.
            Invalid: the object failed validation.
        """
        return cast("R", await _writes.create(self.session, obj, **options))

    async def update(
        self,
        obj: R | ObjectLike,
        *,
        subresource: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> R:
        """Replace an object and return it as stored. A cancelled call may have replaced it.

        For a typed Resource, the document that it was read from is sent with the model's changes laid over it, so
        fields that the model does not know survive. The server requires the resourceVersion in the object, if any.

        Args:
            subresource: ``"status"`` writes only the status, ``"approval"`` or ``"resize"`` what their names say; None
                everything else.
            options: keywords, such as ``dry_run=``; see `WriteOptions`.

        Raises:
            Conflict: the stored version is another one: read the object again.
            NotFound: the object does not exist.
            Invalid: the object failed validation.
            OutcomeUnknown: there was no response. Never retried: a second attempt could conflict with the first.
        """
        return cast("R", await _writes.update(self.session, obj, subresource=subresource, **options))

    @overload
    async def patch(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        patch: PatchDocument,
        subresource: StatusSubresource | None = None,
        **options: Unpack[PatchOptions],
    ) -> R: ...
    @overload
    async def patch(
        self,
        kind: str | GroupVersionKind,
        name: str,
        namespace: str | None = None,
        *,
        patch: PatchDocument,
        subresource: str | None = None,
        **options: Unpack[PatchOptions],
    ) -> Unstructured: ...
    async def patch(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        patch: PatchDocument,
        subresource: str | None = None,
        **options: Unpack[PatchOptions],
    ) -> TypedObject | Unstructured:
        """Patch an object and return it as stored. A cancelled call may have patched it.

        Args:
            patch: an object with the members to set, and None for those to remove; for ``"json"`` a list of operations.
            subresource: such as ``"status"``; or ``"scale"``, whose response is an Unstructured.
            options: keywords, such as ``strategy=``; see `PatchOptions`.

        Raises:
            Conflict: `resource_version` is not the stored version.
            NotFound: the object does not exist, or the kind has no such subresource.
            Invalid: the result failed validation, or a ``test`` operation failed.
            OutcomeUnknown: there was no response. Never retried.
        """
        return await _writes.patch(self.session, kind, name, namespace, patch=patch, subresource=subresource, **options)

    async def patch_from(
        self,
        base: R | JSONObject,
        changed: R | JSONObject,
        *,
        optimistic_lock: bool = False,
        subresource: StatusSubresource | None = None,
        **options: Unpack[WriteOptions],
    ) -> R:
        """Send the difference of two states of an object as a merge patch; nothing if they mean the same.

        Returns the object as stored, or `changed` if there was nothing to send. A cancelled call may have patched it.

        Args:
            base: the object as it was read.
            changed: a copy of it with changes.
            optimistic_lock: require that the version of `base` is still stored. Without it, the changed members are
                set whatever else happened; lists are replaced whole.
            subresource: ``"status"`` sends only the difference of the status. None sends everything else, and the
                status of a kind without that subresource.
            options: keywords, such as ``dry_run=``; see `WriteOptions`.

        Raises:
            ValueError: these are two objects; or `optimistic_lock` is True and `base` has no version.
            Conflict: with `optimistic_lock`, the object has changed.
            NotFound: the object does not exist.
            Invalid: the result failed validation.
            OutcomeUnknown: there was no response. Never retried.
        """
        stored = await _writes.patch_from(
            self.session, base, changed, optimistic_lock=optimistic_lock, subresource=subresource, **options
        )
        return cast("R", stored)

    async def apply(self, obj: R | ObjectLike, **options: Unpack[ApplyOptions]) -> R:
        """Apply an object (server-side apply), creating it if needed, and return it as stored.

        Fields that this field manager applied before and does not specify now are removed. Fields of other managers
        stay. Metadata that only the server writes (resourceVersion, uid, managedFields …) is left out, so an object
        can be applied as it was read. A cancelled call may have applied it.

        Args:
            obj: all fields that this manager must own.
            options: keywords, such as ``owner=`` and ``force=``; see `ApplyOptions`.

        Raises:
            FieldManagerConflict: `force` is False and another manager owns a field.
            AlreadyOwned: `obj` has another controller than `owner`.
            ValueError: `owner` was never stored, or cannot own `obj`.
            Invalid: the result failed validation.
            OutcomeUnknown: there was no response. Never retried.
        """
        return cast("R", await _writes.apply(self.session, obj, **options))

    async def create_or_update(self, obj: R | JSONObject, mutate: Callable[[R], object]) -> tuple[R, Written]:
        """Let `mutate` change the object of this name, or `obj` if it does not exist, and write it if it differs.

        Reads with `get`, and so from a cache if there is one. The update replaces the whole object except its status,
        and requires the version that was read. Documents are compared by meaning. Defaults that the server filled in
        for this client are not a difference, and a write that changed nothing is ``"unchanged"`` too. A cancelled call
        may have written.

        Args:
            obj: identifies the object, and is what is created.
            mutate: sets the desired state in place. It may be called with an object that already has it. Its changes to
                a status with a subresource are not written; `create_or_patch` and the `StatusBatcher` write them.

        Returns:
            The object as stored, and what was done: ``"created"``, ``"updated"`` or ``"unchanged"``.

        Raises:
            Conflict: the object was changed since it was read: reconcile again.
            AlreadyExists: the object was created since it was looked up: reconcile again.
            ValueError: `mutate` changed name or namespace.
        """
        return await Ensure(self.session, self.get).create_or_update(obj, mutate)

    async def create_or_patch(self, obj: R | JSONObject, mutate: Callable[[R], object]) -> tuple[R, Written]:
        """Do the same as `create_or_update`, but send only the difference, as a merge patch.

        A status with a subresource is patched separately if it differs, also after a creation. The result is then
        ``"updatedStatus"`` or ``"updatedStatusOnly"``. A cancelled call may have written, possibly only one of the two.
        """
        return await Ensure(self.session, self.get).create_or_patch(obj, mutate)

    async def delete(
        self,
        kind_or_obj: KindOf[R] | R | ObjectLike,
        name: str | None = None,
        namespace: str | None = None,
        **options: Unpack[DeleteOptions],
    ) -> R | None:
        """Delete an object. A cancelled call may have deleted it.

        Returns the object if the server's response contains it, as it does while finalizers hold the object, else None.
        A deletion with a uid is retried if its outcome is unknown.

        Args:
            kind_or_obj: the kind, with `name` and `namespace`; or the object as it was read, with its uid.
            options: keywords, such as ``propagation=``; see `DeleteOptions`.

        Raises:
            NotFound: the object does not exist.
            Conflict: the object has another uid or version.
            ValueError: `uid` or `resource_version` is given and is empty.
        """
        return cast("R | None", await _writes.delete(self.session, kind_or_obj, name, namespace, **options))

    async def delete_all_of(
        self,
        kind: KindLike,
        namespace: str | None = None,
        **options: Unpack[DeleteAllOptions],
    ) -> None:
        """Delete the selected objects of a kind in a namespace. A cancelled call may have deleted some of them.

        Never retried if the outcome is unknown.

        Args:
            options: keywords, such as ``label_selector=``; see `DeleteAllOptions`.

        Raises:
            ValueError: a selector is given and is empty, which would delete everything; or the kind is namespaced and
                no namespace is given, since the API has no such deletion.
        """
        await _writes.delete_all_of(self.session, kind, namespace, **options)

    # Subresources with a kind of their own. `patch` changes them; `update` serves those whose body is the object.

    async def get_subresource(
        self, kind: KindLike, name: str, namespace: str | None = None, *, subresource: str
    ) -> Unstructured:
        """Read a subresource, such as ``"scale"``. Cancellation has no effect on the server.

        Raises:
            NotFound: the object does not exist, or has no such subresource.
        """
        return Unstructured(await self.session.get(kind, name, namespace, subresource))

    async def create_subresource(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str,
        body: _writes.Body,
        **options: Unpack[WriteOptions],
    ) -> Unstructured:
        """POST to a subresource: ``"eviction"``, ``"token"``, ``"binding"``. A cancelled call may have done it.

        Args:
            kind: the kind of the object, not of the body.
            body: an Eviction, a TokenRequest, a Binding.
            options: keywords, such as ``dry_run=``; see `WriteOptions`.

        Raises:
            TooManyRequests: a disruption budget forbids the eviction (not retried), or the server is overloaded.
            NotFound: the object or the subresource does not exist.
            OutcomeUnknown: there was no response. Never retried.
        """
        return await _writes.create_subresource(
            self.session, kind, name, namespace, subresource=subresource, body=body, **options
        )

    # Everything else.

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once, as it is, and return the response, whatever its status.

        For paths that no verb serves. User-Agent and Accept are added if they are missing. A cancelled call may have
        been executed.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: the request may have reached the server, but there was no response.
        """
        return await self.session.connection.send(request)

    async def resource_type(self, kind: KindLike) -> ResourceType:
        """Return how a kind is served: by its class, else by discovery, with one request per group and version.

        Cancellation leaves what was known before.

        Raises:
            NotServed: the server does not serve the kind.
            ValueError: the string is not a valid kind.
        """
        return await self.session.resource_type(kind)

    def status_writer(
        self, obj_or_kind: KindLike | TypedObject | ObjectLike, name: str | None = None, namespace: str | None = None
    ) -> ClientStatusWriter:
        """Return the reader and writer of one object's status that a `StatusBatcher` uses.

        Args:
            obj_or_kind: the object, or its kind with `name` and `namespace`.

        Raises:
            ValueError: a kind was given without a name.
        """
        kind, key = split_kind_or_key(obj_or_kind)
        request = key or Request(name or "", namespace)
        if not request.name:
            raise ValueError(f"{obj_or_kind!r} is a kind: pass the object's name too")
        return ClientStatusWriter(self.session, kind, gvk_from(kind), request)

    @property
    def field_manager(self) -> str:
        """The name that writes are recorded under in ``metadata.managedFields``.

        The default is the program's name and, inside a reconcile, also the controller's.
        """
        return self.session.field_manager()

    @property
    def clock_offset(self) -> timedelta:
        """The offset of the API server's clock from this machine's; zero until a response contradicts that.

        Estimated from the ``Date`` of responses, with an error of at most one second and the time of one request. Add
        it to the wall time for timestamps that other machines act on. If the wall clock is set, it changes by as much,
        so the sum continues.
        """
        return self.session.connection.server_clock.ahead

    def statistics(self) -> ClientStatistics:
        """Return the counters of this client and of all that share its connection."""
        return self.session.connection.statistics()


def _check(transport: Transport) -> None:
    if not hasattr(transport, "send"):
        raise TypeError(
            f"{type(transport).__name__} is not a transport, it has no 'send': pass an APIServer or a "
            "KubernetesAsyncioTransport(api_client), or use Client.from_config()"
        )
