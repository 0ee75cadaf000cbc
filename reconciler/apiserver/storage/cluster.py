"""The commits of a cluster: they assign versions and uids and run the commit hooks.

Every commit is complete when the call returns; half of a write is never visible.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.schema.formats import RANDOM_LETTERS
from reconciler.apiserver.storage.registry import Registry, Resource
from reconciler.apiserver.storage.store import Revisions, Stored
from reconciler.clock import Clock
from reconciler.wire import JSONObject

__all__ = ["Cluster", "CommitHook", "timestamp"]

CommitHook = Callable[[Resource, Stored | None, Stored | None], None]
"""Called after a commit with the kind, the version before (None: created) and the version after (None: removed)."""


def timestamp(moment: datetime) -> str:
    """Return a time in the format of metav1.Time: whole seconds, UTC."""
    return f"{moment.isoformat()[:19]}Z"


_MAX_BYTES = 1_572_864
"""etcd's limit for one object, 1.5 MiB."""


class Cluster:
    """The stored objects of a cluster, and the operations that change them.

    Attributes:
        commit_hooks: called after each commit, in order.
    """

    def __init__(self, clock: Clock, rng: random.Random, *, history: int) -> None:
        self.clock = clock
        self.rng = rng
        self.revisions = Revisions()
        self.registry = Registry(self.revisions, clock.monotonic, history=history)
        self.commit_hooks: list[CommitHook] = []

    def start_at(self, version: int) -> None:
        """Continue from a version, without the history before it. Uids differ from those that were drawn before."""
        self.revisions.current = self.revisions.compacted = version
        for resource in self.registry.resources():
            resource.store.compact(version)
        self.rng.seed(f"{self.rng.getrandbits(64)} {version}")

    def uid(self) -> str:
        """Return a new uid."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        """Return a random suffix for ``generateName``."""
        return "".join(self.rng.choices(RANDOM_LETTERS, k=5))

    def now(self) -> str:
        """Return the current time as a timestamp."""
        return timestamp(self.clock.now())

    def insert(self, resource: Resource, key: str, doc: JSONObject) -> Stored:
        """Store a new object, as `replace`."""
        return self._put(resource, key, None, doc)

    def replace(self, resource: Resource, old: Stored, doc: JSONObject) -> Stored:
        """Store a new version of an object. The cluster takes ownership of `doc` and its metadata.

        Raises:
            Refusal: 500, the object exceeds etcd's limit; nothing was stored.
        """
        return self._put(resource, old.key, old, doc)

    def _put(self, resource: Resource, key: str, old: Stored | None, doc: JSONObject) -> Stored:
        new = self._version(resource, key, doc)
        resource.store.put(new)
        self._run_hooks(resource, old, new)
        return new

    def remove(self, resource: Resource, old: Stored, doc: JSONObject | None = None) -> Stored:
        """Remove an object; return its last content with the version of the deletion."""
        last = dict(doc or old.doc)
        last["metadata"] = dict(last["metadata"])
        gone = self._version(resource, old.key, last, limit=None)
        resource.store.remove(gone)
        self._run_hooks(resource, old, None)
        return gone

    def _version(self, resource: Resource, key: str, doc: JSONObject, limit: int | None = _MAX_BYTES) -> Stored:
        rv = self.revisions.current + 1
        doc["metadata"]["resourceVersion"] = str(rv)
        new = Stored(key, rv, doc)
        size = new.measure(resource.api_version)
        if limit is not None and size > limit:
            raise Refusal.internal_error("etcdserver: request is too large")
        self.revisions.current = rv
        return new

    def _run_hooks(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        for hook in self.commit_hooks:
            hook(resource, old, new)
