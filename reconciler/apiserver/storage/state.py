"""The whole state of a cluster as lines of JSON: a snapshot, and the records of the commits after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from reconciler.apiserver.encoding.refusals import qualified
from reconciler.apiserver.storage.cluster import Cluster
from reconciler.apiserver.storage.registry import Resource
from reconciler.apiserver.storage.store import Stored, encode
from reconciler.errors import ConfigurationError
from reconciler.wire import JSONObject

__all__ = ["DEFINITIONS", "State", "read_state", "record_of", "resource_name", "snapshot_of"]

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"

_FORMAT = "kube-reconciler state, version 1"
_MAX_VERSION = 2**62
"""The newest version to start at: clients and etcd count with 64 bits, and the writes after it need room."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class State(NamedTuple):
    """The objects of a cluster at one version.

    Attributes:
        version: the newest resourceVersion.
        objects: the stored documents by key, by resource, such as ``deployments.apps``.
    """

    version: int
    objects: dict[str, dict[str, JSONObject]]

    def bumped(self, by: int | None) -> State:
        """Return the state with its version increased; None leaves it.

        Raises:
            ConfigurationError: the number is less than 1, or the version would be too large.
        """
        if by is not None and by < 1:
            raise ConfigurationError(f"bump_revision must be 1 or more, not {by}")
        version = self.version + (by or 0)
        if version > _MAX_VERSION:
            raise ConfigurationError(f"the server's version would be {version}: the limit is {_MAX_VERSION}")
        return self._replace(version=version)


class _Header(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    format: Literal["kube-reconciler state, version 1"]
    resource_version: Annotated[int, msgspec.Meta(ge=1)]
    objects: Annotated[int, msgspec.Meta(ge=0)]


class _Record(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """An object that was stored, or the key of one that was removed and the version of the server then."""

    resource: str
    object: JSONObject | None = None
    removed: str = ""
    resource_version: int = 0


class _Owner(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    """The metadata of a stored object, as far as the server relies on it."""

    name: str
    uid: str
    resource_version: Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,18}$")]
    namespace: str = ""
    finalizers: list[str] | None = None
    owner_references: list[_Owner] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata


def resource_name(resource: Resource) -> str:
    """Return the plural and the group of the stored kind."""
    return qualified(resource.info.plural, resource.info.internal_group)


def record_of(resource: Resource, old: Stored | None, new: Stored | None, version: int) -> bytes:
    """Return the line for a commit; `version` is the server's after it."""
    name = resource_name(resource)
    if new is not None:
        return b'{"resource":"%b","object":%b}\n' % (name.encode(), new.encoded(resource.api_version))
    removed = "" if old is None else old.key
    return encode({"resource": name, "removed": removed, "resourceVersion": version}) + b"\n"


def snapshot_of(cluster: Cluster) -> Iterator[bytes]:
    """Yield the lines of a snapshot."""
    resources = [resource for resource in cluster.registry.resources() if resource.info.stored_as is None]
    version, count = cluster.revisions.current, sum(len(resource.store.objects) for resource in resources)
    yield encode({"format": _FORMAT, "resourceVersion": version, "objects": count}) + b"\n"
    for resource in resources:
        for stored in resource.store.objects.values():
            yield record_of(resource, None, stored, version)


def read_state(content: bytes, source: str) -> State:
    """Return the state after a snapshot and the records that follow it; errors name the source.

    A last record without its end is ignored: the process was killed while it wrote it, before it sent the response.

    Raises:
        ConfigurationError: they are not a snapshot, or a part of one; the message names the line.
    """
    if not isinstance(content, bytes):
        wanted = "pass what snapshot() returned; read_bytes() of a path reads it"  # type: ignore[unreachable]
        raise ConfigurationError(f"{source} must be bytes, not {type(content).__name__}: {wanted}")
    first, *lines, _ = content.split(b"\n") if b"\n" in content else (b"", b"")
    try:
        header = msgspec.json.decode(first, type=_Header)
    except _UNREADABLE:
        raise ConfigurationError(f"{source} was not written by an embedded API server") from None
    if len(lines) < header.objects:
        raise ConfigurationError(f"{source} is cut off: it has {len(lines)} of {header.objects} objects")
    version = header.resource_version
    objects: dict[str, dict[str, JSONObject]] = {}
    decoder = msgspec.json.Decoder(_Record)
    for number, line in enumerate(lines, 2):
        try:
            version = max(version, _replay(objects, decoder.decode(line)))
        except _UNREADABLE as error:
            raise ConfigurationError(f"{source} is damaged in line {number}: {error}") from None
    return State(version, objects)


def _replay(objects: dict[str, dict[str, Any]], record: _Record) -> int:
    found = objects.setdefault(record.resource, {})
    if record.object is None:
        found.pop(record.removed, None)
        return record.resource_version
    metadata = msgspec.convert(record.object, _Object).metadata
    found[f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name] = record.object
    return int(metadata.resource_version)
