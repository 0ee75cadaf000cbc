"""Be the batcher's way to write inside a kopf handler: kopf's own patch, so that no request is added to kopf's.

kopf gathers in the ``patch`` of a handling cycle what its handlers want to change, and sends it when they have ended.
A batcher leaves one function there (`StatusFunction`). kopf is told by the module of its class; it is not imported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from reconciler.meta import gvk_of, merge_patch, request_of, uid_of, version_of
from reconciler.status.clients.kopf_function import FIELD_MANAGER, StatusFunction
from reconciler.status.flush.effects import Policy, Target
from reconciler.status.record.documents import document_of, is_kind
from reconciler.status.record.json_values import copy_json
from reconciler.status.record.mutations import Mutation

__all__ = ["KopfPatch", "is_kopf_patch"]

OLDEST = (1, 44, 5)
"""The functions of 1.44.0 to 1.44.4 get a body that they cannot change when kopf has nothing else to patch."""

_lock = threading.Lock()
"""Guards the search for a function in a patch: handlers that are plain functions run in threads."""


def is_kopf_patch(api: object) -> bool:
    """Say whether this is the ``patch`` of a kopf handler."""
    return any(cls.__name__ == "Patch" and cls.__module__.startswith("kopf.") for cls in type(api).__mro__)


class KopfPatch:
    """Be what a batcher writes to inside a kopf handler.

    Args:
        patch: the handler's ``patch``.
        body: its ``body``.

    Attributes:
        field_manager: whose name the API server records, since kopf gives it none.
        warnings: none; the answers are kopf's.

    Raises:
        TypeError: the body is a kind, or of another object than the patch; or kopf is older than 1.44.5.
        ValueError: the body was never stored.
    """

    field_manager = FIELD_MANAGER
    warnings: Sequence[str] = ()

    def __init__(self, patch: Any, body: Any) -> None:
        if is_kind(body):
            raise TypeError("inside a kopf handler give the body that it was given: StatusBatcher(patch, body)")
        _check_version(patch)
        document = document_of(body)
        original = getattr(patch, "_original", None)
        if original is not None and uid_of(original) != uid_of(document):
            raise TypeError(
                "kopf's patch writes the handled object only: give the body that the handler was given, whole. For "
                "another object give StatusBatcher a client"
            )
        if not version_of(document):
            raise ValueError("this body has no resourceVersion: give the body that kopf gave to the handler")
        self._patch = patch
        self._body = body
        self._base: Mapping[str, Any] = {}
        self.gvk = gvk_of(document)
        self.request = request_of(document)

    @property
    def identity(self) -> Hashable:
        """Return what only batchers of one patch have in common."""
        return "kopf", id(self._patch)

    def document(self) -> Mapping[str, Any]:
        """Return the object as the handler knows it: its body, with what its patch says of the status laid over it."""
        document = document_of(self._body)
        pending = self._patch.get("status")
        base = merge_patch(copy_json(document.get("status") or {}), copy_json(pending or {}))
        self._base = base
        function = self._function()
        if function is None:
            return {**document, "status": base}
        fields = (document.get("metadata") or {}).get("managedFields") or ()
        return {**document, "status": function.laid_over(base, fields)}

    def take(self, mutations: Sequence[Mutation], target: Target, policy: Policy, counts: dict[str, int]) -> None:
        """Leave mutations to kopf, which sends them with its patch when the handlers of the cycle have ended.

        Args:
            mutations: in the order of their calls.
            target: the object.
            policy: its token, limit and rng are used.
            counts: counters of the batcher.
        """
        with _lock:
            function = self._function()
            if function is None:
                function = StatusFunction(target, policy)
                self._patch.fns.append(function)
            function.add(mutations, self._base, counts)

    def _function(self) -> StatusFunction | None:
        return next((fn for fn in self._patch.fns if isinstance(fn, StatusFunction)), None)


def _check_version(patch: Any) -> None:
    version = getattr(sys.modules.get("kopf"), "__version_tuple__", ())
    if not hasattr(patch, "fns") or version[:3] < OLDEST:
        found = ".".join(map(str, version[:3])) or "an older one"
        raise TypeError(f"StatusBatcher(patch, body) needs kopf {'.'.join(map(str, OLDEST))} or newer, not {found}")
