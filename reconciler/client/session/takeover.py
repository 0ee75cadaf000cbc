"""Fields that earlier releases applied under the one name that all their programs shared.

An apply removes only fields that its manager applied before. What is owned by the former name would stay forever, and
would be a conflict without force. So the entries of that name are moved to the manager that applies now, once for each
object and process: another program may still be at an earlier release, and would write under that name again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from reconciler.meta import FORMER_FIELD_MANAGER, difference_of_fields, uid_of, upgrade_managed_fields

__all__ = ["Takeovers", "names_former_manager"]


class Takeovers:
    """The objects whose former fields were taken over.

    Args:
        most: objects that are remembered; the least recent is forgotten.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._done: OrderedDict[tuple[str, str, str | None], None] = OrderedDict()

    def due(self, document: Mapping[str, Any], manager: str, subresource: str | None) -> list[dict[str, Any]] | None:
        """Return the managed fields to write so that a manager has applied the former fields; None if it has.

        Args:
            document: the object as it is stored.
            manager: who applies.
            subresource: where.
        """
        if manager == FORMER_FIELD_MANAGER or (uid_of(document), manager, subresource) in self._done:
            return None

        def taken(entry: Mapping[str, Any]) -> Mapping[str, Any]:
            if entry.get("manager") != FORMER_FIELD_MANAGER or (entry.get("subresource") or None) != subresource:
                return {}
            fields: Mapping[str, Any] = entry.get("fieldsV1") or {}
            if subresource is not None or entry.get("operation") == "Apply":
                return fields
            return _without_what_is_patched(fields)

        metadata = document.get("metadata") or {}
        return upgrade_managed_fields(metadata.get("managedFields") or (), manager, taken)

    def done(self, document: Mapping[str, Any], manager: str, subresource: str | None) -> None:
        """Remember that an object was seen to."""
        self._done[uid_of(document), manager, subresource] = None
        while len(self._done) > self._most:
            self._done.popitem(last=False)


def names_former_manager(answer: bytes | str) -> bool:
    """Return whether an answer names the former field manager, as far as its text tells."""
    name = f'"{FORMER_FIELD_MANAGER}"'
    return name in answer if isinstance(answer, str) else name.encode() in answer


def _without_what_is_patched(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of an update without finalizers and status, which are patched and never applied with the rest.

    A finalizer that was moved would be removed by the next apply, and the object could go without its cleanup.
    """
    finalizers = (fields.get("f:metadata") or {}).get("f:finalizers", {})
    patched = {"f:metadata": {"f:finalizers": finalizers}, "f:status": fields.get("f:status", {})}
    return difference_of_fields(fields, patched)
