"""Decoding of documents: type checks, pruning, defaults, and the warnings and errors about unknown fields."""

from __future__ import annotations

import re
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.decoding import BuiltInContents, Decoding, first_error
from reconciler.apiserver.builtin.kinds import BUILT_IN, REVIEWS, built_in_node, filled, type_name, type_node
from reconciler.apiserver.encoding.refusals import FieldError, Refusal, not_registered
from reconciler.apiserver.encoding.text import go_json, go_value, quoted, snippet
from reconciler.apiserver.requests import bodies
from reconciler.apiserver.requests.metadata import decode_metadata, metadata_warnings
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

_ROOT = re.compile(r"[.\[]")
_VERSIONS = {
    **{info.kind: (f"{info.group}/{versions[0]}",) for info, versions in BUILT_IN if info.group in REVIEWS},
    "Binding": ("v1",),
    "Eviction": ("policy/v1", "policy/v1beta1"),
    "TokenRequest": ("authentication.k8s.io/v1",),
}
"""The versions of each kind besides options; the first one is the default."""


def read_document(call: Call, before: JSONObject | None = None) -> tuple[JSONObject, list[str]]:
    """Return the document of a create, or of an update of a stored one, and the warnings about it.

    The caller owns the document and its metadata; deeper values must not be changed.

    Raises:
        Refusal: 400, 415 or 422, the body is not a document of the kind.
    """
    info = call.endpoint.info
    found = bodies.read_object(call.request, info.kind, call.duplicates)
    _check_type(call, found)
    return _decode(call, found, before)


def decode_patched(call: Call, found: Any, before: JSONObject | None) -> tuple[JSONObject, list[str]]:
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
                raise _wrong_kind(call, str(version or ""), str(kind or ""))
            group = str(version).rpartition("/")[0] if key == "apiVersion" else info.group
            error = FieldError.invalid(key, str(value), f"must be {wanted}")
            raise Refusal.invalid(str(kind), group, call.name, [error])
    return _decode(call, found, before)


def _check_type(call: Call, found: JSONObject) -> None:
    endpoint, info = call.endpoint, call.endpoint.info
    version, kind = found.get("apiVersion"), found.get("kind")
    if endpoint.resource.custom:
        if not kind:
            text = call.request.body.decode(errors="replace")
            if call.query.get("fieldValidation") == "Ignore":
                problem = f"Object 'Kind' is missing in '{text}'"
                raise Refusal.cannot_be_handled(info.kind, endpoint.version, info.kind, problem)
            shown = text.encode().hex() if text.strip() == "null" else snippet(call.request.body)
            problem = f"Object 'Kind' is missing in '{text}' ({shown})"
            raise Refusal.bad_request(f"the object provided is unrecognized (must be of type {info.kind}): {problem}")
    elif not (version and kind):
        found["apiVersion"], found["kind"] = version or endpoint.api_version, kind or info.kind
        version, kind = found["apiVersion"], found["kind"]
    if not endpoint.resource.custom:
        if version != endpoint.api_version or kind != info.kind:
            raise _wrong_kind(call, str(version), str(kind))
        return
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


def _wrong_kind(call: Call, version: str, kind: str) -> Refusal:
    """Return the 400 for a document of another built-in kind, or of an unknown one."""
    info, (group, _, number) = call.endpoint.info, version.rpartition("/")
    known = built_in_node(group, number, kind)
    if known is None:
        problem = not_registered(kind, version)
    else:
        internal = info.group.partition(".")[0] or "core"
        problem = f"converting ({number}.{kind}) to ({internal}.{info.kind}): unknown conversion"
    return Refusal.cannot_be_handled(kind, version, info.kind, problem)


def _decode(call: Call, found: JSONObject, before: JSONObject | None) -> tuple[JSONObject, list[str]]:
    earlier_metadata: JSONObject | None = before["metadata"] if before is not None else None
    raw, custom = found.get("metadata"), call.endpoint.resource.custom
    restored = not custom and bodies.media_type(call.request) in (bodies.STRATEGIC_PATCH, bodies.APPLY_PATCH)
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
    if call.duplicates and not custom and call.verb != "patch" and bodies.media_type(call.request) in ("", bodies.JSON):
        problems = bodies.in_document_order(call.request.body, problems)
    validation = call.query.get("fieldValidation", "")
    if problems and validation == "Strict":
        if call.duplicates and bodies.media_type(call.request) == bodies.YAML:
            problems[: len(call.duplicates)] = [bodies.yaml_problem(call.duplicates)]
        raise decode_error(call, found, f"strict decoding error: {', '.join(problems)}")
    warnings = problems if validation != "Ignore" else []
    call.warnings = warnings
    if isinstance(raw, dict) and raw is not earlier_metadata:
        whole = custom and not call.subresource
        warnings = warnings + metadata_warnings(raw, earlier_metadata or {}, custom=whole)
    return document, warnings


def _decode_fields(
    call: Call, found: JSONObject, before: JSONObject | None, about_metadata: Decoding, decoding: Decoding
) -> JSONObject:
    endpoint, media, raw = call.endpoint, bodies.media_type(call.request), found.get("metadata")
    custom, info = endpoint.resource.custom, endpoint.info
    if before is not None and isinstance(raw, dict) and raw is before["metadata"]:
        metadata = dict(raw)
    else:
        lenient = custom and media == bodies.APPLY_PATCH
        metadata = decode_metadata(raw, about_metadata, kind="" if custom else info.kind, lenient=lenient)
    if media in (bodies.MERGE_PATCH, bodies.JSON_PATCH):
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
    if bodies.media_type(call.request) == bodies.APPLY_PATCH:
        group, version = call.endpoint.info.group, call.endpoint.version
        kind = f"{group}/{version}, Kind={call.endpoint.info.kind}"
        place = f"{(bodies.read_yaml(call.request.body).get('metadata') or {}).get('namespace', '')}/{call.name}"
        return Refusal.internal_error(
            f"failed to convert new object ({place}; {kind}) to proper version: unable to convert unstructured object "
            f"to {kind}: {problem}"
        )
    if bodies.media_type(call.request) == bodies.STRATEGIC_PATCH:
        # The library for strategic patches shows the patch itself.
        shown = quoted(go_value(bodies.decode_patch(call.request.body)))
    else:
        shown = go_json(go_json(found))
    return Refusal.invalid("", "", "", [FieldError("patch", f"Invalid value: {shown}: {problem}")])


def read_unstored_object(request: HTTPRequest, kind: str) -> JSONObject:
    """Return the document in a request, with its known fields; raise the 400 or 415 for any other body."""
    document, package = bodies.read_object(request, kind), "meta"
    if kind in _VERSIONS:
        package = _VERSIONS[kind][0].rpartition("/")[0].partition(".")[0] or "core"  # the group as Go names it
        _check_kind(document, kind, package)
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


def _check_kind(document: JSONObject, kind: str, package: str) -> None:
    known = _VERSIONS[kind]
    version, given = str(document.get("apiVersion") or known[0]), str(document.get("kind") or kind)
    if given == kind and version in known:
        return
    group, _, number = version.rpartition("/")
    problem = not_registered(given, version)
    if type_name(group, number, given) is not None or version in _VERSIONS.get(given, ()):
        problem = f"converting ({number}.{given}) to ({package}.{kind}): unknown conversion"
    raise Refusal.cannot_be_handled(given, version, kind, problem)
