"""The scenario for all foreign controllers: a database is created, changed and deleted.

The controller under test keeps one ConfigMap for each Database, writes the status, and cleans up before it removes its
finalizer. `follow` acts as the user and checks that the controller follows.
"""

from __future__ import annotations

from typing import Any

from reconciler import Client
from reconciler.apiserver import APIServer

GROUP, VERSION, PLURAL, KIND = "example.com", "v1", "databases", "Database"
DATABASES = f"{GROUP}/{VERSION}/{KIND}"
FINALIZER = "example.com/cleanup"
PATIENCE = 30.0

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": KIND, "plural": PLURAL, "singular": "database", "shortNames": ["db"]},
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "Database is a database somewhere.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "description": "How many replicas run."}
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "phase": {"type": "string"},
                                    "size": {"type": "integer"},
                                    "conditions": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def database(name: str = "db1", size: int = 3) -> dict[str, Any]:
    """Return a Database."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"size": size},
    }


def child_of(owner: dict[str, Any]) -> dict[str, Any]:
    """Return the ConfigMap that a Database should have."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{metadata['name']}-settings",
            "namespace": metadata["namespace"],
            "ownerReferences": [reference],
        },
        "data": {"size": str(owner["spec"]["size"])},
    }


def status_of(owner: dict[str, Any]) -> dict[str, Any]:
    """Return the status that a Database should have."""
    return {"phase": "Ready", "size": owner["spec"]["size"]}


async def follow(server: APIServer, agent: str, *, finalizer: str = FINALIZER) -> None:
    """Create, change and delete a database; assert each time that the controller reacts.

    Args:
        server: the server that the controller works on.
        agent: a part of the controller's User-Agent.
        finalizer: the finalizer that the controller puts on its objects.
    """
    async with Client(server, user_agent="the-user") as user:
        await user.create(database(size=3))
        await _is_kept(user, 3, finalizer)
        await user.patch(DATABASES, "db1", "default", patch={"spec": {"size": 5}})
        await _is_kept(user, 5, finalizer)
        await user.delete(DATABASES, "db1", "default")
        await user.wait_gone(DATABASES, "db1", "default", timeout=PATIENCE)
        await user.wait_gone("v1/ConfigMap", "db1-settings", "default", timeout=PATIENCE)
    theirs = [entry for entry in server.requests(kind=KIND) if agent in entry.user_agent]
    assert any(entry.verb == "watch" for entry in theirs)
    assert any("/metadata/finalizers" in entry.changed for entry in theirs if entry.effective)
    assert not [entry.summary() for entry in theirs if entry.status >= 500]


async def _is_kept(user: Client, size: int, finalizer: str) -> None:
    def ready(obj: Any) -> bool:
        status = obj.to_dict().get("status") or {}
        return (status.get("phase"), status.get("size")) == ("Ready", size)

    found = (await user.wait_for(DATABASES, "db1", "default", until=ready, timeout=PATIENCE)).to_dict()
    assert finalizer in found["metadata"]["finalizers"]
    child = await user.wait_for(
        "v1/ConfigMap",
        "db1-settings",
        "default",
        until=lambda obj: obj.to_dict()["data"] == {"size": str(size)},
        timeout=PATIENCE,
    )
    assert child.to_dict()["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
