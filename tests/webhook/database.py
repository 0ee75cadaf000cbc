"""A kind with webhooks for these tests."""

from __future__ import annotations

from pathlib import Path

import trustme
from pydantic import Field

from reconciler import Model, ObjectMeta, Resource
from reconciler.webhook import AdmissionRequest, Defaulter, Denied, Validator, Warnings


class DatabaseSpec(Model):
    size: int = Field(default=1, ge=0)
    engine: str | None = None


class Database(Resource[DatabaseSpec], group="webhook.example.com", version="v1"):
    """A database."""


class Rules(Validator[Database]):
    operations = ("CREATE", "UPDATE", "DELETE")

    async def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
        if obj.spec.size > 50 and "admins" not in request.groups:
            raise Denied("more than 50 GB needs an administrator", causes=[("spec.size", "must be at most 50")])
        return [f"{obj.spec.size} GB is little"] if obj.spec.size < 3 else None

    def validate_update(self, old: Database, new: Database, request: AdmissionRequest, /) -> Warnings:
        if new.spec.size < old.spec.size:
            raise Denied("a database never shrinks")
        if new.spec.size == 13:
            raise RuntimeError("a fault of ours, with a secret inside")
        return None

    def validate_delete(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
        if obj.metadata.annotations.get("keep"):
            raise Denied("it must be kept", code=409, reason="Conflict")
        return None


class Defaults(Defaulter[Database]):
    async def default(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
        if obj.spec.engine is None:
            obj.spec.engine = "postgres"
            obj.metadata.labels["webhook.example.com/engine"] = "defaulted"
        return None


def database(name: str, size: int, **metadata: object) -> Database:
    meta = ObjectMeta(name=name, namespace="default", **metadata)  # type: ignore[arg-type]
    return Database(metadata=meta, spec=DatabaseSpec(size=size))


def write_certificate(directory: Path, ca: trustme.CA, *names: str) -> None:
    certificate = ca.issue_cert(*(names or ("127.0.0.1", "localhost")))
    directory.mkdir(parents=True, exist_ok=True)
    certificate.private_key_pem.write_to_path(directory / "tls.key")
    (directory / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
