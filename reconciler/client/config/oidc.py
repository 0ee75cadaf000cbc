"""Get tokens from an OpenID Connect provider with a refresh token."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import msgspec

from reconciler.client.config.expiry import expires_soon
from reconciler.client.config.kubeconfig import Entry
from reconciler.client.transport.redaction import excerpt
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError

__all__ = ["OIDC"]

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_LONGEST_ANSWER = 2**20


class _Claims(msgspec.Struct):
    exp: float | None = None


class OIDC:
    """Hold the tokens of a user of an identity provider; ask for new ones before the present one expires.

    New tokens are kept in memory, not written back to the kubeconfig.

    Args:
        user: the entry in the kubeconfig.
        config: the part of it that is about the provider.

    Raises:
        ConfigurationError: something that is needed is missing.
    """

    def __init__(self, user: Entry, config: Mapping[str, Any]) -> None:
        self.changes = True
        self._user = user
        self._config = {key: str(value) for key, value in config.items() if value}
        if "id-token" not in self._config and "refresh-token" not in self._config:
            raise ConfigurationError("oidc: there is neither an id-token nor a refresh-token: log in again")
        self._id_token = self._config.get("id-token", "")
        self._refresh_token = self._config.get("refresh-token", "")

    @property
    def expired(self) -> bool:
        """Return whether the token is missing or has expired."""
        expiry = _expiry(self._id_token) if self._id_token else None
        return not self._id_token or (expiry is not None and current_clock().now() >= expiry)

    async def entries(self, *, refused: bool) -> Mapping[str, Any]:
        """Return the token as the loader reads it. A cancelled call leaves the tokens that were there."""
        if not self._id_token or expires_soon(_expiry(self._id_token)) or (refused and self._refresh_token):
            await self._refresh()
        return {"token": self._id_token}

    def close(self) -> None:
        """Do nothing."""

    async def _refresh(self) -> None:
        missing = [key for key in ("refresh-token", "idp-issuer-url", "client-id") if not self._config.get(key)]
        if missing:
            raise ConfigurationError(f"oidc: the id-token has expired, and there is no {missing[0]}: log in again")
        try:
            answer = await self._ask()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            # Not its text, which may hold the address with what is secret in it.
            raise ConfigurationError(f"oidc: the identity provider gave no token ({_reason(error)})") from None
        token = answer.get("id_token")
        if not isinstance(token, str) or not token:
            raise ConfigurationError("oidc: the answer of the identity provider holds no id_token: log in again")
        self._id_token = token
        # Most providers keep the refresh token, and then need not say it.
        self._refresh_token = answer.get("refresh_token") or self._refresh_token

    async def _ask(self) -> dict[str, Any]:
        client_id, secret = self._config["client-id"], self._config.get("client-secret", "")
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token}
        headers = {"accept": "application/json"}
        if secret:
            headers["authorization"] = _basic(client_id, secret)
        else:
            form["client_id"] = client_id
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls()),
            headers=headers,
            raise_for_status=True,
            trust_env=True,
            timeout=_TIMEOUT,
        ) as session:
            issuer = self._config["idp-issuer-url"].rstrip("/")
            # No redirects: what is sent here is secret, and meant for the provider alone.
            async with session.get(f"{issuer}/.well-known/openid-configuration", allow_redirects=False) as response:
                endpoint = (await _document(response)).get("token_endpoint")
            if not isinstance(endpoint, str):
                raise ConfigurationError("oidc: the identity provider names no token_endpoint")
            if issuer.startswith("https://") and not endpoint.startswith("https://"):
                raise ConfigurationError("oidc: the identity provider names a token_endpoint that is not https://")
            async with session.post(endpoint, data=form, allow_redirects=False) as response:
                return await _document(response)

    def _tls(self) -> ssl.SSLContext:
        data, file = (self._config.get(f"idp-certificate-authority{suffix}") for suffix in ("-data", ""))
        try:
            if data:
                return ssl.create_default_context(cadata=_decoded(data).decode())
            return ssl.create_default_context(cafile=str(self._user.folder / file) if file else None)
        except (OSError, ValueError):
            raise ConfigurationError(
                "oidc: idp-certificate-authority cannot be used: it must be a certificate in PEM form"
            ) from None


def _decoded(data: Any) -> bytes:
    """Return what ``idp-certificate-authority-data`` holds.

    Raises:
        ConfigurationError: it is not valid base64.
    """
    try:
        return base64.b64decode(str(data), validate=True)
    except ValueError:
        raise ConfigurationError("oidc: idp-certificate-authority-data is not valid base64: copy it again") from None


def _basic(client_id: str, secret: str) -> str:
    """Return the header that names a client (RFC 6749, section 2.3.1: both parts are form-encoded first)."""
    return "Basic " + base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if response.status != 200:
        raise ConfigurationError(f"oidc: the identity provider answered {response.status}; redirects are not followed")
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > _LONGEST_ANSWER:
            raise ConfigurationError(f"oidc: the identity provider answered more than {_LONGEST_ANSWER // 2**20} MiB")
    return msgspec.json.decode(body, type=dict[str, Any])


def _expiry(token: str) -> datetime | None:
    """Return when a token expires; None when it does not say.

    Raises:
        ConfigurationError: it is no JSON Web Token.
    """
    parts = token.split(".")
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims)
    except (IndexError, ValueError, RecursionError):
        raise ConfigurationError("oidc: the id-token is no JSON Web Token: log in again") from None
    try:
        return None if claims.exp is None else datetime.fromtimestamp(claims.exp, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # later than any clock goes


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {excerpt(error.message)}"
    return type(error).__name__
