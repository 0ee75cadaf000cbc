"""Decoding of ``metadata`` as a client sent it, and the warnings about it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from reconciler.apiserver.builtin.decoding import Decoding, Malformed, Place, restoring_problem
from reconciler.apiserver.builtin.types import metadata_node
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
    for key, value in found.items():
        node = metadata_node().properties.get(key)
        if node is None:
            decoding.unknown.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        kept: Any = value
        # The content of managedFields is checked when it is used.
        if key != "managedFields" or not _are_objects(value):
            place = Place(decoding, f"metadata.{key}", f"metadata.{key}" if kind else key, "ObjectMeta")
            known = len(decoding.problems)
            kept = decoding.read_member("metadata", value, node, place)
            if lenient and (node.format == "date-time" or node.type == "integer"):
                del decoding.problems[known:]
        if key == "ownerReferences" and not decoding.problems:
            kept = _owners(kept)
        # An empty managedFields resets ownership; a missing one does not.
        if kept or kept == 0 or key == "managedFields":
            metadata[key] = kept
    return metadata


def _are_objects(value: JSONValue) -> bool:
    return type(value) is list and all(type(entry) is dict for entry in value)


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
    """Return the warnings about metadata as a client sent it; finalizers are checked only for custom kinds."""
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
