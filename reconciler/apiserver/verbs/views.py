"""Views of objects: whole, metadata only, or rows of a table, and their negotiation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject, quote_kubernetes_scalars
from reconciler.apiserver.builtin.cells import built_in_columns, custom_columns
from reconciler.apiserver.cluster import Endpoint
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.store import Stored, encode
from reconciler.apiserver.verbs.routing import Call
from reconciler.clock import Clock

_WRITTEN = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


class WholeView:
    """The view that shows whole objects."""

    name: str | None = ""
    """The cache key of encoded objects; None if they are not cached."""

    def encode(self, endpoint: Endpoint, stored: Stored) -> bytes:
        """Return the JSON of one object."""
        return endpoint.encode(stored)

    def encode_document(self, endpoint: Endpoint, doc: JSONObject) -> bytes:
        """Return the JSON of a document that is not a stored version."""
        return encode(endpoint.to_served(doc))

    def encode_bookmark(self, endpoint: Endpoint, doc: JSONObject) -> bytes:  # noqa: ARG002 - a table has columns
        """Return the JSON of the object of a bookmark, which has a version and no name."""
        return encode(doc)

    def encode_list(self, endpoint: Endpoint, items: Sequence[Stored], metadata: Mapping[str, Any]) -> bytes:
        """Return the JSON of a list."""
        head = encode({"kind": endpoint.info.list_kind, "apiVersion": endpoint.api_version, "metadata": metadata})
        if endpoint.resource.custom:
            return _list(head, [self.encode(endpoint, item) for item in items])

        # Items of typed lists have no apiVersion and kind.
        def untyped(doc: JSONObject) -> JSONObject:
            shown = endpoint.to_served(doc)
            return {key: value for key, value in shown.items() if key not in ("apiVersion", "kind")}

        return _list(head, [item.encoded(f"{endpoint.api_version}#item", untyped) for item in items])


WHOLE = WholeView()
"""The default view."""


def _list(head: bytes, items: list[bytes]) -> bytes:
    return b'%b,"items":[%b]}' % (head[:-1], b",".join(items))


class MetadataView(WholeView):
    """The view that shows metadata only."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.name = f"#{version}"

    def encode(self, endpoint: Endpoint, stored: Stored) -> bytes:
        """Return the JSON of one object's metadata."""
        return stored.encoded(f"{endpoint.api_version}{self.name}", self._only_metadata)

    def encode_document(self, endpoint: Endpoint, doc: JSONObject) -> bytes:  # noqa: ARG002 - one form for all kinds
        """Return the JSON of a document's metadata."""
        return encode(self._only_metadata(doc))

    def encode_bookmark(self, endpoint: Endpoint, doc: JSONObject) -> bytes:
        """Return the JSON of the metadata of a bookmark, or a table of one row."""
        return self.encode_document(endpoint, doc)

    def encode_list(self, endpoint: Endpoint, items: Sequence[Stored], metadata: Mapping[str, Any]) -> bytes:
        """Return the JSON of a list."""
        shown = {key: value for key, value in metadata.items() if value != ""}
        head = encode({"kind": "PartialObjectMetadataList", "apiVersion": self._version, "metadata": shown})
        if not items:
            return b'%b,"items":null}' % head[:-1]
        return _list(head, [self.encode(endpoint, item) for item in items])

    def _only_metadata(self, doc: JSONObject) -> JSONObject:
        return {"kind": "PartialObjectMetadata", "apiVersion": self._version, "metadata": doc["metadata"]}


