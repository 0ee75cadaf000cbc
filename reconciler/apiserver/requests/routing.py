"""Routing: the verb, kind, namespace, name and subresource of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from reconciler.apiserver.cluster import Endpoint, Registry
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import go_bool
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import ADMIN, UserInfo
from reconciler.http import HTTPRequest

_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ACTION = {"POST": "create"}
ACTIONS = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest"}
"""The subresources that support create only, with their kinds."""
_SUBRESOURCE = {"GET": "get", "PUT": "update", "PATCH": "patch"}
_FINALIZE = {"PUT": "update"}
_GO_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_INVALID_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_OF_A_NODE = {
    "nodes": frozenset({"proxy"}),
    "pods": frozenset({"log", "exec", "attach", "portforward", "proxy"}),
    "services": frozenset({"proxy"}),
}
"""Subresources that a kubelet or a pod serves behind the real server."""
_UNSUPPORTED = {"DELETE": "delete", "POST": "create"}


@dataclass(slots=True)
class Call:
    """A request to a kind, parsed.

    Attributes:
        request: the request.
        verb: the API's verb: get, list, watch, create, update, patch, delete, deletecollection.
        endpoint: the kind in the requested version.
        namespace: None for cluster-scoped kinds and lists over all namespaces.
        name: empty for collections.
        subresource: empty for the object itself.
        query: the last value of each parameter.
        warnings: warnings about the body, which are sent with an error response too.
        duplicates: messages about fields that the body contains twice.
        by_server: whether the server itself makes it; its writes need no admission.
        user: who makes it.
    """

    request: HTTPRequest
    verb: str
    endpoint: Endpoint
    namespace: str | None
    name: str
    subresource: str
    query: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    by_server: bool = False
    user: UserInfo = ADMIN

    def find(self) -> Stored | None:
        """Return the stored object that the request names, or None."""
        return self.endpoint.resource.find(self.namespace, self.name)

    def existing(self) -> Stored:
        """Return the stored object that the request names; raise the 404 if there is none."""
        found = self.find()
        if found is None:
            raise Refusal.not_found(self.endpoint.info.plural, self.endpoint.info.group, self.name)
        return found


class ResourcePath(NamedTuple):
    """The parts of a path under ``/api/v1`` or ``/apis/group/version``; `plural` is empty for the discovery of it.

    A path whose first part below the version is ``watch`` is the older form of a watch.
    """

    group: str
    version: str
    namespace: str | None
    plural: str
    name: str
    subresource: str
    watched: bool


def split_path(path: str) -> ResourcePath | None:
    """Return the parts of a path; None if it names no version of a group."""
    parts = list(map(unquote, path.split("/")[1:]))
    if parts and not parts[-1]:
        parts.pop()
    if parts[:1] == ["api"] and len(parts) > 1:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watched = rest[:1] == ["watch"] and len(rest) > 1
    rest = rest[1:] if watched else rest
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    plural, name = (*rest[:2], "", "")[:2]
    return ResourcePath(group, version, namespace, plural, name, "/".join(rest[2:]), watched)


def route(request: HTTPRequest, registry: Registry, user: UserInfo) -> Call | None:
    """Return the call of a user to a path under ``/api/v1`` or ``/apis/group/version``; None for discovery paths.

    Raises:
        Refusal: 400 or 404 in plain text if the path is invalid or not served, 405 if the verb is not, 400 if
            the timeout is no duration in Go's form.
    """
    if _INVALID_ESCAPE.search(request.path):
        raise Refusal(400, "", "Bad Request", text="400 Bad Request")
    query = dict(request.query)
    timeout = query.get("timeout")
    if timeout and not _GO_DURATION.fullmatch(timeout) and not go_bool(query.get("watch", "")):
        problem = f'time: invalid duration "{timeout}"'
        raise Refusal.bad_request(f"invalid timeout specified in the request URL - {problem}")
    found = split_path(request.path)
    if found is None or not found.plural or (found.group, found.plural) == ("", "componentstatuses"):
        return None
    group, version, namespace, plural, name, subresource, watched = found
    if (group, plural, name, watched) == ("", "bindings", "", False):
        plural, subresource = "pods", "binding"  # of the pod that the body names
    endpoint = registry.endpoint(group, version, plural)
    if endpoint is None:
        raise Refusal.no_such_resource() if registry.is_built_in(group, version) else Refusal.not_served()
    call = Call(request, "", endpoint, namespace, name, subresource, query, user=user)
    verbs = _OBJECT if name else _COLLECTION
    if subresource:
        verbs = _ACTION if subresource in ACTIONS else _FINALIZE if subresource == "finalize" else _SUBRESOURCE
    verb = _custom_verb(call, verbs) if endpoint.resource.custom else _built_in_verb(call, verbs)
    if watched:
        call.verb = _older_watch(call)
    else:
        call.verb = "watch" if verb == "list" and go_bool(call.query.get("watch", "")) else verb
    return call


def _older_watch(call: Call) -> str:
    if call.subresource:
        raise Refusal.no_such_resource()
    if call.request.method != "GET":
        raise Refusal.method_not_allowed()
    return "watch"


def _built_in_verb(call: Call, verbs: Mapping[str, str]) -> str:
    """Return the verb of a request to a built-in kind, whose handlers are registered path by path."""
    info = call.endpoint.info
    behind = call.subresource.partition("/")[0]
    if behind in _OF_A_NODE.get(info.plural, ()) and not info.group and call.name:
        raise Refusal.needs_a_node(info.plural, call.name, behind)
    stored = "list" in info.verbs
    has_collections = info.namespaced and stored  # over all namespaces
    misplaced = info.namespaced != (call.namespace is not None) and (bool(call.name) or not has_collections)
    if misplaced or (call.name and not stored):
        raise Refusal.no_such_resource()
    if call.subresource and call.subresource not in call.endpoint.subresources:
        raise Refusal.no_such_resource()
    verb = verbs.get(call.request.method)
    over_all = info.namespaced and call.namespace is None
    if verb is None or (over_all and verb != "list") or not (stored or verb in info.verbs):
        raise Refusal.method_not_allowed()
    return verb


def _custom_verb(call: Call, verbs: Mapping[str, str]) -> str:
    """Return the verb of a request to a custom kind, for which one handler serves all paths."""
    info, method = call.endpoint.resource.info, call.request.method
    if info.namespaced != (call.namespace is not None) and not (info.namespaced and method == "GET" and not call.name):
        raise Refusal.not_served()
    if call.subresource:
        if call.subresource not in call.endpoint.subresources:
            raise Refusal.not_found(info.plural, info.group, call.name)
        if method in _UNSUPPORTED:
            raise Refusal.verb_not_supported(_UNSUPPORTED[method], info.plural, info.group)
    if not call.name and method in ("PUT", "PATCH"):
        raise Refusal.bad_request("name must be provided")
    if call.name and method == "POST":
        # The name of a created object comes from the document alone.
        call.name, verbs = "", _COLLECTION
    verb = verbs.get(method)
    if verb is None:
        raise Refusal.method_not_allowed()
    return verb
