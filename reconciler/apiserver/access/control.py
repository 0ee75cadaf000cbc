"""Access control: the user of each request, and whether it may make it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconciler.apiserver.access import users
from reconciler.apiserver.access.roles import Decision, Roles
from reconciler.apiserver.access.tokens import InvalidToken, Tokens
from reconciler.apiserver.access.users import Attributes, User
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.http import HTTPRequest

__all__ = ["AccessControl", "unauthorized"]

_AUTHENTICATION = "authentication.k8s.io"
_NODE = "system:node:"


def unauthorized() -> Refusal:
    """Return the 401 for a request whose credentials are not valid."""
    return Refusal(401, "Unauthorized", "Unauthorized")


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The access control of a server.

    Attributes:
        tokens: the tokens that it accepts.
        roles: what users may do; None: everything.
    """

    tokens: Tokens
    roles: Roles | None

    def admit(self, request: HTTPRequest) -> User:
        """Return the user of a request, if it may make it: that of its token, or the one that it impersonates.

        Raises:
            Refusal: 401, the token is not valid; 400, the impersonation is not; 403, the user may not do this.
        """
        headers = request.headers
        user = self.authenticated(headers["authorization"]) if "authorization" in headers else users.ADMIN
        if "impersonate-" in " ".join(headers):
            wanted = users.impersonated_user(headers)
            if wanted is not None:
                user = self._impersonate(user, wanted, users.attributes_of(request))
        if self.roles is not None and users.MASTERS not in user.groups:
            self._require(user, users.attributes_of(request))
        return user

    def authenticated(self, authorization: str) -> User:
        """Return the user of an Authorization header; raise the 401 if there is none."""
        scheme, _, token = authorization.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise InvalidToken(scheme)
            return self.tokens.authenticate(token.strip()).user
        except InvalidToken:
            raise unauthorized() from None

    def is_token(self, text: str) -> bool:
        """Return whether a string is a valid token."""
        try:
            self.tokens.authenticate(text)
        except InvalidToken:
            return False
        return True

    def decide(self, user: User, asked: Attributes) -> Decision:
        """Return whether a user may make a request."""
        return Decision(allowed=True) if self.roles is None else self.roles.decide(user, asked)

    def _require(self, user: User, asked: Attributes) -> None:
        decision = self.decide(user, asked)
        if not decision.allowed:
            raise users.denied(user, asked, decision.reason)

    def _impersonate(self, user: User, wanted: User, asked: Attributes) -> User:
        """Return the impersonated user if any of the modes of impersonation that exist for it is allowed."""
        account = users.split_account(wanted.name)
        fixed = users.account_groups(account[0]) if account is not None else ()
        refusals: list[Refusal] = []
        for mode in _modes(wanted):
            try:
                if mode:
                    self._require(user, replace(asked, verb=f"impersonate-on:{mode}:{asked.verb}"))
                for each in _impersonations(wanted, mode):
                    self._require(user, each)
            except Refusal as refusal:
                refusals.append(refusal)
            else:
                return users.with_groups(wanted, ("system:nodes",) if mode == "arbitrary-node" else fixed)
        raise refusals[0]


def _modes(wanted: User) -> Iterator[str]:
    """Yield the modes in which a user can be impersonated; the last one, without a name, is the unconstrained one."""
    alone = wanted == User(wanted.name)
    if wanted.name.startswith(_NODE) or users.split_account(wanted.name) is not None:
        if alone:
            yield "arbitrary-node" if wanted.name.startswith(_NODE) else "serviceaccount"
    elif users.MASTERS not in wanted.groups:
        yield "user-info"
    yield ""


def _impersonations(wanted: User, mode: str) -> Iterator[Attributes]:
    """Yield what must be allowed to impersonate a user: each part of it."""
    verb, group = f"impersonate:{mode}" if mode else "impersonate", _AUTHENTICATION if mode else ""
    account = users.split_account(wanted.name)
    if account is not None:
        yield Attributes(verb, group=group, resource="serviceaccounts", namespace=account[0], name=account[1])
    elif mode == "arbitrary-node":
        yield Attributes(verb, group=group, resource="nodes", name=wanted.name.removeprefix(_NODE))
    else:
        yield Attributes(verb, group=group, resource="users", name=wanted.name)
    if wanted.uid:
        yield Attributes(verb, group=_AUTHENTICATION, resource="uids", name=wanted.uid)
    for each in wanted.groups:
        yield Attributes(verb, group=group, resource="groups", name=each)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(verb, group=_AUTHENTICATION, resource="userextras", subresource=key, name=value)
