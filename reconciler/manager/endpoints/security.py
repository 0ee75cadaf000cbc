"""The option that protects a manager's endpoints: TLS and authentication."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reconciler.errors import ConfigurationError

__all__ = ["EndpointSecurity", "is_token", "read_token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSecurity:
    """TLS and authentication for ``/metrics``, ``/debug`` and the console. ``/healthz`` and ``/readyz`` stay open.

    ::

        EndpointSecurity(authentication="kubernetes")       # tokens of the cluster, and its RBAC
        EndpointSecurity(token_file="/etc/operator/token")  # one fixed token
        EndpointSecurity(certificates="/etc/operator/tls")  # TLS only

    Attributes:
        authentication: ``"kubernetes"``: clients send a bearer token of the cluster. A TokenReview checks it, and a
            SubjectAccessReview whether its user may ``get`` the path; grant that with ``nonResourceURLs`` in a
            ClusterRole. As controller-runtime's ``WithAuthenticationAndAuthorization``. Default: None.
        token: a bearer token that clients must send instead. Default: None.
        token_file: a file with that token, which is read again at each request. Default: None.
        certificates: a directory with ``tls.crt`` and ``tls.key``, which are reloaded when they change. Default: a new
            self-signed certificate at each start, which needs the extra ``tls``.
        tls: whether to serve HTTPS. False sends tokens in clear text: only for loopback, or behind a proxy that
            encrypts. Default True.

    Raises:
        ConfigurationError: the options contradict each other, or a token is empty or cannot be sent in a header.
    """

    authentication: Literal["kubernetes"] | None = None
    token: str | None = field(default=None, repr=False)
    token_file: str | os.PathLike[str] | None = None
    certificates: str | os.PathLike[str] | None = None
    tls: bool = True

    def __post_init__(self) -> None:
        if self.authentication not in (None, "kubernetes"):
            raise ConfigurationError(
                f"authentication={self.authentication!r} is not valid: use 'kubernetes', or a token"
            )
        if sum(each is not None for each in (self.authentication, self.token, self.token_file)) > 1:
            raise ConfigurationError("set only one of authentication, token and token_file")
        if self.certificates is not None and not self.tls:
            raise ConfigurationError("certificates are not used without TLS: omit certificates, or tls=False")
        if self.token is not None and not is_token(self.token):
            raise ConfigurationError("token is empty, or has characters that cannot be sent in a header")
        if self.token_file is not None:
            read_token(self.token_file)

    @property
    def authenticates(self) -> bool:
        """Return whether clients must send a token."""
        return bool(self.authentication or self.token or self.token_file)


def read_token(file: str | os.PathLike[str]) -> str:
    """Return the token in a file, without white space around it.

    Raises:
        ConfigurationError: the file cannot be read, or does not contain a token.
    """
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"token_file={str(file)!r}: cannot read the token: {error.strerror}") from error
    except ValueError:
        token = ""
    if not is_token(token):
        raise ConfigurationError(
            f"token_file={str(file)!r}: the file is empty, or has characters that cannot be sent in a header"
        ) from None
    return token


def is_token(token: str) -> bool:
    """Return whether it is not empty, and can be sent in a header."""
    return token.isascii() and token.isprintable() and " " not in token and token != ""
