"""Turn a configuration into a transport: kubeconfig or service account."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from reconciler.client.config.credentials import Credentials, reason_of
from reconciler.client.config.kubeconfig import Kubeconfig, default_path, paths_in
from reconciler.client.config.logins import Login, Plain, login_of
from reconciler.client.config.settings import OwnSettings
from reconciler.client.session.answers import label
from reconciler.client.transport.http11 import MAX_BODY
from reconciler.client.transport.network import is_local, refuse_virtual_time
from reconciler.client.transport.pool import MAX_STREAMS
from reconciler.client.transport.redaction import without_password
from reconciler.client.transport.transport import DirectTransport
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from reconciler.client.transport.api_client import KubernetesAsyncioTransport

__all__ = ["ConfiguredTransport"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's certificate authority."""

_IN_CLUSTER = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")


_logger = logging.getLogger("reconciler.client")


@dataclass(frozen=True, slots=True)
class _Source:
    """Hold where the configuration comes from: files, or none of them for the pod's service account."""

    subject: str
    paths: Sequence[Path] = ()


class _Connections:
    """Be the connections made with one set of certificates.

    Attributes:
        retired: others are used for new requests; these end with the last request under way.
        closed: they have ended.
    """

    def __init__(
        self,
        transport: DirectTransport | KubernetesAsyncioTransport,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.transport = transport
        self.retired = False
        self.closed = False
        self._close = close
        self._under_way = 0

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        self._under_way += 1
        streams = False
        try:
            response = await self.transport.send(request)
            streams = response.chunks is not None
        finally:
            if not streams:
                await self._done()
        if streams:
            response.on_close = self._closing(response.on_close)
        return response

    def _closing(self, close: Callable[[], Awaitable[None]] | None) -> Callable[[], Awaitable[None]]:
        async def closing() -> None:
            try:
                if close is not None:
                    await close()
            finally:
                await self._done()

        return closing

    async def _done(self) -> None:
        self._under_way -= 1
        if self.retired:
            await self.retire()

    async def retire(self) -> None:
        self.retired = True
        if not self._under_way:
            await self.close()

    async def close(self) -> None:
        self.closed = True
        await self.transport.close()
        if self._close is not None:
            await self._close()


class ConfiguredTransport:
    """Find, read and open a configuration when told to, and send requests over it.

    Certificates that change, the client's or the authority's, are taken for all new requests; those under way, watches
    included, end on the connections that they began on.

    Args:
        kubeconfig: path of a file; searched for by default.
        context: the context in it; its current one by default.
        max_streams: open watches at most.
        max_response_bytes: bytes of an answer's decompressed body at most.

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
        self._limits = {"max_streams": max_streams, "max_response_bytes": max_response_bytes}
        self._kubeconfig = kubeconfig
        self._context = context
        self._loaded: _Loaded | None = None
        self._certificates: object = None
        self._open: _Connections | None = None
        self._retired: list[_Connections] = []

    async def open(self) -> None:
        """Read the configuration; connections are made with the first request. Cancellation leaves nothing open.

        Raises:
            ConfigurationError: nothing was found, it cannot be used, or time is virtual.
        """
        if self._open is not None:
            return
        refuse_virtual_time()
        source = _find(self._kubeconfig, self._context)
        load = _load_kubeconfig if source.paths else _load_service_account
        self._loaded = await load(source, self._context)
        try:
            self._open = self._connections(self._loaded)
        except BaseException:
            self._loaded.close()
            raise
        _warn_of_insecurity(self._loaded)

    def _connections(self, loaded: _Loaded) -> _Connections:
        connections = _connected(loaded, self._limits)
        self._certificates = loaded.credentials.certificates
        return connections

    async def close(self) -> None:
        """Close all connections; harmless when none is open. Cancellation may leave some to the event loop."""
        connections, self._open = self._open, None
        everything = [*self._retired, *([connections] if connections else [])]
        self._retired = []
        if self._loaded is not None:
            await self._loaded.credentials.close()
            self._loaded.close()
        for one in everything:
            await one.close()

    @property
    def host(self) -> str:
        """Return the server's host and port, for metrics; ``""`` before it is open."""
        return "" if self._open is None else self._open.transport.host

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its answer. A cancelled call may have been executed.

        Raises:
            NotSent: not open, the connection could not be made, or there are no valid credentials in time.
            OutcomeUnknown: it may have reached the server, but no answer came.
        """
        loaded = self._loaded
        if self._open is not None and loaded is not None:
            if loaded.credentials.is_due:
                request = await self._looked(loaded, request)
            if loaded.credentials.certificates != self._certificates:
                await self._follow_certificates()
        if self._open is None:
            raise NotSent(f"{label(request)}: the client is not open: use 'async with Client.from_config() as client'")
        return await self._open.send(request)

    async def _looked(self, loaded: _Loaded, request: HTTPRequest) -> HTTPRequest:
        """Look at the credentials; return the request with the time that is left."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None if request.timeout is None else 0.8 * request.timeout):
                await loaded.credentials.look()
        except TimeoutError:
            raise NotSent(f"{label(request)}: the credentials have expired, and were not renewed in time") from None
        if request.timeout is None:
            return request
        return replace(request, timeout=request.timeout - (asyncio.get_running_loop().time() - began))

    async def renew(self) -> bool:
        """Read the credentials anew because they were refused; say whether they are others now.

        A cancelled call leaves those that were there.
        """
        return self._loaded is not None and await self._loaded.credentials.renew()

    async def _follow_certificates(self) -> None:
        loaded, before = self._loaded, self._open
        if loaded is None or before is None:
            return
        try:
            self._open = self._connections(loaded)
        except ConfigurationError as error:
            self._certificates = loaded.credentials.certificates  # said once; the next ones may be better
            _logger.warning("new certificates are left out: %s", error)
            return
        self._retired = [one for one in self._retired if not one.closed] + [before]
        await before.retire()


def _warn_of_insecurity(loaded: _Loaded) -> None:
    settings = loaded.configuration
    address = without_password(settings.host)
    if not settings.verify_ssl:
        _logger.warning(
            "%s: the certificate of %s is not verified (insecure-skip-tls-verify): anybody on the way can read and "
            "change what is sent; use certificate-authority instead",
            loaded.subject,
            address,
        )
    parts = urlsplit(settings.host)
    if parts.scheme == "http" and (settings.api_key or parts.username) and not is_local(parts.hostname or ""):
        _logger.warning(
            "%s: credentials are sent to %s without encryption: anybody on the way can read them; use https://",
            loaded.subject,
            address,
        )


def _find(kubeconfig: str | os.PathLike[str] | None, context: str | None) -> _Source:
    if kubeconfig is not None:
        path = Path(kubeconfig).expanduser()
        return _Source(f"kubeconfig {path}", [path])
    variable = os.environ.get("KUBECONFIG", "")
    if variable:
        return _Source(f"kubeconfig {variable} (from KUBECONFIG)", paths_in(variable))
    token = SERVICE_ACCOUNT / "token"
    in_pod = all(os.environ.get(name) for name in _IN_CLUSTER)
    if in_pod and context is None and token.exists():
        return _Source(f"service account of this pod ({SERVICE_ACCOUNT})")
    path = default_path()
    if path.exists():
        return _Source(f"kubeconfig {path}", [path])
    pod = f"this pod has no service account token ({token})" if in_pod else "this is no pod"
    raise ConfigurationError(
        f"no cluster is configured: KUBECONFIG is not set, {pod}, and {path} does not exist: "
        "set KUBECONFIG, or give kubeconfig="
    )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Hold a configuration, what keeps it fresh, and what to call it in messages."""

    configuration: Any
    credentials: Credentials
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


async def _load_kubeconfig(source: _Source, context: str | None) -> _Loaded:
    kubeconfig = Kubeconfig(source.paths, source.subject)
    name, cluster, user = kubeconfig.choose(context)
    headers = kubeconfig.impersonation(user)
    login: Login = Plain(user)
    own = OwnSettings()
    configuration: Any = own

    async def reload(refused: bool) -> None:
        document = kubeconfig.document(name, cluster, await login.entries(refused=refused))
        if configuration is own:
            own.take_kubeconfig(document["clusters"][0]["cluster"], document["users"][0]["user"])
        else:
            await _load_with_library(document, name, configuration)

    def close() -> None:
        login.close()
        own.close()

    try:
        login = login_of(user, cluster)
        if isinstance(login, Plain) and login.needs_library:
            from kubernetes_asyncio.client import Configuration

            configuration = Configuration()
        await reload(False)
    except asyncio.CancelledError:
        close()
        raise
    except Exception as error:  # noqa: BLE001 - foreign code: files, identity providers
        close()
        raise ConfigurationError(
            f"{source.subject}: the credentials of user {user.name!r} cannot be loaded: {reason_of(error)}"
        ) from None
    scheduled = login.changes or bool(cluster.value.get("certificate-authority"))
    credentials = Credentials(configuration, reload, scheduled=scheduled, expired=lambda: login.expired)
    return _Loaded(configuration, credentials, source.subject, headers, close)


async def _load_with_library(document: dict[str, Any], name: str, configuration: Any) -> None:
    from kubernetes_asyncio.config.kube_config import KubeConfigLoader

    await KubeConfigLoader(document, active_context=name).load_and_set(configuration)


async def _load_service_account(source: _Source, _: str | None) -> _Loaded:
    settings = OwnSettings()

    async def reload(_: bool) -> None:
        settings.take_service_account(SERVICE_ACCOUNT)

    try:
        await reload(False)
    except (OSError, ConfigurationError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source.subject} cannot be used: {reason_of(error)}") from None
    return _Loaded(settings, Credentials(settings, reload, scheduled=True), source.subject)


def _connected(loaded: _Loaded, limits: dict[str, int]) -> _Connections:
    try:
        settings = loaded.configuration
        if not isinstance(settings, OwnSettings):
            return _library_connections(settings, loaded.headers, limits)
        if settings.proxy:
            return _library_connections(_proxied(settings), loaded.headers, limits)
        return _Connections(DirectTransport(settings, headers=loaded.headers, **limits))
    except (ssl.SSLError, OSError, ValueError) as error:
        problem = _tls_problem(loaded.configuration)
        raise ConfigurationError(f"{loaded.subject}: {problem} ({reason_of(error)})") from None


def _proxied(settings: OwnSettings) -> Any:
    """Return the same as a configuration of `kubernetes_asyncio`, which speaks through proxies."""
    from kubernetes_asyncio.client import Configuration

    configuration: Any = Configuration()
    for name in ("host", "ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name", "proxy"):
        setattr(configuration, name, getattr(settings, name))

    def renew(used: Any) -> None:
        used.api_key = dict(settings.api_key)

    configuration.refresh_api_key_hook = renew
    return configuration


def _library_connections(configuration: Any, headers: Mapping[str, str], limits: dict[str, int]) -> _Connections:
    from kubernetes_asyncio.client import ApiClient

    from reconciler.client.transport.api_client import KubernetesAsyncioTransport

    configuration.connection_pool_maxsize = 0  # no limit beside the transport's own
    api_client = ApiClient(configuration)
    for name, value in headers.items():
        api_client.set_default_header(name, value)
    return _Connections(KubernetesAsyncioTransport(api_client, **limits), api_client.close)


def _tls_problem(configuration: Any) -> str:
    try:
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    except (ssl.SSLError, OSError):
        return "the certificate authority cannot be used: it must be a certificate in PEM form"
    return "the client certificate cannot be used: certificate and key must be in PEM form and belong together"
