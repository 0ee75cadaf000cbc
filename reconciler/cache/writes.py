"""Understand the answer to a write: is the object still there, and is it the object at all."""

from __future__ import annotations

import msgspec

from reconciler.meta import UNDECODABLE, Version, parse_version

__all__ = ["WriteAnswer", "read_answer", "version_in"]


class _Details(msgspec.Struct, gc=False):
    uid: str = ""


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    resource_version: str = ""
    finalizers: list[str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class WriteAnswer(msgspec.Struct, gc=False):
    """Hold what an answer says.

    Attributes:
        kind: of the answer: the object's, ``"Status"``, or that of a subresource such as ``"Scale"``.
        metadata: the object's.
        details: of a Status.
    """

    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    details: _Details | None = None

    @property
    def uid(self) -> str:
        """Return the uid of the object that was written, ``""`` when the answer does not tell."""
        return self.metadata.uid or (self.details.uid if self.details is not None else "")

    def deletes(self, verb: str) -> bool:
        """Say whether the object is gone with this write.

        A deletion is answered with a Status, or with the object: marked and still there while finalizers or a grace
        period hold it, else gone. Any write that takes the last finalizer from a marked object ends it, too.
        """
        metadata = self.metadata
        if metadata.deletion_timestamp:
            return not metadata.finalizers and not metadata.deletion_grace_period_seconds
        return verb == "delete"


_decode = msgspec.json.Decoder(WriteAnswer).decode


def read_answer(body: bytes) -> WriteAnswer | None:
    """Read an answer; None when it is no object of any kind."""
    try:
        return _decode(body)
    except UNDECODABLE:
        return None


def version_in(body: bytes, verb: str) -> Version | None:
    """Return the version that a write has made; None where the answer does not say it, as after a deletion."""
    answer = read_answer(body)
    if answer is None or answer.deletes(verb) or not answer.metadata.resource_version:
        return None
    return parse_version(answer.metadata.resource_version)
