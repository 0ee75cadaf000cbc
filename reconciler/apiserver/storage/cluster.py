"""Commit changes: the one place where versions are given, uids made, and commit_hooks follow.

Every commit is complete when the call returns; there is no moment at which half of a write can be seen.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime

from reconciler.apiserver.encoding.refusals import internal_error
from reconciler.apiserver.schema.names import RANDOM_LETTERS
from reconciler.apiserver.storage.registry import Registry, Resource
from reconciler.apiserver.storage.store import Revisions, Stored
from reconciler.clock import Clock
from reconciler.wire import JSONObject

__all__ = ["Cluster", "CommitHook", "timestamp"]

CommitHook = Callable[[Resource, Stored | None, Stored | None], None]
"""What follows a commit: called with the kind, the version before and the version after (None: removed)."""


def timestamp(moment: datetime) -> str:
    """Return a time as metav1 writes it: whole seconds, UTC."""
    return f"{moment.isoformat()[:19]}Z"


_MAX_BYTES = 1_572_864
"""etcd's limit for one object, 1.5 MiB."""


class Cluster:
    """Hold everything that is stored, and change it.

    Args:
        clock: gives the stamps.
        rng: gives uids and generated names.
        history: how many events each kind keeps at least.
    """

    def __init__(self, clock: Clock, rng: random.Random, *, history: int) -> None:
        self.clock = clock
        self.rng = rng
        self.revisions = Revisions()
        self.registry = Registry(self.revisions, clock.monotonic, history=history)
        self.commit_hooks: list[CommitHook] = []

    def uid(self) -> str:
        """Return a fresh uid."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        """Return the random end of a generated name."""
        return "".join(self.rng.choices(RANDOM_LETTERS, k=5))

    def now(self) -> str:
        """Return the stamp for this moment."""
        return timestamp(self.clock.now())

    def insert(self, resource: Resource, key: str, doc: JSONObject) -> Stored:
        """Store a new object; `doc` and its metadata become the store's own.

        Raises:
            Refusal: 500 for an object over etcd's limit; nothing was stored.
        """
        new = self._version(resource, key, doc)
        resource.store.put(new)
        self._follow(resource, None, new)
        return new

    def replace(self, resource: Resource, old: Stored, doc: JSONObject) -> Stored:
        """Store a new version of an object; `doc` and its metadata become the store's own.

        Raises:
            Refusal: 500 for an object over etcd's limit; nothing was stored.
        """
        new = self._version(resource, old.key, doc)
        resource.store.put(new)
        self._follow(resource, old, new)
        return new

    def remove(self, resource: Resource, old: Stored, doc: JSONObject | None = None) -> Stored:
        """Remove an object; return its last content under the version of the deletion."""
        last = dict(doc or old.doc)
        last["metadata"] = dict(last["metadata"])
        gone = self._version(resource, old.key, last, limit=None)
        resource.store.remove(gone)
        self._follow(resource, old, None)
        return gone

    def _version(self, resource: Resource, key: str, doc: JSONObject, limit: int | None = _MAX_BYTES) -> Stored:
        rv = self.revisions.current + 1
        doc["metadata"]["resourceVersion"] = str(rv)
        new = Stored(key, rv, doc)
        size = new.measure(resource.api_version)
        if limit is not None and size > limit:
            raise internal_error("etcdserver: request is too large")
        self.revisions.current = rv
        return new

    def _follow(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        for consequence in self.commit_hooks:
            consequence(resource, old, new)
