"""Answer create, update, patch, delete and deletecollection.

A write is checked and computed on the stored version and then committed, without a moment in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from reconciler.apiserver._admission import Admission
from reconciler.apiserver._bodies import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    decode,
    is_dry_run,
    media_type,
    read_body,
)
from reconciler.apiserver._cluster import Cluster, timestamp
from reconciler.apiserver._metadata import check_metadata, check_metadata_update
from reconciler.apiserver._patch import PatchFailed, json_patch, merge_patch
from reconciler.apiserver._reads import selector_of
from reconciler.apiserver._registry import Endpoint
from reconciler.apiserver._routing import Call
from reconciler.apiserver._status import (
    FieldError,
    Refusal,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    internal_error,
    invalid,
    not_found,
    unsupported_media_type,
)
from reconciler.apiserver._storage import Stored, encode

__all__ = ["Writer", "Written"]

_MOST_BYTES = 1_572_864
"""etcd's limit for one request, 1.5 MiB."""

_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)


@dataclass(slots=True)
class Written:
    """Hold what a write came to.

    Attributes:
        code: the HTTP status.
        stored: the version to answer with; None for a `status` answer.
        status: a document to answer with instead.
        before: the version before.
        after: the version after.
        warnings: texts for Warning headers.
    """

    code: int
    stored: Stored | None = None
    status: dict[str, Any] | None = None
    before: Stored | None = None
    after: Stored | None = None
    warnings: list[str] = field(default_factory=list)


