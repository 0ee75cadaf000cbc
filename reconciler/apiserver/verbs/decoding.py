"""Documents in requests: media types, JSON, YAML and protobuf, options, types, defaults, unknown fields, metadata."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject, JSONValue
from reconciler.apiserver.builtin.decoding import (
    BuiltInContents,
    Decoding,
    Malformed,
    Place,
    first_error,
    read_value,
    restoring_problem,
)
from reconciler.apiserver.builtin.kinds import BUILT_IN, REVIEWS, filled, metadata_node, type_name, type_node
from reconciler.apiserver.encoding import json_documents
from reconciler.apiserver.encoding.protobuf import Unreadable, read_protobuf
from reconciler.apiserver.encoding.refusals import FieldError, Refusal, not_registered
from reconciler.apiserver.encoding.text import go_json, go_type, go_value, quoted, recorded, snippet
from reconciler.apiserver.verbs.routing import Call
from reconciler.http import HTTPRequest

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

YAML = "application/yaml"
_JSON, _PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
MAX_BODY_BYTES = 3 * 1024 * 1024
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escapes of surrogates, which JSON allows and YAML does not."""
_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def media_type(request: HTTPRequest) -> str:
    """Return the body's media type without parameters, in lower case; empty if none is given."""
    header = request.headers.get("content-type", "")
    return header.split(";")[0].strip().lower() or header


def patch_type(call: Call) -> str:
    """Return the media type of a patch; raise the 415 if the kind does not accept this type of patch."""
    kind, custom = media_type(call.request), call.endpoint.resource.custom
    accepted = [JSON_PATCH, MERGE_PATCH, *([] if custom else [STRATEGIC_PATCH]), APPLY_PATCH]
    if kind not in accepted:
        if not custom:
            raise Refusal(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
        raise Refusal.unsupported_media_type(accepted)
    return kind


def check_size(request: HTTPRequest) -> None:
    """Raise the 413 for a body that exceeds the limit of an API server."""
    if len(request.body) > MAX_BODY_BYTES:
        raise Refusal.too_large(f"limit is {MAX_BODY_BYTES}")


def read_object(request: HTTPRequest, kind: str, duplicates: list[str] | None = None) -> JSONObject:
    """Return the object in the body of a create, update or delete; `duplicates` collects messages about its fields.

    Raises:
        Refusal: 415 for an unsupported media type, 400 if the body is not an object.
    """
    media = media_type(request)
    if media in ("", _JSON):
        try:
            found = json_documents.read_json(request.body)
        except json_documents.OutOfRange as error:
            version = error.document.get("apiVersion") if isinstance(error.document, dict) else ""
            raise Refusal.cannot_be_handled(kind, str(version or "v1"), kind, str(error)) from None
        except json_documents.InvalidJSON as error:
            raise _unrecognized(kind, f"json parse error: {error} ({snippet(request.body)})") from None
    elif media == YAML:
        found = read_yaml(request.body, duplicates)
    elif media == _PROTOBUF:
        try:
            found = read_protobuf(request.body, type_name)
        except Unreadable as error:
            # A custom kind, for example, has no such form.
            raise Refusal.unsupported_media_type((_JSON, YAML), f"{error}: send {kind} as application/json") from None
    else:
        raise Refusal.unsupported_media_type((_JSON, YAML, _PROTOBUF))
    if found is None:
        return {}
    if duplicates is not None and media in ("", _JSON):
        duplicates += duplicate_fields(request.body, found)
    if not isinstance(found, dict):
        fields = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
        problem = f"json parse error: json: cannot unmarshal {go_type(found)} into Go value of type {fields}"
        raise _unrecognized(kind, f"{problem} ({request.body.hex()})")
    return found


def _unrecognized(kind: str, problem: str) -> Refusal:
    return Refusal.bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; {problem}"
    )


def decode_patch(body: bytes) -> Any:
    """Return the JSON of a patch; raise the 400 if it is not valid."""
    try:
        return json_documents.read_json(body)
    except json_documents.InvalidJSON as error:
        raise Refusal.bad_request(f"error decoding patch: {error}") from None


