"""The pod of an operator, and a forwarded port of it: each local connection is a WebSocket to the API server.

The protocol is ``v4.channel.k8s.io``, as with kubectl: binary messages that begin with the number of a channel, 0 for
data and 1 for errors. The first message of each channel has the port's number. aiohttp speaks it with the connection
settings of the client, so kubeconfig, credentials and proxies are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp

from reconciler._core.wire import JSONObject
from reconciler.cli.endpoint import HINT, EndpointError
from reconciler.cli.options import AccessFlags, OperatorOptions, PodOptions
from reconciler.cli.output import running_dev
from reconciler.client import Client
from reconciler.client.configuration import ConfiguredTransport, context_namespace
from reconciler.client.requests import ListOptions
from reconciler.errors import ConfigurationError, Forbidden, NotFound, ReconcilerError
from reconciler.manager.election import LEASE_ANNOTATIONS
from reconciler.manager.endpoints.server import LoopThread
from reconciler.meta.metadata import selector_text

_PORT_NAMES = ("metrics", "health", "http-metrics")
_DEFAULT_PORT = 8080
_MAX_NAMED = 5
"""Pods or Leases that a message names."""


class PodError(ReconcilerError):
    """The operator's pod was not found, or its port cannot be forwarded; the message says what to do."""


class Pod(NamedTuple):
    """A pod, and the port to forward."""

    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        return f"port {self.port} of pod {self.namespace}/{self.name}"


async def find_pod(client: Client, options: PodOptions, *, namespace: str) -> Pod:
    """Return the pod to ask: the one that is named, else the leader, else any that is ready.

    Args:
        client: the cluster.
        options: choose the pod.
        namespace: of the kubeconfig's context.

    Raises:
        PodError: there is none, or it does not run.
        APIError, TransportError: the API server cannot be asked.
    """
    given = [name for name in ("pod", "deployment", "selector") if getattr(options, name) is not None]
    if len(given) > 1:
        raise PodError(f"--{given[0]} and --{given[1]} both choose a pod: use one of them")
    where = options.operator_namespace or namespace
    if options.pod is not None:
        return _running(await _named(client, options.pod, where), options)
    if given:
        pods, what = await _selected(client, options, where)
        leader = await _leader_of(client, pods, where) if len(pods) > 1 else None
        return _running(leader or _readiest(pods, what), options)
    return _running(await _leader(client, options.operator_namespace, where), options)


async def _named(client: Client, name: str, namespace: str) -> JSONObject:
    try:
        return (await client.get("v1/Pod", name, namespace)).to_dict()
    except NotFound:
        raise PodError(f"there is no pod {namespace}/{name}; choose its namespace with --operator-namespace") from None


async def _selected(client: Client, options: PodOptions, namespace: str) -> tuple[list[JSONObject], str]:
    """Return the pods of a Deployment or with labels, and what to call them."""
    if options.deployment is None:
        selector, what = options.selector or "", f"with the labels {options.selector!r}"
    else:
        what = f"of Deployment {namespace}/{options.deployment}"
        try:
            deployment = (await client.get("apps/v1/Deployment", options.deployment, namespace)).to_dict()
        except NotFound:
            message = f"there is no Deployment {namespace}/{options.deployment}"
            raise PodError(f"{message}; choose its namespace with --operator-namespace") from None
        selector = selector_text(deployment["spec"]["selector"])
    pods = [pod.to_dict() for pod in (await client.list("v1/Pod", namespace, label_selector=selector))]
    if not pods:
        raise PodError(f"there is no pod {what} in namespace {namespace}")
    return pods, what


async def _leader_of(client: Client, pods: Sequence[JSONObject], namespace: str) -> JSONObject | None:
    """Return the pod that holds a Lease of this library; None if none does, or if Leases may not be read."""
    try:
        holders = {holder for _, holder in await _holders(client, namespace)}
    except Forbidden:
        return None
    return next((pod for pod in pods if pod["metadata"]["name"] in holders), None)


def _readiest(pods: Sequence[JSONObject], what: str) -> JSONObject:
    running = [pod for pod in pods if _phase(pod) == "Running"]
    if not running:
        states = ", ".join(f"{pod['metadata']['name']} is {_phase(pod)}" for pod in pods[:_MAX_NAMED])
        raise PodError(f"no pod {what} runs: {states}")
    return next((pod for pod in running if _is_ready(pod)), running[0])


async def _leader(client: Client, chosen: str | None, namespace: str) -> JSONObject:
    """Return the only pod that holds a Lease of this library."""
    advice = "choose the operator with --deployment, --selector or --pod, or pass --endpoint"
    try:
        held, where = await _holders(client, chosen), f"in namespace {chosen}" if chosen else "in the cluster"
    except Forbidden:
        held, where = await _holders(client, namespace), f"in namespace {namespace}"
    if not held:
        raise PodError(f"no Lease {where} is held by an operator of kube-reconciler; {advice}")
    if len({holder for _, holder in held}) > 1:
        names = ", ".join(f"{lease[0]}/{lease[1]}" for lease, _ in held[:_MAX_NAMED])
        raise PodError(f"several operators hold Leases: {names}; {advice}")
    (found, lease), holder = held[0]
    try:
        return (await client.get("v1/Pod", holder, found)).to_dict()
    except NotFound:
        message = f"{holder!r}, which holds the Lease {found}/{lease}, is not a pod in the namespace of the Lease"
        raise PodError(f"{message}; {advice}") from None


