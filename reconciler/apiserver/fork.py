"""Forks: a server whose objects are those of another cluster, copied kind by kind when they are first asked for.

The cluster is only read: all requests to it go through a `ReadOnlyTransport`, which sends nothing but GET. Definitions,
namespaces and webhook configurations are copied at the start, the objects of a kind before the first request for it.
From then on the kind lives by itself: nothing follows the cluster. Objects keep their uids and versions. The values of
Secrets are replaced by values of the same shape.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import hashlib
import random
import re
import secrets
import string
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from reconciler import errors
from reconciler._core.backoff import Backoff
from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.apiserver.cluster import APIResource, ClusterStorage, Endpoint, ResourcePath, split_path, timestamp
from reconciler.apiserver.encoding.versions import known_version
from reconciler.apiserver.serving.handler import Handler
from reconciler.apiserver.state import DEFINITIONS, ForkReport, State, StoredObject, resource_name
from reconciler.clock import Clock
from reconciler.http import HTTPRequest, HTTPResponse, Transport, parse_retry_after

_PUBLIC = re.compile(rb"\s*(-----BEGIN (CERTIFICATE|PUBLIC KEY)-----[A-Za-z0-9+/=\s]*-----END \2-----\s*)+")
_PEM = re.compile("(-----(?:BEGIN|END) [A-Z0-9 ]+-----)")
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_KEPT = frozenset(" \t\r\n-_./:@=+,")
_SIGNS = "!#$%^&*~?"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class SecretValues:
    """Replaces the values of Secrets by values of the same shape.

    A letter becomes a letter, a digit a digit; keys of JSON, the marks of PEM and the signs that separate words stay.
    Equal values have equal replacements, so comparisons between Secrets have the same result. Certificates and public
    keys are not secret, and stay.

    Args:
        key: random bytes, which are kept nowhere: who does not have them cannot check a guess.

    Attributes:
        replaced: how many values were replaced.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.replaced = 0

    def without_values(self, secret: JSONObject) -> JSONObject:
        """Return a Secret with other values."""
        found = dict(secret)
        if isinstance(secret.get("data"), dict):
            found["data"] = {name: self._encoded(value) for name, value in secret["data"].items()}
        if isinstance(secret.get("stringData"), dict):
            found["stringData"] = {name: self._text(str(value)) for name, value in secret["stringData"].items()}
        annotations = (secret.get("metadata") or {}).get("annotations") or {}
        if _LAST_APPLIED in annotations:  # it has the values once more
            applied = {**annotations, _LAST_APPLIED: self._applied(annotations[_LAST_APPLIED])}
            found["metadata"] = {**secret["metadata"], "annotations": applied}
        return found

    def _applied(self, text: str) -> str:
        try:
            document = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return "{}"
        return msgspec.json.encode(self.without_values(document)).decode() + "\n"

    def _encoded(self, value: object) -> str:
        try:
            raw = base64.b64decode(str(value), validate=True)
        except ValueError:
            return ""
        return base64.b64encode(self._replacement(raw)).decode()

    def _text(self, value: str) -> str:
        return self._replacement(value.encode()).decode(errors="replace")

    def _replacement(self, raw: bytes) -> bytes:
        if not raw or _PUBLIC.fullmatch(raw):
            return raw
        self.replaced += 1
        rng = random.Random(hashlib.blake2b(raw, key=self._key).digest())  # noqa: S311 - the key is the secret
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return rng.randbytes(len(raw))
        if text.lstrip()[:1] in ("{", "["):
            try:
                return msgspec.json.encode(_in_json(msgspec.json.decode(text), rng))
            except (msgspec.MsgspecError, RecursionError):
                pass
        parts = _PEM.split(text)
        parts[::2] = [_same_shape(part, rng) for part in parts[::2]]
        return "".join(parts).encode()


def _in_json(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _in_json(member, rng) for key, member in value.items()}
    if isinstance(value, list):
        return [_in_json(item, rng) for item in value]
    if isinstance(value, str):
        return _same_shape(value, rng)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_same_shape(str(value), rng))
    return value


def _same_shape(text: str, rng: random.Random) -> str:
    return "".join(_same_class(sign, rng) for sign in text)