class TableView(MetadataView):
    """The view that shows rows, as ``kubectl get`` prints them, with Metadata, the Object or None of it in each."""

    def __init__(self, version: str, include: str, clock: Clock) -> None:
        super().__init__(version)
        self.name = None  # ages change, so rows are not cached
        self._include = include
        self._clock = clock
        self._titled = False

    def encode(self, endpoint: Endpoint, stored: Stored) -> bytes:
        """Return a table of one row."""
        return self.encode_document(endpoint, stored.doc)

    def encode_document(self, endpoint: Endpoint, doc: JSONObject) -> bytes:
        """Return a table of one row."""
        metadata = {"resourceVersion": doc["metadata"].get("resourceVersion", "")}
        table = self._table(endpoint, [doc], metadata)
        if self._titled:
            table["columnDefinitions"] = None
        self._titled = True
        return encode(table)

    def encode_list(self, endpoint: Endpoint, items: Sequence[Stored], metadata: Mapping[str, Any]) -> bytes:
        """Return a table of all rows."""
        shown = {key: value for key, value in metadata.items() if value != ""}
        return encode(self._table(endpoint, [item.doc for item in items], shown))

    def _table(self, endpoint: Endpoint, docs: list[JSONObject], metadata: Mapping[str, Any]) -> JSONObject:
        info, now = endpoint.info, self._clock.now()
        if endpoint.resource.custom:
            columns = custom_columns(endpoint.columns)
        else:
            columns = built_in_columns(info.group, info.plural, info.release)
        rows = [
            {"cells": [column.cell(doc, now) for column in columns], "object": self._object(endpoint, doc)}
            for doc in docs
        ]
        head = {"kind": "Table", "apiVersion": self._version, "metadata": metadata}
        return {**head, "columnDefinitions": [column.definition for column in columns], "rows": rows}

    def _object(self, endpoint: Endpoint, doc: JSONObject) -> Any:
        if self._include == "None" and "name" in doc["metadata"]:  # a bookmark always has its annotations
            return None
        return endpoint.to_served(doc) if self._include == "Object" else self._only_metadata(doc)


def negotiate(call: Call, clock: Clock) -> tuple[WholeView, bool]:
    """Return the view that a request accepts, and whether it asks for YAML; raise the 406 if it accepts neither."""
    accept = call.request.headers.get("accept", "")
    if not accept or accept in ("application/json", "*/*"):
        return WHOLE, False
    refused = call.endpoint.resource.custom
    for clause in accept.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        if media not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        named = (parameter.partition("=") for parameter in parameters)
        view = _view(call, {name: value for name, _, value in named}, clock)
        if view is not None:
            return view, media == "application/yaml"
        refused = True
    if refused:
        raise not_acceptable()
    offered = f"Available representations: {', '.join(_WRITTEN)}"
    raise Refusal(406, "NotAcceptable", f"406: Not Acceptable\n\n{offered}", details={})


def not_acceptable() -> Refusal:
    """Return the 406 for a form that an object does not have."""
    return Refusal(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(_WRITTEN)}")


def _view(call: Call, options: Mapping[str, str], clock: Clock) -> WholeView | None:
    form, many = options.get("as"), call.verb in ("list", "deletecollection")
    if form is None:
        return WHOLE
    if options.get("g") != "meta.k8s.io" or options.get("v") not in ("v1", "v1beta1"):
        return None
    version = f"meta.k8s.io/{options['v']}"
    if form == "Table":
        include = call.query.get("includeObject", "")
        if include not in ("", "Metadata", "Object", "None"):
            problem = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
            raise Refusal.bad_request(f"Unable to convert to Table as requested: {problem}")
        return TableView(version, include or "Metadata", clock)
    if form not in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return None
    if many is not form.endswith("List"):
        custom = call.endpoint.resource.custom
        if custom and not many:
            raise Refusal.internal_error("content is not a list")
        kind = "unstructured.UnstructuredList" if custom else call.endpoint.info.list_kind
        what = f"but the requested object is {'a' if many else 'not a'} list (*{kind})"
        raise Refusal(406, "NotAcceptable", f"you requested {form}, {what}")
    return MetadataView(version)


def to_yaml(body: bytes) -> bytes:
    """Return a JSON body as YAML."""
    import yaml

    dumper = type("Dumper", (yaml.SafeDumper,), {})
    quote_kubernetes_scalars(dumper)
    text: str = yaml.dump(msgspec.json.decode(body), None, dumper, allow_unicode=True)
    return text.encode()
