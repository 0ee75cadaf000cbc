"""The transport of `Client.from_config`: it finds and reads a kubeconfig or a service account, and follows changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from reconciler._core.certificates import client_tls_context
from reconciler.client.credentials import ClusterSettings, CredentialRenewer, ExecLogin, reason_of
from reconciler.client.http11 import MAX_BODY
from reconciler.client.kubeconfig import Kubeconfig, default_path, paths_in
from reconciler.client.pool import MAX_STREAMS, is_local, refuse_virtual_time, without_password
from reconciler.client.transport import HTTPTransport
from reconciler.errors import ConfigurationError, NotSent, TransportError
from reconciler.http import HTTPRequest, HTTPResponse

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder in a pod with its token and the cluster's certificate authority."""

_IN_CLUSTER = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")

_logger = logging.getLogger("reconciler.client")


class ConfiguredTransport:
    """A transport to the cluster in a configuration, which `open` finds and reads.

    Certificates that change, the client's or the authority's, are used for all new requests. Requests in progress,
    including watches, end on the connections where they started.

    Args:
        kubeconfig: path of a file; by default the places of `Client.from_config` are searched.
        context: the context in it; its current context by default.
        max_streams: watches that may be open at once.
        max_response_bytes: the largest decompressed response, other than a stream.

    Attributes:
        max_streams: as given.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> None:
        for name, value in (("max_streams", max_streams), ("max_response_bytes", max_response_bytes)):
            if value < 1:
                raise ConfigurationError(f"{name} must be 1 or more, not {value!r}")
        self.max_streams = max_streams
        self._max_response_bytes = max_response_bytes
        self._kubeconfig = kubeconfig
        self._context = context
        self._loaded: _Loaded | None = None
        self._certificates: object = None
        self._suspect = False  # a request got no response since the files were read
        self._open: HTTPTransport | None = None
        self._retired: list[HTTPTransport] = []

    async def open(self) -> None:
        """Read the configuration. Connections are made by the first request. Cancellation leaves nothing open.

        Raises:
            ConfigurationError: no configuration was found, it cannot be used, or time is virtual.
        """
        if self._open is not None:
            return
        refuse_virtual_time()
        subject, paths = _find(self._kubeconfig, self._context)
        if paths:
            self._loaded = await _load_kubeconfig(subject, paths, self._context)
        else:
            self._loaded = await _load_service_account(subject)
        try:
            self._open = self._connections(self._loaded)
        except BaseException:
            self._loaded.settings.close()
            raise
        _warn_of_insecurity(self._loaded)

    def _connections(self, loaded: _Loaded) -> HTTPTransport:
        try:
            transport = HTTPTransport(
                loaded.settings,
                headers=loaded.headers,
                max_streams=self.max_streams,
                max_response_bytes=self._max_response_bytes,
            )
        except (ssl.SSLError, OSError, ValueError) as error:
            problem = _tls_problem(loaded.settings)
            raise ConfigurationError(f"{loaded.subject}: {problem} ({reason_of(error)})") from None
        self._certificates = loaded.credentials.certificates
        return transport

    async def close(self) -> None:
        """Close all connections; harmless if none is open. Cancellation may leave some to the event loop."""
        everything = [*self._retired, *([self._open] if self._open else [])]
        self._open, self._retired = None, []
        if self._loaded is not None:
            await self._loaded.credentials.close()
            self._loaded.settings.close()
        for one in everything:
            await one.close()

    @property
    def host(self) -> str:
        """The server's host and port, for metrics; ``""`` before the transport is open."""
        return "" if self._open is None else self._open.host

    @property
    def namespace(self) -> str:
        """The namespace of the context or of the pod; ``"default"`` without one, and before the transport is open."""
        return (self._loaded.namespace if self._loaded is not None else "") or "default"

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its response. A cancelled call may have been executed.

        Raises:
            NotSent: the transport is not open, the connection could not be made, or there were no valid credentials in
                time.
            OutcomeUnknown: the request may have reached the server, but there was no response.
        """
        loaded = self._loaded
        if self._open is not None and loaded is not None and loaded.credentials.is_due:
            request = await self._refreshed(loaded, request)
        try:
            return await self._connected(request).send(request)
        except TransportError as error:
            # A certificate that either side refuses is one of the reasons; asyncio does not tell which reason it was.
            self._suspect = True
            if self._open is None or loaded is None or not isinstance(error, NotSent):
                raise
            if not loaded.credentials.read_files():
                raise
        return await self._connected(request).send(request)

    def _connected(self, request: HTTPRequest) -> HTTPTransport:
        """Return the transport for a request, with the newest certificates."""
        if self._open is not None and self._loaded is not None:
            if self._suspect:
                self._suspect = False
                self._loaded.credentials.read_files()
            if self._loaded.credentials.certificates != self._certificates:
                self._follow_certificates()
        if self._open is None:
            raise NotSent(f"{request.label}: the client is not open: use 'async with Client.from_config() as client'")
        return self._open

    async def _refreshed(self, loaded: _Loaded, request: HTTPRequest) -> HTTPRequest:
        """Refresh the credentials, and return the request with the time that is left."""
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None if request.timeout is None else 0.8 * request.timeout):
                await loaded.credentials.refresh()
        except TimeoutError:
            raise NotSent(f"{request.label}: the credentials have expired, and were not renewed in time") from None
        if request.timeout is None:
            return request
        return replace(request, timeout=request.timeout - (asyncio.get_running_loop().time() - started))

    async def renew(self) -> bool:
        """Read the credentials again because the server refused them; return whether a request may use others now.

        A cancelled call leaves the credentials as they were.
        """
        return self._loaded is not None and await self._loaded.credentials.renew()

    def _follow_certificates(self) -> None:
        loaded, before = self._loaded, self._open
        if loaded is None or before is None:
            return
        try:
            self._open = self._connections(loaded)
        except ConfigurationError as error:
            self._certificates = loaded.credentials.certificates  # logged once; the next ones may be valid
            _logger.warning("new certificates cannot be used, the old ones stay in use: %s", error)
            return
        self._retired = [one for one in self._retired if one.is_in_use] + [before]
        before.retire()


def _warn_of_insecurity(loaded: _Loaded) -> None:
    settings = loaded.settings
    address = without_password(settings.host)
    if not settings.verify_ssl:
        _logger.warning(
            "%s: the certificate of %s is not verified (insecure-skip-tls-verify): anybody on the network can read and "
            "change the traffic; use certificate-authority instead",
            loaded.subject,
            address,
        )
    parts = urlsplit(settings.host)
    if parts.scheme == "http" and (settings.api_key or parts.username) and not is_local(parts.hostname or ""):
        _logger.warning(
            "%s: credentials are sent to %s without encryption: anybody on the network can read them; use https://",
            loaded.subject,
            address,
        )


def _find(kubeconfig: str | os.PathLike[str] | None, context: str | None) -> tuple[str, Sequence[Path]]:
    """Find the files of the configuration, and its name for messages; no files for the pod's service account."""
    if kubeconfig is not None:
        path = Path(kubeconfig).expanduser()
        return f"kubeconfig {path}", [path]
    variable = os.environ.get("KUBECONFIG", "")
    if variable:
        return f"kubeconfig {variable} (from KUBECONFIG)", paths_in(variable)
    token = SERVICE_ACCOUNT / "token"
    in_pod = all(os.environ.get(name) for name in _IN_CLUSTER)
    if in_pod and context is None and token.exists():
        return f"service account of this pod ({SERVICE_ACCOUNT})", []
    path = default_path()
    if path.exists():
        return f"kubeconfig {path}", [path]
    pod = f"this pod has no service account token ({token})" if in_pod else "this is not a pod"
    raise ConfigurationError(
        f"no cluster is configured: KUBECONFIG is not set, {pod}, and {path} does not exist: "
        "set KUBECONFIG, or pass the path of a kubeconfig"
    )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A configuration that was read.

    Attributes:
        settings: address, certificates and credentials.
        credentials: keeps the settings up to date.
        subject: what to call the configuration in messages.
        headers: sent with each request.
        namespace: the namespace of the context, or of the pod; ``""`` for none.
    """

    settings: ClusterSettings
    credentials: CredentialRenewer
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    namespace: str = ""


_PLUGINS = {
    "oidc": "the exec plugin kubelogin (kubectl oidc-login)",
    "gcp": "the exec plugin gke-gcloud-auth-plugin",
    "azure": "the exec plugin kubelogin for Azure",
}
"""What replaced the auth-providers of early Kubernetes clients."""


async def _load_kubeconfig(subject: str, paths: Sequence[Path], context: str | None) -> _Loaded:
    kubeconfig = Kubeconfig(paths, subject)
    cluster, user = kubeconfig.choose(context)
    headers = kubeconfig.impersonation(user)
    settings = ClusterSettings()
    login = None if user.value.plugin is None else ExecLogin(user, user.value.plugin, cluster.value)
    if login is None and user.value.auth_provider is not None:
        provider = user.value.auth_provider.name or ""
        raise ConfigurationError(
            f"kubeconfig {user.path}: user {user.name!r} has auth-provider {provider!r}, which is not supported: "
            f"configure {_PLUGINS.get(provider, 'an exec plugin')} instead"
        )

    def load() -> None:
        settings.load_kubeconfig(cluster.value, user.value if login is None else login.user)

    try:
        if login is not None:
            await login.renew(refused=False)
        load()
    except asyncio.CancelledError:
        settings.close()
        raise
    except Exception as error:  # noqa: BLE001 - foreign code: files, plugins
        settings.close()
        raise ConfigurationError(
            f"{subject}: the credentials of user {user.name!r} cannot be loaded: {reason_of(error)}"
        ) from None
    given = user.value
    files = (cluster.value.certificate_authority, given.client_certificate, given.client_key, given.token_file)
    credentials = CredentialRenewer(settings, load, scheduled=login is not None or any(files), login=login)
    return _Loaded(settings, credentials, subject, headers, kubeconfig.namespace(context))


async def _load_service_account(subject: str) -> _Loaded:
    settings = ClusterSettings()

    def load() -> None:
        settings.load_service_account(SERVICE_ACCOUNT)

    try:
        load()
    except (OSError, ConfigurationError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{subject} cannot be used: {reason_of(error)}") from None
    namespace = _pod_namespace()
    return _Loaded(settings, CredentialRenewer(settings, load, scheduled=True), subject, namespace=namespace)


def context_namespace(kubeconfig: str | os.PathLike[str] | None, context: str | None) -> str | None:
    """Return the namespace of a context, or of the pod; None if it has none, or if no cluster is configured.

    Args:
        kubeconfig: path of a file; by default the places of `Client.from_config` are searched.
        context: the context in it; its current context by default.

    Raises:
        ConfigurationError: the file or the context is given and cannot be used.
    """
    try:
        subject, paths = _find(kubeconfig, context)
        return (Kubeconfig(paths, subject).namespace(context) if paths else _pod_namespace()) or None
    except ConfigurationError:
        if kubeconfig is not None or context is not None:
            raise
        return None


def _pod_namespace() -> str:
    """Return the namespace of this pod; ``""`` elsewhere."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    return ""


def _tls_problem(settings: ClusterSettings) -> str:
    try:
        client_tls_context(settings.ssl_ca_cert)
    except (ssl.SSLError, OSError):
        return "the certificate authority cannot be used: it must be a certificate in PEM form"
    return "the client certificate cannot be used: certificate and key must be in PEM form and belong together"