def _same_class(sign: str, rng: random.Random) -> str:
    for letters in _CLASSES:
        if sign in letters:
            return rng.choice(letters)
    if sign in _KEPT:
        return sign
    return rng.choice(string.ascii_lowercase if sign.isalpha() else _SIGNS)


Progress = Callable[[str, int], None]
"""Called after each page of a list with the name of the resource and the number of objects so far."""

NAMESPACES = "namespaces"
_AT_THE_START = (DEFINITIONS, NAMESPACES)
_ADMISSION = "admissionregistration.k8s.io"
_HEADERS = {"accept": "application/json", "user-agent": "kube-reconciler fork"}
_PAGE = 500
_ATTEMPTS = 5
_PAUSE = Backoff(base=0.2, maximum=10.0, jitter=0.2)
_TRANSIENT = (errors.ServerError, errors.TooManyRequests, errors.TransportError)
_SECONDS = 65.0


class ReadOnlyTransport:
    """A transport that sends GET requests alone, for a program that must not change a cluster.

    Args:
        transport: sends them. If its time is not that of the running loop, its ``pause`` waits for some seconds.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.pause: Callable[[float], Awaitable[None]] = getattr(transport, "pause", asyncio.sleep)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a GET request once. Cancellation has no effect on the server.

        Raises:
            NotSent: it is not a GET request, or there was no connection.
            OutcomeUnknown: there was no response.
        """
        if request.method != "GET":
            raise errors.NotSent(f"{request.label}: not sent, because this transport only reads the cluster")
        return await self._transport.send(request)


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[JSONObject] | None = None


def find_resource(cluster: ClusterStorage, name: str) -> APIResource:
    """Return the kind that a name means: ``"apps/v1/Deployment"``, or a name that kubectl accepts.

    Raises:
        ConfigurationError: there is no such kind.
    """
    api_version, _, kind = name.rpartition("/")
    if api_version and (endpoint := cluster.registry.by_kind(api_version, kind)) is not None:
        return endpoint.resource
    known: dict[str, APIResource] = {}
    for resource in cluster.registry.resources():
        info = resource.info
        for each in (info.plural, info.singular, info.kind.lower(), *info.short_names):
            known.setdefault(each, resource)
            known.setdefault(f"{each}.{info.group}", resource)
    if (found := known.get(name.lower())) is not None:
        return found
    similar = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else "write 'group/version/Kind', or a name that kubectl accepts"
    raise errors.ConfigurationError(f"the cluster has no kind {name!r}: {hint}")


class ForkChange(NamedTuple):
    """An object that is not as it was copied.

    Attributes:
        resource: such as ``deployments.apps``.
        key: ``namespace/name``, or the name.
        before: as it was copied; None if it is new.
        after: as it is now; None if it is gone.
    """

    resource: str
    key: str
    before: JSONObject | None
    after: JSONObject | None


