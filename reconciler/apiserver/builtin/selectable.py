"""The fields of built-in kinds that field selectors accept, besides name and namespace."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.wire import JSONObject

__all__ = ["FieldReader", "field_reader", "selectable_fields"]

FieldReader = Callable[[JSONObject], str]
"""Returns the text of a field of a stored document; empty if the field is missing."""


def field_reader(path: str) -> FieldReader:
    """Return a function that reads the text at a dotted path of a document; empty if the field is missing."""

    def read(doc: JSONObject) -> str:
        found = value_at(doc, path, "")
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read


def _first_address(doc: JSONObject) -> str:
    addresses = value_at(doc, "status.podIPs") or [{"ip": value_at(doc, "status.podIP", "")}]
    return str(addresses[0].get("ip") or "")


_COMPUTED: dict[tuple[str, str], dict[str, FieldReader]] = {
    ("", "pods"): {
        "spec.hostNetwork": lambda doc: str(bool(value_at(doc, "spec.hostNetwork"))).lower(),
        "status.podIP": _first_address,
        "status.podIPs": lambda _doc: "",  # accepted, and the same for all pods
    },
    ("", "events"): {
        "source": lambda doc: str(value_at(doc, "source.component") or doc.get("reportingComponent") or "")
    },
}


def selectable_fields(info: KindInfo) -> dict[str, FieldReader]:
    """Return the fields of a kind that field selectors accept, with their readers."""
    paths = (each.partition("=") for each in info.selectable)
    found = {field: field_reader(path or field) for field, _, path in paths}
    return {**found, **_COMPUTED.get((info.group, info.plural), {})}
