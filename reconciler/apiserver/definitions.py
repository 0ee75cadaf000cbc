"""CustomResourceDefinitions: their validation, as apiextensions/v1 does it, and the lifecycle of their kinds.

Schemas must be structural. Most rules are in ``rules.txt``, also those about one place of a schema. The paths are those
of the internal form, in which a schema that all versions share is called ``spec.validation``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.decoding import Decoding
from reconciler.apiserver.builtin.kinds import KindInfo, field_reader
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.builtin.strategies import Strategy, strategy_of
from reconciler.apiserver.cluster import APIResource, ClusterStorage, CustomContents, Endpoint, ScalePaths, contents_of
from reconciler.apiserver.conversion import ConversionNeeded, conversion_of
from reconciler.apiserver.encoding.formats import FORMATS, NUMBER_RANGES, form_problems
from reconciler.apiserver.encoding.json_documents import condition_of
from reconciler.apiserver.encoding.refusals import FieldError, Findings, Refusal
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.managed_fields import FieldManager, ManagerKey
from reconciler.apiserver.schema import SchemaValidator, compile_schema, prune
from reconciler.apiserver.store import Stored, encode
from reconciler.http import Transport

if TYPE_CHECKING:
    from reconciler.apiserver.verbs.routing import Call


_SCHEMA = "apiextensions.v1.JSONSchemaProps"
_IMPLICIT = (".properties[metadata]", ".properties[apiVersion]", ".properties[kind]")
_VERSION = "apiextensions.v1.CustomResourceDefinitionVersion"
_COLUMN = "apiextensions.v1.CustomResourceColumnDefinition"
_SCALE = "apiextensions.v1.CustomResourceSubresourceScale"
_PROTECTED = re.compile(r"(^|\.)(k8s|kubernetes)\.io$")


@functools.lru_cache(maxsize=256)
def check_schema(encoded: bytes, path: str, release: str) -> tuple[FieldError, ...]:
    """Return the errors of an ``openAPIV3Schema`` in JSON; their fields begin with the path."""
    schema: JSONObject = msgspec.json.decode(encoded)
    kind = schema.get("type")
    errors = [*_check_object(schema, path, "at the root"), *_check_metadata(schema, path)]
    if not kind:
        errors.append(FieldError.required(f"{path}.type", "must not be empty at the root"))
    elif kind != "object":
        errors.append(FieldError.invalid(f"{path}.type", kind, "must be object at the root"))
    errors += _check(schema, path, root=True)
    # Defaults can be validated only with a valid schema.
    return tuple(errors or _check_defaults(schema, path, release))


def _check(schema: JSONObject, path: str, *, root: bool = False) -> Findings:
    if schema.get("x-kubernetes-embedded-resource") and not root:
        yield from _check_object(schema, path, "if x-kubernetes-embedded-resource is set")
    yield from violations(_SCHEMA, schema, None, path)
    items = schema.get("items")
    if schema.get("x-kubernetes-list-type") == "map" and schema.get("type") == "array" and isinstance(items, dict):
        yield from _check_map_list(schema.get("x-kubernetes-list-map-keys") or [], items, path)
    for step, branch in _branches(schema):
        yield from _check_branch(branch, path + step, schema)
    for step, below in _below(schema):
        if not (root and step in _IMPLICIT):
            yield from _check(below, path + step)


def _below(schema: JSONObject) -> Iterator[tuple[str, JSONObject]]:
    """Yield the schemas of members and items, each with its step in the path."""
    for name, member in (schema.get("properties") or {}).items():
        yield f".properties[{name}]", member
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield f".{key}", schema[key]


def _branches(schema: JSONObject) -> Iterator[tuple[str, JSONObject]]:
    """Yield the schemas in allOf, anyOf, oneOf and not, each with its step in the path."""
    for key in ("allOf", "anyOf", "oneOf"):
        for index, branch in enumerate(schema.get(key) or ()):
            yield f".{key}[{index}]", branch
    if schema.get("not"):
        yield ".not", schema["not"]


def _check_map_list(keys: list[str], items: JSONObject, path: str) -> Findings:
    field = f"{path}.x-kubernetes-list-map-keys"
    properties = items.get("properties") or {}
    if any(key not in properties for key in keys):
        yield FieldError.invalid(field, keys, "entries must all be names of item properties")
    elif any(properties[key].get("type") in ("array", "object") for key in keys):
        yield FieldError.invalid(field, keys, "entries must be scalar")
    for key in keys:
        if key in properties and key not in (items.get("required") or ()) and "default" not in properties[key]:
            message = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            yield FieldError.required(f"{path}.items.properties[{key}].default", message)


def _check_branch(branch: JSONObject, path: str, outer: JSONObject) -> Findings:
    """Check a schema inside allOf, anyOf, oneOf or not: it may restrict values, but not define structure."""
    for key in recorded("schema_keywords.json")["structural"]:
        if branch.get(key) is None or (key == "type" and outer.get("x-kubernetes-int-or-string")):
            continue
        yield FieldError.forbidden(f"{path}.{key}", "must be empty to be structural")
    # The type is that of the schema outside. Of the rules, those for these members apply here, too.
    values: JSONObject = {key: branch[key] for key in ("pattern", "uniqueItems") if key in branch}
    yield from violations(_SCHEMA, {"type": "string", **values}, None, path)
    for name, member in (branch.get("properties") or {}).items():
        known = (outer.get("properties") or {}).get(name) or {}
        yield from _check_branch(member, f"{path}.properties[{name}]", known)
    if isinstance(branch.get("items"), dict):
        outer_items = outer.get("items")
        yield from _check_branch(branch["items"], f"{path}.items", outer_items if isinstance(outer_items, dict) else {})
    for step, deeper in _branches(branch):
        yield from _check_branch(deeper, path + step, outer)


def _check_object(schema: JSONObject, path: str, where: str) -> Findings:
    """Check the schema of a whole object, whose apiVersion, kind and metadata are those of every object."""
    if schema.get("additionalProperties") is not None:
        yield FieldError.forbidden(f"{path}.additionalProperties", f"must not be used {where}")
    properties = schema.get("properties") or {}
    for name, kind in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        found = properties.get(name, {"type": kind}).get("type", "")
        if found != kind:
            yield FieldError.invalid(f"{path}.properties[{name}].type", found, f"must be {kind}")


def _check_metadata(schema: JSONObject, path: str) -> Findings:
    metadata = (schema.get("properties") or {}).get("metadata") or {}
    named = set(metadata.get("properties") or {})
    if named - {"name", "generateName"} or metadata.keys() - {"type", "properties", "description"}:
        message = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield FieldError.forbidden(f"{path}.properties[metadata]", message)


def _check_defaults(schema: JSONObject, path: str, release: str) -> Findings:
    if "default" in schema:
        yield from _check_default(schema, path, release)
    for step, below in _below(schema):
        yield from _check_defaults(below, path + step, release)


def _check_default(schema: JSONObject, path: str, release: str) -> Findings:
    default = schema["default"]
    if default is None and not schema.get("nullable"):
        return
    if prune(default, compile_schema(schema)) != default:
        yield FieldError.invalid(f"{path}.default", default, "must not have unknown fields")
        return
    # As on the real server, the defaults inside a default are not filled in here, and duplicate items are not found.
    for found in SchemaValidator(schema, release=release).findings(default):
        field = f"{path}.default" if found.error.field in ("", "<nil>") else f"{path}.default.{found.error.field}"
        yield FieldError(field, found.error.message, found.error.reason)


def unknown_formats(schema: JSONObject) -> Iterator[str]:
    """Yield the formats in a schema that the server ignores."""
    form = schema.get("format")
    numbers = {"int-or-string", "", *NUMBER_RANGES.get(str(schema.get("type")), ())}
    if isinstance(form, str) and form not in FORMATS and form not in numbers:
        yield form
    for _, below in _below(schema):
        yield from unknown_formats(below)


def check_definition(doc: JSONObject, before: JSONObject | None, release: str) -> list[FieldError]:
    """Return the errors of a definition in a version of Kubernetes.

    Raises:
        MissingExtra: a library that a schema needs is not installed; a definition is never enforced in part.
    """
    spec = doc["spec"]
    errors = violations("apiextensions.v1.CustomResourceDefinition", doc, before)
    errors += [] if before else _check_approval(doc, spec)
    errors += _check_versions(doc, spec)
    versions = [version for version in spec.get("versions") or () if isinstance(version, dict)]
    # If all versions are alike, the server's internal form has their parts in one place.
    parts = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    hoisted = all(_alike(versions, part) for part in parts)
    for index, version in enumerate(versions):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            errors.append(FieldError.required(f"spec.versions[{index}].schema.openAPIV3Schema"))
            continue
        path = "spec.validation" if hoisted else f"spec.versions[{index}].schema"
        encoded = encode(schema)
        found = check_schema(encoded, f"{path}.openAPIV3Schema", release)
        place = "spec" if hoisted else f"spec.versions[{index}]"
        if not found:
            try:
                contents = contents_of(encoded, release)  # which are kept, and served once the definition is stored
            except ValueError as error:
                errors.append(FieldError(f"{path}.openAPIV3Schema", f"Invalid value: {error}"))
                continue
            found = (*contents.rule_errors(f"{path}.openAPIV3Schema"), *_check_selectable(version, schema, place))
        if version.get("selectableFields") and _alike(versions, "schema") and not _alike(versions, "selectableFields"):
            message = "may only be set when `version.schema.openAPIV3Schema` is not included"
            errors.append(FieldError.invalid(f"{place}.selectableFields", "", message))
        if index == 0 or not hoisted:
            errors += found
            for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
                errors += violations(_COLUMN, column, None, f"{place}.additionalPrinterColumns[{at}]")
            if isinstance(scale := (version.get("subresources") or {}).get("scale"), dict):
                errors += violations(_SCALE, scale, None, f"{place}.subresources.scale")
    return errors


def _alike(versions: list[JSONObject], part: str) -> bool:
    return all(version.get(part) == versions[0].get(part) for version in versions)


def _check_approval(doc: JSONObject, spec: JSONObject) -> Findings:
    annotation = "api-approved.kubernetes.io"
    if _PROTECTED.search(spec.get("group") or "") and annotation not in (doc["metadata"].get("annotations") or {}):
        link = "https://github.com/kubernetes/enhancements/pull/1111"
        message = f'protected groups must have approval annotation "{annotation}", see {link}'
        yield FieldError.required(f"metadata.annotations[{annotation}]", message)


def _check_versions(doc: JSONObject, spec: JSONObject) -> Findings:
    versions = spec.get("versions") or []
    shown = [_internal(version) for version in versions]
    names = [version.get("name") or "" for version in versions]
    seen = set(names)
    if len(seen) < len(names):
        yield FieldError.invalid_struct("spec.versions", shown, "must contain unique version names")
    for index, version in enumerate(versions):
        yield from violations(_VERSION, version, None, f"spec.versions[{index}]")
    for name in names[:1]:
        yield from (FieldError.invalid("spec.version", name, each) for each in form_problems("label-1035", name))
    storage = [version.get("name") for version in versions if version.get("storage")]
    if len(storage) != 1:
        message = "must have exactly one version marked as storage version"
        yield FieldError.invalid_struct("spec.versions", shown, message)
    stored = (doc.get("status") or {}).get("storedVersions") or []
    if not stored:
        yield FieldError.invalid("status.storedVersions", None, "must have at least one stored version")
    elif storage and storage[-1] not in stored:
        yield FieldError.invalid("status.storedVersions", stored, f"must have the storage version {storage[-1]}")
    for index, name in enumerate(stored):
        if versions and name not in seen:
            message = recorded("texts.json")["stored version"].format(name)
            yield FieldError.invalid(f"status.storedVersions[{index}]", name, message)


def _internal(version: JSONObject) -> JSONObject:
    """Return a version as the Go struct that messages show."""
    flags = {name: bool(version.get(name.lower())) for name in ("Served", "Storage", "Deprecated")}
    shown = {"Name": version.get("name", ""), **flags, "DeprecationWarning": version.get("deprecationWarning")}
    return shown | dict.fromkeys(("Schema", "Subresources", "AdditionalPrinterColumns", "SelectableFields"))


def _check_selectable(version: JSONObject, schema: JSONObject, place: str) -> Findings:
    for index, field in enumerate(version.get("selectableFields") or ()):
        path = f"{place}.selectableFields[{index}].jsonPath"
        json_path = str(field.get("jsonPath") or "")
        if not json_path:
            yield FieldError.required(path)
            continue
        found: Any = schema
        for part in json_path.lstrip(".").split("."):
            found = (found.get("properties") or {}).get(part) if isinstance(found, dict) else None
        if found is None:
            yield FieldError.invalid(path, json_path, "is an invalid path: does not refer to a valid field")
        elif found.get("type") not in ("string", "boolean", "integer"):
            yield FieldError.invalid(path, json_path, recorded("texts.json")["selectable field"])


_CONTROLLER = ManagerKey("kube-apiserver", "Update", "apiextensions.k8s.io/v1", "status")
_VERSION_NAME = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Definitions:
    """The controller of CustomResourceDefinitions. It is called with every change that is committed to the cluster.

    Without `sockets` it calls conversion webhooks in the same process alone, as under virtual time.
    """

    def __init__(
        self, cluster: ClusterStorage, webhook_servers: Mapping[str, Transport], *, sockets: bool = True
    ) -> None:
        self._cluster = cluster
        self._sockets = sockets and not getattr(cluster.clock, "virtual", False)
        self._webhook_servers = webhook_servers
        self._definitions = cluster.registry.built_in("customresourcedefinitions", "apiextensions.k8s.io")
        self._strategy = Strategy(complete=_complete, check=self._check, warn=_warn)
        cluster.commit_hooks.append(self._follow)

    def strategy(self, call: Call) -> Strategy:
        """Return the strategy of the kind that a request writes, including definitions."""
        info = call.endpoint.info
        if call.endpoint.resource is self._definitions:
            return self._strategy
        return strategy_of(info.group, info.plural, call.subresource)

    def _check(self, doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
        if before is not None and before.get("spec") == doc.get("spec"):
            return []
        return check_definition(doc, before, self._cluster.registry.release)

    def _follow(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        if resource is not self._definitions:
            return
        if new is None:
            assert old is not None  # noqa: S101 - a commit has one of both
            spec = old.doc["spec"]
            gone = self._cluster.registry.resource(spec["group"], spec["names"]["plural"])
            if gone is not None:
                self._cluster.registry.remove(gone)
            return
        if old is None or old.doc["spec"] is not new.doc["spec"]:
            self.serve(new)
        deleting = new.doc["metadata"].get("deletionTimestamp")
        if not deleting and condition_of(new.doc, "Established").get("status") != "True":
            self._establish(resource, new)

    def serve(self, stored: Stored) -> None:
        """Serve the kind of a definition as it is now."""
        spec = stored.doc["spec"]
        versions, registry = spec["versions"], self._cluster.registry
        storage = next(version["name"] for version in versions if version.get("storage"))
        info = _info(spec, registry.release)
        resource = registry.resource(info.group, info.plural)
        if resource is None:
            resource = registry.add(info, storage=storage, custom=True)
        else:
            for endpoint in list(resource.endpoints.values()):
                registry.unserve(endpoint)
            resource.info = info
        resource.convert = conversion_of(spec, self._webhook_servers, self._cluster.random_uid, sockets=self._sockets)
        _migrate(resource, storage)
        for version in sorted(versions, key=lambda version: _priority(version["name"]), reverse=True):
            if version.get("served"):
                contents = contents_of(encode(version["schema"]["openAPIV3Schema"]), registry.release)
                registry.serve(_endpoint(resource, version, contents))
        self._reshape_stored(resource)

    @staticmethod
    def _reshape_stored(resource: APIResource) -> None:
        """Prune and default stored objects by a changed schema, as the real server does when it reads them."""
        endpoint = resource.endpoints.get(resource.storage)
        if endpoint is None or endpoint.contents is None:
            return
        for stored in list(resource.store.objects.values()):
            decoded = endpoint.contents.decode(stored.doc, None, Decoding())
            if decoded is not stored.doc:
                resource.store.reshape(stored, decoded)

    def _establish(self, resource: APIResource, stored: Stored) -> None:
        spec, now = stored.doc["spec"], self._cluster.now()
        conditions = [{**each, "lastTransitionTime": now} for each in recorded("texts.json")["established"]]
        status = {**(stored.doc.get("status") or {}), "acceptedNames": spec["names"], "conditions": conditions}
        metadata = dict(stored.doc["metadata"])
        owners = FieldManager(metadata.get("managedFields") or (), now)
        schema = next(iter(resource.endpoints.values())).schema
        owners.update(
            _CONTROLLER, {"status": {**status, "acceptedNames": {}, "conditions": []}}, {"status": status}, schema
        )
        metadata["managedFields"] = owners.entries()
        self._cluster.put(resource, stored.key, {**stored.doc, "metadata": metadata, "status": status})


def _complete(doc: JSONObject, before: JSONObject | None) -> None:
    spec = doc["spec"] = dict(doc.get("spec") or {})
    names = spec["names"] = dict(spec.get("names") or {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or str(names["kind"]).lower()
        names["listKind"] = names.get("listKind") or f"{names['kind']}List"
    spec["conversion"] = spec.get("conversion") or {"strategy": "None"}
    storage = [version.get("name") for version in spec.get("versions") or () if version.get("storage")][:1]
    if before is None:
        status = {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None, "storedVersions": storage}
        doc["status"] = status
        return
    if spec == before["spec"]:
        doc["spec"] = before["spec"]
    status = dict(doc.get("status") or {})
    known = list(status.get("storedVersions") or [])
    status["storedVersions"] = known + [name for name in storage if name not in known]
    if status["storedVersions"] != known:
        doc["status"] = status


def _warn(doc: JSONObject) -> list[str]:
    versions = doc["spec"].get("versions") or ()
    schemas = ((version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions)
    return list(dict.fromkeys(f'unrecognized format "{form}"' for each in schemas for form in unknown_formats(each)))


def _migrate(resource: APIResource, storage: str) -> None:
    if resource.storage == storage:
        return
    resource.storage = storage
    try:
        for stored in list(resource.store.objects.values()):
            resource.store.reshape(stored, resource.in_version(stored.doc, resource.api_version))
    except ConversionNeeded as needed:  # the write of the definition cannot be repeated
        raise Refusal.internal_error(str(needed)) from None


def _info(spec: JSONObject, release: str) -> KindInfo:
    names = spec["names"]
    return KindInfo(
        group=spec["group"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names["singular"],
        list_kind=names["listKind"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        generation=True,
        unconditional=False,
        release=release,
    )


def _endpoint(resource: APIResource, version: JSONObject, contents: CustomContents) -> Endpoint:
    fields, subresources = version.get("selectableFields") or (), version.get("subresources") or {}
    scale = subresources.get("scale") or {}
    paths = (scale.get(f"{name}Path") or "" for name in ("specReplicas", "statusReplicas", "labelSelector"))
    warning = ""
    if version.get("deprecated"):
        default = f"{resource.info.group}/{version['name']} {resource.info.kind} is deprecated"
        warning = version.get("deprecationWarning") or default
    return Endpoint(
        resource,
        version["name"],
        frozenset(name for name, value in subresources.items() if value is not None),
        {field["jsonPath"].lstrip("."): field_reader(field["jsonPath"]) for field in fields},
        contents,
        tuple(version.get("additionalPrinterColumns") or ()),
        warning,
        ScalePaths(*paths) if scale else None,
    )


def _priority(version: str) -> tuple[int, int, int]:
    """Return the sort key of a version: v1alpha1, v1beta1, v1beta2, v1, v2."""
    match = _VERSION_NAME.fullmatch(version)
    if match is None:
        return (-1, 0, 0)
    stage = {None: 2, "beta": 1, "alpha": 0}[match.group(2)]
    return (stage, int(match.group(1)), int(match.group(3) or 0))
