"""Decoding of ``metadata`` as a client sent it, and the warnings about it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from reconciler.apiserver.builtin.decoding import Decoding, Malformed, Place, read_time, restoring_problem
from reconciler.apiserver.builtin.types import metadata_node
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.encoding.text import go_type, quoted
from reconciler.wire import JSONObject, JSONValue

__all__ = ["OWNER_FIELDS", "decode_metadata", "metadata_warnings"]

OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
"""The fields of an owner reference, in the order of Go's struct."""


def decode_metadata(found: JSONValue, decoding: Decoding, *, kind: str = "", lenient: bool = False) -> JSONObject:
    """Return a private copy of metadata with known fields only; empty fields are left out.

    Args:
        found: the value of ``metadata`` in the document.
        decoding: how it is decoded; records the unknown fields and the errors.
        kind: the built-in kind of the document, in whose errors fields are parts of it; empty for a custom one.
        lenient: leave out times and numbers that cannot be read.
    """
    if found is None:
        return {}
    if not isinstance(found, dict):
        target = f"Go struct field {kind}.metadata" if kind else "Go value"
        problem = f"json: cannot unmarshal {go_type(found)} into {target} of type v1.ObjectMeta"
        decoding.problems.append(Malformed(problem, restoring_problem(found, metadata_node())))
        decoding.problems[-1].member = "metadata"
        return {}
    metadata: JSONObject = {}
    members = metadata_node().properties
    for key, value in found.items():
        if key not in members:
            decoding.unknown.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        kept: Any = value
        plain = _PLAIN.get(key)
        if plain is None or not plain(value):
            if lenient and _FORMS[key] in ("t", "l"):
                continue
            place = Place(decoding, f"metadata.{key}", f"metadata.{key}" if kind else key, "ObjectMeta")
            kept = decoding.read_member("metadata", value, members[key], place)
        if key == "ownerReferences" and not decoding.problems:
            kept = _owners(kept)
        # An empty managedFields resets ownership; a missing one does not.
        if kept or kept == 0 or key == "managedFields":
            metadata[key] = kept
    return metadata


def _is_text(value: JSONValue) -> bool:
    return type(value) is str


def _is_number(value: JSONValue) -> bool:
    return type(value) is int


def _is_time(value: JSONValue) -> bool:
    with contextlib.suppress(Malformed):
        return type(value) is str and bool(read_time(value, "date-time"))
    return False


def _are_named_texts(value: JSONValue) -> bool:
    return type(value) is dict and all(map(_is_text, value.values()))


def _are_texts(value: JSONValue) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _are_entries(value: JSONValue) -> bool:
    # The content of the entries is checked when it is used.
    return type(value) is list and all(type(entry) is dict for entry in value)


_USUAL = {"s": _is_text, "t": _is_time, "l": _is_number, "{s}": _are_named_texts, "[s]": _are_texts}
_MEMBERS = recorded("builtin/types.json")["types"]["meta.v1.ObjectMeta"]
_FORMS = {key: form.partition("|")[0] for key, form in _MEMBERS.items()}
_PLAIN: dict[str, Callable[[JSONValue], bool]] = {
    **{key: _USUAL[form] for key, form in _FORMS.items() if form in _USUAL},
    "managedFields": _are_entries,
}
"""Returns whether a field has its usual form, so that it needs no decoding."""


def _owners(owners: list[JSONObject]) -> list[JSONObject]:
    """Return the owners without duplicates, with the required fields filled in."""
    kept: dict[frozenset[tuple[str, object]], JSONObject] = {}
    for owner in owners:
        cleaned = {key: owner[key] for key in OWNER_FIELDS if owner.get(key) is not None}
        for key in ("apiVersion", "kind", "name", "uid"):
            cleaned.setdefault(key, "")
        kept.setdefault(frozenset(cleaned.items()), cleaned)
    found = list(kept.values())
    return owners if found == owners else found


def metadata_warnings(found: JSONObject, before: JSONObject, *, custom: bool) -> list[str]:
    """Return the warnings of the API server about metadata as a client sent it.

    Args:
        found: the metadata.
        before: the stored metadata, or an empty dict.
        custom: it belongs to a custom kind, whose finalizers are checked.
    """
    warnings = []
    finalizers = found.get("finalizers")
    if custom and isinstance(finalizers, list):
        added = {name for name in finalizers if isinstance(name, str)} - set(before.get("finalizers") or ())
        warnings += [
            f"metadata.finalizers: {quoted(name)}: prefer a domain-qualified finalizer name"
            f"{' including a path (/)' if '.' in name else ''} to avoid accidental conflicts with other finalizer "
            "writers"
            for name in sorted(added)
            if "/" not in name and name not in ("orphan", "foregroundDeletion")
        ]
    owners = found.get("ownerReferences")
    if isinstance(owners, list) and len(owners) > 1:
        uids = Counter(str(owner.get("uid")) for owner in owners if isinstance(owner, dict))
        twice = sorted(uid for uid, count in uids.items() if count > 1)
        if twice:
            warnings.append(
                ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, "
                "and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
                + ", ".join(twice)
            )
    return warnings
