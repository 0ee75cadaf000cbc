"""The served kinds of a cluster, each with its store, and the commits, which assign versions and run the commit hooks.

Every commit is complete when the call returns; half of a write is never visible. The definitions of custom kinds are
applied to what is stored: schemas, defaults and rules.
"""

from __future__ import annotations

import functools
import hashlib
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver import schema as schemas
from reconciler.apiserver.builtin import kinds
from reconciler.apiserver.builtin.decoding import BuiltInContents, Decoding
from reconciler.apiserver.builtin.kinds import built_in_node, place_of
from reconciler.apiserver.cel.rules import RuleSet
from reconciler.apiserver.encoding.formats import RANDOM_LETTERS
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.encoding.versions import NEWEST
from reconciler.apiserver.store import ObjectStore, Revisions, Stored
from reconciler.clock import Clock

BLOCKING = frozenset(
    {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
"""Reasons of findings after which CEL rules are not evaluated."""
_NOT_EVALUATED = FieldError("<nil>", recorded("texts.json")["not evaluated"])


class CustomContents:
    """The schema of one served version of a custom kind, compiled: prunes, completes and validates its documents.

    Args:
        schema: the structural schema.
        release: the version of Kubernetes of the server.

    Raises:
        MissingExtra: a library that the schema needs is not installed.
        ValueError: a pattern or rule cannot be compiled.
    """

    def __init__(self, schema: JSONObject, release: str) -> None:
        self.schema = schema
        self.node: schemas.Node = schemas.compile_schema(schema, root=True)
        self._validator = schemas.SchemaValidator(schema, release=release)
        status = (schema.get("properties") or {}).get("status")
        self._status_validator = schemas.SchemaValidator(status, "status", release=release) if status else None
        self._rules = RuleSet(self.node, release)

    def rule_errors(self, path: str) -> list[FieldError]:
        """Return why the CEL rules are rejected, or which defaults violate them; the paths begin with `path`."""
        return self._rules.compile_errors(path) or self._rules.default_errors(path)

    def decode(self, found: JSONObject, before: JSONObject | None, decoding: Decoding) -> JSONObject:
        """Return a document without unknown fields, which are recorded, and with its defaults."""
        decoded: JSONObject = schemas.prune_and_default(found, self.node, "", decoding.unknown, before)
        return decoded

    def pruned(self, doc: JSONObject) -> JSONObject:
        """Return a document of another version without the fields that this version's schema lacks."""
        kept: JSONObject = schemas.prune(doc, self.node)
        return kept

    def check(self, doc: JSONObject, before: JSONObject | None, subresource: str, *, blocked: bool) -> list[FieldError]:
        """Return the validation errors of a document; errors that were found already may block the evaluation of rules.

        Errors of values that an update leaves unchanged are ignored (ratcheting).
        """
        if subresource == "status":
            status = doc.get("status")
            validator = self._status_validator if "status" in doc else None
            findings = [] if validator is None else validator.findings(status)
            findings += schemas.duplicates({"status": status}, self.node)
        else:
            findings = self._validator.findings(doc)
            findings += schemas.duplicates(doc, self.node)
        errors = [
            found.error
            for found in findings
            if before is None or not schemas.untouched(found.path, doc, before, self.node)
        ]
        if not self._rules:
            return errors
        if blocked or any(error.reason in BLOCKING for error in errors):
            # Rules are evaluated only on values of the right types.
            return [*errors, _NOT_EVALUATED]
        return errors + self._rules.errors(doc, before)


@functools.lru_cache(maxsize=256)
def contents_of(schema: bytes, release: str = NEWEST) -> CustomContents:
    """Return the compiled contents of a schema in JSON, as `CustomContents`; servers share those of one schema."""
    return CustomContents(msgspec.json.decode(schema), release)


Convert = Callable[[JSONObject, str], JSONObject]
"""Returns a document in another version, ``group/version``."""
_MAX_REMOVED = 100_000
"""How many keys of removed objects are remembered."""
_MAX_BYTES = 1_572_864
"""etcd's limit for one object, 1.5 MiB."""


@dataclass(slots=True, eq=False)
class APIResource:
    """A kind, with its store and its served versions.

    Attributes:
        info: the description.
        store: the objects, shared by all versions.
        storage: the storage version.
        custom: whether a CustomResourceDefinition defines it.
        endpoints: the served versions by name, in order of preference.
        convert: converts documents between the versions; None if only their apiVersion differs.
    """

    info: kinds.KindInfo
    store: ObjectStore
    storage: str
    custom: bool = False
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    convert: Convert | None = None

    def key(self, namespace: str | None, name: str) -> str:
        """Return the storage key of an object."""
        return f"{namespace}/{name}" if self.info.namespaced else name

    def find(self, namespace: str | None, name: str) -> Stored | None:
        """Return a stored object, or None."""
        return self.store.objects.get(self.key(namespace, name))

    def in_version(self, doc: JSONObject, api_version: str) -> JSONObject:
        """Return a document in another version; raise the 500 if the conversion failed."""
        return {**doc, "apiVersion": api_version} if self.convert is None else self.convert(doc, api_version)

    @property
    def api_version(self) -> str:
        """Return the apiVersion of stored documents."""
        return _api_version(self.info.internal_group, self.storage)


class ScalePaths(NamedTuple):
    """The dotted paths of a Scale's fields in an object; the selector's may be empty."""

    spec: str
    status: str
    selector: str


@dataclass(slots=True, eq=False)
class Endpoint:
    """A kind in one served version.

    Attributes:
        resource: the kind.
        version: the version's name.
        subresources: such as ``{"status"}``.
        selectable: the fields that field selectors may use, besides name and namespace, by dotted path, and their
            readers.
        contents: the schema and validation of the version; None if it has none.
        columns: the columns of a table besides the name, as in ``additionalPrinterColumns``.
        schema: the schema of whole documents, for field ownership.
        warning: the warning for clients that use a deprecated version; empty for none.
        scale: the paths of a Scale in an object; None without ``/scale``.
        served: False once it is no longer served, which ends its watches.
        skeleton: the fields that a document has even when they are empty.
    """

    resource: APIResource
    version: str
    subresources: frozenset[str] = frozenset()
    selectable: Mapping[str, kinds.FieldReader] = field(default_factory=dict)
    contents: CustomContents | BuiltInContents | None = None
    columns: tuple[Mapping[str, Any], ...] = ()
    warning: str = ""
    scale: ScalePaths | None = None
    served: bool = True
    skeleton: JSONObject = field(default_factory=lambda: {"metadata": {}})
    api_version: str = field(init=False)
    schema: schemas.Node = field(init=False)

    def __post_init__(self) -> None:
        self.api_version = _api_version(self.resource.info.group, self.version)
        self.schema = place_of(None if self.contents is None else self.contents.node)

    @property
    def info(self) -> kinds.KindInfo:
        """Return the description of the kind."""
        return self.resource.info

    @property
    def store(self) -> ObjectStore:
        """Return the store of the kind."""
        return self.resource.store

    def to_served(self, doc: JSONObject) -> JSONObject:
        """Return a stored document in this version."""
        if self.api_version == self.resource.api_version:
            return doc
        if self.info.stored_as is not None:
            return kinds.to_events_group(doc)
        found = self.resource.in_version(doc, self.api_version)
        return self.contents.pruned(found) if isinstance(self.contents, CustomContents) else found

    def to_storage(self, doc: JSONObject) -> JSONObject:
        """Return a document of this version in the storage version."""
        if self.api_version == self.resource.api_version:
            return doc
        if self.info.stored_as is not None:
            return kinds.from_events_group(doc)
        stored = self.resource.in_version(doc, self.resource.api_version)
        other = self.resource.endpoints.get(self.resource.storage)
        # A stored document has the fields and the defaults of the storage version.
        return stored if other is None or other.contents is None else other.contents.decode(stored, None, Decoding())

    def encode(self, stored: Stored) -> bytes:
        """Return the JSON of a stored object in this version."""
        return stored.encodings.get(self.api_version) or stored.encoded(self.api_version, self.to_served)


def _api_version(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version


class ResourcePath(NamedTuple):
    """The parts of a path under ``/api/v1`` or ``/apis/group/version``; `plural` is empty for the discovery of it.

    A path whose first part below the version is ``watch`` is the older form of a watch.
    """

    group: str
    version: str
    namespace: str | None
    plural: str
    name: str
    subresource: str
    watched: bool


def split_path(path: str) -> ResourcePath | None:
    """Return the parts of a path; None if it names no version of a group."""
    parts = list(map(unquote, path.split("/")[1:]))
    if parts and not parts[-1]:
        parts.pop()
    if parts[:1] == ["api"] and len(parts) > 1:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watched = rest[:1] == ["watch"] and len(rest) > 1
    rest = rest[1:] if watched else rest
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    plural, name = (*rest[:2], "", "")[:2]
    return ResourcePath(group, version, namespace, plural, name, "/".join(rest[2:]), watched)


@functools.cache
def _built_in_endpoint(info: kinds.KindInfo, version: str) -> functools.partial[Endpoint]:
    """Return what makes the endpoint of a built-in kind from its resource; servers share all else that is in it."""
    node = built_in_node(info.group, version, info.kind, info.release)
    return functools.partial(
        Endpoint,
        version=version,
        subresources=info.subresources,
        selectable=kinds.selectable_fields(info),
        contents=None if node is None else BuiltInContents(node),
        warning=info.warning,
        scale=ScalePaths(".spec.replicas", ".status.replicas", "") if "scale" in info.subresources else None,
        skeleton=kinds.skeleton_of(info, version),
    )


class Registry:
    """The served kinds of a version of Kubernetes, by path and by name."""

    def __init__(self, revisions: Revisions, now: Callable[[], float], *, history: int, release: str) -> None:
        self._revisions = revisions
        self._now = now
        self._history = history
        self._endpoints: dict[tuple[str, str, str], Endpoint] = {}
        self._resources: dict[tuple[str, str], APIResource] = {}
        self.release = release
        for info, versions in kinds.built_in_kinds(release):
            if info.stored_as is None:
                resource = self.add(info, storage=versions[0])
            else:
                origin = self._resources[info.stored_as, info.plural]
                resource = APIResource(info, origin.store, origin.storage)
            for version in versions:
                self.serve(_built_in_endpoint(info, version)(resource))

    def add(self, info: kinds.KindInfo, *, storage: str, custom: bool = False) -> APIResource:
        """Register a kind and create its store."""
        store = ObjectStore(self._revisions, self._now, capacity=self._history)
        resource = APIResource(info, store, storage, custom)
        self._resources[info.group, info.plural] = resource
        return resource

    def serve(self, endpoint: Endpoint) -> None:
        """Serve a kind in one version."""
        endpoint.resource.endpoints[endpoint.version] = endpoint
        self._endpoints[endpoint.info.group, endpoint.version, endpoint.info.plural] = endpoint

    def unserve(self, endpoint: Endpoint) -> None:
        """Stop serving a kind in one version; its watches end after the events so far."""
        endpoint.served = False
        endpoint.store.wake()
        del endpoint.resource.endpoints[endpoint.version]
        del self._endpoints[endpoint.info.group, endpoint.version, endpoint.info.plural]

    def remove(self, resource: APIResource) -> None:
        """Unregister a kind."""
        for endpoint in list(resource.endpoints.values()):
            self.unserve(endpoint)
        del self._resources[resource.info.group, resource.info.plural]

    def endpoint(self, group: str, version: str, plural: str) -> Endpoint | None:
        """Return the endpoint of a plural name, or None."""
        return self._endpoints.get((group, version, plural))

    def is_built_in(self, group: str, version: str) -> bool:
        """Return whether a group belongs to the server itself; of the core group only version v1 exists."""
        known = any(info.group == group for info, _ in kinds.built_in_kinds(self.release))
        return known and (bool(group) or version == "v1")

    def resource(self, group: str, plural: str) -> APIResource | None:
        """Return a kind by its plural name, or None."""
        return self._resources.get((group, plural))

    def built_in(self, plural: str, group: str = "") -> APIResource:
        """Return a built-in kind, by default of the core group."""
        return self._resources[group, plural]

    def by_kind(self, api_version: str, kind: str) -> Endpoint | None:
        """Return the endpoint of a kind in a version, or None."""
        known = self._endpoints.values()
        return next((each for each in known if each.info.kind == kind and each.api_version == api_version), None)

    def resources(self) -> Iterator[APIResource]:
        """Yield all kinds."""
        yield from list(self._resources.values())

    def custom_versions(self) -> dict[tuple[str, str], list[Endpoint]]:
        """Return the endpoints of custom kinds by group and version, in order."""
        found: dict[tuple[str, str], list[Endpoint]] = {}
        for endpoint in self._endpoints.values():
            if endpoint.resource.custom:
                found.setdefault((endpoint.info.group, endpoint.version), []).append(endpoint)
        return found


def _identity(resource: APIResource, key: str) -> str:
    return f"{resource.info.internal_group}/{resource.info.plural} {key}"


CommitHook = Callable[[APIResource, Stored | None, Stored | None], None]
"""Called after a commit with the kind, the version before (None: created) and the version after (None: removed)."""


def timestamp(moment: datetime) -> str:
    """Return a time in the format of metav1.Time: whole seconds, UTC."""
    return f"{moment.isoformat()[:19]}Z"


class ClusterStorage:
    """The stored objects of a cluster, and the operations that change them.

    Attributes:
        commit_hooks: called after each commit, in order.
    """

    def __init__(self, clock: Clock, rng: random.Random, *, history: int, release: str) -> None:
        self.clock = clock
        self.rng = rng
        self.revisions = Revisions()
        self.registry = Registry(self.revisions, clock.monotonic, history=history, release=release)
        self.commit_hooks: list[CommitHook] = []
        self._salt = rng.getrandbits(64)
        self._removed: dict[str, int] = {}

    def start_at(self, version: int) -> None:
        """Continue from a version, without the history before it. Uids differ from those before."""
        self.revisions.current = self.revisions.compacted = version
        for resource in self.registry.resources():
            resource.store.compact(version)
        self.rng.seed(f"{self.rng.getrandbits(64)} {version}")
        self._salt = self.rng.getrandbits(64)

    def uid(self, resource: APIResource, key: str) -> str:
        """Return the uid of an object to be created.

        It depends on the seed, the kind, the key and how often an object with this key was removed, so that another
        order of requests does not change it.
        """
        identity = _identity(resource, key)
        text = f"{self._salt} {identity} {self._removed.get(identity, 0)}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        return str(uuid.UUID(bytes=digest, version=4))

    def was_removed(self, resource: APIResource, key: str) -> bool:
        """Return whether an object with this key existed and was removed."""
        return _identity(resource, key) in self._removed

    def random_uid(self) -> str:
        """Return a uid for something that is not stored, such as a review or the object of a dry run."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        """Return a random suffix for ``generateName``."""
        return "".join(self.rng.choices(RANDOM_LETTERS, k=5))

    def now(self) -> str:
        """Return the current time as a timestamp."""
        return timestamp(self.clock.now())

    def put(self, resource: APIResource, key: str, doc: JSONObject) -> Stored:
        """Store an object, or a new version of it. The cluster takes ownership of `doc` and its metadata.

        Raises:
            Refusal: the object is too large.
        """
        new, old = self._version(resource, key, doc), resource.store.objects.get(key)
        resource.store.put(new)
        for hook in self.commit_hooks:
            hook(resource, old, new)
        return new

    def remove(self, resource: APIResource, old: Stored, doc: JSONObject | None = None) -> Stored:
        """Remove an object; return its last content with the version of the deletion."""
        last = dict(doc or old.doc)
        last["metadata"] = dict(last["metadata"])
        gone = self._version(resource, old.key, last, limit=None)
        resource.store.remove(gone)
        self._count_removal(resource, old.key)
        for hook in self.commit_hooks:
            hook(resource, old, None)
        return gone

    def _count_removal(self, resource: APIResource, key: str) -> None:
        if len(self._removed) >= _MAX_REMOVED:
            self._removed.clear()
            self._salt = self.rng.getrandbits(64)  # no uid is used twice
        identity = _identity(resource, key)
        self._removed[identity] = self._removed.get(identity, 0) + 1

    def _version(self, resource: APIResource, key: str, doc: JSONObject, limit: int | None = _MAX_BYTES) -> Stored:
        rv = self.revisions.current + 1
        doc["metadata"]["resourceVersion"] = str(rv)
        first = {name: doc[name] for name in ("kind", "apiVersion", "metadata")}
        new = Stored(key, rv, {**first, **doc}, resource.custom)
        size = new.measure(resource.api_version)
        if limit is not None and size > limit:
            raise Refusal.internal_error("etcdserver: request is too large")
        self.revisions.current = rv
        return new
