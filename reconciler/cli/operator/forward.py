"""A forwarded port of a pod: each connection to a local port is a WebSocket to the API server, as with kubectl.

The protocol is ``v4.channel.k8s.io``: binary messages that begin with the number of a channel, 0 for data and 1 for
errors. The first message of each channel has the port's number. aiohttp speaks it with the connection settings of the
client, so kubeconfig, credentials and proxies are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

import aiohttp

from reconciler.cli.operator.endpoint import HINT, EndpointError
from reconciler.cli.operator.pods import Pod, PodError, find_pod
from reconciler.cli.options import AccessFlags, OperatorOptions, PodOptions
from reconciler.client import Client
from reconciler.client.config.configuration import ConfiguredTransport, context_namespace
from reconciler.errors import ConfigurationError, ReconcilerError

__all__ = ["Operator", "reached"]

_PROTOCOL = "v4.channel.k8s.io"
_TIMEOUT = 10.0
"""Seconds for a connection through the API server."""

_DATA, _ERROR = 0, 1
_CHUNK = 32_768
_MAX_MESSAGE = 2**24
_MAX_PROBLEM = 300


_PORT_HINT = "choose the port of --metrics or --health with --port"


class Forwarded:
    """A port that is forwarded.

    Attributes:
        url: the local address, ``http://127.0.0.1:PORT`` or https.
        pod: the pod, and its port.
        namespace: of the kubeconfig's context.
        problem: why the last connection failed; None while all is well.
    """

    def __init__(self, url: str, pod: Pod, namespace: str) -> None:
        self.url = url
        self.pod = pod
        self.namespace = namespace
        self.problem: str | None = None

    def explained(self, error: EndpointError) -> EndpointError:
        """Return an error of the local address as one of the pod."""
        address = f"--endpoint {self.url}"
        if not str(error).startswith(address):  # the operator answered
            return error
        if self.problem is not None:
            return EndpointError(f"{self.pod}: {self.problem}")
        text = str(error).replace(address, str(self.pod))
        text = text.replace("try https://", "if it speaks HTTPS, pass --ca-file or --insecure-skip-tls-verify")
        return EndpointError(text.replace(HINT, _PORT_HINT))


class Operator(NamedTuple):
    """An operator that can be asked.

    Attributes:
        endpoint: the address to ask.
        namespace: the namespace of the kubeconfig's context; None without a kubeconfig.
    """

    endpoint: str
    namespace: str | None


@contextmanager
def reached(options: OperatorOptions, access: AccessFlags) -> Iterator[Operator]:
    """Provide the address of the operator while the block runs; of a forwarded port without ``--endpoint``.

    Args:
        options: choose the operator.
        access: with options about certificates, a forwarded port is asked over HTTPS.

    Raises:
        ConfigurationError: no cluster is configured, or the configuration cannot be used.
        PodError: the pod was not found, or the options contradict each other.
        APIError, TransportError: the API server cannot be asked.
        EndpointError: the block could not ask the operator.
    """
    if options.endpoint is not None:
        if options.pod_options != PodOptions():
            raise PodError("--endpoint is the address of the operator: omit the options that choose its pod")
        yield Operator(options.endpoint, context_namespace(options.kubeconfig, options.context))
        return
    scheme = "https" if access.ca_file is not None or access.insecure_skip_tls_verify else "http"
    with _forwarded(options, scheme) as found:
        if options.pod_options.pod is None and sys.stderr.isatty():
            print(f"asking {found.pod}", file=sys.stderr)
        try:
            yield Operator(found.url, found.namespace)
        except EndpointError as error:
            raise found.explained(error) from error


@contextmanager
def _forwarded(options: OperatorOptions, scheme: str) -> Iterator[Forwarded]:
    """Forward the operator's port while the block runs, in a thread of its own."""
    ready: Future[tuple[Forwarded, Callable[[], object]]] = Future()

    async def serve() -> None:
        transport = ConfiguredTransport(kubeconfig=options.kubeconfig, context=options.context)
        async with Client(transport) as client, aiohttp.ClientSession() as session:
            pod = await find_pod(client, options.pod_options, namespace=transport.namespace)
            found = Forwarded("", pod, transport.namespace)
            server = await asyncio.start_server(_Tunnel(session, transport, found).connect, "127.0.0.1", 0)
            found.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            stopped = asyncio.Event()
            ready.set_result((found, functools.partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)))
            try:
                await stopped.wait()
            finally:
                server.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            if not ready.done():
                ready.set_exception(error)

    thread = threading.Thread(target=run, name="port-forward", daemon=True)
    thread.start()
    try:
        found, stop = ready.result()
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or pass --endpoint") from error
    try:
        yield found
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has failed, and is closed
            stop()
        thread.join()


class _Tunnel:
    """The connections to one port of a pod."""

    def __init__(self, session: aiohttp.ClientSession, transport: ConfiguredTransport, found: Forwarded) -> None:
        self._session = session
        self._transport = transport
        self._found = found

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one local connection until one of the two sides ends it."""
        self._found.problem = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                websocket = await self._open()
            async with websocket:
                self._found.problem = await self._exchange(reader, writer, websocket)
        except aiohttp.WSServerHandshakeError as error:
            self._found.problem = self._refusal(error.status)
        except TimeoutError:
            self._found.problem = f"the API server did not open the connection within {_TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ReconcilerError) as error:
            self._found.problem = f"no connection through the API server: {str(error) or type(error).__name__}"
        finally:
            writer.close()

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        settings, pod = await self._transport.handshake(), self._found.pod
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/portforward?ports={pod.port}"
        return await self._session.ws_connect(
            settings.address + path,
            protocols=[_PROTOCOL],
            headers=settings.headers,
            ssl=settings.tls,
            server_hostname=settings.server_name,
            proxy=settings.proxy,
            max_msg_size=_MAX_MESSAGE,
        )

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, websocket: aiohttp.ClientWebSocketResponse
    ) -> str | None:
        """Copy in both directions until one ends; return the error that the pod's node reported, if any."""
        sending = asyncio.create_task(_send(reader, websocket))
        receiving = asyncio.create_task(_receive(websocket, writer))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.wait({sending, receiving})
        if receiving.cancelled():
            return None
        message = receiving.result()
        if message and "refused" in message:
            return f"nothing listens there; {_PORT_HINT}"
        return message and f"the port cannot be forwarded: {message}"

    def _refusal(self, status: int) -> str:
        match status:
            case 401:
                return "the API server refused the credentials of the kubeconfig (401)"
            case 403:
                verbs = "the verbs 'get' and 'create' on 'pods/portforward'"
                return f"this user may not forward ports (403): grant {verbs} in namespace {self._found.pod.namespace}"
            case 404:
                return "the pod is gone (404); run the command again"
            case _:
                return f"the API server did not forward the port (status {status}); try 'kubectl port-forward'"


async def _send(reader: asyncio.StreamReader, websocket: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(_CHUNK):
        await websocket.send_bytes(bytes([_DATA]) + data)


async def _receive(websocket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> str | None:
    """Copy the data to the local connection; return the error that was reported, if any."""
    port = {_DATA: 2, _ERROR: 2}  # bytes of the port's number that each channel begins with
    error = b""
    async for message in websocket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        skipped = min(port.get(channel, 0), len(data))
        if skipped:
            port[channel] -= skipped
        if channel == _DATA:
            writer.write(data[skipped:])
            await writer.drain()
        elif channel == _ERROR:
            error = (error + data[skipped:])[:_MAX_PROBLEM]
            if error:
                break
    return " ".join(error.decode(errors="replace").split()) or None