class Fork:
    """What a server copies of another cluster, and has copied.

    Args:
        source: sends the requests to the cluster; None for a fork that was restored from a file, which has all it gets.
        clock: the server's clock.
        report: the options, and what is known of an earlier copy.
        copies_secrets: whether the values of Secrets are copied. False replaces them; see `SecretValues`.
        progress: called as objects arrive.

    Attributes:
        report: what the fork has.
        before: the objects as they were copied, by key, by resource; the server never changes them in place.
        unasked: the names of the webhooks that writes would have called; they were not.
        failure: why the cluster could not be read; None if it could.
    """

    def __init__(
        self,
        source: Transport | None,
        clock: Clock,
        report: ForkReport,
        *,
        copies_secrets: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._source = None if source is None else ReadOnlyTransport(source)
        self._clock = clock
        self._values = None if copies_secrets else SecretValues(secrets.token_bytes(32))
        self._progress = progress or (lambda _resource, _objects: None)
        self._copying: dict[str, asyncio.Lock] = {}
        self._asked_groups: set[str] = set()
        self._version = 0
        self._own: dict[tuple[str, str], JSONObject] = {}
        self.report = report
        self.before: dict[str, dict[str, JSONObject]] = {}
        self.unasked: dict[str, None] = {}
        self.failure: errors.ReconcilerError | None = None

    # the start

    async def server_version(self) -> str:
        """Return the version of the cluster, such as ``v1.34.2``. Cancellation has no effect.

        Raises:
            APIError: the cluster refused.
            TransportError: the cluster did not respond.
        """
        version = await self._get("/version")
        self.report.server_version = str(version.get("gitVersion", ""))
        return self.report.server_version

    async def definitions(self, cluster: ClusterStorage) -> State:
        """Copy what decides which kinds there are, and return it. Cancellation copies nothing.

        Args:
            cluster: an empty one, which knows the built-in kinds.

        Raises:
            APIError: the cluster refused for another reason than permissions.
            TransportError: the cluster did not respond.
        """
        if not self.report.taken:
            self.report.taken = timestamp(self._clock.now())
        kinds = {resource_name(resource): resource for resource in cluster.registry.resources()}
        for name in (*_AT_THE_START, *(name for name in kinds if _ADMISSION in name)):
            self.before[name] = await self._read(kinds[name])
        return State(max(self._version, 1), dict(self.before), self.report)

    @classmethod
    def restored(cls, state: State, clock: Clock) -> Fork:
        """Return the fork of a snapshot: it has what was copied then, and copies nothing more."""
        fork = cls(None, clock, state.fork or ForkReport())
        fork._version = state.version
        fork.before = {name: {} for name in (*fork.report.copied, *fork.report.denied)} | state.objects
        return fork

    def attach(self, handler: Handler) -> None:
        """Mark the kinds that are not copied yet, and resolve the names in the options.

        Raises:
            ConfigurationError: the cluster has no kind of a name.
        """
        self._handler = handler
        self.report.selectors = {
            resource_name(find_resource(handler.cluster, name)): selector
            for name, selector in self.report.selectors.items()
        }
        for resource in handler.cluster.registry.resources():
            name, objects = resource_name(resource), resource.store.objects
            resource.store.complete = self._has_all(name)
            self._own |= {
                (name, key): each.doc for key, each in objects.items() if key not in self.before.get(name, ())
            }

    def _has_all(self, name: str) -> bool:
        """Return whether an object of a kind that is not here is not in the cluster either."""
        partial = {**self.report.denied, **self.report.missing, **self.report.selectors}
        return name in self.before and name not in partial

    # copies

    async def prepare(self, request: HTTPRequest) -> None:
        """Copy the objects of the kind that a request is for, unless they are here. Cancellation copies nothing.

        Raises:
            APIError: the cluster refused for another reason than permissions.
            TransportError: the cluster did not respond.
        """
        path = split_path(request.path)
        if path is None:
            return
        registry = self._handler.cluster.registry
        endpoint = registry.endpoint(path.group, path.version, path.plural)
        if endpoint is None:
            if not any(each.info.group == path.group for each in registry.resources()):
                await self._note_unknown(path)
        # Events are written far more often than they are read, and each has a name of its own.
        elif path.plural != "events" or request.method == "GET":
            await self.copy(endpoint.resource)

    async def copy(self, kind: APIResource | str) -> None:
        """Copy the objects of a kind, unless they are here. Cancellation copies nothing.

        Raises:
            ConfigurationError: the cluster has no kind of this name.
            APIError: the cluster refused for another reason than permissions.
            TransportError: the cluster did not respond.
        """
        cluster = self._handler.cluster
        resource = find_resource(cluster, kind) if isinstance(kind, str) else kind
        name, info = resource_name(resource), resource.info
        if name in self.before or "list" not in info.verbs:
            return
        if info.stored_as is not None:
            resource = cluster.registry.built_in(info.plural, info.stored_as)
        async with self._copying.setdefault(name, asyncio.Lock()):
            if name in self.before:
                return
            documents: dict[str, JSONObject] = {}
            if self._source is not None:
                try:
                    documents = await self._read(resource)
                except errors.ReconcilerError as error:
                    self.failure = error
                    raise
                self._handler.load(name, documents)
            elif not resource.custom or name in self.before.get(DEFINITIONS, ()):
                self.report.missing[name] = "it is not in the file"
            self.before[name] = documents
            cluster.revisions.current = max(cluster.revisions.current, self._version)
            resource.store.compact(cluster.revisions.current)
            resource.store.complete = self._has_all(name)

    async def copy_all(self) -> None:
        """Copy the objects of every kind but Events, as `copy`."""
        for resource in self._handler.cluster.registry.resources():
            if resource.info.plural != "events":
                await self.copy(resource)

    async def collect_dependents(self) -> None:
        """Collect the dependents of what is gone, also those of kinds that nobody asked for; they are copied for that.

        A kind that cannot be listed is noted in the report. Cancellation copies nothing more.
        """
        gone = [each.before["metadata"]["uid"] for each in self.changes() if each.before and each.after is None]
        for resource in self._handler.cluster.registry.resources() if gone else ():
            try:
                if resource.info.plural != "events":
                    await self.copy(resource)
            except errors.ReconcilerError as error:
                self.report.denied[resource_name(resource)] = str(error)
                self.failure = None  # nobody waits for this kind
        for uid in gone:
            self._handler.collect_dependents(uid)

    async def prepare_kind(self, document: Mapping[str, Any]) -> None:
        """Copy the objects of the kind of a document, as `prepare`."""
        kind = str(document.get("apiVersion", "")), str(document.get("kind", ""))
        if (endpoint := self._handler.cluster.registry.by_kind(*kind)) is not None:
            await self.copy(endpoint.resource)

    def find(self, kind: str) -> APIResource:
        """Return a kind by a name that kubectl accepts, or ``group/version/Kind``.

        Raises:
            ConfigurationError: there is no such kind.
        """
        return find_resource(self._handler.cluster, kind)

    def policies(self) -> list[str]:
        """Return the names of the admission policies for what has changed; the fork does not evaluate them."""
        changed = {change.resource for change in self.changes()}
        return [
            key
            for name, found in self.before.items()
            if name.endswith(f"policies.{_ADMISSION}")
            for key, policy in sorted(found.items())
            if any(_is_about(policy, resource) for resource in changed)
        ]

    def version_note(self) -> str | None:
        """Return in what the version of the cluster limits the fork; None if it is the server's own."""
        own, other = self._handler.cluster.registry.release, self.report.server_version
        if known_version(other) == own:
            return None
        return (
            f"the cluster is {other or 'of an unknown version'}, and the fork serves, validates and defaults built-in "
            f"kinds as v{own} does"
        )

    # what happened to the copies

    def changes(self) -> Iterator[ForkChange]:
        """Yield the objects that are not as they were copied, without those that every server has."""
        for resource in self._handler.cluster.registry.resources():
            if resource.info.stored_as is not None:
                continue
            name, objects = resource_name(resource), resource.store.objects
            before = self.before.get(name, {})
            for key in sorted(before.keys() | objects.keys()):
                old, new = before.get(key), objects[key].doc if key in objects else None
                provisioned = name == NAMESPACES and name in self.report.denied
                if old != new and not provisioned and (new is None or self._own.get((name, key)) is not new):
                    yield ForkChange(name, key, old, new)

    def pristine(self) -> State:
        """Return what was copied, without any changes since."""
        return State(max(self._version, 1), self.before, self.report)

    async def _read(self, resource: APIResource) -> dict[str, JSONObject]:
        """Return the objects of a kind by key, in the storage version; none if the user may not list them."""
        name = resource_name(resource)
        try:
            listed = await self._list_served(resource)
        except errors.Forbidden as error:
            self.report.denied[name] = error.message
            return {}
        if listed is None:
            if not resource.custom:
                self.report.missing[name] = "the cluster does not serve it"
            return {}
        endpoint, items = listed
        if name == "secrets" and self._values is not None:
            items = [self._values.without_values(item) for item in items]
            self.report.replaced = self._values.replaced
        found = {}
        for item in items:
            # A list has the kind once, for all items.
            document = endpoint.to_storage({"apiVersion": endpoint.api_version, "kind": resource.info.kind, **item})
            try:
                metadata = msgspec.convert(document, StoredObject).metadata
            except msgspec.ValidationError as error:
                raise errors.InvalidResponse(f"the list of {name} has an invalid object: {error}") from None
            self._version = max(self._version, int(metadata.resource_version))
            found[resource.key(metadata.namespace, metadata.name)] = document
        self.report.copied[name] = len(found)
        return found

    async def _list_served(self, resource: APIResource) -> tuple[Endpoint, list[JSONObject]] | None:
        """Return the objects in the first version that the cluster serves, the storage version before others."""
        endpoints = sorted(resource.endpoints.values(), key=lambda each: each.version != resource.storage)
        for endpoint in endpoints:
            try:
                return endpoint, await self._list(endpoint)
            except errors.NotFound:  # an older server
                continue
        return None

    async def _list(self, endpoint: Endpoint) -> list[JSONObject]:
        info, name = endpoint.info, resource_name(endpoint.resource)
        base = _group_path(info.group, endpoint.version)
        paths = [f"{base}/{info.plural}"]
        if info.namespaced and self.report.namespaces:
            paths = [f"{base}/namespaces/{namespace}/{info.plural}" for namespace in self.report.namespaces]
        items: list[JSONObject] = []
        for path in paths:
            items += await self._pages(path, name, len(items))
        return items

    async def _pages(self, path: str, name: str, before: int) -> list[JSONObject]:
        """Return the objects at a path; the progress counts those before them, too."""
        items: list[JSONObject] = []
        limit, token = str(_PAGE), ""
        while True:
            asked = {"labelSelector": self.report.selectors.get(name), "limit": limit, "continue": token}
            try:
                page = msgspec.convert(
                    await self._get(path, [(key, text) for key, text in asked.items() if text]), _List
                )
            except errors.Expired:
                items, limit, token = [], "", ""  # all in one response
                continue
            except msgspec.ValidationError as error:
                raise errors.InvalidResponse(f"GET {path}: the response is not a list: {error}") from None
            items += page.items or []
            if page.metadata.resource_version.isdecimal():
                self._version = max(self._version, int(page.metadata.resource_version))
            self._progress(name, before + len(items))
            if page.metadata.continue_ == token != "":
                raise errors.InvalidResponse(f"GET {path}: two pages have the same continue token")
            token = page.metadata.continue_
            if not token:
                return items

    async def _note_unknown(self, path: ResourcePath) -> None:
        """Record that a group is asked for which the cluster serves, or should, and this server does not know."""
        place = _group_path(path.group, path.version)
        if self._source is None or place in self._asked_groups:
            return
        self._asked_groups.add(place)
        try:
            served = (await self._get(place)).get("resources")
            why = "the cluster serves it, and this server does not know it"
        except (errors.NotFound, errors.Forbidden):
            return
        except errors.ServerError as error:  # the server behind it is down
            served, why = True, f"the cluster cannot serve it now: {error}"
        if served:
            self.report.missing[f"{path.group}/{path.version}"] = why

    async def _get(self, path: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Return the document at a path of the cluster; transient failures are retried."""
        request = HTTPRequest("GET", path, query, _HEADERS, timeout=_SECONDS)
        assert self._source is not None  # noqa: S101 - a fork without a source copies nothing
        for attempt in range(_ATTEMPTS):
            try:
                return _document(request, await self._source.send(request), self._clock)
            except _TRANSIENT as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                pause = _PAUSE.delay(attempt, retry_after=error.retry_after)
            await self._source.pause(pause)
        raise AssertionError("the last attempt returns or raises")


def _is_about(policy: JSONObject, resource: str) -> bool:
    """Return whether an admission policy concerns a resource such as ``deployments.apps``, or a part of it."""
    plural, _, group = resource.partition(".")
    rules = ((policy.get("spec") or {}).get("matchConstraints") or {}).get("resourceRules") or ()
    return any(
        not {"*", group}.isdisjoint(rule.get("apiGroups") or ())
        and not {"*", "*/*", plural}.isdisjoint(name.partition("/")[0] for name in rule.get("resources") or ())
        for rule in rules
    )


def _group_path(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _document(request: HTTPRequest, response: HTTPResponse, clock: Clock) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(response.body, type=dict[str, Any])
    except UNDECODABLE as error:
        if response.status == 200:
            raise errors.InvalidResponse(f"{request.label}: the response is not valid JSON: {error}") from None
        body = None
    if response.status == 200 and body is not None:
        return body
    wait = parse_retry_after(response.headers, clock.now())
    raise errors.error_from_response(response.status, body, request=request.label, retry_after=wait)