async def _holders(client: Client, namespace: str | None) -> list[tuple[tuple[str, str], str]]:
    """Return the Leases of this library that are held, and the host names of their holders."""
    options: ListOptions = {} if namespace else {"field_selector": "metadata.namespace!=kube-node-lease"}
    found = []
    for lease in await client.list("coordination.k8s.io/v1/Lease", namespace, **options):
        document = lease.to_dict()
        holder, separator, _ = str((document.get("spec") or {}).get("holderIdentity") or "").rpartition("_")
        if separator and LEASE_ANNOTATIONS.items() <= (document["metadata"].get("annotations") or {}).items():
            found.append(((document["metadata"]["namespace"], document["metadata"]["name"]), holder))
    return found


def _running(pod: JSONObject, options: PodOptions) -> Pod:
    """Return the pod and its port.

    Raises:
        PodError: it does not run.
    """
    metadata = pod["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    if _phase(pod) != "Running":
        raise PodError(f"pod {name} is {_phase(pod)}, not Running: look at 'kubectl describe pod'")
    return Pod(metadata["namespace"], metadata["name"], options.port or _port(pod))


def _port(pod: JSONObject) -> int:
    ports: list[Any] = [
        port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ()
    ]
    by_name = {port.get("name"): port["containerPort"] for port in ports}
    found = [by_name[name] for name in _PORT_NAMES if name in by_name]
    if not found and len(ports) == 1:
        found = [ports[0]["containerPort"]]
    return int(found[0]) if found else _DEFAULT_PORT


def _phase(pod: JSONObject) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def _is_ready(pod: JSONObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


_PROTOCOL = "v4.channel.k8s.io"
_TIMEOUT = 10.0
"""Seconds for a connection through the API server."""

_DATA, _ERROR = 0, 1
_CHUNK = 32_768
_MAX_MESSAGE = 2**24
_MAX_PROBLEM = 300


_PORT_HINT = "choose the port of --metrics or --health with --port"


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
    """Provide the address of the operator while the block runs.

    That is ``--endpoint``, that of ``reconciler dev`` if it runs on the server of the kubeconfig or of
    ``reconciler.kubeconfig`` in this directory, or that of a forwarded port.

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
    dev = running_dev(options.kubeconfig, options.context) if options.pod_options == PodOptions() else None
    if dev is not None:
        kubeconfig, endpoint = dev
        yield Operator(endpoint, context_namespace(kubeconfig, None))
        return
    scheme = "https" if access.ca_file is not None or access.insecure_skip_tls_verify else "http"
    with _forwarded(options) as tunnel:
        if options.pod_options.pod is None and sys.stderr.isatty():
            print(f"asking {tunnel.pod}", file=sys.stderr)
        endpoint = f"{scheme}://{tunnel.address}"
        try:
            yield Operator(endpoint, tunnel.namespace)
        except EndpointError as error:
            raise _explained(error, endpoint, tunnel) from error


def _explained(error: EndpointError, endpoint: str, tunnel: _Tunnel) -> EndpointError:
    """Return an error of the local address as one of the pod."""
    address = f"--endpoint {endpoint}"
    if not str(error).startswith(address):  # the operator answered
        return error
    if tunnel.problem is not None:
        return EndpointError(f"{tunnel.pod}: {tunnel.problem}")
    text = str(error).replace(address, str(tunnel.pod))
    text = text.replace("try https://", "if it speaks HTTPS, pass --ca-file or --insecure-skip-tls-verify")
    return EndpointError(text.replace(HINT, _PORT_HINT))


@contextmanager
def _forwarded(options: OperatorOptions) -> Iterator[_Tunnel]:
    """Forward the operator's port while the block runs, in a thread of its own."""
    thread, resources = LoopThread("port-forward"), contextlib.AsyncExitStack()

    async def start() -> _Tunnel:
        transport = ConfiguredTransport(kubeconfig=options.kubeconfig, context=options.context)
        client = await resources.enter_async_context(Client(transport))
        session = await resources.enter_async_context(aiohttp.ClientSession())
        tunnel = _Tunnel(session, transport, await find_pod(client, options.pod_options, namespace=transport.namespace))
        server = await asyncio.start_server(tunnel.connect, "127.0.0.1", 0)
        resources.callback(server.close)
        tunnel.address = "{}:{}".format(*server.sockets[0].getsockname())
        return tunnel

    try:
        try:
            tunnel = asyncio.run(thread.run(start()))
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}; or pass --endpoint") from error
        yield tunnel
    finally:
        asyncio.run(thread.run(resources.aclose()))
        asyncio.run(thread.stop())


class _Tunnel:
    """The connections to one port of a pod.

    Attributes:
        pod: the pod, and its port.
        namespace: of the kubeconfig's context.
        address: the local address, ``127.0.0.1:PORT``.
        problem: why the last connection failed; None while all is well.
    """

    def __init__(self, session: aiohttp.ClientSession, transport: ConfiguredTransport, pod: Pod) -> None:
        self.pod = pod
        self.namespace = transport.namespace
        self.address = ""
        self.problem: str | None = None
        self._session = session
        self._transport = transport

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one local connection until one of the two sides ends it."""
        self.problem = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                websocket = await self._open()
            async with websocket:
                self.problem = await self._exchange(reader, writer, websocket)
        except aiohttp.WSServerHandshakeError as error:
            self.problem = self._refusal(error.status)
        except TimeoutError:
            self.problem = f"the API server did not open the connection within {_TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ReconcilerError) as error:
            self.problem = f"no connection through the API server: {str(error) or type(error).__name__}"
        finally:
            writer.close()

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        settings, pod = await self._transport.handshake(), self.pod
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/portforward?ports={pod.port}"
        return await self._session.ws_connect(
            settings.address + path,
            protocols=[_PROTOCOL],
            headers=settings.headers,
            ssl=settings.tls or True,
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
                return f"this user may not forward ports (403): grant {verbs} in namespace {self.pod.namespace}"
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
