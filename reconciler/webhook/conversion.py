"""Convert objects between the versions of a kind, by way of one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.errors import ConfigurationError, ReconcilerError

__all__ = ["ConversionFailed", "Converter"]

Document = dict[str, Any]
Step = Callable[[Document], Document | None]
"""Changes a document in place, or returns another one; apiVersion is set afterwards."""

CONVERSION_VERSIONS = frozenset({"apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"})


class ConversionFailed(ReconcilerError):
    """Say why an object cannot be converted."""


class Converter:
    """Convert the objects of a kind: every version knows the way to the hub and back, so that n versions need n pairs.

    ::

        converter = Converter("example.com", "Database", hub="v1")
        converter.add("v1alpha1", to_hub=gigabytes_from_text, from_hub=text_from_gigabytes)
        server.add(converter)

    A conversion must lose nothing: what the other version has no field for is kept in an annotation, for the way back.
    Metadata is not to be changed but for labels and annotations; the API server refuses that.

    Args:
        group: of the kind.
        kind: its name.
        hub: the version that the others are converted by; usually the stored one.
    """

    def __init__(self, group: str, kind: str, *, hub: str) -> None:
        self.group = group
        self.kind = kind
        self.hub = hub
        self._steps: dict[str, tuple[Step, Step]] = {}

    @property
    def served_at(self) -> str:
        """Return the path: ``/convert-<group>-<kind>``."""
        return f"/convert-{self.group.replace('.', '-')}-{self.kind.lower()}"

    @property
    def versions(self) -> tuple[str, ...]:
        """Return the versions that can be converted."""
        return (self.hub, *self._steps)

    def add(self, version: str, *, to_hub: Step, from_hub: Step) -> None:
        """Teach the way of a version.

        Raises:
            ConfigurationError: the version is the hub, or known already.
        """
        if version in self.versions:
            raise ConfigurationError(f"{self.kind}: the way of version {version} is known already")
        self._steps[version] = (to_hub, from_hub)

    def convert(self, document: Mapping[str, Any], desired: str) -> Document:
        """Return an object in another version; the one that was given stays as it is.

        Args:
            document: the object.
            desired: ``group/version``.

        Raises:
            ConversionFailed: it is of another kind, or there is no way to that version.
        """
        version, target = self._version(str(document.get("apiVersion"))), self._version(desired)
        if document.get("kind") != self.kind:
            raise ConversionFailed(f"{document.get('kind')} is not {self.kind}")
        result = copy.deepcopy(dict(document))
        if version == target:
            return result
        if version != self.hub:
            result = self._step(self._steps[version][0], result, self.hub)
        if target != self.hub:
            result = self._step(self._steps[target][1], result, target)
        return result

    def _step(self, step: Step, document: Document, version: str) -> Document:
        try:
            result = step(document)
        except Exception as error:
            name = (document.get("metadata") or {}).get("name")
            raise ConversionFailed(f"{self.kind} {name} cannot be converted to {version}: {error}") from error
        result = document if result is None else result
        result["apiVersion"] = f"{self.group}/{version}"
        return result

    def _version(self, api_version: str) -> str:
        group, _, version = api_version.rpartition("/")
        if group != self.group or version not in self.versions:
            known = ", ".join(f"{self.group}/{each}" for each in self.versions)
            raise ConversionFailed(f"{self.kind} is not converted from or to {api_version!r}; known are {known}")
        return version
