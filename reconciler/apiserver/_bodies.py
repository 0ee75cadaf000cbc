"""Read request bodies and headers: media types, documents, parameters."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.apiserver._routing import Call
from reconciler.apiserver._status import FieldError, bad_request, invalid, unsupported_media_type
from reconciler.http import HTTPRequest

__all__ = [
    "APPLY_PATCH",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_PATCH",
    "decode",
    "is_dry_run",
    "media_type",
    "read_body",
]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_READ = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PROTOBUF_HINT = (
    "the embedded API server reads no protobuf: set the client's content type to application/json, for client-go "
    'rest.Config.ContentType = "application/json"'
)

_decode = msgspec.json.Decoder().decode


def media_type(request: HTTPRequest) -> str:
    """Return the body's media type without parameters, in lower case; empty when none is named."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def read_body(request: HTTPRequest) -> dict[str, Any]:
    """Return the object that a create or update carries.

    Raises:
        Refusal: 415 for a media type that is not read, 400 for what is no JSON object.
    """
    kind = media_type(request)
    if kind in ("", "application/json"):
        return _object(decode(request.body))
    if kind == "application/yaml":
        return _object(_decode_yaml(request.body))
    hint = _PROTOBUF_HINT if kind == "application/vnd.kubernetes.protobuf" else ""
    raise unsupported_media_type(_READ[:2] if hint else _READ, hint)


def decode(body: bytes) -> Any:
    """Return the JSON of a body.

    Raises:
        Refusal: 400 when it is no JSON.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"error decoding the body: {error}") from None


def _decode_yaml(body: bytes) -> Any:
    import yaml

    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object): couldn't get version/kind")
    return found


def is_dry_run(call: Call, options: dict[str, Any] | None = None) -> bool:
    """Tell whether a request asks for a dry run.

    Raises:
        Refusal: 422 for anything but ``All``.
    """
    asked = call.query.get("dryRun") or "".join((options or {}).get("dryRun") or ())
    if not asked:
        return False
    if asked != "All":
        raise invalid(
            "CreateOptions" if call.verb == "create" else "UpdateOptions",
            "meta.k8s.io",
            "",
            [FieldError("dryRun", f'Unsupported value: "{asked}": supported values: "All"', "FieldValueNotSupported")],
        )
    return True
