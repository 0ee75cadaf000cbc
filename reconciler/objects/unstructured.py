"""An object without a model: a mapping over its document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.meta import GroupVersionKind, Request, request_of
from reconciler.meta.documents import copy_json
from reconciler.meta.metadata import gvk_of, name_of, namespace_of, uid_of, version_of


class Unstructured(MutableMapping[str, Any]):
    """Any object: a mapping over its document, with properties for common metadata.

    ``obj["spec"]["replicas"]`` reads and writes the document itself.

    Args:
        document: the object; not copied.
    """

    __slots__ = ("_document",)

    def __init__(self, document: JSONObject) -> None:
        self._document = document

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind.

        Raises:
            ValueError: apiVersion or kind is missing.
        """
        return gvk_of(self._document)

    @property
    def name(self) -> str:
        """Return the object's name; ``""`` if it has none."""
        return name_of(self._document)

    @property
    def namespace(self) -> str | None:
        """Return its namespace; None for a cluster-scoped object."""
        return namespace_of(self._document)

    @property
    def uid(self) -> str:
        """Return its uid; ``""`` before it was stored."""
        return uid_of(self._document)

    @property
    def resource_version(self) -> str:
        """Return its version; ``""`` before it was stored."""
        return version_of(self._document)

    @property
    def generation(self) -> int | None:
        """Return the generation of its desired state; None for kinds that have none."""
        generation = self.metadata.get("generation")
        return generation if isinstance(generation, int) else None

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels; change them through ``obj["metadata"]``."""
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return its annotations; change them through ``obj["metadata"]``."""
        return self.metadata.get("annotations") or {}

    @property
    def key(self) -> Request:
        """Return its name and namespace: the key in a queue."""
        return request_of(self._document)

    def to_dict(self) -> JSONObject:
        """Return the document, a private copy."""
        copied: JSONObject = copy_json(self._document)
        return copied

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return its metadata; change it through ``obj["metadata"]``."""
        metadata = self._document.get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    def __getitem__(self, key: str) -> Any:
        return self._document[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._document[key] = value

    def __delitem__(self, key: str) -> None:
        del self._document[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def __repr__(self) -> str:
        return f"<{self._document.get('kind', 'Unstructured')} {self.key}>"
