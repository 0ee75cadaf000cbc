"""The verbs create, update and patch, including apply.

A write is checked and computed on the stored version and then committed. It yields only while webhooks are called; if
the object has changed meanwhile, `Outdated` is raised, and the write is made again.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler._core.wire import JSONObject, ManagedFieldsEntry
from reconciler.apiserver import managed_fields
from reconciler.apiserver.builtin.kinds import filled
from reconciler.apiserver.builtin.strategies import Strategy
from reconciler.apiserver.cluster import ClusterStorage
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.store import Stored
from reconciler.apiserver.verbs import apply, decoding, write_rules
from reconciler.apiserver.verbs.patches import apply_patch
from reconciler.apiserver.verbs.routing import Call
from reconciler.apiserver.verbs.write_rules import Admitted, Outdated, WriteResult
from reconciler.errors import APIError

if TYPE_CHECKING:
    from reconciler.apiserver.admission import ConfiguredAdmission


_MUST_BE_GIVEN = FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")


@dataclass(frozen=True, slots=True)
class Writer:
    """The implementation of the verbs create, update and patch; it raises a `Refusal` as the real server.

    Attributes:
        cluster: the stored objects.
        strategies: returns the strategy of the kind that a request writes.
        admission: admits writes of clients.
        provide_namespace: creates the namespace of an object that is created, if there never was one; None refuses the
            object.
    """

    cluster: ClusterStorage
    strategies: Callable[[Call], Strategy]
    admission: ConfiguredAdmission
    provide_namespace: Callable[[str], Awaitable[None]] | None = None

    async def create(self, call: Call) -> WriteResult:
        """Create an object."""
        decoding.check_write_options(call)
        doc = decoding.read_document(call)
        doc["metadata"].pop("managedFields", None)
        return await self._create(call, doc)

    async def _create(self, call: Call, doc: JSONObject, *, owned: bool = False) -> WriteResult:
        """Check and commit a new object; `owned` if its managedFields are set already."""
        endpoint, info = call.endpoint, call.endpoint.info
        metadata = doc["metadata"]
        write_rules.check_name_and_namespace(call, metadata)
        await self._require_place(call, str(metadata.get("name", "")))
        version = str(metadata.pop("resourceVersion", ""))
        trackable = apply.can_track_owners(call, doc, {})
        admitted = self.if_applies(Admitted(call, "CREATE", str(metadata.get("name") or ""), doc, None))
        if admitted is not None:
            if not owned and trackable:
                metadata["managedFields"], owned = self._first_entries(call, doc), True
            self._set_priority(call, doc)
            self.strategies(call).admit(doc, None)
            doc = await self.mutate(admitted)
            metadata = doc["metadata"]
            write_rules.check_namespace(call, metadata)
            added = str(metadata.pop("resourceVersion", ""))
            version = version or (added if call.verb == "create" else "")
        write_rules.admitted_priority(call, doc, self.cluster.registry)  # refused before its contents are checked
        generate = not metadata.get("name") and bool(metadata.get("generateName"))
        self._stamp(call, doc, metadata)
        key = self._generate_name(call, metadata) if generate else _key(call, metadata)
        metadata["uid"] = self.cluster.random_uid() if call.dry_run else self.cluster.uid(endpoint.resource, key)
        strategy = self.strategies(call)
        strategy.complete(doc, None)
        errors = write_rules.validate_metadata(info, metadata, custom=endpoint.resource.custom)
        self._check(call, doc, None, errors)
        if version.isdecimal() and version.strip("0") and not call.dry_run:
            raise Refusal.internal_error("resourceVersion should not be set on objects to be created")
        if admitted is not None:
            await self.admission.validate(replace(admitted, doc=doc))
            # The kind or the namespace may have been deleted while webhooks were called.
            await self._require_place(call, metadata["name"])
        _check_not_taken(call, key, metadata)
        if not owned and trackable:
            metadata["managedFields"] = self._entries(call, doc)
        if not metadata.get("managedFields"):
            metadata.pop("managedFields", None)
        self._set_priority(call, doc)
        strategy.finish(doc, None)
        stored_form = endpoint.to_storage(doc)
        if call.dry_run:
            if version:
                stored_form["metadata"]["resourceVersion"] = version
            return WriteResult(201, Stored(key, 0, stored_form, endpoint.resource.custom))
        new = self.cluster.put(endpoint.resource, key, stored_form)
        return WriteResult(201, new, after=new)

    def _check(self, call: Call, doc: JSONObject, before: JSONObject | None, errors: list[FieldError]) -> None:
        """Raise the 422 for the errors of metadata and those of the contents; add the warnings about a valid object."""
        info, strategy = call.endpoint.info, self.strategies(call)
        errors += strategy.check(doc, before)
        errors += write_rules.validate_contents(call, doc, before, errors)
        if errors:
            raise Refusal.invalid(info.kind, info.internal_group, doc["metadata"].get("name", ""), errors)
        call.warnings += [*call.metadata_warnings, *strategy.warn(doc)]
        write_rules.check_default_class(call, doc, self.cluster.registry)

    def _set_priority(self, call: Call, doc: JSONObject) -> None:
        if priority := write_rules.admitted_priority(call, doc, self.cluster.registry):
            doc["spec"] = {**(doc.get("spec") or {}), **priority}

    def _entries(self, call: Call, doc: JSONObject) -> list[ManagedFieldsEntry]:
        endpoint, owners = call.endpoint, managed_fields.FieldManager((), self.cluster.now())
        # The structs of built-in kinds exist even when they are empty, so they never count as added.
        key, content = managed_fields.manager_key(call, "Update"), managed_fields.ownable_content(call, doc)
        owners.update(key, endpoint.skeleton, content, endpoint.schema)
        return owners.entries()

    def _first_entries(self, call: Call, doc: JSONObject) -> list[ManagedFieldsEntry]:
        """Return the ``managedFields`` of a new object before webhooks change it: nobody owns what they add."""
        sent = copy.deepcopy(doc)
        self._stamp(call, sent, sent["metadata"])
        self.strategies(call).complete(sent, None)
        return self._entries(call, sent)

    def _generate_name(self, call: Call, metadata: JSONObject) -> str:
        """Set a name that starts with ``generateName``, and return its storage key; the last of 8 may be taken."""
        key = ""
        for _ in range(8):
            metadata["name"] = str(metadata["generateName"])[:58] + self.cluster.suffix()
            key = _key(call, metadata)
            if key not in call.endpoint.store.objects:
                break
        return key

    def _updated_entries(
        self, call: Call, before: JSONObject, doc: JSONObject, reset: managed_fields.ResetFields
    ) -> list[ManagedFieldsEntry]:
        sent, known = doc["metadata"].get("managedFields"), before["metadata"].get("managedFields")
        if call.subresource:
            sent = None
        elif sent == [{}] or (sent == [] and not call.endpoint.resource.custom):
            return []
        entries = sent or known
        if not entries:
            # After a reset, nothing is owned until the first apply.
            return []
        owners = managed_fields.FieldManager(entries, self.cluster.now())
        old, new = managed_fields.ownable_content(call, before), managed_fields.ownable_content(call, doc)
        owners.update(managed_fields.manager_key(call, "Update"), old, new, call.endpoint.schema, reset)
        return owners.entries()

    def _stamp(self, call: Call, doc: JSONObject, metadata: JSONObject) -> None:
        for key in write_rules.SYSTEM_METADATA:
            # A kind without generations keeps the one that it is created with.
            if key != "generation" or call.endpoint.info.generation:
                metadata.pop(key, None)
        metadata["creationTimestamp"] = self.cluster.now()
        if call.endpoint.info.generation:
            metadata["generation"] = 1
        if "status" in call.endpoint.subresources and not call.endpoint.info.born_with_status:
            doc.pop("status", None)
            if "status" in call.endpoint.skeleton:
                doc["status"] = filled({}, call.endpoint.skeleton["status"])

    async def _require_place(self, call: Call, name: str) -> None:
        """Check that the kind is served, and that the namespace exists and is not being deleted."""
        info, namespace = call.endpoint.info, call.namespace
        if not call.endpoint.served:  # its definition was deleted, or changed and kept the objects
            kind = self.cluster.registry.resource(info.group, info.plural)
            if kind is None or kind.store is not call.endpoint.store:
                raise Refusal.no_such_resource()
        if not info.namespaced or namespace is None:
            return
        namespaces = self.cluster.registry.built_in("namespaces")
        found = namespaces.find(None, namespace)
        # A namespace that was deleted stays so: a late write of a controller must not bring it back.
        if found is None and self.provide_namespace is not None and not self.cluster.was_removed(namespaces, namespace):
            with contextlib.suppress(APIError):  # not a valid name of a namespace: it is not found below
                await self.provide_namespace(namespace)
            found = namespaces.find(None, namespace)
        if found is None:
            raise Refusal.not_found("namespaces", "", namespace)
        if found.doc["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = FieldError(
                "metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating"
            )
            raise Refusal.forbidden(info.plural, info.group, name, why, causes=[cause])

    async def update(self, call: Call) -> WriteResult:
        """Replace an object, or its status."""
        decoding.check_write_options(call)
        old = call.find()
        doc = decoding.read_document(call, None if old is None else call.endpoint.to_served(old.doc))
        metadata, info = doc["metadata"], call.endpoint.info
        write_rules.check_place(call, metadata)
        if old is None:
            if info.create_on_update and not call.subresource:
                if metadata.get("uid"):
                    raise write_rules.uid_conflict(call, metadata["uid"], "")
                write_rules.drop_resource_version(call, metadata)
                return await self._create(call, doc)
            raise Refusal.not_found(info.plural, info.group, call.name)
        uid = metadata.get("uid")
        if uid and uid != old.uid:
            raise write_rules.uid_conflict(call, uid, old.uid)
        return await self.change(call, old, doc)

    async def patch(self, call: Call) -> WriteResult:
        """Patch an object, or its status."""
        kind = decoding.patch_type(call)
        decoding.check_write_options(call)
        if kind == decoding.APPLY_PATCH:
            return await self._apply(call, call.find())
        old = call.existing()
        before = call.endpoint.to_served(old.doc)
        doc = decoding.decode_patched(call, apply_patch(call, kind, before), before)
        write_rules.check_place(call, doc["metadata"])
        return await self.change(call, old, doc)

    async def _apply(self, call: Call, old: Stored | None) -> WriteResult:
        info = call.endpoint.info
        if old is None and call.subresource:
            raise Refusal.not_found(info.plural, info.group, call.name)
        config = apply.read_applied_configuration(call)
        owners = managed_fields.FieldManager(apply.managed_fields_of(old), self.cluster.now())
        if old is None:
            uid = config["metadata"].get("uid")
            config["metadata"]["managedFields"] = apply.apply_to_new(call, config, owners)
            write_rules.drop_resource_version(call, config["metadata"])
            doc = decoding.decode_patched(call, config, None)
            if uid:
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise Refusal.conflict(info.plural, info.group, call.name, why)
            return await self._create(call, doc, owned=True)
        before = call.endpoint.to_served(old.doc)
        applied = apply.apply_to_stored(call, config, old, owners)
        doc = decoding.decode_patched(call, applied, before)
        write_rules.check_name_and_namespace(call, doc["metadata"])
        return await self.change(call, old, doc, entries=owners.entries())

    def if_applies(self, write: Admitted) -> Admitted | None:
        """Return a write if anyone is asked about it; nobody is asked about the server's own writes."""
        return write if self.admission.applies(write) else None

    async def mutate(self, write: Admitted) -> JSONObject:
        """Return the object as admission leaves it."""
        doc = await self.admission.mutate(write)
        assert doc is not None  # noqa: S101 - only a deletion has none
        return doc

    def check_current(self, call: Call, old: Stored) -> None:
        """Raise `Outdated` if a stored version is not the latest any more."""
        if call.find() is not old:
            raise Outdated

    async def change(
        self,
        call: Call,
        old: Stored,
        doc: JSONObject,
        *,
        entries: list[ManagedFieldsEntry] | None = None,
        scale: Admitted | None = None,
    ) -> WriteResult:
        """Check new content against the stored version and commit it.

        The writer takes ownership of `doc` and its metadata. Without `entries`, the ``managedFields`` are those of an
        update; `scale` is the write of a Scale that the change comes from, if anyone is asked about it.
        """
        endpoint = call.endpoint
        before = endpoint.to_served(old.doc)
        _check_version(call, old, doc["metadata"])
        tracks = entries is None and apply.can_track_owners(call, doc, before)
        reset = managed_fields.reset_fields_of(call, before, doc) if tracks else managed_fields.NO_RESET_FIELDS
        write = Admitted(call, "UPDATE", call.name, doc, before)
        admitted = None if call.subresource == "scale" else self.if_applies(write)
        if admitted is not None:
            if tracks:
                sent = write_rules.restrict_to_subresource(call, before, copy.deepcopy(doc))
                entries = self._updated_entries(call, before, sent, reset)
            doc = await self.mutate(admitted)
            self.check_current(call, old)
            write_rules.check_namespace(call, doc["metadata"])
            _check_version(call, old, doc["metadata"])
        doc = write_rules.restrict_to_subresource(call, before, doc)
        strategy, metadata = self.strategies(call), doc["metadata"]
        writes_metadata = not call.subresource or (call.subresource == "status" and not endpoint.resource.custom)
        known = before["metadata"]
        errors = write_rules.validate_metadata_update(call, metadata, known) if writes_metadata else []
        write_rules.restore(metadata, known, write_rules.SYSTEM_METADATA)
        strategy.complete(doc, before)
        self._check(call, doc, before, errors)
        review = scale if admitted is None else replace(admitted, doc=doc)
        if review is not None:
            await self.admission.validate(review)
            self.check_current(call, old)
        metadata["resourceVersion"] = known["resourceVersion"]
        if tracks and entries is None:
            entries = self._updated_entries(call, before, doc, reset)
        metadata.pop("managedFields", None)
        if entries:
            metadata["managedFields"] = known["managedFields"] if entries == known.get("managedFields") else entries
        strategy.finish(doc, before)
        stored_form = endpoint.to_storage(doc)
        if write_rules.same_json(doc, before) or write_rules.same_except_times(stored_form, old.doc):
            return WriteResult(200, old, before=old, after=old)
        if endpoint.info.generation and write_rules.bumps_generation(call, old.doc, stored_form):
            metadata["generation"] = known.get("generation", 0) + 1
        if call.dry_run:
            return WriteResult(200, Stored(old.key, old.rv, stored_form, old.custom), before=old, after=old)
        ends = metadata.get("deletionTimestamp") and not metadata.get("finalizers")
        if ends and write_rules.is_removable(endpoint.resource, stored_form):
            # The response shows the removed object with its last version; watches show what was stored.
            shown = Stored(old.key, old.rv, stored_form, old.custom)
            gone = self.cluster.remove(endpoint.resource, old)
            return WriteResult(200, shown, before=old, after=gone)
        new = self.cluster.put(endpoint.resource, old.key, stored_form)
        return WriteResult(200, new, before=old, after=new)


def _key(call: Call, metadata: JSONObject) -> str:
    return call.endpoint.resource.key(call.namespace, metadata.get("name", ""))


def _check_version(call: Call, old: Stored, metadata: JSONObject) -> None:
    """Check that a change names the stored version, or none if its kind allows that."""
    info = call.endpoint.info
    if not metadata.get("resourceVersion") and not info.unconditional:
        raise Refusal.invalid(info.plural, info.group, call.name, [_MUST_BE_GIVEN])
    write_rules.check_resource_version(call, old, metadata)


def _check_not_taken(call: Call, key: str, metadata: JSONObject) -> None:
    taken = call.endpoint.store.objects.get(key)
    if taken is not None:
        info, deleting = call.endpoint.info, "deletionTimestamp" in taken.doc["metadata"]
        generated = bool(metadata.get("generateName"))
        raise Refusal.already_exists(info.plural, info.group, metadata["name"], deleting=deleting, generated=generated)
