"""The handler of a server: one request in, one response out, without faults, logging and sockets."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.apiserver.access import AccessControl, Roles
from reconciler.apiserver.admission import ConfiguredAdmission
from reconciler.apiserver.cluster import ClusterStorage
from reconciler.apiserver.conversion import with_conversions
from reconciler.apiserver.definitions import Definitions
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.encoding.versions import NEWEST
from reconciler.apiserver.serving.discovery import DiscoveryDocuments
from reconciler.apiserver.serving.kubelet import Kubelet
from reconciler.apiserver.state import DEFINITIONS, State
from reconciler.apiserver.store import Stored, encode
from reconciler.apiserver.users import ISSUER, StaticTokens, Tokens, UserInfo
from reconciler.apiserver.verbs.decoding import check_size
from reconciler.apiserver.verbs.delete import Deleter, GarbageCollector
from reconciler.apiserver.verbs.read import PastState, Reader
from reconciler.apiserver.verbs.routing import Call, route
from reconciler.apiserver.verbs.subresources import UnstoredDocuments, read_scale, scale_endpoint, write_scale
from reconciler.apiserver.verbs.views import WHOLE, WholeView, negotiate, not_acceptable, to_yaml
from reconciler.apiserver.verbs.watch import WatchResponse
from reconciler.apiserver.verbs.write import Writer
from reconciler.apiserver.verbs.write_rules import Outdated, WriteResult
from reconciler.clock import Clock
from reconciler.errors import ConfigurationError, MissingExtra, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, Transport

_JSON = {"content-type": "application/json"}
_TOKEN_SECONDS = 10 * 365 * 86_400
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


IMMEDIATE = ("garbage", "namespaces")
"""The controllers that are a part of each write."""

_STAND_INS = (
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "pods",
    "claims",
    "endpoints",
    "disruptionbudgets",
)
_SECONDS = 1.0


def chosen_controllers(
    controllers: Collection[str] | Mapping[str, DurationLike],
) -> Collection[str] | Mapping[str, DurationLike]:
    """Return the controllers that the option of `APIServer` means: itself, or every one for ``"all"``."""
    return (*IMMEDIATE, *_STAND_INS) if controllers == "all" else controllers


def stand_ins_of(controllers: Collection[str] | Mapping[str, DurationLike]) -> dict[str, float]:
    """Return the stand-ins among some controllers, with the seconds until their pods are ready, or end."""
    known = (*IMMEDIATE, *_STAND_INS)
    unknown = {controllers} if isinstance(controllers, str) else set(controllers) - set(known)
    if unknown:
        shown = ", ".join(sorted(map(str, unknown)))
        raise ConfigurationError(f"unknown controllers {shown!r}: choose from {', '.join(known)}, or 'all'")
    chosen = controllers if isinstance(controllers, Mapping) else dict.fromkeys(controllers, _SECONDS)
    return {name: seconds_of(f"the delay of {name}", chosen[name], zero=True) for name in _STAND_INS if name in chosen}


@dataclass(slots=True)
class HandlerResult:
    """A response, and what the request log records of it."""

    response: HTTPResponse
    reason: str = ""
    written: WriteResult | None = None
    watch: WatchResponse | None = None


class Handler:
    """The handler of the requests to one cluster, with the options of `APIServer`; by default, its state is new.

    Attributes:
        cluster: the stored objects.
        access: the users, and what they may do.

    Raises:
        ConfigurationError: the state has an object that cannot be stored.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        history: int,
        provision_namespaces: bool,
        webhook_servers: Mapping[str, Transport],
        credentials: StaticTokens,
        controllers: Collection[str],
        state: State | None = None,
        rbac: bool = False,
        unasked: dict[str, None] | None = None,
        release: str = NEWEST,
        kubelet: Kubelet | None = None,
    ) -> None:
        self._clock = clock
        self._kubelet = kubelet or Kubelet()
        self.cluster = ClusterStorage(clock, rng, history=history, release=release)
        self._reader = Reader(self.cluster)
        self._definitions = Definitions(self.cluster, webhook_servers, sockets=unasked is None)
        provide = self._create_namespace if provision_namespaces else None
        roles = Roles(self.cluster) if rbac else None
        self.access = AccessControl(Tokens(self.cluster, credentials), roles)
        self._admission = ConfiguredAdmission(self.cluster, webhook_servers, unasked, roles)
        self._writer = Writer(self.cluster, self._definitions.strategy, self._admission, provide)
        self._deleter = Deleter(self.cluster, self._admission)
        self._unstored = UnstoredDocuments(self.cluster, self.access, self._deleter)
        self._garbage_collector = GarbageCollector(self.cluster, self._deleter, controllers)
        self._discovery = DiscoveryDocuments(self.cluster.registry)
        if state is not None:
            self._load(state)
        if roles is not None:
            roles.bootstrap()
        for name in _NAMESPACES:
            if name not in self.cluster.registry.built_in("namespaces").store.objects:
                _at_once(self._create_namespace(name))
        if "default/kubernetes" not in self.cluster.registry.built_in("services").store.objects:
            service = recorded("texts.json")["service"]  # of the API server itself, which every cluster has
            _at_once(self._internal("POST", "/api/v1/namespaces/default/services", service))

    def _load(self, state: State) -> None:
        """Store the objects of a state. Nothing follows from them: every state is complete."""
        self.cluster.start_at(state.version)
        for name, documents in sorted(state.objects.items(), key=lambda item: item[0] != DEFINITIONS):
            self.load(name, documents)

    def collect_dependents(self, uid: str) -> None:
        """Collect the objects that an object owned which is gone."""
        self._garbage_collector.collect_dependents(uid)

    def load(self, name: str, documents: Mapping[str, JSONObject]) -> None:
        """Store the objects of a resource, such as ``deployments.apps``, by key, in the versions that they have.

        Raises:
            ConfigurationError: the resource is not served, or an object cannot be stored.
        """
        plural, _, group = name.partition(".")
        resource = self.cluster.registry.resource(group, plural)
        if resource is None:
            raise ConfigurationError(
                f"the state has objects of {name}, which neither Kubernetes {self.cluster.registry.release} nor a "
                "definition in the state serves: start the server with the version= that the state is of"
            )
        try:
            loaded = [
                Stored(key, int(doc["metadata"]["resourceVersion"]), doc, resource.custom)
                for key, doc in documents.items()
            ]
            for key in documents.keys() & resource.store.objects.keys():
                self._garbage_collector.index(resource, resource.store.objects[key], None)
            resource.store.load(loaded)
            for stored in loaded:
                stored.measure(resource.api_version)
                if name == DEFINITIONS:
                    self._definitions.serve(stored)
                self._garbage_collector.index(resource, None, stored)
                self._admission.committed(resource, None, stored)
        except (AttributeError, LookupError, TypeError, ValueError, Refusal) as error:
            raise ConfigurationError(f"the state has an invalid object among its {name}: {error!r}") from error

    async def _create_namespace(self, name: str) -> None:
        await self._internal("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def parse(self, request: HTTPRequest) -> Call | None:
        """Return the call that a request makes; None for a path that belongs to no kind.

        Raises:
            Refusal: the user may not make it, or the kind or verb is not served.
        """
        user = self.access.admit(request)
        return route(request, self.cluster.registry, user)

    def routed(self, request: HTTPRequest, user: UserInfo) -> Call | None:
        """Return the call of a request that was refused, for the log; None for a path that belongs to no kind."""
        with contextlib.suppress(Refusal):
            return route(request, self.cluster.registry, user)
        return None

    async def handle(
        self, request: HTTPRequest, call: Call | None, *, stale: PastState | None = None, expired: Refusal | None = None
    ) -> HandlerResult:
        """Return the result of a request; error responses are results as well. A cancelled write may have taken effect.

        Args:
            request: the request.
            call: the request as returned by `parse`; None for discovery and other paths without a kind.
            stale: for reads at version 0, the state that is shown.
            expired: the error that ends a watch at once, or None.
        """
        try:
            if call is None:
                return self._answer(request)
            if call.verb == "watch":
                return self._watch(call, stale, expired)
            if call.verb not in ("get", "list"):
                return await self._write(call)
            read = partial(self._read, call, stale)
            return await (read() if call.endpoint.resource.convert is None else with_conversions(read))
        except MissingExtra as error:
            return HandlerResult(refusal_response(Refusal.internal_error(str(error))))
        except Refusal as error:
            warnings = [] if call is None else _warning_headers(call)
            return HandlerResult(refusal_response(error, warnings), error.reason)

    def _answer(self, request: HTTPRequest) -> HandlerResult:
        if request.method not in ("GET", "HEAD"):
            raise Refusal.method_not_allowed()
        document, kind = self._discovery.answer(request.path, dict(request.query), request.headers.get("accept", ""))
        body = document if isinstance(document, bytes) else _line(document)
        return HandlerResult(HTTPResponse(200, {"content-type": kind}, body))

    async def _read(self, call: Call, stale: PastState | None) -> HandlerResult:
        view, yaml = negotiate(call, self._clock)
        if call.verb == "list":
            body = self._reader.list_objects(call, view, stale)
        else:
            found = self._reader.get(call, stale)
            if call.subresource == "scale":
                body = view.encode_document(scale_endpoint(call.endpoint), read_scale(call.endpoint, found))
            else:
                body = view.encode(call.endpoint, found)
        return HandlerResult(_success(200, body, _warning_headers(call), yaml=yaml))

    def _watch(self, call: Call, stale: PastState | None, expired: Refusal | None) -> HandlerResult:
        view, _ = negotiate(call, self._clock)
        watch = self._reader.watch(call, view, stale)
        if expired is not None:
            watch.expire(expired)
        return HandlerResult(HTTPResponse(200, _JSON, chunks=watch, on_close=watch.aclose), watch=watch)

    async def _write(self, call: Call) -> HandlerResult:
        if call.verb == "connect":
            return HandlerResult(await self._kubelet.answer(call))
        check_size(call.request)
        view, yaml = negotiate(call, self._clock)
        written = await self._commit(call)
        if written.stored is not None:
            body = await with_conversions(partial(_encode, view, call, written.stored))
        elif call.subresource == "scale":
            body = view.encode_document(scale_endpoint(call.endpoint), written.document)
        else:
            body = encode(written.document)
        response = _success(written.code, body, _warning_headers(call), yaml=yaml)
        return HandlerResult(response, written=written)

    async def _commit(self, call: Call) -> WriteResult:
        """Make a write, again whenever the object changed while webhooks were called, as the real server does."""
        while True:
            try:
                return await with_conversions(partial(self._dispatch_write, call))
            except Outdated:
                call.warnings, call.duplicates = [], []

    async def _dispatch_write(self, call: Call) -> WriteResult:
        if call.verb == "create":
            stored = "list" in call.endpoint.info.verbs and not call.subresource
            if stored:
                return await self._writer.create(call)
            if not call.subresource and negotiate(call, self._clock)[0] is not WHOLE:
                raise not_acceptable()  # a review has no metadata to show
            return self._unstored.create(call)
        if call.verb == "delete":
            return await self._deleter.delete(call)
        if call.verb == "deletecollection":
            return await self._deleter.delete_collection(call)
        if call.subresource == "scale":
            return await write_scale(self._writer, call)
        return await (self._writer.update(call) if call.verb == "update" else self._writer.patch(call))

    # objects applied by the program that runs the server

    async def apply(self, document: Mapping[str, Any]) -> None:
        """Create or replace an object, including its status.

        Raises:
            APIError: the object was refused.
            ConfigurationError: the kind is not served.
        """
        api_version, kind = str(document.get("apiVersion", "")), str(document.get("kind", ""))
        endpoint = self.cluster.registry.by_kind(api_version, kind)
        if endpoint is None:
            raise ConfigurationError(
                f"the embedded API server serves no kind {kind!r} in {api_version!r}: "
                "apply its CustomResourceDefinition first"
            )
        metadata = dict(document.get("metadata") or {})
        base = f"/apis/{api_version}" if endpoint.info.group else f"/api/{api_version}"
        if endpoint.info.namespaced:
            metadata.setdefault("namespace", "default")
            base += f"/namespaces/{metadata['namespace']}"
        base += f"/{endpoint.info.plural}"
        name = str(metadata.get("name") or "")
        found = endpoint.resource.find(metadata.get("namespace"), name) if name else None
        metadata.pop("resourceVersion", None)
        if found is None:
            written = await self._internal("POST", base, {**document, "metadata": metadata})
        else:
            metadata["resourceVersion"] = str(found.rv)
            written = await self._internal("PUT", f"{base}/{name}", {**document, "metadata": metadata})
        stored = written.stored
        if document.get("status") and "status" in endpoint.subresources and stored is not None:
            current = endpoint.store.objects.get(stored.key, stored)
            metadata |= {"name": current.doc["metadata"]["name"], "resourceVersion": str(current.rv)}
            await self._internal("PUT", f"{base}/{metadata['name']}/status", {**document, "metadata": metadata})

    def account_token(self, name: str, namespace: str) -> str:
        """Return a new token of a service account.

        Raises:
            NotFound: there is no such service account.
        """
        stored = self.cluster.registry.built_in("serviceaccounts").find(namespace, name)
        if stored is None:
            refusal = Refusal.not_found("serviceaccounts", "", name)
            raise error_from_response(404, refusal.status(), request=f"token of {namespace}/{name}")
        return self.access.tokens.issue(stored, [ISSUER], _TOKEN_SECONDS)

    async def _internal(self, method: str, path: str, document: Mapping[str, Any]) -> WriteResult:
        headers = {**_JSON, "user-agent": "kube-apiserver"}
        request = HTTPRequest(method, path, body=encode(document), headers=headers)
        try:
            call = self.parse(request)
            if call is None:
                raise ConfigurationError(f"{path} is not the path of a kind")
            return await self._commit(replace(call, by_server=True))
        except Refusal as refusal:
            raise error_from_response(refusal.code, refusal.status(), request=f"{method} {path}") from None


async def _encode(view: WholeView, call: Call, stored: Stored) -> bytes:
    return view.encode(call.endpoint, stored)


def _at_once(write: Coroutine[Any, Any, object]) -> None:
    """Run a write of the server itself to its end, outside an event loop: it calls no webhook, so it never yields."""
    with contextlib.suppress(StopIteration):
        write.send(None)
        raise AssertionError("a write of the server itself has yielded")


def refusal_response(refusal: Refusal, warnings: Sequence[str] = ()) -> HTTPResponse:
    """Return the error response for a refusal, with the values of Warning headers."""
    if refusal.text is not None:
        return HTTPResponse(refusal.code, {"content-type": "text/plain; charset=utf-8"}, refusal.text.encode())
    headers = dict(_JSON)
    retry_after = (refusal.details or {}).get("retryAfterSeconds")
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    if warnings:
        headers["warning"] = warnings[0]
    return HTTPResponse(refusal.code, headers, _line(refusal.status()), warnings=warnings)


def _line(document: Mapping[str, Any]) -> bytes:
    """Return a document as the real server writes JSON: a line."""
    return encode(document) + b"\n"


def _success(code: int, body: bytes, warnings: list[str], *, yaml: bool) -> HTTPResponse:
    headers, body = ({"content-type": "application/yaml"}, to_yaml(body)) if yaml else (_JSON, body + b"\n")
    if warnings:
        headers = {**headers, "warning": warnings[0]}
    return HTTPResponse(code, headers, body, warnings=warnings)


def _warning_headers(call: Call) -> list[str]:
    """Return the Warning headers of a response, with a warning if the request's API version is deprecated."""
    deprecated = call.endpoint.warning
    if not (deprecated or call.warnings):
        return []
    # The real server too drops texts that a header cannot hold.
    sent = [text for text in (deprecated, *call.warnings) if text and not _CONTROL.search(text)]
    return ['299 - "{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"')) for text in sent]
