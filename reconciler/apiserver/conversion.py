"""Requests to webhooks, and the conversion of custom objects between their versions by one.

A ``clientConfig`` names the address of a webhook. An object is converted where its versions meet, in the middle of a
read or write. A webhook in the same process must answer without waiting; those of `reconciler.webhook` do. For any
other, the read or write is given up, the webhook is called, and the read or write is repeated with its response: see
`with_conversions`.
"""

from __future__ import annotations

import asyncio
import base64
import posixpath
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from reconciler._core.certificates import client_tls_context
from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.apiserver.cluster import Convert
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.store import encode
from reconciler.http import HTTPRequest, HTTPResponse, Transport

_LARGEST = 16 * 1024 * 1024
"""Bytes of a response that are read: more than five objects of the largest size that etcd accepts."""


class WebhookAddress(NamedTuple):
    """The address of a webhook.

    Attributes:
        url: its URL, as messages show it; as on the real server, without empty segments and a slash at the end.
        path: the path in the URL.
        origin: ``namespace/name`` of its Service, or scheme and host of its URL; see `APIServer.connect_webhooks`.
        service: the name of its Service, or empty.
    """

    url: str
    path: str
    origin: str
    service: str

    def request(self, body: bytes, seconds: float) -> HTTPRequest:
        """Return the request that sends a review and waits some seconds for the response."""
        query = (("timeout", f"{seconds}s"),)
        return HTTPRequest("POST", self.path, query, {"content-type": "application/json"}, body)

    def failure(self, seconds: float, problem: str) -> str:
        """Return the message about a request that got no response."""
        return f'Post "{self.url}?timeout={seconds}s": {problem}'


def review_version(accepted: Sequence[str]) -> str:
    """Return the version of reviews to send to a webhook that accepts some versions."""
    return next((each for each in accepted if each in ("v1", "v1beta1")), "v1")


def webhook_address(client: JSONObject) -> WebhookAddress:
    """Return the address in a ``clientConfig``."""
    if service := client.get("service"):
        namespace, name, path = service["namespace"], service["name"], service.get("path") or "/"
        url = f"https://{name}.{namespace}.svc:{service.get('port', 443)}{path}"
        return WebhookAddress(url, path, f"{namespace}/{name}", name)
    parts = urlsplit(str(client["url"]))
    origin, path = f"{parts.scheme}://{parts.netloc}", posixpath.normpath("/" + parts.path.lstrip("/"))
    return WebhookAddress(origin + path, path, origin, "")


async def post_to_webhook(url: str, request: HTTPRequest, client: JSONObject) -> HTTPResponse:
    """Send a review; the server's certificate must be signed by the CAs of the ``clientConfig``, or be one of them.

    Raises:
        ConnectionError: nothing listens there, or the connection was closed before the response.
        OSError: the webhook cannot be reached, its CAs are not valid, or the response is too large.
    """
    import aiohttp

    bundle = str(client.get("caBundle") or "")
    try:
        context = client_tls_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"the caBundle is not valid: {error}") from None
    try:
        async with (
            aiohttp.ClientSession(auto_decompress=False, headers=dict(request.headers)) as session,
            session.post(url, params=request.query, data=request.body, ssl=context, allow_redirects=False) as response,
        ):
            content = await response.content.read(_LARGEST + 1)
            while len(content) <= _LARGEST and not response.content.at_eof():
                content += await response.content.read(_LARGEST + 1 - len(content))
    except aiohttp.ServerDisconnectedError:
        raise ConnectionError("EOF") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise OSError(f"tls: failed to verify certificate: x509: {error.certificate_error}") from None
    except aiohttp.ClientConnectorError as error:
        refused = isinstance(error.os_error, ConnectionRefusedError)
        why = "connection refused" if refused else (error.strerror or str(error.os_error)).lower()
        kind = ConnectionError if refused else OSError
        raise kind(f"dial tcp {error.host}:{error.port}: connect: {why}") from None
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from None
    if len(content) > _LARGEST:
        raise OSError(f"the response is larger than {_LARGEST} bytes")
    return HTTPResponse(response.status, body=content)


_SUBJECT = ("kind", "name", "namespace", "uid")
_INVALID = "returned invalid object at index 0"
_SECONDS = 30
"""How long a webhook may take to answer."""
_Returned = TypeVar("_Returned")


class ConversionNeeded(Exception):
    """An object must be converted by a webhook over sockets before the operation can be completed.

    Attributes:
        convert: calls the webhook; raises a `Refusal` if that fails.
        known: the conversions that operations in progress have asked for.
        key: the key of this one.
    """

    def __init__(
        self, convert: Callable[[], Awaitable[JSONObject]], known: dict[bytes, JSONObject], key: bytes
    ) -> None:
        super().__init__("this object is converted by a webhook over sockets, which is not possible here")
        self.convert, self.known, self.key = convert, known, key


async def with_conversions(operation: Callable[[], Awaitable[_Returned]]) -> _Returned:
    """Return the result of an operation, which is repeated until webhooks have converted all objects that it needs.

    Raises:
        Refusal: 500, a webhook failed.
    """
    fetched: list[ConversionNeeded] = []
    try:
        while True:
            try:
                return await operation()
            except ConversionNeeded as needed:
                needed.known[needed.key] = await needed.convert()
                fetched.append(needed)
    finally:
        for each in fetched:
            each.known.pop(each.key, None)


