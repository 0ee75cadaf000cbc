"""The audit log of kube-apiserver: its policy and its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from reconciler.meta import UNDECODABLE, json_members, parse_time
from reconciler.wire import JSONObject

__all__ = ["PROBE", "AuditLevel", "AuditRecord", "audit_policy", "read_audit_log"]

PROBE = "control-plane-probe"
"""The user of the readiness probe; its requests are not recorded."""

AuditLevel = Literal["Metadata", "Request", "RequestResponse"]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One request in the audit log.

    Attributes:
        verb: ``"get"``, ``"list"``, ``"watch"``, ``"create"``, ``"update"``, ``"patch"``, ``"delete"``,
            ``"deletecollection"``.
        resource: the plural; ``""`` for a path that is not a resource.
        subresource: such as ``"status"``; ``""`` for the resource itself.
        name: the object's name; ``""`` for collections, and for creations at level Metadata.
        namespace: its namespace; ``""`` for none.
        code: the HTTP status of the response.
        user: the user who sent the request.
        user_agent: the program that sent it.
        uri: path and query.
        received: when it was received, UTC.
        stage: ``"ResponseComplete"``, or ``"ResponseStarted"`` for a running watch.
        request_object: the body, at level Request and above; otherwise None, also if it cannot be decoded.
        response_object: the response's body, at level RequestResponse; otherwise None.
    """

    verb: str
    resource: str
    subresource: str
    name: str
    namespace: str
    code: int
    user: str
    user_agent: str
    uri: str
    received: datetime
    stage: str
    request_object: JSONObject | None = None
    response_object: JSONObject | None = None


def audit_policy(level: AuditLevel) -> JSONObject:
    """Return the policy: `level` for all requests, no contents of secrets, and none of the server's own requests."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": ["system:apiserver", PROBE]},
            {
                "level": "Metadata",
                "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}],
            },
            {"level": level},
        ],
    }


def read_audit_log(path: Path) -> Iterator[AuditRecord]:
    """Yield the records of a log in the order of their responses, without an incomplete last line."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield _record(_entry(line))


def _entry(line: bytes) -> JSONObject:
    """Return an entry; without the bodies if they are nested too deeply to be decoded."""
    try:
        return msgspec.json.decode(line, type=JSONObject)
    except UNDECODABLE:
        members = json_members(line)
        kept = members.keys() - {"requestObject", "responseObject"}
        return {name: msgspec.json.decode(members[name]) for name in kept}


def _record(entry: JSONObject) -> AuditRecord:
    reference = entry.get("objectRef") or {}
    return AuditRecord(
        verb=entry["verb"],
        resource=reference.get("resource", ""),
        subresource=reference.get("subresource", ""),
        name=reference.get("name", ""),
        namespace=reference.get("namespace", ""),
        code=(entry.get("responseStatus") or {}).get("code", 0),
        user=(entry.get("user") or {}).get("username", ""),
        user_agent=entry.get("userAgent", ""),
        uri=entry["requestURI"],
        received=parse_time(entry["requestReceivedTimestamp"]),
        stage=entry["stage"],
        request_object=entry.get("requestObject"),
        response_object=entry.get("responseObject"),
    )
