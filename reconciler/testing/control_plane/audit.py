"""Read what kube-apiserver says it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from reconciler.meta import UNDECODABLE, json_members, parse_time

__all__ = ["PROBE", "AuditLevel", "AuditRecord", "audit_policy", "read_audit_log"]

PROBE = "control-plane-probe"
"""The user who asks whether the server is ready; none of the requests that a test counts."""

AuditLevel = Literal["Metadata", "Request", "RequestResponse"]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Hold one request, as the audit log has it.

    Attributes:
        verb: ``"get"``, ``"list"``, ``"watch"``, ``"create"``, ``"update"``, ``"patch"``, ``"delete"``,
            ``"deletecollection"``.
        resource: the plural; ``""`` for a path that is no resource.
        subresource: such as ``"status"``; ``""`` for the resource itself.
        name: the object's name; ``""`` for collections, and for creations at level Metadata.
        namespace: its namespace; ``""`` for none.
        code: the HTTP status of the answer.
        user: who asked.
        user_agent: with which program.
        uri: path and query.
        received: when, UTC.
        stage: ``"ResponseComplete"``, or ``"ResponseStarted"`` for a watch that goes on.
        request_object: the body, at level Request and above; None else, and where it cannot be decoded.
        response_object: the answer's body, at level RequestResponse; None else.
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
    request_object: dict[str, Any] | None = None
    response_object: dict[str, Any] | None = None


def audit_policy(level: AuditLevel) -> dict[str, Any]:
    """Return the policy: all at `level`, but secrets without contents, and none of the server's own requests."""
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
    """Return the records of a log in the order in which they were answered, without a line that is being written."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield _record(_entry(line))


def _entry(line: bytes) -> dict[str, Any]:
    """Return an entry; without the bodies if they are nested too deep to be decoded."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except UNDECODABLE:
        members = json_members(line)
        kept = members.keys() - {"requestObject", "responseObject"}
        return {name: msgspec.json.decode(members[name]) for name in kept}


def _record(entry: dict[str, Any]) -> AuditRecord:
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