def conversion_of(
    spec: JSONObject, servers: Mapping[str, Transport], new_uid: Callable[[], str], *, sockets: bool
) -> Convert | None:
    """Return the function that converts the objects of a definition, or None if only their apiVersion differs.

    It returns a new document in the wanted version. It raises a `Refusal` with code 500 if the webhook fails, and
    `ConversionNeeded` if it must be called over sockets first.

    Args:
        spec: the ``spec`` of the definition.
        servers: the webhook servers in the same process, by address.
        new_uid: returns the id of a review.
        sockets: whether webhooks can be called over sockets.
    """
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return None
    client = conversion["webhook"]["clientConfig"]
    version = review_version(conversion["webhook"]["conversionReviewVersions"])
    address = webhook_address(client)
    known: dict[bytes, JSONObject] = {}

    def convert(document: JSONObject, desired: str) -> JSONObject:
        group, _, name = str(document["apiVersion"]).rpartition("/")
        subject = f"conversion webhook for {group}/{name}, Kind={document['kind']}"
        uid = new_uid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": desired, "objects": [document]},
        }
        remote = sockets and not address.service and address.origin not in servers
        key = _content_key(document, desired) if remote else b""

        def accepted(body: bytes) -> JSONObject:
            return _checked(document, _converted(body, uid, desired))

        async def fetch() -> JSONObject:
            try:
                return accepted(await _post(address, client, encode(review)))
            except _Failed as error:
                raise Refusal.internal_error(f"{subject} {error}") from None

        try:
            if not remote:
                found = accepted(_call(address, servers.get(address.origin), encode(review)))
            elif key in known:
                found = known[key]
            else:
                raise ConversionNeeded(fetch, known, key)
            return _with_metadata(document, found)
        except _Failed as error:
            raise Refusal.internal_error(f"{subject} {error}") from None

    return convert


def _content_key(document: JSONObject, desired: str) -> bytes:
    """Return a key that is the same when an operation is repeated, which gives a new object another uid and time."""
    metadata = document["metadata"]
    kept = [metadata.get(field) for field in ("namespace", "labels", "annotations")]
    name = metadata.get("generateName") or metadata.get("name")
    return encode([desired, name, kept, {**document, "metadata": None}])


async def _post(address: WebhookAddress, client: JSONObject, body: bytes) -> bytes:
    try:
        async with asyncio.timeout(_SECONDS):
            return _body(await post_to_webhook(address.url, address.request(body, _SECONDS), client))
    except (OSError, TimeoutError) as error:
        raise _Failed(f"failed: {address.failure(_SECONDS, str(error) or 'context deadline exceeded')}") from None


def _body(response: HTTPResponse) -> bytes:
    if response.status != 200:
        raise _Failed(f"failed: the server responded with status {response.status}")
    return response.body


class _Failed(Exception):
    """The webhook has not converted the object; the message says why."""


def _call(address: WebhookAddress, server: Transport | None, body: bytes) -> bytes:
    """Return the body of the response of a webhook in the same process."""
    if server is None:
        why = f"the embedded API server cannot call it: use connect_webhooks({address.origin!r}, ...)"
        raise _Failed(f"failed: {address.failure(_SECONDS, why)}")
    sending: Any = server.send(address.request(body, _SECONDS))
    try:
        sending.send(None)
    except StopIteration as done:
        return _body(done.value)
    sending.close()
    raise _Failed("failed: the webhook waits, but the embedded API server needs its response at once")


class _Result(msgspec.Struct):
    status: str = ""
    message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    uid: str = ""
    result: _Result = msgspec.field(default_factory=_Result)
    converted_objects: list[JSONObject] | None = None


class _ConversionReview(msgspec.Struct):
    response: _Response | None = None


def _converted(body: bytes, uid: str, desired: str) -> JSONObject:
    try:
        response = msgspec.json.decode(body, type=_ConversionReview).response
    except UNDECODABLE as error:
        raise _Failed(f"failed: the body is not a ConversionReview: {error}") from None
    if response is None:
        raise _Failed("failed: no response provided")
    objects, result = response.converted_objects or [], response.result
    found = str(objects[0].get("apiVersion")) if objects else ""
    status = result.message or f"response.result.status was '{result.status}', not 'Success'"
    for wrong, why in (
        (response.uid != uid, f"failed: expected response.uid={quoted(uid)}, got {quoted(response.uid)}"),
        (result.status != "Success", f"failed: {status}"),
        (len(objects) != 1, f"returned {len(objects)} objects, expected 1"),
        (found != desired, f"{_INVALID}: invalid groupVersion (expected {desired}, received {found})"),
    ):
        if wrong:
            raise _Failed(why)
    return objects[0]


def _checked(document: JSONObject, converted: JSONObject) -> JSONObject:
    """Return a converted object, which must still be the object that was sent."""
    metadata, sent = converted.get("metadata"), document["metadata"]
    if not isinstance(metadata, dict):
        raise _Failed("returned invalid metadata in object at index 0: missing metadata in converted object")
    for name in _SUBJECT:
        old, new = (document.get(name), converted.get(name)) if name == "kind" else (sent.get(name), metadata.get(name))
        if (old or "") != (new or ""):
            word = "UID" if name == "uid" else name
            raise _Failed(f"{_INVALID}: must have the same {word}: {old or ''} != {new or ''}")
    return converted


def _with_metadata(document: JSONObject, converted: JSONObject) -> JSONObject:
    """Return the converted object with its former metadata; only labels and annotations may change."""
    kept = {key: value for key, value in document["metadata"].items() if key not in ("labels", "annotations")}
    for key in ("labels", "annotations"):
        texts = converted["metadata"].get(key)
        if texts is None:
            continue
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise _Failed(f"returned invalid metadata in object at index 0: metadata.{key} must be a map of strings")
        kept[key] = texts
    return {**converted, "metadata": kept}
