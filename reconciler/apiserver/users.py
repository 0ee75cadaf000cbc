"""The users of the API server: certificates, groups, impersonation, and the tokens of service accounts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import ClusterStorage, split_path
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import go_bool, quoted
from reconciler.apiserver.store import Stored
from reconciler.http import HTTPRequest

AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
MASTERS = "system:masters"
"""The group whose members may do everything."""
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS = "system:anonymous"
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SELECTED_NAME = re.compile(r"(?:^|,)metadata\.name==?([^,]*)")


@dataclass(frozen=True, slots=True)
class UserInfo:
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


ADMIN = UserInfo("system:admin", (MASTERS, AUTHENTICATED))
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


def impersonated_user(headers: Mapping[str, str]) -> UserInfo | None:
    """Return the user that a request asks to impersonate, with no groups added; None if it asks for none.

    Raises:
        Refusal: 400, it asks for groups, a uid or extra fields without a name.
    """
    # A header that was sent several times has its values on lines of their own.
    sent = {name: tuple(text.split("\n")) for name, text in headers.items() if name.startswith("impersonate-")}
    names, uids = (sent.get(f"impersonate-{part}", ("",)) for part in ("user", "uid"))
    prefix = "impersonate-extra-"
    extra = {unquote(name.removeprefix(prefix)).lower(): sent[name] for name in sent if name.startswith(prefix)}
    wanted = UserInfo(names[0], sent.get("impersonate-group", ()), uids[0], extra)
    if wanted.name:
        return wanted
    if wanted == UserInfo(""):
        return None
    raise Refusal.bad_request(f"requested &{_in_go(wanted)} without impersonating a user name")


def with_groups(wanted: UserInfo, fixed: tuple[str, ...]) -> UserInfo:
    """Return an impersonated user with the groups that the server adds: the fixed ones if the request gives none."""
    groups = wanted.groups or fixed
    expected = UNAUTHENTICATED if wanted.name == _ANONYMOUS else AUTHENTICATED
    added = () if {expected, UNAUTHENTICATED} & set(groups) else (expected,)
    return UserInfo(wanted.name, (*groups, *added), wanted.uid, wanted.extra)


def _in_go(user: UserInfo) -> str:
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
    found = split_path(request.path)
    if found is None or not found.plural:
        return Attributes(request.method.lower(), unquote(request.path) or "/")
    verb, name, query = _VERBS.get(request.method, ""), found.name, dict(request.query)
    if not name and verb == "get":
        verb = "watch" if go_bool(query.get("watch", "")) else "list"
        selected = _SELECTED_NAME.search(query.get("fieldSelector", ""))
        name = selected[1] if selected else ""
    elif not name and verb == "delete":
        verb = "deletecollection"
    # A Namespace is in itself.
    namespace = found.namespace or (found.name if found.plural == "namespaces" else "")
    subresource = found.subresource.partition("/")[0]
    return Attributes("watch" if found.watched else verb, "", found.group, found.plural, subresource, namespace, name)


class AccessDenied(Refusal):
    """The 403 for a request that a user may not make."""

    def __init__(self, user: UserInfo, message: str, details: JSONObject) -> None:
        super().__init__(403, "Forbidden", message, details=details)
        self.user = user


def denied(user: UserInfo, asked: Attributes, reason: str = "") -> AccessDenied:
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
    return AccessDenied(user, message, {key: value for key, value in details.items() if value})


ISSUER = "https://kubernetes.default.svc.cluster.local"
"""The issuer, which is the server's own audience, too."""
_HEADER = {"alg": "HS256", "typ": "JWT"}
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


class InvalidToken(Exception):
    """A token that authenticates nobody; the message says why, as far as a TokenReview does."""


class Authenticated(NamedTuple):
    """The user of a token, and those of the wanted audiences that it is for."""

    user: UserInfo
    audiences: list[str]


