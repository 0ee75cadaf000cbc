"""Requests and responses: paths, selectors, options, bodies; documents, lists, typed errors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, Self, TypedDict, TypeVar, get_args

import msgspec
from pydantic import BaseModel

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import UNDECODABLE, JSONObject, json_elements, json_members
from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, parse_retry_after
from reconciler.meta import GroupVersionKind, Request, request_of, set_controller_reference
from reconciler.meta.documents import encodable
from reconciler.meta.metadata import gvk_of
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects import Resource as _Resource
from reconciler.objects.kinds import KindLike, TypedObject, is_built_in_object, to_document

Selector = str | Mapping[str, str]
"""A label or field selector: in the API's syntax (``"app=web,tier!=db"``), or a mapping of what must be equal."""

PatchStrategy = Literal["merge", "json", "strategic"]
"""RFC 7386, RFC 6902, or the strategic merge of built-in kinds."""

PatchDocument = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""An object, or for the strategy ``"json"`` a list of operations."""

FieldValidation = Literal["Ignore", "Warn", "Strict"]
"""What the server does about unknown fields: drop them, drop them with a warning (the server's default), or refuse."""

Propagation = Literal["Foreground", "Background", "Orphan"]
"""What the garbage collector does about the dependents of a deleted object."""

StatusSubresource = Literal["status"]
"""The subresource that is part of the object: its responses are the whole object."""

Query = Sequence[tuple[str, str]] | Mapping[str, str]
"""Query parameters, decoded."""

CONTENT_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}

SERVER_METADATA = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""The members of ``metadata`` that only the server writes."""


class ListOptions(TypedDict, total=False):
    """Keyword arguments of `Client.list`, `Client.list_pages` and `Client.list_metadata`.

    Attributes:
        label_selector: text in the API's syntax, or a mapping of what must be equal; everything by default.
        field_selector: the same for fields.
        limit: objects in a page; 500 by default, 0 for all objects in one response.
    """

    label_selector: Selector | None
    field_selector: Selector | None
    limit: int


class WatchOptions(TypedDict, total=False):
    """Keyword arguments of `Client.watch`.

    Attributes:
        resource_version: watch from this version, which a list returned. By default, existing objects come first, as
            ADDED.
        label_selector: text in the API's syntax, or a mapping of what must be equal; everything by default.
        field_selector: the same for fields.
        timeout: the duration (seconds, a timedelta or ``"5m"``) after which the server ends the watch, rounded up to
            seconds; by default the server decides.
        bookmarks: the server reports the watch's version from time to time; True by default. These events are yielded
            too.
        send_initial_events: start with a consistent list as a stream: existing objects come as ADDED, then a bookmark
            with the annotation ``k8s.io/initial-events-end``. False by default.
    """

    resource_version: str | None
    label_selector: Selector | None
    field_selector: Selector | None
    timeout: DurationLike | None
    bookmarks: bool
    send_initial_events: bool


class WriteOptions(TypedDict, total=False):
    """Keyword arguments of the verbs that write objects.

    Attributes:
        dry_run: the server validates, defaults and answers, but stores nothing; False by default.
        field_manager: the name that the write is recorded under; the client's by default.
        field_validation: what the server does about unknown fields; the client's by default.
    """

    dry_run: bool
    field_manager: str | None
    field_validation: FieldValidation | None


class PatchOptions(WriteOptions, total=False):
    """Keyword arguments of `Client.patch`, in addition to `WriteOptions`.

    Attributes:
        strategy: ``"merge"`` (RFC 7386, which replaces whole lists; the default), ``"json"`` (RFC 6902), or
            ``"strategic"`` (built-in kinds only).
        resource_version: the server refuses the patch with `Conflict` unless this version is stored.
    """

    strategy: PatchStrategy
    resource_version: str | None


class ApplyOptions(TypedDict, total=False):
    """Keyword arguments of `Client.apply`.

    Attributes:
        owner: an object as read from the server. It becomes the controller of the applied object, which is deleted
            with it.
        field_manager: the name that the write is recorded under; the client's by default.
        force: take over fields that other managers own. True by default; False raises `FieldManagerConflict`.
        subresource: ``"status"`` applies only the status.
        resource_version: the server refuses the apply with `Conflict` unless this version is stored.
        dry_run: the server validates, defaults and answers, but stores nothing; False by default.
    """

    owner: TypedObject | ObjectLike | None
    field_manager: str | None
    force: bool
    subresource: StatusSubresource | None
    resource_version: str | None
    dry_run: bool


class _Deletion(TypedDict, total=False):
    propagation: Propagation | None
    grace_period: DurationLike | None
    dry_run: bool


class DeleteOptions(_Deletion, total=False):
    """Keyword arguments of `Client.delete`.

    Attributes:
        propagation: what happens to the object's dependents: ``"Background"``, ``"Foreground"``, ``"Orphan"``; the
            kind's default if it is not given.
        grace_period: a duration (seconds, a timedelta or ``"30s"``), rounded up to seconds, 0 for at once; the kind's
            default if it is not given.
        uid: the server refuses the deletion with `Conflict` unless the object has this uid.
        resource_version: the server refuses the deletion with `Conflict` unless this version is stored.
        dry_run: the server checks and answers, but deletes nothing; False by default.
    """

    uid: str | None
    resource_version: str | None


class DeleteAllOptions(_Deletion, total=False):
    """Keyword arguments of `Client.delete_all_of`: `propagation`, `grace_period`, `dry_run`, as of `DeleteOptions`.

    Attributes:
        label_selector: such as ``"app=web"`` or ``{"app": "web"}``; all objects by default.
        field_selector: such as ``{"metadata.name": "web"}``; all objects by default.
    """

    label_selector: Selector | None
    field_selector: Selector | None


class ClientModel(Protocol):
    """A generated model of ``kubernetes`` or ``kubernetes_asyncio``: what the stubs of both have in common."""

    def to_dict(self) -> Any:
        """Return the model as a dict with Python's names."""

    def to_str(self) -> str:
        """Return the model as readable text."""
        ...


