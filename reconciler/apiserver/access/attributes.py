"""The attributes of a request, as access control sees it: a verb of a resource, or of a path."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from reconciler.apiserver.access.users import User
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import go_bool, quoted
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = ["Attributes", "Denied", "attributes_of", "denied"]

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_A_NAMESPACE = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a request.

    Attributes:
        verb: the verb; for a path the HTTP method in lower case.
        path: the path of a request that belongs to no resource; empty otherwise.
        group: the API group.
        resource: the plural name.
        subresource: empty for the object itself.
        namespace: empty for none.
        name: empty for collections.
    """

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def full_resource(self) -> str:
        """Return the resource as roles name it, such as ``pods/status``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def attributes_of(request: HTTPRequest) -> Attributes:
    """Return the attributes of a request; its kind need not exist."""
    path = unquote(request.path)
    first, *parts = path.strip("/").split("/")
    if first not in ("api", "apis") or len(parts) < (2 if first == "api" else 3):
        return Attributes(request.method.lower(), path or "/")
    group, rest = ("", parts[1:]) if first == "api" else (parts[0], parts[2:])
    verb = _VERBS.get(request.method, "")
    if rest[0] == "watch" and len(rest) > 1:
        verb, rest = "watch", rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_A_NAMESPACE:
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    if not name and verb == "get":
        query = dict(request.query)
        watching = go_bool(query.get("watch", ""))
        verb, name = "watch" if watching else "list", _selected_name(query.get("fieldSelector", ""))
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Attributes(verb, "", group, resource, subresource, namespace, name)


def _selected_name(selector: str) -> str:
    for term in selector.split(","):
        field, _, value = term.partition("=")
        if field == "metadata.name":
            return value.removeprefix("=")
    return ""


class Denied(Refusal):
    """The 403 for a request that a user may not make."""

    def __init__(self, user: User, message: str, details: JSONObject) -> None:
        super().__init__(403, "Forbidden", message, details=details)
        self.user = user


def denied(user: User, asked: Attributes, reason: str = "") -> Denied:
    """Return the 403 for a request that a user may not make; `reason` is why no role could allow it."""
    who = f"User {quoted(user.name)} cannot {asked.verb}"
    if asked.resource:
        place = f"in the namespace {quoted(asked.namespace)}" if asked.namespace else "at the cluster scope"
        what = f"{who} resource {quoted(asked.full_resource)} in API group {quoted(asked.group)} {place}"
    else:
        what = f"{who} path {quoted(asked.path)}"
    # The real server escapes what a browser might take for HTML.
    what = what.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    subject = f"{qualified(asked.resource, asked.group)} " if asked.resource else ""
    named = f"{quoted(asked.name)} " if asked.name and subject else ""
    message = f"{subject}{named}{'is ' if subject else ''}forbidden: {what}{f': {reason}' if reason else ''}"
    return Denied(user, message, {key: value for key, value in details.items() if value})
