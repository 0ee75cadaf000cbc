"""Conversion of custom objects between their versions by a webhook in the same process.

An object is converted where its versions meet, in the middle of a read or write, so the webhook must answer without
waiting. Webhooks of `reconciler.webhook` do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from reconciler.apiserver.encoding.refusals import internal_error
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.webhook_address import webhook_address
from reconciler.apiserver.storage.registry import Convert
from reconciler.apiserver.storage.store import encode
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.wire import JSONObject

__all__ = ["conversion_of"]

_SUBJECT = ("kind", "name", "namespace", "uid")


def conversion_of(spec: JSONObject, servers: Mapping[str, Transport], new_uid: Callable[[], str]) -> Convert | None:
    """Return the function that converts the objects of a definition, or None if only their apiVersion differs.

    It returns a new document in the wanted version, and raises a `Refusal` with code 500 if the webhook fails.

    Args:
        spec: the ``spec`` of the definition.
        servers: the webhook servers in the same process, by address.
        new_uid: returns the id of a review.
    """
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return None
    client = conversion["webhook"]["clientConfig"]
    versions = conversion["webhook"]["conversionReviewVersions"]
    version = next((each for each in versions if each in ("v1", "v1beta1")), "v1")

    def convert(document: JSONObject, desired: str) -> JSONObject:
        group, _, name = str(document["apiVersion"]).rpartition("/")
        subject = f"conversion webhook for {group}/{name}, Kind={document['kind']}"
        uid = new_uid()
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": desired, "objects": [document]},
        }
        try:
            return _with_metadata(document, _converted(_call(servers, client, encode(review)), uid, desired))
        except _Failed as error:
            raise internal_error(f"{subject} {error}") from None

    return convert


class _Failed(Exception):
    """The webhook has not converted the object; the message says why."""


def _call(servers: Mapping[str, Transport], client: JSONObject, body: bytes) -> bytes:
    """Return the body of the webhook's response."""
    address = webhook_address(client)
    server = servers.get(address.origin)
    if server is None:
        raise _Failed(
            f'failed: Post "{address.url}?timeout=30s": the embedded API server calls conversion webhooks in the same '
            f"process only: use connect_webhooks({address.origin!r}, ...)"
        )
    request = HTTPRequest("POST", address.path, (("timeout", "30s"),), {"content-type": "application/json"}, body)
    sending: Any = server.send(request)
    try:
        sending.send(None)
    except StopIteration as done:
        response: HTTPResponse = done.value
    else:
        sending.close()
        raise _Failed("failed: the webhook waits, but the embedded API server needs its response at once")
    if response.status != 200:
        raise _Failed(f"failed: the server responded with status {response.status}")
    return response.body


class _Result(msgspec.Struct):
    status: str = ""
    message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    uid: str = ""
    result: _Result = msgspec.field(default_factory=_Result)
    converted_objects: list[JSONObject] | None = None


class _Review(msgspec.Struct):
    response: _Response | None = None


def _converted(body: bytes, uid: str, desired: str) -> JSONObject:
    """Return the object in the response of a webhook."""
    try:
        response = msgspec.json.decode(body, type=_Review).response
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Failed(f"failed: the body is not a ConversionReview: {error}") from None
    if response is None:
        raise _Failed("failed: no response provided")
    if response.uid != uid:
        raise _Failed(f"failed: expected response.uid={quoted(uid)}, got {quoted(response.uid)}")
    if response.result.status != "Success":
        status = f"response.result.status was '{response.result.status}', not 'Success'"
        raise _Failed(f"failed: {response.result.message or status}")
    objects = response.converted_objects or []
    if len(objects) != 1:
        raise _Failed(f"returned {len(objects)} objects, expected 1")
    found = str(objects[0].get("apiVersion"))
    if found != desired:
        raise _Failed(
            f"returned invalid object at index 0: invalid groupVersion (expected {desired}, received {found})"
        )
    return objects[0]


def _with_metadata(document: JSONObject, converted: JSONObject) -> JSONObject:
    """Return the converted object with its former metadata; only labels and annotations may change."""
    metadata, sent = converted.get("metadata"), document["metadata"]
    if not isinstance(metadata, dict):
        raise _Failed("returned invalid metadata in object at index 0: missing metadata in converted object")
    for name in _SUBJECT:
        old, new = (document.get(name), converted.get(name)) if name == "kind" else (sent.get(name), metadata.get(name))
        if (old or "") != (new or ""):
            word = "UID" if name == "uid" else name
            raise _Failed(f"returned invalid object at index 0: must have the same {word}: {old or ''} != {new or ''}")
    kept = {key: value for key, value in sent.items() if key not in ("labels", "annotations")}
    for key in ("labels", "annotations"):
        texts = metadata.get(key)
        if texts is None:
            continue
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise _Failed(f"returned invalid metadata in object at index 0: metadata.{key} must be a map of strings")
        kept[key] = texts
    return {**converted, "metadata": kept}