class Writer:
    """Write to a cluster.

    Args:
        cluster: what is stored.
        admission: checks contents.
    """

    def __init__(self, cluster: Cluster, admission: Admission) -> None:
        self._cluster = cluster
        self._admission = admission

    # create

    def create(self, call: Call) -> Written:
        """Create an object.

        Raises:
            Refusal: 400, 403, 404, 409, 415 or 422 as the real server does.
        """
        doc = read_body(call.request)
        return self.create_from(call, doc)

    def create_from(self, call: Call, doc: dict[str, Any]) -> Written:
        """Create the object of a document."""
        endpoint = call.endpoint
        metadata = _checked_shape(call, doc)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        self._place(call, metadata)
        self._require_namespace(call, str(metadata.get("name", "")))
        for attempt in range(8):
            fresh = self._fresh(call, doc, metadata)
            name = fresh["metadata"].get("name", "")
            key = endpoint.resource.key(call.namespace, name)
            if key not in endpoint.store.objects:
                break
            if metadata.get("name") or attempt == 7:
                raise already_exists(endpoint.info.plural, endpoint.info.group, name)
        warnings = self._admission.admit_create(call, fresh)
        errors = check_metadata(endpoint.info, fresh["metadata"]) + self._admission.check(call, fresh, None)
        if errors:
            raise invalid(endpoint.info.kind, endpoint.info.group, fresh["metadata"].get("name", ""), errors)
        stored_form = endpoint.take(fresh)
        _check_size(stored_form)
        if is_dry_run(call):
            return Written(201, Stored(key, 0, stored_form), warnings=warnings)
        new = self._cluster.insert(endpoint.resource, key, stored_form)
        return Written(201, new, after=new, warnings=warnings)

    def _place(self, call: Call, metadata: dict[str, Any]) -> None:
        namespace = metadata.get("namespace") or ""
        if call.endpoint.info.namespaced:
            if namespace and namespace != call.namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = call.namespace
        elif namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")

    def _fresh(self, call: Call, doc: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
        info = call.endpoint.info
        stamped = {key: value for key, value in metadata.items() if key not in _SERVER_OWNED}
        if not stamped.get("name") and stamped.get("generateName"):
            stamped["name"] = stamped["generateName"][:58] + self._cluster.suffix()
        stamped.pop("resourceVersion", None)
        stamped["uid"] = self._cluster.uid()
        stamped["creationTimestamp"] = self._cluster.now()
        if info.generation:
            stamped["generation"] = 1
        fresh = {**doc, "metadata": stamped}
        if "status" in call.endpoint.subresources and call.endpoint.resource.custom:
            fresh.pop("status", None)
        return fresh

    def _require_namespace(self, call: Call, name: str) -> None:
        if not call.endpoint.info.namespaced or call.namespace is None:
            return
        info = call.endpoint.info
        found = self._cluster.registry.core("namespaces").store.objects.get(call.namespace)
        if found is None:
            raise not_found("namespaces", "", call.namespace)
        if found.doc["metadata"].get("deletionTimestamp"):
            raise forbidden(
                info.plural,
                info.group,
                name,
                f"unable to create new content in namespace {call.namespace} because it is being terminated",
                causes=[
                    FieldError(
                        "metadata.namespace", f"namespace {call.namespace} is being terminated", "NamespaceTerminating"
                    )
                ],
            )

    # update, patch

    def update(self, call: Call) -> Written:
        """Replace an object, or its status.

        Raises:
            Refusal: 400, 404, 409, 415 or 422 as the real server does.
        """
        return self.update_from(call, read_body(call.request))

    def update_from(self, call: Call, doc: dict[str, Any]) -> Written:
        """Replace an object with a document."""
        metadata = _checked_shape(call, doc)
        if metadata.get("name") != call.name:
            raise _name_mismatch(call, metadata.get("name") or "")
        self._place(call, metadata)
        old = self._find(call)
        if old is None:
            if call.endpoint.info.create_on_update and not call.subresource:
                return self.create_from(call, doc)
            raise not_found(call.endpoint.info.plural, call.endpoint.info.group, call.name)
        uid = metadata.get("uid")
        if uid and uid != old.uid:
            raise conflict(
                call.endpoint.info.plural,
                call.endpoint.info.group,
                call.name,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}",
            )
        return self._change(call, old, {**doc, "metadata": metadata})

    def patch(self, call: Call) -> Written:
        """Patch an object, or its status.

        Raises:
            Refusal: 400, 404, 409, 415 or 422 as the real server does.
        """
        kind = media_type(call.request)
        if kind not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH):
            accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
            raise unsupported_media_type(accepted if call.endpoint.resource.custom else [*accepted, STRATEGIC_PATCH])
        if kind == APPLY_PATCH:
            raise unsupported_media_type(
                [JSON_PATCH, MERGE_PATCH], "the embedded API server does not do server-side apply yet"
            )
        if kind == STRATEGIC_PATCH and call.endpoint.resource.custom:
            raise unsupported_media_type([JSON_PATCH, MERGE_PATCH, APPLY_PATCH])
        old = self._find(call)
        if old is None:
            raise not_found(call.endpoint.info.plural, call.endpoint.info.group, call.name)
        current = call.endpoint.show(old.doc)
        patch = decode(call.request.body)
        doc = self._patched(call, kind, current, patch)
        return self._change(call, old, {**doc, "metadata": dict(_metadata_of(doc))})

    def _patched(self, call: Call, kind: str, current: dict[str, Any], patch: Any) -> dict[str, Any]:
        info = call.endpoint.info
        if kind == JSON_PATCH:
            try:
                doc = json_patch(current, patch)
            except PatchFailed as error:
                raise Refusal(
                    422,
                    "Invalid",
                    f"the server rejected our request due to an error in our request: {error}",
                    details={},
                ) from None
        else:
            if not isinstance(patch, dict):
                raise bad_request("a merge patch is a JSON object")
            doc = merge_patch(current, patch)
        if not isinstance(doc, dict) or not isinstance(doc.get("metadata"), dict):
            raise bad_request("the patched object has no metadata")
        if doc.get("apiVersion") != call.endpoint.api_version or doc.get("kind") != info.kind:
            raise bad_request("the patch changes apiVersion or kind")
        return doc

    def _find(self, call: Call) -> Stored | None:
        resource = call.endpoint.resource
        return resource.store.objects.get(resource.key(call.namespace, call.name))

    def _change(self, call: Call, old: Stored, doc: dict[str, Any]) -> Written:
        """Check a new content against the stored one and commit it; `doc` and its metadata are private."""
        endpoint, info = call.endpoint, call.endpoint.info
        before = endpoint.show(old.doc)
        self._check_version(call, old, doc["metadata"])
        doc = _split(call, before, doc)
        metadata = doc["metadata"]
        if not call.subresource:
            errors = check_metadata_update(info, {**metadata}, before["metadata"])
            _keep_owned(metadata, before["metadata"])
        else:
            errors = []
        warnings = self._admission.admit_update(call, doc, before)
        errors += self._admission.check(call, doc, before)
        if errors:
            raise invalid(info.kind, info.group, call.name, errors)
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        if same(doc, before):
            return Written(200, old, before=old, after=old, warnings=warnings)
        if info.generation and _desired_changed(endpoint, before, doc):
            metadata["generation"] = before["metadata"].get("generation", 0) + 1
        stored_form = endpoint.take(doc)
        _check_size(stored_form)
        if is_dry_run(call):
            return Written(200, Stored(old.key, old.rv, stored_form), before=old, after=old, warnings=warnings)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and _is_due(info.plural, metadata):
            gone = self._cluster.remove(endpoint.resource, old, stored_form)
            return Written(200, gone, before=old, after=gone, warnings=warnings)
        new = self._cluster.replace(endpoint.resource, old, stored_form)
        return Written(200, new, before=old, after=new, warnings=warnings)

    def _check_version(self, call: Call, old: Stored, metadata: dict[str, Any]) -> None:
        info, asked = call.endpoint.info, metadata.get("resourceVersion")
        if not asked:
            if not info.unconditional:
                error = FieldError("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
                raise invalid(info.kind, info.group, call.name, [error])
            return
        if not str(asked).isdigit():
            raise internal_error(f'strconv.ParseUint: parsing "{asked}": invalid syntax', reason="")
        if int(asked) != old.rv:
            raise conflict(info.plural, info.group, call.name)

    # delete

    def delete(self, call: Call) -> Written:
        """Delete an object, or mark it when finalizers hold it.

        Raises:
            Refusal: 400, 404 or 409 as the real server does.
        """
        options = self._delete_options(call)
        old = self._find(call)
        if old is None:
            raise not_found(call.endpoint.info.plural, call.endpoint.info.group, call.name)
        _check_preconditions(call, old, options.get("preconditions") or {})
        written = self.delete_stored(call.endpoint, old, options, dry_run=is_dry_run(call, options))
        if written.stored is None:
            info = call.endpoint.info
            details = {"name": call.name, "group": info.group, "kind": info.plural, "uid": old.uid}
            written.status = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {key: value for key, value in details.items() if value},
            }
        return written

    def delete_stored(
        self, endpoint: Endpoint, old: Stored, options: dict[str, Any], *, dry_run: bool = False
    ) -> Written:
        """Delete a stored object; `stored` of the result is None when it is gone."""
        metadata = old.doc["metadata"]
        finalizers = _finalizers_for(endpoint, list(metadata.get("finalizers") or []), options)
        grace = _grace(endpoint, old.doc, options)
        if not finalizers and grace == 0 and not _is_namespace(endpoint):
            if dry_run:
                return Written(200, before=old, after=old)
            gone = self._cluster.remove(endpoint.resource, old)
            return Written(200, before=old, after=gone)
        marked = dict(metadata)
        if finalizers != list(metadata.get("finalizers") or []):
            marked["finalizers"] = finalizers
        if not metadata.get("deletionTimestamp"):
            marked["deletionTimestamp"] = timestamp(self._cluster.clock.now() + timedelta(seconds=grace))
            marked["deletionGracePeriodSeconds"] = grace
            if marked.get("generation"):
                marked["generation"] += 1
        if marked == metadata:
            return Written(200, old, before=old, after=old)
        doc = {**old.doc, "metadata": marked}
        if _is_namespace(endpoint):
            doc["status"] = {**(doc.get("status") or {}), "phase": "Terminating"}
        if dry_run:
            return Written(200, Stored(old.key, old.rv, doc), before=old, after=old)
        new = self._cluster.replace(endpoint.resource, old, doc)
        return Written(200, endpoint.store.objects.get(old.key, new), before=old, after=new)

    def delete_collection(self, call: Call) -> Written:
        """Delete all objects of a selection, each with a version of its own."""
        options, selector, endpoint = self._delete_options(call), selector_of(call), call.endpoint
        dry_run = is_dry_run(call, options)
        chosen = [endpoint.store.objects[key] for key in endpoint.store.keys(call.namespace)]
        chosen = [stored for stored in chosen if selector.matches(stored.doc)]
        shown = []
        for stored in chosen:
            current = endpoint.store.objects.get(stored.key)
            if current is not None:
                written = self.delete_stored(endpoint, current, options, dry_run=dry_run)
                shown.append(written.stored or current)
        status = {
            "apiVersion": endpoint.api_version,
            "kind": endpoint.info.list_name,
            "metadata": {"resourceVersion": str(self._cluster.revisions.current)},
            "items": [msgspec.Raw(endpoint.encode(item)) for item in shown],
        }
        return Written(200, status=status)

    @staticmethod
    def _delete_options(call: Call) -> dict[str, Any]:
        options = dict(read_body(call.request)) if call.request.body.strip() else {}
        for key in ("propagationPolicy", "gracePeriodSeconds"):
            if key in call.query and key not in options:
                options[key] = int(call.query[key]) if key == "gracePeriodSeconds" else call.query[key]
        return options


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two documents are the same JSON; true is not 1."""
    return one == other and msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(
        other, order="deterministic"
    )


def _metadata_of(doc: dict[str, Any]) -> dict[str, Any]:
    metadata = doc.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _checked_shape(call: Call, doc: dict[str, Any]) -> dict[str, Any]:
    """Return a private copy of the metadata of a document that claims to be of the right kind."""
    info, endpoint = call.endpoint.info, call.endpoint
    found_version, found_kind = doc.get("apiVersion") or endpoint.api_version, doc.get("kind") or info.kind
    if endpoint.resource.custom and not (doc.get("apiVersion") and doc.get("kind")):
        raise bad_request("Object 'Kind' is missing" if not doc.get("kind") else "Object 'apiVersion' is missing")
    if found_version != endpoint.api_version:
        raise bad_request(
            f"the API version in the data ({found_version}) does not match the expected API version ({endpoint.api_version})"
        )
    if found_kind != info.kind:
        raise bad_request(
            f"{found_kind} in version {endpoint.version!r} cannot be handled as a {info.kind}: no kind is registered"
        )
    doc["apiVersion"], doc["kind"] = endpoint.api_version, info.kind
    return dict(_metadata_of(doc))


def _name_mismatch(call: Call, name: str) -> Refusal:
    return bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")


def _split(call: Call, before: dict[str, Any], doc: dict[str, Any]) -> dict[str, Any]:
    """Keep apart what the subresource and the object itself may change."""
    if call.subresource == "status":
        metadata = dict(before["metadata"])
        changed = {**before, "metadata": metadata}
        if "status" in doc:
            changed["status"] = doc["status"]
        else:
            changed.pop("status", None)
        return changed
    if "status" in call.endpoint.subresources:
        kept = dict(doc)
        if "status" in before:
            kept["status"] = before["status"]
        else:
            kept.pop("status", None)
        return kept
    return doc


def _keep_owned(metadata: dict[str, Any], before: dict[str, Any]) -> None:
    for key in _SERVER_OWNED:
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    if not metadata.get("finalizers"):
        metadata.pop("finalizers", None)


def _desired_changed(endpoint: Endpoint, before: dict[str, Any], doc: dict[str, Any]) -> bool:
    apart = {"metadata", "status"} if "status" in endpoint.subresources else {"metadata"}
    return any(
        before.get(key) is not doc.get(key) and not same({"": before.get(key)}, {"": doc.get(key)})
        for key in (before.keys() | doc.keys()) - apart
    )


def _is_namespace(endpoint: Endpoint) -> bool:
    return endpoint.info.plural == "namespaces" and not endpoint.info.group


def _is_due(plural: str, metadata: dict[str, Any]) -> bool:
    return plural != "pods" or not metadata.get("deletionGracePeriodSeconds")


def _check_size(doc: dict[str, Any]) -> None:
    if len(encode(doc)) > _MOST_BYTES:
        raise internal_error("etcdserver: request is too large", reason="")


def _check_preconditions(call: Call, old: Stored, preconditions: dict[str, Any]) -> None:
    info = call.endpoint.info
    uid, rv = preconditions.get("uid"), preconditions.get("resourceVersion")
    if uid and uid != old.uid:
        why = f"the UID in the precondition ({uid}) does not match the UID in record ({old.uid}). The object might have been deleted and then recreated"
        raise conflict(info.plural, info.group, call.name, why)
    if rv and rv != str(old.rv):
        why = f"the ResourceVersion in the precondition ({rv}) does not match the ResourceVersion in record ({old.rv}). The object might have been modified"
        raise conflict(info.plural, info.group, call.name, why)


def _finalizers_for(endpoint: Endpoint, finalizers: list[str], options: dict[str, Any]) -> list[str]:
    policy = options.get("propagationPolicy")
    if options.get("orphanDependents") is True:
        policy = "Orphan"
    if policy not in (None, "Orphan", "Foreground", "Background"):
        error = FieldError(
            "propagationPolicy",
            f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"',
            "FieldValueNotSupported",
        )
        raise invalid("DeleteOptions", "", "", [error])
    if policy is None:
        return finalizers
    kept = [name for name in finalizers if name not in ("orphan", "foregroundDeletion")]
    if policy == "Orphan":
        kept.append("orphan")
    elif policy == "Foreground":
        kept.append("foregroundDeletion")
    return kept


def _grace(endpoint: Endpoint, doc: dict[str, Any], options: dict[str, Any]) -> int:
    if endpoint.info.plural != "pods" or endpoint.info.group:
        return 0
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    return int(asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30))
