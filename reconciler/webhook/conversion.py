"""Conversion of objects between the versions of a kind, through a hub version."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError, ReconcilerError

Step = Callable[[JSONObject], JSONObject | None]
"""A function that changes a document in place or returns another one. ``apiVersion`` is set afterwards."""

CONVERSION_VERSIONS = frozenset({"apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"})


class ConversionFailed(ReconcilerError):
    """The object cannot be converted; the message says why."""


class Converter:
    """A converter for the versions of a kind. Every version converts to the hub and back, so each needs one pair.

    ::

        converter = Converter("example.com", "Database", hub="v1")
        converter.add("v1alpha1", to_hub=gigabytes_from_text, from_hub=text_from_gigabytes)
        server.add(converter)

    A conversion must not lose data: keep what the other version has no field for in an annotation. Of the metadata it
    may only change labels and annotations; the API server rejects other changes.

    Args:
        group: the API group of the kind.
        kind: the kind.
        hub: the version through which all others are converted, usually the storage version.
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
        """Return all versions, the hub first."""
        return (self.hub, *self._steps)

    def add(self, version: str, *, to_hub: Step, from_hub: Step) -> None:
        """Add the conversion of a version to the hub and back.

        Raises:
            ConfigurationError: the version is the hub, or was already added.
        """
        if version in self.versions:
            raise ConfigurationError(f"{self.kind}: a conversion of version {version} already exists")
        self._steps[version] = (to_hub, from_hub)

    def convert(self, document: Mapping[str, Any], desired: str) -> JSONObject:
        """Return a copy of an object in another version.

        Args:
            document: the object; it is not modified.
            desired: the other version, as ``group/version``.

        Raises:
            ConversionFailed: the object has another kind, a version is unknown, or a conversion function failed.
        """
        version, target = self._version(str(document.get("apiVersion"))), self._version(desired)
        if document.get("kind") != self.kind:
            raise ConversionFailed(f"the object's kind is {document.get('kind')}, not {self.kind}")
        result = copy.deepcopy(dict(document))
        if version == target:
            return result
        if version != self.hub:
            result = self._step(self._steps[version][0], result, self.hub)
        if target != self.hub:
            result = self._step(self._steps[target][1], result, target)
        return result

    def _step(self, step: Step, document: JSONObject, version: str) -> JSONObject:
        try:
            result = step(document)
        except Exception as error:
            name = (document.get("metadata") or {}).get("name")
            raise ConversionFailed(f"cannot convert {self.kind} {name} to {version}: {error}") from error
        result = document if result is None else result
        result["apiVersion"] = f"{self.group}/{version}"
        return result

    def _version(self, api_version: str) -> str:
        group, _, version = api_version.rpartition("/")
        if group != self.group or version not in self.versions:
            known = ", ".join(f"{self.group}/{each}" for each in self.versions)
            raise ConversionFailed(f"{api_version!r} is not a known version of {self.kind}: known are {known}")
        return version
