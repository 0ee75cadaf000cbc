"""Tell what a request asks for: verb, kind, namespace, name, subresource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from reconciler.apiserver._registry import Endpoint, Registry
from reconciler.apiserver._status import Refusal, bad_request, method_not_allowed, not_served
from reconciler.http import HTTPRequest

__all__ = ["Call", "route", "truthy"]


@dataclass(slots=True)
class Call:
    """Hold one request to a kind, understood.

    Attributes:
        request: the request as it came.
        verb: in the API's words: get, list, watch, create, update, patch, delete, deletecollection.
        endpoint: the kind in the version asked for.
        namespace: None for cluster-scoped kinds and lists over all namespaces.
        name: empty for collections.
        subresource: empty for the object itself.
        query: the last value of each parameter.
    """

    request: HTTPRequest
    verb: str
    endpoint: Endpoint
    namespace: str | None
    name: str
    subresource: str
    query: Mapping[str, str]


_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCE = {"GET": "get", "PUT": "update", "PATCH": "patch"}


def truthy(text: str) -> bool:
    """Read a boolean parameter as the API server does: anything but 0 and false is true."""
    return text not in ("", "0", "false", "False", "FALSE", "f", "F")


def route(request: HTTPRequest, registry: Registry) -> Call | None:
    """Return the call that a path under ``/api/v1`` or ``/apis/group/version`` makes; None for discovery paths.

    Raises:
        Refusal: 404 in plain text for what is not served, 405 for a verb that is not.
    """
    parts = [unquote(part) for part in request.path.split("/")[1:]]
    if parts and not parts[-1]:
        parts.pop()
    if len(parts) < 3 or (parts[0] == "apis" and len(parts) < 4):
        return None
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
    endpoint = registry.endpoint(group, version, plural)
    if endpoint is None:
        raise not_served()
    query = dict(request.query)
    verb = _verb(request.method, endpoint, namespace, name, subresource, query)
    return Call(request, verb, endpoint, namespace, name, subresource, query)


def _verb(
    method: str, endpoint: Endpoint, namespace: str | None, name: str, subresource: str, query: Mapping[str, str]
) -> str:
    if namespace is not None and not endpoint.info.namespaced:
        raise not_served()
    if name and namespace is None and endpoint.info.namespaced:
        raise not_served()
    if subresource and subresource not in endpoint.subresources:
        raise _no_subresource(endpoint, name)
    table = _SUBRESOURCE if subresource else _OBJECT if name else _COLLECTION
    verb = table.get(method)
    if verb is None:
        raise method_not_allowed()
    if verb == "create" and endpoint.info.namespaced and namespace is None:
        raise method_not_allowed()
    if verb == "deletecollection" and endpoint.info.namespaced and namespace is None:
        raise method_not_allowed()
    if verb in ("get", "list") and truthy(query.get("watch", "")):
        if verb == "get":
            raise bad_request("watch is not served for one object: list with fieldSelector=metadata.name instead")
        return "watch"
    return verb


def _no_subresource(endpoint: Endpoint, name: str) -> Refusal:
    if not endpoint.resource.custom:
        return not_served()
    # The real server says the same of a kind without the subresource as of an object that is not there.
    from reconciler.apiserver._status import not_found

    return not_found(endpoint.info.plural, endpoint.info.group, name)
