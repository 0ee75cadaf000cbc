"""JSON values, and the shapes of Kubernetes documents that are used in more than one place.

`JSONObject` is a document whose shape is not known here. Its values are typed `Any`, as those of `json.loads` are:
a reader narrows what it uses and leaves the rest alone. Where the shape is known, the TypedDicts below say it; a key
that the API server may omit is `NotRequired`.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Condition",
    "JSONObject",
    "JSONValue",
    "ManagedFieldsEntry",
    "OwnerReferenceObject",
    "StatusObject",
]

JSONValue: TypeAlias = bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"] | None
"""Any JSON value."""

JSONObject: TypeAlias = dict[str, Any]
"""A JSON object: the document of a Kubernetes object, or a part of one."""


class Condition(TypedDict):
    """An entry of ``status.conditions``, as metav1.Condition defines it."""

    type: str
    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: str
    message: str
    lastTransitionTime: str
    """RFC 3339, UTC, in seconds."""
    observedGeneration: NotRequired[int]


class OwnerReferenceObject(TypedDict):
    """An entry of ``metadata.ownerReferences``."""

    apiVersion: str
    kind: str
    name: str
    uid: str
    controller: NotRequired[bool]
    blockOwnerDeletion: NotRequired[bool]


class ManagedFieldsEntry(TypedDict):
    """An entry of ``metadata.managedFields``: the fields that one manager owns through one operation."""

    manager: str
    operation: str
    """``Apply`` or ``Update``."""
    apiVersion: str
    time: NotRequired[str]
    fieldsType: str
    fieldsV1: JSONObject
    subresource: NotRequired[str]


class StatusObject(TypedDict):
    """The ``Status`` document with which an API server refuses a request."""

    kind: str
    apiVersion: str
    metadata: NotRequired[JSONObject]
    status: str
    message: NotRequired[str]
    reason: NotRequired[str]
    details: NotRequired[JSONObject]
    code: NotRequired[int]
