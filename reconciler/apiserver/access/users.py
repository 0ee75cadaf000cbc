"""Users, the users that requests impersonate, and the attributes of requests.

Access control sees a request as a verb of a resource, or of a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import go_bool, quoted
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = [
    "ADMIN",
    "AUTHENTICATED",
    "MASTERS",
    "Attributes",
    "Denied",
    "User",
    "account_groups",
    "account_name",
    "attributes_of",
    "denied",
    "impersonated_user",
    "split_account",
    "with_groups",
]


AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
MASTERS = "system:masters"
"""The group whose members may do everything."""
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS = "system:anonymous"
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_A_NAMESPACE = ("status", "finalize")
_SELECTED_NAME = re.compile(r"(?:^|,)metadata\.name==?([^,]*)")


@dataclass(frozen=True, slots=True)
class User:
    """The sender of a request.

    Attributes:
        name: the name.
        groups: the groups.
        uid: the uid; empty for none.
        extra: more about the user, by key.
    """

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> JSONObject:
        """Return the user as a ``UserInfo``."""
        found: JSONObject = {"username": self.name, "uid": self.uid, "groups": [*self.groups]}
        found["extra"] = {key: [*values] for key, values in self.extra.items()}
        return {key: value for key, value in found.items() if value}


ADMIN = User("system:admin", (MASTERS, AUTHENTICATED))
"""The user of requests without credentials in the same process, and of the server's token."""


def split_account(username: str) -> tuple[str, str] | None:
    """Return namespace and name of the service account with a username, or None."""
    parts = username.removeprefix(_ACCOUNT).split(":")
    return (parts[0], parts[1]) if username.startswith(_ACCOUNT) and len(parts) == 2 and all(parts) else None


def account_name(namespace: str, name: str) -> str:
    """Return the username of a service account."""
    return f"{_ACCOUNT}{namespace}:{name}"


def account_groups(namespace: str) -> tuple[str, ...]:
    """Return the groups of a service account."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def impersonated_user(headers: Mapping[str, str]) -> User | None:
    """Return the user that a request asks to impersonate, with no groups added; None if it asks for none.

    Raises:
        Refusal: 400, it asks for groups, a uid or extra fields without a name.
    """
    wanted = User(
        headers.get("impersonate-user", "").partition("\n")[0],
        tuple(_values(headers, "impersonate-group")),
        headers.get("impersonate-uid", "").partition("\n")[0],
        {
            unquote(name.removeprefix("impersonate-extra-")).lower(): tuple(_values(headers, name))
            for name in headers
            if name.startswith("impersonate-extra-")
        },
    )
    if wanted.name:
        return wanted
    if wanted == User(""):
        return None
    raise Refusal.bad_request(f"requested &{_in_go(wanted)} without impersonating a user name")


def _values(headers: Mapping[str, str], name: str) -> Iterator[str]:
    # A header that was sent several times has its values on lines of their own.
    return iter(headers[name].split("\n")) if name in headers else iter(())


def with_groups(wanted: User, fixed: tuple[str, ...]) -> User:
    """Return an impersonated user with the groups that the server adds: the fixed ones if the request gives none."""
    groups = wanted.groups or fixed
    expected = UNAUTHENTICATED if wanted.name == _ANONYMOUS else AUTHENTICATED
    added = () if {expected, UNAUTHENTICATED} & set(groups) else (expected,)
    return User(wanted.name, (*groups, *added), wanted.uid, wanted.extra)


def _in_go(user: User) -> str:
    """Return a user as Go's ``%#v`` shows it."""

    def texts(values: tuple[str, ...]) -> str:
        return f"[]string{{{', '.join(map(quoted, values))}}}"

    groups = texts(user.groups) if user.groups else "[]string(nil)"
    extra = ", ".join(f"{quoted(key)}:{texts(values)}" for key, values in sorted(user.extra.items()))
    shown = f"map[string][]string{{{extra}}}" if extra else "map[string][]string(nil)"
    name, uid = quoted(user.name), quoted(user.uid)
    return f"user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{shown}}}"


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
        verb = "watch" if go_bool(query.get("watch", "")) else "list"
        selected = _SELECTED_NAME.search(query.get("fieldSelector", ""))
        name = selected[1] if selected else ""
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Attributes(verb, "", group, resource, subresource, namespace, name)


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
