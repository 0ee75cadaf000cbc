"""The kinds that are sent to the server and never stored: options of deletions, evictions, bindings, reviews."""

from __future__ import annotations

from reconciler.apiserver.builtin.decoding import BuiltInContents, Decoding, first_error
from reconciler.apiserver.builtin.types import type_name, type_node
from reconciler.apiserver.encoding.refusals import bad_request, cannot_be_handled, not_registered
from reconciler.apiserver.requests.bodies import read_object
from reconciler.apiserver.requests.metadata import decode_metadata
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = ["read_unstored_object"]


_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io/v1", "authorization.k8s.io/v1"
_VERSIONS = {
    "Binding": ("v1",),
    "Eviction": ("policy/v1", "policy/v1beta1"),
    "LocalSubjectAccessReview": (_AUTHORIZATION,),
    "SelfSubjectAccessReview": (_AUTHORIZATION,),
    "SelfSubjectReview": (_AUTHENTICATION,),
    "SelfSubjectRulesReview": (_AUTHORIZATION,),
    "SubjectAccessReview": (_AUTHORIZATION,),
    "TokenRequest": (_AUTHENTICATION,),
    "TokenReview": (_AUTHENTICATION,),
}
"""The versions of each kind besides options; the first one is the default."""


def read_unstored_object(request: HTTPRequest, kind: str) -> JSONObject:
    """Return the document in a request, with its known fields; raise the 400 or 415 for any other body."""
    document, package = read_object(request, kind), "meta"
    if kind in _VERSIONS:
        package = _VERSIONS[kind][0].rpartition("/")[0].partition(".")[0] or "core"  # the group as Go names it
        _check_kind(document, kind, package)
    node, decoding = type_node(f"{package}.v1.{kind}"), Decoding()
    found = BuiltInContents(node).decode(document, None, decoding)
    if "metadata" in node.properties:
        found["metadata"] = decode_metadata(document.get("metadata"), decoding, kind=kind)
    if decoding.problems:
        problem = first_error(decoding.problems, list(document))
        if kind == "DeleteOptions":
            raise bad_request(problem)
        raise cannot_be_handled(kind, str(document.get("apiVersion") or "v1"), kind, problem)
    return found


def _check_kind(document: JSONObject, kind: str, package: str) -> None:
    known = _VERSIONS[kind]
    version, given = str(document.get("apiVersion") or known[0]), str(document.get("kind") or kind)
    if given == kind and version in known:
        return
    group, _, number = version.rpartition("/")
    problem = not_registered(given, version)
    if type_name(group, number, given) is not None or version in _VERSIONS.get(given, ()):
        problem = f"converting ({number}.{given}) to ({package}.{kind}): unknown conversion"
    raise cannot_be_handled(given, version, kind, problem)
