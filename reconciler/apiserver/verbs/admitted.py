"""A write: as admission sees it, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.store import Stored
from reconciler.wire import JSONObject

__all__ = ["Admission", "Admitted", "Outdated", "WriteResult"]


@dataclass(slots=True)
class WriteResult:
    """The result of a write.

    Attributes:
        code: the HTTP status.
        stored: the version to return; None to return `document`.
        document: another document to return.
        before: the version before, if there was one.
        after: the version after; the same object as `before` if nothing changed.
        warnings: texts for Warning headers.
    """

    code: int
    stored: Stored | None = None
    document: Any = None
    before: Stored | None = None
    after: Stored | None = None
    warnings: list[str] = field(default_factory=list)


class Outdated(Exception):
    """The object changed while webhooks were called: the write must be made again on its new version."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A write that is up for admission.

    Attributes:
        call: the request.
        operation: what is done to the object.
        name: its name; empty if the server generates it.
        doc: the new object in the version of the request; None for a deletion.
        before: the stored object in the version of the request; None for a new one.
        dry_run: whether nothing will be stored.
        options: the options of a deletion.
    """

    call: Call
    operation: Literal["CREATE", "UPDATE", "DELETE"]
    name: str
    doc: JSONObject | None
    before: JSONObject | None
    dry_run: bool
    options: JSONObject = field(default_factory=dict)


class Admission(Protocol):
    """The admission of writes, after their documents are decoded and before they are committed."""

    active: bool
    """Whether anyone is asked about any write."""

    def applies(self, write: Admitted, /) -> bool:
        """Return whether anyone is asked about writes of this kind."""
        ...

    async def mutate(self, write: Admitted, /) -> JSONObject | None:
        """Return the object, changed or not, which the caller owns; raise a `Refusal` if the write is denied."""
        ...

    async def validate(self, write: Admitted, /) -> None:
        """Return if the write is allowed; raise a `Refusal` if it is denied."""
        ...
