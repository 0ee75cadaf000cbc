"""The kinds that are sent to the server and never stored: options of deletions, evictions, bindings, reviews."""

from __future__ import annotations

from reconciler.apiserver.builtin.decoding import BuiltInContents, Malformed
from reconciler.apiserver.builtin.types import metadata_node
from reconciler.apiserver.encoding.refusals import bad_request, cannot_be_handled
from reconciler.apiserver.requests.bodies import read_object
from reconciler.apiserver.requests.metadata_decoding import decode_metadata
from reconciler.apiserver.schema.shape import Node
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = ["read_unstored_object", "scalar", "struct"]


def struct(name: str, /, **members: Node) -> Node:
    """Return the schema of a Go struct of a group's version v1."""
    node = Node("object")
    node.name, node.properties = f"v1.{name}", members
    return node


def scalar(kind: str, name: str, form: str = "") -> Node:
    """Return the schema of a scalar.

    Args:
        kind: the JSON type.
        name: the Go type, for messages.
        form: the format.
    """
    node = Node(kind)
    node.name, node.format = name, form
    return node


def _list(items: Node) -> Node:
    node = Node("array")
    node.items, node.name = items, f"[]{items.name}"
    return node


def _map(values: Node) -> Node:
    node = Node("object")
    node.additional, node.name = values, f"map[string]{values.name}"
    return node


_TEXT = scalar("string", "string")
_TYPE_META = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": metadata_node()}
_DELETE_OPTIONS = struct(
    "DeleteOptions",
    apiVersion=_TEXT,
    kind=_TEXT,
    gracePeriodSeconds=scalar("integer", "int64", "int64"),
    preconditions=struct("Preconditions", uid=scalar("string", "types.UID"), resourceVersion=_TEXT),
    orphanDependents=scalar("boolean", "bool"),
    propagationPolicy=scalar("string", "v1.DeletionPropagation"),
    dryRun=_list(_TEXT),
)


def _terms(name: str) -> Node:
    term = struct(f"{name}Requirement", key=_TEXT, operator=_TEXT, values=_list(_TEXT))
    return struct(f"{name}Attributes", rawSelector=_TEXT, requirements=_list(term))


def _review(kind: str, **spec: Node) -> Node:
    return struct(kind, **_TYPE_META, spec=struct(f"{kind}Spec", **spec), status=Node("object"))


_ATTRIBUTES = {
    "resourceAttributes": struct(
        "ResourceAttributes",
        **dict.fromkeys(("namespace", "verb", "group", "version", "resource", "subresource", "name"), _TEXT),
        fieldSelector=_terms("FieldSelector"),
        labelSelector=_terms("LabelSelector"),
    ),
    "nonResourceAttributes": struct("NonResourceAttributes", path=_TEXT, verb=_TEXT),
}
_USER = {"user": _TEXT, "groups": _list(_TEXT), "extra": _map(_list(_TEXT)), "uid": _TEXT}
_KINDS = {
    "Binding": struct(
        "Binding",
        **_TYPE_META,
        target=struct(
            "ObjectReference",
            **dict.fromkeys(("kind", "namespace", "name", "apiVersion", "resourceVersion", "fieldPath"), _TEXT),
            uid=scalar("string", "types.UID"),
        ),
    ),
    "DeleteOptions": _DELETE_OPTIONS,
    "Eviction": struct("Eviction", **_TYPE_META, deleteOptions=_DELETE_OPTIONS),
    "LocalSubjectAccessReview": _review("LocalSubjectAccessReview", **_ATTRIBUTES, **_USER),
    "SelfSubjectAccessReview": _review("SelfSubjectAccessReview", **_ATTRIBUTES),
    "SelfSubjectReview": _review("SelfSubjectReview"),
    "SelfSubjectRulesReview": _review("SelfSubjectRulesReview", namespace=_TEXT),
    "SubjectAccessReview": _review("SubjectAccessReview", **_ATTRIBUTES, **_USER),
    "TokenRequest": _review(
        "TokenRequest",
        audiences=_list(_TEXT),
        expirationSeconds=scalar("integer", "int64", "int64"),
        boundObjectRef=struct(
            "BoundObjectReference",
            **dict.fromkeys(("kind", "apiVersion", "name"), _TEXT),
            uid=scalar("string", "types.UID"),
        ),
    ),
    "TokenReview": _review("TokenReview", token=_TEXT, audiences=_list(_TEXT)),
}


def read_unstored_object(request: HTTPRequest, kind: str) -> JSONObject:
    """Return the document in a request, with known fields of the right types only.

    Raises:
        Refusal: 400 or 415, the body is not a document of the kind.
    """
    document, node = read_object(request, kind), _KINDS[kind]
    try:
        found = BuiltInContents(node).decode(document, None, [])
        if "metadata" in node.properties:
            found["metadata"] = decode_metadata(document.get("metadata"), [], where="metadata.")
    except Malformed as error:
        if kind == "DeleteOptions":
            raise bad_request(str(error)) from None
        raise cannot_be_handled(kind, str(document.get("apiVersion") or "v1"), kind, str(error)) from None
    return found