def read_yaml(body: bytes, duplicates: list[str] | None = None) -> Any:
    """Return the content of a YAML document; one that is valid JSON is read as JSON, which is faster.

    Messages about keys that a map contains twice are added to `duplicates`.

    Raises:
        Refusal: 400, the body is not valid YAML.
    """
    if body[:1] == b"{" and _SURROGATE.search(body) is None:
        with contextlib.suppress(json_documents.InvalidJSON):
            found = json_documents.read_json(body, lenient=False)
            if duplicates is None or not duplicate_fields(body, found):
                return found
    try:
        found, twice = json_documents.decode_yaml(body)
    except json_documents.InvalidYAML as error:
        raise Refusal.bad_request(f"error converting YAML to JSON: {error}") from None
    if duplicates is not None:
        duplicates += twice
    return found


def yaml_problem(duplicates: list[str]) -> str:
    """Return the error of a strict decoder for a YAML document with duplicate keys."""
    return "\n  ".join(["yaml: unmarshal errors:", *duplicates])


def duplicate_fields(body: bytes, found: JSONValue) -> list[str]:
    """Return messages about fields that a JSON body contains more than once, with their dotted paths.

    A body that equals its decoded content, written without spaces or as Python writes it, has none. Only other bodies
    are parsed a second time.
    """
    stripped = body.strip()
    if not stripped.startswith(b"{"):
        return []
    if stripped == msgspec.json.encode(found) or stripped == json.dumps(found).encode():
        return []
    return [message for message in _field_messages(stripped) if message.startswith("duplicate")]


def _in_document_order(body: bytes, problems: list[str]) -> list[str]:
    """Return messages about unknown and duplicate fields of a JSON body in the order in which a decoder meets them."""
    order = {message: index for index, message in enumerate(_field_messages(body))}
    return sorted(problems, key=lambda message: order.get(message, len(order)))


class _Members(list[tuple[str, Any]]):
    pass


def _field_messages(body: bytes) -> Iterator[str]:
    """Yield the message about each field of a JSON body in case it is unknown, or about its second value."""
    return _messages(json.loads(body.decode(errors="replace"), object_pairs_hook=_Members, parse_int=float), "")


