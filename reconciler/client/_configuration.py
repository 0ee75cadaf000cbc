"""Turn a configuration into a transport: kubeconfig or service account, through kubernetes_asyncio."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.client._answers import label
from reconciler.client._credentials import Credentials, reason_of
from reconciler.client._kubeconfig import Kubeconfig, default_path, paths_in
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

    from reconciler.client._sockets import KubernetesAsyncioTransport

__all__ = ["ConfiguredTransport"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's certificate authority."""

_IN_CLUSTER = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")

_CONNECTIONS = 256
"""Connections at most: HTTP/1.1 needs one for each watch and for each request under way."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Hold where the configuration comes from: files, or none of them for the pod's service account."""

    subject: str
    paths: Sequence[Path] = ()


class ConfiguredTransport:
    """Find, read and open a configuration when told to, and send requests over it.

    Args:
        kubeconfig: path of a file; searched for by default.
        context: the context in it; its current one by default.
    """

    def __init__(self, *, kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._api_client: ApiClient | None = None
        self._credentials: Credentials | None = None
        self._transport: KubernetesAsyncioTransport | None = None

    async def open(self) -> None:
        """Read the configuration; connections are made with the first request. Cancellation leaves nothing open.

        Raises:
            ConfigurationError: nothing was found, it cannot be used, or time is virtual.
        """
        if self._transport is not None:
            return
        from reconciler.client._sockets import KubernetesAsyncioTransport, refuse_virtual_time

        refuse_virtual_time()
        source = _find(self._kubeconfig, self._context)
        load = _load_kubeconfig if source.paths else _load_service_account
        configuration, self._credentials = await load(source, self._context)
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._api_client = _api_client(configuration, source)
        self._transport = KubernetesAsyncioTransport(self._api_client)

    async def close(self) -> None:
        """Close all connections; harmless when none is open. Cancellation may leave some to the event loop."""
        transport, self._transport = self._transport, None
        api_client, self._api_client = self._api_client, None
        if transport is not None and api_client is not None:
            await transport.close()
            await api_client.close()

    @property
    def host(self) -> str:
        """Return the server's host and port, for metrics; ``""`` before it is open."""
        return "" if self._transport is None else self._transport.host

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its answer. A cancelled call may have been executed.

        Raises:
            NotSent: not open, or the connection could not be made.
            OutcomeUnknown: it may have reached the server, but no answer came.
        """
        if self._transport is None:
            raise NotSent(f"{label(request)}: the client is not open: use 'async with Client.from_config() as client'")
        return await self._transport.send(request)

    async def renew(self) -> bool:
        """Read the credentials anew because they were refused; say whether they are others now.

        A cancelled call leaves those that were there.
        """
        return self._credentials is not None and await self._credentials.renew()


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


async def _load_kubeconfig(source: _Source, context: str | None) -> tuple[Configuration, Credentials]:
    kubeconfig = Kubeconfig(source.paths, source.subject)
    name, _, user = kubeconfig.choose(context)
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config import load_kube_config

    configuration = Configuration()
    try:
        # persist_config would write refreshed OIDC tokens back into the file, and fails at that.
        loader: Any = await load_kube_config(
            os.pathsep.join(map(str, kubeconfig.paths)), name, configuration, persist_config=False
        )
    except Exception as error:  # noqa: BLE001 - foreign code: plugins, files, identity providers
        raise ConfigurationError(
            f"{source.subject}: the credentials of user {user.name!r} cannot be loaded: {reason_of(error)}"
        ) from None
    plugin = "exec" in user.value

    async def reload(refused: bool) -> None:
        if plugin and refused:
            # What it gave is thought to be good until its expiry.
            loader.__dict__.pop("exec_plugin_expiry", None)
        await loader.load_and_set(configuration)

    # A plugin that names no expiry is asked again only when what it gave is refused, as in kubectl.
    expires = hasattr(loader, "exec_plugin_expiry") if plugin else True
    changes = expires and any(key in user.value for key in ("exec", "auth-provider", "tokenFile"))
    return configuration, Credentials(configuration, reload, scheduled=changes)


async def _load_service_account(source: _Source, _: str | None) -> tuple[Configuration, Credentials]:
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader

    configuration = Configuration()
    loader = InClusterConfigLoader(str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
    try:
        loader.load_and_set(configuration)
    except Exception as error:  # noqa: BLE001 - foreign code
        raise ConfigurationError(f"{source.subject} cannot be used: {reason_of(error)}") from None

    async def reload(_: bool) -> None:
        loader.load_and_set(configuration)

    # The loader's own hook reads the token file once a minute.
    return configuration, Credentials(configuration, reload, scheduled=False)


def _api_client(configuration: Any, source: _Source) -> ApiClient:
    from kubernetes_asyncio.client import ApiClient

    try:
        return ApiClient(configuration)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigurationError(f"{source.subject}: {_tls_problem(configuration)} ({reason_of(error)})") from None


def _tls_problem(configuration: Any) -> str:
    try:
        ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    except (ssl.SSLError, OSError):
        return "the certificate authority cannot be used: it must be a certificate in PEM form"
    return "the client certificate cannot be used: certificate and key must be in PEM form and belong together"
