"""Tokens of service accounts: JSON Web Tokens with the claims of kube-apiserver's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from reconciler.apiserver.access.users import ADMIN, AUTHENTICATED, User, account_groups, account_name
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.storage.cluster import Cluster
from reconciler.apiserver.storage.store import Stored
from reconciler.wire import JSONObject

__all__ = ["ISSUER", "Credentials", "InvalidToken", "Tokens"]

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""The issuer, which is the server's own audience, too."""
_HEADER = {"alg": "HS256", "typ": "JWT"}
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


class InvalidToken(Exception):
    """A token that authenticates nobody; the message says why, as far as a TokenReview does."""


class Authenticated(NamedTuple):
    """The user of a token, and those of the wanted audiences that it is for."""

    user: User
    audiences: list[str]


class Credentials:
    """The tokens of fixed users, and the key of the tokens of service accounts; they outlive the data of a server.

    Attributes:
        token: the token of the administrator.
        key: signs the tokens of service accounts.
    """

    def __init__(self) -> None:
        self._users: dict[bytes, User] = {}
        self.token = self.key = ""
        self.use(_new_token())

    def use(self, token: str) -> None:
        """Replace the token of the administrator; the key depends on it."""
        self._users.pop(_digest(self.token), None)
        self._users[_digest(token)] = ADMIN
        self.token, self.key = token, f"accounts/{token}"

    def add(self, user: User) -> str:
        """Return a new token of a user."""
        token = _new_token()
        self._users[_digest(token)] = user
        return token

    def user_of(self, token: str) -> User | None:
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

    cluster: Cluster
    credentials: Credentials

    def issue(self, account: Stored, audiences: Sequence[str], seconds: int, bound: Mapping[str, Stored]) -> str:
        """Return a new token of a service account, bound to objects by ``pod``, ``node`` or ``secret``."""
        metadata = account.doc["metadata"]
        namespace, now = metadata["namespace"], self._now()
        about: JSONObject = {"namespace": namespace, "serviceaccount": _reference(account)}
        claims = {
            "aud": [*audiences],
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": self.cluster.uid(),
            "kubernetes.io": {**about, **{kind: _reference(each) for kind, each in bound.items()}},
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

    def _user(self, claims: JSONObject) -> User:
        about: JSONObject = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        self._check("serviceaccounts", namespace, account, "")
        extra = {_CREDENTIAL: (f"JTI={claims['jti']}",)}
        for kind in ("secret", "pod", "node"):
            reference = about.get(kind)
            if reference is None:
                continue
            if kind != "node" or "pod" not in about:
                self._check(f"{kind}s", None if kind == "node" else namespace, reference, "invalidated")
            if kind != "secret":
                extra[f"authentication.kubernetes.io/{kind}-name"] = (reference["name"],)
                extra[f"authentication.kubernetes.io/{kind}-uid"] = (reference.get("uid", ""),)
        name = account_name(namespace, account["name"])
        groups = (*account_groups(namespace), AUTHENTICATED)
        return User(name, groups, account["uid"], dict(sorted(extra.items())))

    def _check(self, plural: str, namespace: str | None, reference: JSONObject, lost: str) -> None:
        """Check that an object that a token names exists, and is the same one."""
        resource = self.cluster.registry.built_in(plural)
        stored = resource.find(namespace, reference["name"])
        if stored is None and lost:
            raise InvalidToken(f"service account token has been {lost}")
        if stored is None:
            raise InvalidToken(f"{plural} {quoted(reference['name'])} not found")
        if stored.uid != reference["uid"]:
            kind = resource.info.kind if lost else "service account"
            claim = f"service account {resource.info.singular_name} ref claim" if lost else "claim"
            raise InvalidToken(f"{kind} UID ({stored.uid}) does not match {claim} ({reference['uid']})")


def _reference(stored: Stored) -> JSONObject:
    return {"name": stored.doc["metadata"]["name"], "uid": stored.uid}


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _encode(content: JSONObject) -> str:
    return _base64(msgspec.json.encode(content))