def _messages(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for key, member in value:
            here = f"{path}.{key}" if path else key
            yield f"{'duplicate' if key in seen else 'unknown'} field {quoted(here)}"
            seen.add(key)
            yield from _messages(member, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _messages(item, f"{path}[{index}]")


def check_write_options(call: Call, options: JSONObject | None = None) -> None:
    """Check the parameters that all writes share, and note whether the request asks for a dry run.

    Raises:
        Refusal: 422, a parameter has an unsupported value.
    """
    query = call.query
    errors = []
    dry_run = [query["dryRun"]] if query.get("dryRun") else list((options or {}).get("dryRun") or ())
    if dry_run and dry_run != ["All"]:
        errors.append(FieldError.not_supported("dryRun", dry_run, ("All",)))
    validation = query.get("fieldValidation", "")
    if validation not in ("", "Ignore", "Strict", "Warn"):
        errors.append(FieldError.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        errors.append(FieldError("fieldManager", "Too long: may not be more than 128 bytes", "FieldValueTooLong"))
    bad = next((index for index, letter in enumerate(manager) if not letter.isprintable()), None)
    if bad is not None:
        why = f"invalid character U+{ord(manager[bad]):04X} (at position {bad})"
        errors.append(FieldError("fieldManager", f"Invalid value: {json.dumps(manager)}: {why}"))
    if call.verb == "patch":
        apply = media_type(call.request) == APPLY_PATCH
        if apply and not manager:
            errors.append(FieldError.required("fieldManager", "is required for apply patch"))
        elif not apply and query.get("force"):
            errors.append(FieldError.forbidden("force", "may not be specified for non-apply patch"))
    if errors:
        raise Refusal.option_invalid(_OPTIONS.get(call.verb, "DeleteOptions"), *errors)
    call.dry_run = bool(dry_run)


OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
"""The fields of an owner reference, in the order of Go's struct."""


def decode_metadata(found: JSONValue, decoding: Decoding, *, kind: str = "", lenient: bool = False) -> JSONObject:
    """Return a private copy of metadata with known fields only; empty fields are left out.

    Args:
        found: the value of ``metadata`` in the document.
        decoding: how it is decoded; records the unknown fields and the errors.
        kind: the built-in kind of the document, in whose errors fields are parts of it; empty for a custom one.
        lenient: leave out times and numbers that cannot be read.
    """
    if found is None:
        return {}
    if not isinstance(found, dict):
        target = f"Go struct field {kind}.metadata" if kind else "Go value"
        problem = f"json: cannot unmarshal {go_type(found)} into {target} of type v1.ObjectMeta"
        restoring = restoring_problem(found, metadata_node())
        decoding.problems.append(Malformed(problem, restoring, member="metadata"))
        return {}
    metadata: JSONObject = {}
    for key, value in found.items():
        node = metadata_node().properties.get(key)
        if node is None:
            decoding.unknown.append(f"metadata.{key}")
            continue
        if value is None:
            continue
        kept: Any = value
        # The content of managedFields is checked when it is used.
        if key != "managedFields" or type(value) is not list or any(type(entry) is not dict for entry in value):
            place = Place(decoding, f"metadata.{key}", f"metadata.{key}" if kind else key, "ObjectMeta")
            known = len(decoding.problems)
            kept = read_value(value, node, place)
            if lenient and (node.format == "date-time" or node.type == "integer"):
                del decoding.problems[known:]
        if key == "ownerReferences" and not decoding.problems:
            kept = _owners(kept)
        # An empty managedFields resets ownership; a missing one does not.
        if kept or kept == 0 or key == "managedFields":
            metadata[key] = kept
    return metadata


def _owners(owners: list[JSONObject]) -> list[JSONObject]:
    """Return the owners without duplicates, with the required fields filled in."""
    kept: dict[frozenset[tuple[str, object]], JSONObject] = {}
    for owner in owners:
        cleaned = {key: owner[key] for key in OWNER_FIELDS if owner.get(key) is not None}
        for key in ("apiVersion", "kind", "name", "uid"):
            cleaned.setdefault(key, "")
        kept.setdefault(frozenset(cleaned.items()), cleaned)
    found = list(kept.values())
    return owners if found == owners else found


def metadata_warnings(found: JSONObject, before: JSONObject, *, custom: bool) -> list[str]:
    """Return the warnings about metadata as a client sent it; finalizers are checked only for custom kinds."""
    warnings = []
    finalizers = found.get("finalizers")
    if custom and isinstance(finalizers, list):
        added = {name for name in finalizers if isinstance(name, str)} - set(before.get("finalizers") or ())
        warnings += [
            f"metadata.finalizers: {quoted(name)}: prefer a domain-qualified finalizer name"
            f"{' including a path (/)' if '.' in name else ''} to avoid accidental conflicts with other finalizer "
            "writers"
            for name in sorted(added)
            if "/" not in name and name not in ("orphan", "foregroundDeletion")
        ]
    owners = found.get("ownerReferences")
    if isinstance(owners, list) and len(owners) > 1:
        uids = Counter(str(owner.get("uid")) for owner in owners if isinstance(owner, dict))
        if twice := sorted(uid for uid, count in uids.items() if count > 1):
            warnings.append(recorded("texts.json")["duplicate owners"] + ", ".join(twice))
    return warnings


_ROOT = re.compile(r"[.\[]")
_VERSIONS = {
    **{info.kind: (f"{info.group}/{versions[0]}",) for info, versions in BUILT_IN if info.group in REVIEWS},
    "Binding": ("v1",),
    "Eviction": ("policy/v1", "policy/v1beta1"),
    "TokenRequest": ("authentication.k8s.io/v1",),
}
"""The versions of each kind besides options; the first one is the default."""


def read_document(call: Call, before: JSONObject | None = None) -> JSONObject:
    """Return the document of a create, or of an update of a stored one; the call keeps the warnings about it.

    The caller owns the document and its metadata; deeper values must not be changed.

    Raises:
        Refusal: 400, 415 or 422, the body is not a document of the kind.
    """
    info = call.endpoint.info
    found = read_object(call.request, info.kind, call.duplicates)
    _check_type(call, found)
    return _decode(call, found, before)


def decode_patched(call: Call, found: Any, before: JSONObject | None) -> JSONObject:
    """Return a patched document, as `read_document` does."""
    info, endpoint = call.endpoint.info, call.endpoint
    if not isinstance(found, dict):
        raise Refusal.bad_request(f"the patch leaves no object of kind {info.kind}")
    version, kind = found.get("apiVersion"), found.get("kind")
    if endpoint.resource.custom and not kind:
        shown = go_json(found)
        problem = f"Invalid value: {go_json(shown)}: Object 'Kind' is missing in '{shown}'"
        raise Refusal.invalid("", "", "", [FieldError("patch", problem)])
    for key, value, wanted in (("apiVersion", version, endpoint.api_version), ("kind", kind, info.kind)):
        if value != wanted:
            if not endpoint.resource.custom:
                raise _wrong_kind(str(version or ""), str(kind or ""), info.group, info.kind)
            group = str(version).rpartition("/")[0] if key == "apiVersion" else info.group
            error = FieldError.invalid(key, str(value), f"must be {wanted}")
            raise Refusal.invalid(str(kind), group, call.name, [error])
    return _decode(call, found, before)


def _check_type(call: Call, found: JSONObject) -> None:
    endpoint, info = call.endpoint, call.endpoint.info
    if not endpoint.resource.custom:
        version, kind = found.get("apiVersion") or endpoint.api_version, found.get("kind") or info.kind
        found["apiVersion"], found["kind"] = version, kind
        if version != endpoint.api_version or kind != info.kind:
            raise _wrong_kind(str(version), str(kind), info.group, info.kind)
        return
    version, kind = found.get("apiVersion"), found.get("kind")
    if not kind:
        text = call.request.body.decode(errors="replace")
        problem = f"Object 'Kind' is missing in '{text}'"
        if call.query.get("fieldValidation") == "Ignore":
            raise Refusal.cannot_be_handled(info.kind, endpoint.version, info.kind, problem)
        shown = text.encode().hex() if text.strip() == "null" else snippet(call.request.body)
        wanted = f"the object provided is unrecognized (must be of type {info.kind})"
        raise Refusal.bad_request(f"{wanted}: {problem} ({shown})")
    if version != endpoint.api_version:
        raise Refusal.bad_request(
            f"the API version in the data ({version or ''}) does not match the expected API version "
            f"({endpoint.api_version})"
        )
    if kind != info.kind:
        metadata = found.get("metadata")
        name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
        error = FieldError.invalid("kind", str(kind), f"must be {info.kind}")
        raise Refusal.invalid(str(kind), info.group, name, [error])


def _wrong_kind(version: str, kind: str, wanted_group: str, wanted: str) -> Refusal:
    """Return the 400 for a document of another built-in kind, or of an unknown one."""
    group, _, number = version.rpartition("/")
    problem = not_registered(kind, version)
    if type_name(group, number, kind) is not None or version in _VERSIONS.get(kind, ()):
        problem = f"converting ({number}.{kind}) to ({_package(wanted_group)}.{wanted}): unknown conversion"
    return Refusal.cannot_be_handled(kind, version, wanted, problem)


def _package(group: str) -> str:
    """Return a group as Go names its package."""
    return group.partition(".")[0] or "core"


def _decode(call: Call, found: JSONObject, before: JSONObject | None) -> JSONObject:
    earlier_metadata: JSONObject | None = before["metadata"] if before is not None else None
    custom = call.endpoint.resource.custom
    if custom and json_documents.has_large_integers(call.request.body):
        found = json_documents.as_interface(found)
    raw = found.get("metadata")
    restored = not custom and media_type(call.request) in (STRATEGIC_PATCH, APPLY_PATCH)
    about_metadata, decoding = Decoding(restored), Decoding(restored)
    document = _decode_fields(call, found, before, about_metadata, decoding)
    problems = list(call.duplicates)
    if custom:
        paths = about_metadata.unknown + sorted(decoding.unknown)
    else:
        unknown = decoding.unknown + about_metadata.unknown
        # The order is that of a typed decoder; the result of a patch is in alphabetical order.
        paths = sorted(unknown) if call.verb == "patch" else sort_by_document(found, unknown)
    problems += [f"unknown field {quoted(path)}" for path in paths]
    if call.duplicates and not custom and call.verb != "patch" and media_type(call.request) in ("", _JSON):
        problems = _in_document_order(call.request.body, problems)
    validation = call.query.get("fieldValidation", "")
    if problems and validation == "Strict":
        if call.duplicates and media_type(call.request) == YAML:
            problems[: len(call.duplicates)] = [yaml_problem(call.duplicates)]
        raise decode_error(call, found, f"strict decoding error: {', '.join(problems)}")
    call.warnings = problems if validation != "Ignore" else []
    if isinstance(raw, dict) and raw is not earlier_metadata:
        whole = custom and not call.subresource
        call.metadata_warnings = metadata_warnings(raw, earlier_metadata or {}, custom=whole)
    return document


def _decode_fields(
    call: Call, found: JSONObject, before: JSONObject | None, about_metadata: Decoding, decoding: Decoding
) -> JSONObject:
    endpoint, media, raw = call.endpoint, media_type(call.request), found.get("metadata")
    custom, info = endpoint.resource.custom, endpoint.info
    if before is not None and isinstance(raw, dict) and raw is before["metadata"]:
        metadata = dict(raw)
    else:
        lenient = custom and media == APPLY_PATCH
        metadata = decode_metadata(raw, about_metadata, kind="" if custom else info.kind, lenient=lenient)
    if media in (MERGE_PATCH, JSON_PATCH):
        found = dict(sorted(found.items()))
    whole, contents = filled(found, endpoint.skeleton), endpoint.contents
    document = whole if contents is None else contents.decode(whole, before, decoding)
    if problems := [*about_metadata.problems, *decoding.problems]:
        order = None if decoding.restored else sorted(found) if call.verb == "patch" else list(found)
        raise decode_error(call, found, first_error(problems, order))
    return {**document, "metadata": metadata}


def sort_by_document(found: JSONObject, paths: list[str]) -> list[str]:
    """Return paths sorted in the order of the fields of a document that they start with."""
    order = {member: index for index, member in enumerate(found)}
    # A field's own name may contain dots and brackets.
    return sorted(paths, key=lambda path: order.get(path, order.get(_ROOT.split(path)[0], len(order))))


def decode_error(call: Call, found: JSONObject, problem: str) -> Refusal:
    """Return the error for a document that cannot be decoded; for a patch it shows the patched document."""
    if call.verb != "patch":
        kind = call.endpoint.info.kind
        return Refusal.cannot_be_handled(kind, call.endpoint.version, kind, problem)
    if media_type(call.request) == APPLY_PATCH:
        group, version = call.endpoint.info.group, call.endpoint.version
        kind = f"{group}/{version}, Kind={call.endpoint.info.kind}"
        place = f"{(read_yaml(call.request.body).get('metadata') or {}).get('namespace', '')}/{call.name}"
        return Refusal.internal_error(
            f"failed to convert new object ({place}; {kind}) to proper version: unable to convert unstructured object "
            f"to {kind}: {problem}"
        )
    if media_type(call.request) == STRATEGIC_PATCH:
        # The library for strategic patches shows the patch itself.
        shown = quoted(go_value(decode_patch(call.request.body)))
    else:
        shown = go_json(go_json(found))
    return Refusal.invalid("", "", "", [FieldError("patch", f"Invalid value: {shown}: {problem}")])


def read_unstored_object(request: HTTPRequest, kind: str) -> JSONObject:
    """Return the document in a request, with its known fields; raise the 400 or 415 for any other body."""
    document, package = read_object(request, kind), "meta"
    if kind in _VERSIONS:
        group = _VERSIONS[kind][0].rpartition("/")[0]
        package = _package(group)
        version, given = str(document.get("apiVersion") or _VERSIONS[kind][0]), str(document.get("kind") or kind)
        if given != kind or version not in _VERSIONS[kind]:
            raise _wrong_kind(version, given, group, kind)
    node, decoding = type_node(f"{package}.v1.{kind}"), Decoding()
    found = BuiltInContents(node).decode(document, None, decoding)
    if "metadata" in node.properties:
        found["metadata"] = decode_metadata(document.get("metadata"), decoding, kind=kind)
    if decoding.problems:
        problem = first_error(decoding.problems, list(document))
        if kind == "DeleteOptions":
            raise Refusal.bad_request(problem)
        raise Refusal.cannot_be_handled(kind, str(document.get("apiVersion") or "v1"), kind, problem)
    return found