class StaticTokens:
    """The tokens of fixed users, and the key of the tokens of service accounts; they outlive the data of a server.

    Attributes:
        token: the token of the administrator.
        key: signs the tokens of service accounts.
    """

    def __init__(self) -> None:
        self._users: dict[bytes, UserInfo] = {}
        self.token = self.key = ""
        self.use(_new_token())

    def use(self, token: str) -> None:
        """Replace the token of the administrator; the key depends on it."""
        self._users.pop(_digest(self.token), None)
        self._users[_digest(token)] = ADMIN
        self.token, self.key = token, f"accounts/{token}"

    def add(self, user: UserInfo) -> str:
        """Return a new token of a user."""
        token = _new_token()
        self._users[_digest(token)] = user
        return token

    def user_of(self, token: str) -> UserInfo | None:
        """Return the fixed user with a token, or None."""
        return self._users.get(_digest(token))


def _new_token() -> str:
    return secrets.token_hex(16)


def _digest(token: str) -> bytes:
    # A lookup by the digest of a token takes as long for any wrong token.
    return hashlib.sha256(token.encode(errors="replace")).digest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that a cluster accepts: those of fixed users, and those of service accounts."""

    cluster: ClusterStorage
    credentials: StaticTokens

    def issue(self, account: Stored, audiences: Sequence[str], seconds: int) -> str:
        """Return a new token of a service account."""
        metadata = account.doc["metadata"]
        namespace, now = metadata["namespace"], self._now()
        about = {"namespace": namespace, "serviceaccount": {"name": metadata["name"], "uid": account.uid}}
        claims = {
            "aud": [*audiences],
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": self.cluster.random_uid(),
            "kubernetes.io": about,
            "nbf": now,
            "sub": account_name(namespace, metadata["name"]),
        }
        signed = f"{_encode(_HEADER)}.{_encode(claims)}"
        return f"{signed}.{self._signature(signed)}"

    def _now(self) -> int:
        return int(self.cluster.clock.now().timestamp())

    def _signature(self, signed: str) -> str:
        return _base64(hmac.digest(self.credentials.key.encode(), signed.encode(errors="replace"), "sha256"))

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> Authenticated:
        """Return the user of a token that is for any of some audiences; by default for the server itself.

        Raises:
            InvalidToken: it is not valid, or not any more.
        """
        wanted = audiences or (ISSUER,)
        fixed = self.credentials.user_of(token)
        if fixed is not None:
            # Like kube-apiserver's token file, which knows no audiences.
            return Authenticated(fixed, [ISSUER] if ISSUER in wanted else [*wanted])
        claims = self._claims(token)
        met = [each for each in wanted if each in claims["aud"]]
        if not met:
            have, want = (f"[{' '.join(map(quoted, each))}]" for each in (claims["aud"], wanted))
            raise InvalidToken(f"token audiences {have} is invalid for the target audiences {want}")
        if self._now() >= claims["exp"]:
            raise InvalidToken("service account token has expired")
        return Authenticated(self._user(claims), met)

    def _claims(self, token: str) -> JSONObject:
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(self._signature(signed).encode(), signature.encode(errors="replace")):
            raise InvalidToken("")
        raw = signed.partition(".")[2]
        claims: JSONObject = msgspec.json.decode(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
        return claims

    def _user(self, claims: JSONObject) -> UserInfo:
        about: JSONObject = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        stored = self.cluster.registry.built_in("serviceaccounts").find(namespace, account["name"])
        if stored is None:
            raise InvalidToken(f"serviceaccounts {quoted(account['name'])} not found")
        if stored.uid != account["uid"]:
            raise InvalidToken(f"service account UID ({stored.uid}) does not match claim ({account['uid']})")
        extra = {_CREDENTIAL: (f"JTI={claims['jti']}",)}
        name = account_name(namespace, account["name"])
        groups = (*account_groups(namespace), AUTHENTICATED)
        return UserInfo(name, groups, account["uid"], extra)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _encode(content: JSONObject) -> str:
    return _base64(msgspec.json.encode(content))
