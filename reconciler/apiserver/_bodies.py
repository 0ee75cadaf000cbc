"""Read request bodies and headers: media types, documents, parameters."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from reconciler.apiserver._routing import Call
from reconciler.apiserver._status import (
    FieldError,
    Refusal,
    bad_request,
    option_invalid,
    unsupported_media_type,
)
from reconciler.apiserver._text import parse_problem, snippet
from reconciler.http import HTTPRequest

__all__ = [
    "APPLY_PATCH",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_PATCH",
    "YAML",
    "check_options",
    "check_size",
    "decode",
    "duplicate_fields",
    "media_type",
    "read_object",
    "read_yaml",
]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

YAML = "application/yaml"
_JSON, _PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
_PROTOBUF_HINT = (
    "the embedded API server reads no protobuf: set the client's content type to application/json, for client-go "
    'rest.Config.ContentType = "application/json"; with kubectl, apply a file instead of `kubectl create KIND`'
)
_MOST_BYTES = 3 * 1024 * 1024
_INT64 = 2**63


def _go_number(text: str) -> int | float:
    """Read a number with a point or exponent; Go writes 1.0 as 1, so that is what gets stored."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < _INT64 else value


_decoder = msgspec.json.Decoder(float_hook=_go_number)


def media_type(request: HTTPRequest) -> str:
    """Return the body's media type without parameters, in lower case; empty when none is named."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def check_size(request: HTTPRequest) -> None:
    """Refuse a body that no API server reads.

    Raises:
        Refusal: 413.
    """
    if len(request.body) > _MOST_BYTES:
        raise Refusal(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_MOST_BYTES}")


def read_object(request: HTTPRequest, kind: str) -> dict[str, Any]:
    """Return the object that a create, update or delete carries.

    Args:
        request: the request.
        kind: the kind that is expected, for messages.

    Raises:
        Refusal: 415 for a media type that is not read, 400 for what is no object.
    """
    media = media_type(request)
    if media in ("", _JSON):
        try:
            found = _decoder.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            problem = f"json parse error: {parse_problem(request.body)} ({snippet(request.body)})"
            raise _unrecognized(kind, problem) from None
    elif media == YAML:
        found = read_yaml(request.body)
    elif media == _PROTOBUF:
        raise unsupported_media_type((_JSON, YAML), _PROTOBUF_HINT)
    else:
        raise unsupported_media_type((_JSON, YAML, _PROTOBUF))
    if found is None:
        return {}
    if not isinstance(found, dict):
        what = {list: "array", str: "string", bool: "bool"}.get(type(found), "number")
        fields = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
        problem = f"json parse error: json: cannot unmarshal {what} into Go value of type {fields}"
        raise _unrecognized(kind, f"{problem} ({request.body.hex()})")
    return found


def _unrecognized(kind: str, problem: str) -> Refusal:
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; {problem}"
    )


def decode(body: bytes) -> Any:
    """Return the JSON of a patch.

    Raises:
        Refusal: 400 when it is no JSON.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request(f"error decoding patch: {parse_problem(body)}") from None


def read_yaml(body: bytes) -> Any:
    """Return the content of a YAML document.

    Raises:
        Refusal: 400 when it is no YAML.
    """
    import yaml

    try:
        found = yaml.load(body, Loader=_loader())  # noqa: S506 - a SafeLoader without dates
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None
    return _decoder.decode(msgspec.json.encode(found))


@functools.cache
def _loader() -> type[Any]:
    """Return a loader that leaves dates as strings, as Kubernetes does."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's attribute
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def duplicate_fields(body: bytes, found: Any) -> list[str]:
    """Return the dotted paths of object members that a JSON body names more than once.

    A body that is as long as what was read from it has none; only others are read a second time.
    """
    stripped = body.strip()
    if len(msgspec.json.encode(found)) == len(stripped) or not stripped.startswith(b"{"):
        return []

    return list(_duplicates(json.loads(stripped, object_pairs_hook=_Members), ""))


class _Members(list[tuple[str, Any]]):
    pass


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for key, member in value:
            here = f"{path}.{key}" if path else key
            if key in seen:
                yield here
            seen.add(key)
            yield from _duplicates(member, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, f"{path}[{index}]")


_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def check_options(call: Call, options: dict[str, Any] | None = None) -> bool:
    """Check the parameters that all writes share; tell whether the request asks for a dry run.

    Raises:
        Refusal: 422 for a value that is not known.
    """
    query = call.query
    kind = _OPTIONS.get(call.verb, "DeleteOptions")
    errors = []
    dry_run = [query["dryRun"]] if query.get("dryRun") else list((options or {}).get("dryRun") or ())
    if dry_run and dry_run != ["All"]:
        shown = json.dumps(dry_run, separators=(",", ":"))
        message = f'Unsupported value: {shown}: supported values: "All"'
        errors.append(FieldError("dryRun", message, "FieldValueNotSupported"))
    validation = query.get("fieldValidation", "")
    if validation not in ("", "Ignore", "Strict", "Warn"):
        message = f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"'
        errors.append(FieldError("fieldValidation", message, "FieldValueNotSupported"))
    if len(query.get("fieldManager", "")) > 128:
        errors.append(FieldError("fieldManager", "Too long: may not be more than 128 bytes", "FieldValueTooLong"))
    errors += _unprintable(query.get("fieldManager", ""))
    if call.verb == "patch":
        errors += _patch_problems(call)
    if errors:
        raise option_invalid(kind, *errors)
    return bool(dry_run)


def _unprintable(manager: str) -> list[FieldError]:
    return [
        FieldError(
            "fieldManager",
            f"Invalid value: {json.dumps(manager)}: invalid character U+{ord(letter):04X} (at position {index})",
        )
        for index, letter in enumerate(manager)
        if not letter.isprintable()
    ][:1]


def _patch_problems(call: Call) -> list[FieldError]:
    apply = media_type(call.request) == APPLY_PATCH
    if apply and not call.query.get("fieldManager"):
        return [FieldError("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")]
    if not apply and call.query.get("force"):
        return [FieldError("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden")]
    return []
