"""Validation of API services and controller revisions."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted
from reconciler.wire import JSONObject

__all__ = ["check_api_service", "check_revision", "complete_api_service"]

Findings = Iterator[FieldError]


def complete_api_service(doc: JSONObject, before: JSONObject | None) -> None:
    """Set the default port of a service; the API server's own groups are available at once."""
    spec = doc.get("spec") or {}
    if spec.get("service"):
        doc["spec"] = {**spec, "service": {"port": 443, **spec["service"]}}
    elif before is None:
        message = "Local APIServices are always available"
        available = {"type": "Available", "status": "True", "reason": "Local", "message": message}
        doc["status"] = {"conditions": [{"lastTransitionTime": doc["metadata"]["creationTimestamp"], **available}]}


def check_api_service(doc: JSONObject, _before: JSONObject | None) -> Findings:
    """Yield the errors of an APIService."""
    spec, name = doc.get("spec") or {}, doc["metadata"].get("name")
    wanted = f"{spec.get('version') or ''}.{spec.get('group') or ''}"
    if name != wanted:
        words = f'must be `spec.version+"."+spec.group`: {quoted(wanted)}'
        yield FieldError.invalid("metadata.name", name, words)
    for member, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        number = spec.get(member) or 0
        if not 0 < number <= most:
            yield FieldError.invalid(f"spec.{member}", number, f"must be positive and less than {most}")
    service, bundle, insecure = spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    if service is None:
        if bundle:
            shown = f"{len(base64.b64decode(bundle))} bytes"
            yield FieldError.invalid("spec.caBundle", shown, "local APIServices may not have a caBundle")
        if insecure:
            words = "local APIServices may not have insecureSkipTLSVerify"
            yield FieldError.invalid("spec.insecureSkipTLSVerify", insecure, words)
        return
    for member in ("namespace", "name"):
        if not service.get(member):
            yield FieldError.required(f"spec.service.{member}")
    if not 1 <= service.get("port", 0) <= 65535:
        words = "port is not valid: must be between 1 and 65535, inclusive"
        yield FieldError.invalid("spec.service.port", service.get("port"), words)
    if insecure and bundle:
        yield FieldError.invalid("spec.insecureSkipTLSVerify", insecure, "may not be true if caBundle is present")


def check_revision(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of a ControllerRevision; its data does not change."""
    revision, data = doc.get("revision") or 0, doc.get("data")
    if revision < 0:
        yield FieldError.invalid("revision", revision, "must be greater than or equal to 0")
    if before is not None:
        if data != before.get("data"):
            yield FieldError.invalid("data", data, "field is immutable")
    elif data is None:
        yield FieldError.required("data", "data is mandatory")
    elif not isinstance(data, dict):
        yield FieldError.required("data", "data must be a valid JSON object")