ObjectLike = Unstructured | JSONObject | ClientModel
"""An object other than a `Resource`. It is returned as an `Unstructured`."""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "attribute_map"):
        return to_document(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    serializer = getattr(value, "__pydantic_serializer__", None)
    if serializer is not None:  # a Quantity, a dataclass of pydantic
        return serializer.to_python(value, mode="json")
    if type(value).__module__ == "ipaddress":
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def encode(value: object) -> bytes:
    """Encode a body as JSON. Mappings of any type, and models inside the body, are written as objects.

    Raises:
        TypeError: a value cannot be written as JSON.
        ValueError: a text contains a lone surrogate; the message has its path.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        path = ".".join(_path_of_surrogate(msgspec.to_builtins(value, enc_hook=_plain)) or ["the body"])
        raise ValueError(
            f"{path} cannot be sent: it contains a lone surrogate, which UTF-8 cannot represent. Replace it, for "
            "example with text.encode(errors='replace').decode()"
        ) from None


def _path_of_surrogate(value: object) -> list[str] | None:
    """Return the path of the first text with a lone surrogate; for a key that has one, the path of its object."""
    if isinstance(value, str):
        return None if encodable(value) == value else []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        if _path_of_surrogate(key) is not None:
            return []
        found = _path_of_surrogate(member)
        if found is not None:
            return [str(key), *found]
    return None


def answer_kind(obj: TypedObject | ObjectLike, document: Mapping[str, Any]) -> KindLike:
    """Return the kind that the response to a write of `obj` is read as."""
    return type(obj) if isinstance(obj, _Resource) or is_built_in_object(obj) else gvk_of(document)


def split_kind_or_object(
    given: KindLike | TypedObject | ObjectLike,
) -> tuple[KindLike, JSONObject | None]:
    """Return the kind, and the document if an object was given."""
    if isinstance(given, (str, GroupVersionKind, type)):
        return given, None
    document = to_document(given)
    return answer_kind(given, document), document


def split_kind_or_key(given: KindLike | TypedObject | ObjectLike) -> tuple[KindLike, Request | None]:
    """Return the kind, and the key if an object was given. The document is not copied."""
    if isinstance(given, _Resource):
        return type(given), given.key
    if isinstance(given, Unstructured):
        return given.gvk, given.key
    kind, document = split_kind_or_object(given)
    return kind, None if document is None else request_of(document)


def query_pairs(query: Query) -> list[tuple[str, str]]:
    """Return query parameters as pairs."""
    return list(query.items() if isinstance(query, Mapping) else query)


def selector_query(label_selector: Selector | None, field_selector: Selector | None) -> list[tuple[str, str]]:
    """Return the query parameters for two selectors. An empty selector selects everything, as None does.

    Raises:
        TypeError: a selector is neither a string nor a mapping, or a value in it is None or a bool.
    """
    given = (("labelSelector", _selector(label_selector)), ("fieldSelector", _selector(field_selector)))
    return [(name, text) for name, text in given if text]


def _selector(selector: Selector | None) -> str:
    if selector is None or isinstance(selector, str):
        return selector or ""
    if not isinstance(selector, Mapping):
        raise TypeError(f"a selector is a string such as 'app=web', or a mapping, not a {type(selector).__name__}")
    pairs: Mapping[str, object] = selector
    for key, value in pairs.items():
        if value is None or isinstance(value, bool):
            raise TypeError(f"the selector's value for {key!r} must be a string, such as 'true', not {value!r}")
    return ",".join(f"{key}={value}" for key, value in pairs.items())


def check_conditions(**conditions: str | None) -> None:
    """Check the conditions of a write. An empty one, as of an object that was never stored, would be none.

    Raises:
        ValueError: a condition is empty.
    """
    for name, value in conditions.items():
        if value == "":
            raise ValueError(f"{name} is empty: pass that of the object as it was read, or None for no condition")


def delete_body(
    *,
    propagation: Propagation | None = None,
    grace_period: DurationLike | None = None,
    uid: str | None = None,
    resource_version: str | None = None,
    dry_run: bool = False,
) -> bytes:
    """Build the body of a deletion from keyword arguments of `DeleteOptions`."""
    check_conditions(uid=uid, resource_version=resource_version)
    given = {"uid": uid, "resourceVersion": resource_version}
    preconditions = {key: value for key, value in given.items() if value}
    options: JSONObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if propagation:
        options["propagationPolicy"] = propagation
    if grace_period is not None:
        options["gracePeriodSeconds"] = math.ceil(seconds_of("grace_period", grace_period, zero=True))
    if preconditions:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return encode(options)


def patch_body(patch: PatchDocument, strategy: PatchStrategy, resource_version: str | None) -> bytes:
    """Build the body of a patch, conditional on `resource_version` if it is given.

    Raises:
        ValueError: the strategy is unknown, or the version is empty.
        TypeError: the strategy needs a list of operations and got an object, or needs an object and got a list.
    """
    check_conditions(resource_version=resource_version)
    if strategy not in get_args(PatchStrategy):
        raise ValueError(f"strategy must be 'merge', 'json' or 'strategic', not {strategy!r}; see also apply()")
    if strategy == "json":
        if isinstance(patch, Mapping):
            raise TypeError("a patch with strategy 'json' must be a list of operations; use 'merge' for an object")
        operations = list(patch)
        if resource_version:
            # Not "test", whose failure is a 422: replacing a stale version is a 409.
            operations.append({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version})
        return encode(operations)
    if not isinstance(patch, Mapping):
        raise TypeError(f"a patch with strategy {strategy!r} must be an object; use 'json' for operations")
    if resource_version:
        patch = {**patch, "metadata": {**(patch.get("metadata") or {}), "resourceVersion": resource_version}}
    return encode(patch)


def apply_document(
    document: Mapping[str, Any], owner: Mapping[str, Any] | None, resource_version: str | None
) -> JSONObject:
    """Build the document to apply: without the server's metadata, with its controller and the version it requires.

    Raises:
        AlreadyOwned: another object is its controller.
        ValueError: the owner was never stored, or cannot own the object; or the version is empty.
    """
    check_conditions(resource_version=resource_version)
    metadata = document.get("metadata") or {}
    kept = {key: value for key, value in metadata.items() if key not in SERVER_METADATA}
    result = {**document, "metadata": kept}
    if owner is not None:
        set_controller_reference(result, owner)
    if resource_version:
        kept["resourceVersion"] = resource_version
    return result


T_co = TypeVar("T_co", covariant=True)

_EXCERPT = 200
"""Characters of a response that an error quotes."""


@dataclass(frozen=True, slots=True)
class InvalidItem:
    """An object that a list left out because it could not be read.

    Attributes:
        name: its name; ``""`` if that is unreadable too.
        namespace: its namespace; None for a cluster-scoped object.
        resource_version: its version; ``""`` if there is none.
        error: what is wrong with the object, with the paths of the fields.
    """

    name: str
    namespace: str | None
    resource_version: str
    error: InvalidObject

    @property
    def key(self) -> Request:
        """Name and namespace."""
        return Request(self.name, self.namespace)


class ListResult(tuple[T_co, ...]):  # noqa: SLOT001 - it has attributes
    """The objects of a list, and the collection's version at which they were read.

    Args:
        items: the objects, in the server's order.
        resource_version: the version to watch from without missing an event.
        invalid: objects that exist but are not among the items, because they cannot be decoded or do not fit the
            requested class. Nearly always empty. Check it before you conclude that an object was deleted.
    """

    resource_version: str
    invalid: tuple[InvalidItem, ...]

    def __new__(cls, items: Iterable[T_co], resource_version: str = "", invalid: Iterable[InvalidItem] = ()) -> Self:
        """Create a list of the items."""
        result = super().__new__(cls, items)
        result.resource_version, result.invalid = resource_version, tuple(invalid)
        return result

    def __repr__(self) -> str:
        invalid = f", {len(self.invalid)} invalid" if self.invalid else ""
        return f"<ListResult of {len(self)}{invalid} at {self.resource_version!r}>"


def decode(request: HTTPRequest, response: HTTPResponse) -> JSONObject:
    """Decode the document in a successful response.

    Raises:
        APIError: the response is not a JSON object, such as a proxy's sign-in page.
        InvalidObject: the response is a JSON object that cannot be decoded.
    """
    try:
        document = msgspec.json.decode(response.body)
    except UNDECODABLE as error:
        _members(request, response)
        raise InvalidObject(f"the response to {request.label} cannot be decoded", [("$", str(error))]) from None
    if type(document) is not dict or ("metadata" in document and type(document["metadata"] or {}) is not dict):
        raise _not_an_object(request, response)
    return document


def decode_page(request: HTTPRequest, response: HTTPResponse) -> tuple[list[JSONObject | InvalidItem], JSONObject]:
    """Decode items and metadata of a page of a list. An item that cannot be decoded becomes an `InvalidItem`.

    Raises:
        APIError: the response is not a list.
    """
    try:
        document = decode(request, response)
        found = document.get("items") or []
        if type(found) is not list:
            raise _not_an_object(request, response)
        return [_item(item) for item in found], document.get("metadata") or {}
    except InvalidObject:
        members = _members(request, response)
    try:
        metadata = msgspec.json.decode(members.get("metadata", b"{}"), type=JSONObject)
        return [_decoded(item) for item in json_elements(members["items"])], metadata
    except (KeyError, ValueError, *UNDECODABLE):
        raise _not_an_object(request, response) from None


def _item(item: object) -> JSONObject | InvalidItem:
    if isinstance(item, dict):
        return item
    return InvalidItem("", None, "", InvalidObject("an item of the list", [("$", "not an object")]))


def _decoded(text: bytes) -> JSONObject | InvalidItem:
    try:
        return _item(msgspec.json.decode(text))
    except UNDECODABLE as error:
        name, namespace, version = _named(text)
        subject = f"{Request(name, namespace)} cannot be decoded"
        return InvalidItem(name, namespace, version, InvalidObject(subject, [("$", str(error))]))


def _named(text: bytes) -> tuple[str, str | None, str]:
    """Return name, namespace and version of an object that cannot be decoded, as far as they are readable."""
    found = {}
    with contextlib.suppress(KeyError, ValueError):
        names = ("name", "namespace", "resourceVersion")
        members = json_members(json_members(text, "metadata")["metadata"], *names)
        for key in names:
            with contextlib.suppress(KeyError, *UNDECODABLE):
                found[key] = msgspec.json.decode(members[key], type=str)
    return found.get("name", ""), found.get("namespace"), found.get("resourceVersion", "")


def _members(request: HTTPRequest, response: HTTPResponse) -> dict[str, bytes]:
    try:
        return json_members(response.body, "items", "metadata")
    except ValueError:
        raise _not_an_object(request, response) from None


def _not_an_object(request: HTTPRequest, response: HTTPResponse) -> APIError:
    return APIError(
        f"the response is not a JSON object: {_excerpt(response.body)!r}; is this an API server?",
        status=response.status,
        request=request.label,
    )


def failure(request: HTTPRequest, response: HTTPResponse, now: datetime) -> APIError:
    """Return the typed error for a response that reports a failure."""
    body = _json_object(response.body)
    return error_from_response(
        response.status,
        body,
        text=_excerpt(response.body),
        retry_after=parse_retry_after(response.headers, now),
        request=request.label,
    )


def _json_object(body: bytes) -> JSONObject | None:
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    return document if isinstance(document, dict) else None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:_EXCERPT].decode(errors="replace").split())
