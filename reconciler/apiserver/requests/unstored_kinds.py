"""The kinds that are sent to the server and never stored: options of deletions, evictions, bindings, reviews."""

from __future__ import annotations

from reconciler.apiserver.builtin.decoding import BuiltInContents, Malformed
from reconciler.apiserver.builtin.types import type_node
from reconciler.apiserver.encoding.refusals import bad_request, cannot_be_handled
from reconciler.apiserver.requests.bodies import read_object
from reconciler.apiserver.requests.metadata_decoding import decode_metadata
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = ["read_unstored_object"]


_TYPES = {
    "Binding": "core.v1",
    "DeleteOptions": "meta.v1",
    "Eviction": "policy.v1",
    "LocalSubjectAccessReview": "authorization.v1",
    "SelfSubjectAccessReview": "authorization.v1",
    "SelfSubjectReview": "authentication.v1",
    "SelfSubjectRulesReview": "authorization.v1",
    "SubjectAccessReview": "authorization.v1",
    "TokenRequest": "authentication.v1",
    "TokenReview": "authentication.v1",
}


def read_unstored_object(request: HTTPRequest, kind: str) -> JSONObject:
    """Return the document in a request, with known fields of the right types only.

    Raises:
        Refusal: 400 or 415, the body is not a document of the kind.
    """
    document, node = read_object(request, kind), type_node(f"{_TYPES[kind]}.{kind}")
    try:
        found = BuiltInContents(node).decode(document, None, [])
        if "metadata" in node.properties:
            found["metadata"] = decode_metadata(document.get("metadata"), [], where="metadata.")
    except Malformed as error:
        if kind == "DeleteOptions":
            raise bad_request(str(error)) from None
        raise cannot_be_handled(kind, str(document.get("apiVersion") or "v1"), kind, str(error)) from None
    return found
