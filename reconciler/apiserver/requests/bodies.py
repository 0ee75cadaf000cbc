"""Request bodies and parameters: media types, documents, options of writes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject, JSONValue
from reconciler.apiserver.encoding.json_documents import InvalidJSON, InvalidYAML, OutOfRange, decode_yaml, read_json
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.encoding.text import go_type, quoted, snippet
from reconciler.apiserver.requests.protobuf import Unreadable, read_protobuf
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

YAML = "application/yaml"
JSON, _PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
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
    if media in ("", JSON):
        try:
            found = read_json(request.body)
        except OutOfRange as error:
            version = error.document.get("apiVersion") if isinstance(error.document, dict) else ""
            raise Refusal.cannot_be_handled(kind, str(version or "v1"), kind, str(error)) from None
        except InvalidJSON as error:
            raise _unrecognized(kind, f"json parse error: {error} ({snippet(request.body)})") from None
    elif media == YAML:
        found = read_yaml(request.body, duplicates)
    elif media == _PROTOBUF:
        try:
            found = read_protobuf(request.body)
        except Unreadable as error:
            # A custom kind, for example, has no such form.
            raise Refusal.unsupported_media_type((JSON, YAML), f"{error}: send {kind} as application/json") from None
    else:
        raise Refusal.unsupported_media_type((JSON, YAML, _PROTOBUF))
    if found is None:
        return {}
    if duplicates is not None and media in ("", JSON):
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
        return read_json(body)
    except InvalidJSON as error:
        raise Refusal.bad_request(f"error decoding patch: {error}") from None


def read_yaml(body: bytes, duplicates: list[str] | None = None) -> Any:
    """Return the content of a YAML document; one that is valid JSON is read as JSON, which is faster.

    Messages about keys that a map contains twice are added to `duplicates`.

    Raises:
        Refusal: 400, the body is not valid YAML.
    """
    if body[:1] == b"{" and _SURROGATE.search(body) is None:
        with contextlib.suppress(InvalidJSON):
            found = read_json(body, lenient=False)
            if duplicates is None or not duplicate_fields(body, found):
                return found
    try:
        found, twice = decode_yaml(body)
    except InvalidYAML as error:
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


def in_document_order(body: bytes, problems: list[str]) -> list[str]:
    """Return messages about unknown and duplicate fields of a JSON body in the order in which a decoder meets them."""
    order = {message: index for index, message in enumerate(_field_messages(body))}
    return sorted(problems, key=lambda message: order.get(message, len(order)))


class _Members(list[tuple[str, Any]]):
    pass


def _field_messages(body: bytes) -> Iterator[str]:
    """Yield what is to be said of each field of a JSON body if it is unknown, or of its second value."""
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


def check_write_options(call: Call, options: JSONObject | None = None) -> bool:
    """Check the parameters that all writes share; return whether the request asks for a dry run.

    Raises:
        Refusal: 422, a parameter has an unsupported value.
    """
    query = call.query
    kind = _OPTIONS.get(call.verb, "DeleteOptions")
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
        errors += _patch_problems(call)
    if errors:
        raise Refusal.option_invalid(kind, *errors)
    return bool(dry_run)


def _patch_problems(call: Call) -> list[FieldError]:
    apply = media_type(call.request) == APPLY_PATCH
    if apply and not call.query.get("fieldManager"):
        return [FieldError.required("fieldManager", "is required for apply patch")]
    if not apply and call.query.get("force"):
        return [FieldError.forbidden("force", "may not be specified for non-apply patch")]
    return []
