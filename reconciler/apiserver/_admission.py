"""Give objects what the server adds, and check what clients send."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from reconciler.apiserver._routing import Call
from reconciler.apiserver._status import FieldError

__all__ = ["Admission"]

_Filler = Callable[[dict[str, Any]], None]


class Admission:
    """Default, prune and validate."""

    def admit_create(self, call: Call, doc: dict[str, Any]) -> list[str]:
        """Complete a new object in place; return warnings."""
        filler = _FILLERS.get((call.endpoint.info.group, call.endpoint.info.plural))
        if filler is not None:
            filler(doc)
        return []

    def admit_update(self, call: Call, doc: dict[str, Any], before: dict[str, Any]) -> list[str]:
        """Complete a changed object in place; return warnings."""
        return []

    def check(self, call: Call, doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
        """Return what is wrong with an object's content."""
        return []


def _fill_namespace(doc: dict[str, Any]) -> None:
    metadata = doc["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    doc["spec"] = {"finalizers": ["kubernetes"]}
    doc["status"] = {"phase": "Active"}


def _fill_secret(doc: dict[str, Any]) -> None:
    doc.setdefault("type", "Opaque")
    texts = doc.pop("stringData", None)
    if texts:
        data = {key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()}
        doc["data"] = {**(doc.get("data") or {}), **data}


def _fill_definition(doc: dict[str, Any]) -> None:
    spec = doc["spec"] = dict(doc.get("spec") or {})
    names = spec["names"] = dict(spec.get("names") or {})
    names.setdefault("singular", str(names.get("kind", "")).lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    spec.setdefault("conversion", {"strategy": "None"})
    doc["status"] = {
        "acceptedNames": {"kind": "", "plural": ""},
        "conditions": None,
        "storedVersions": [version["name"] for version in spec.get("versions") or () if version.get("storage")],
    }


_FILLERS: dict[tuple[str, str], _Filler] = {
    ("", "namespaces"): _fill_namespace,
    ("", "secrets"): _fill_secret,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _fill_definition,
}
