"""Users, and the users that requests impersonate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from reconciler.apiserver.encoding.refusals import bad_request
from reconciler.apiserver.encoding.text import quoted
from reconciler.wire import JSONObject

__all__ = [
    "ADMIN",
    "AUTHENTICATED",
    "MASTERS",
    "User",
    "account_groups",
    "account_name",
    "impersonated_user",
    "split_account",
    "with_groups",
]

AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
MASTERS = "system:masters"
"""The group whose members may do everything."""
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS = "system:anonymous"


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
    raise bad_request(f"requested &{_in_go(wanted)} without impersonating a user name")


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
