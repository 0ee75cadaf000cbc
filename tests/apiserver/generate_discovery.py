"""A generator of what a real API server publishes about its built-in kinds.

Run it with the server's URL and a bearer token, on a server without custom kinds, to update the built-in kinds to a
newer Kubernetes::

    python tests/apiserver/generate_discovery.py https://127.0.0.1:6443 TOKEN

It writes to ``reconciler/apiserver/``:

* ``builtin/discovery.json``: the groups with their versions and resources, as in aggregated discovery,
* ``builtin/tables/columns.json``: the columns of the tables of each kind, as in ``columnDefinitions``,
* ``serving/openapi.json.xz``: the OpenAPI documents by path, ``v2``, ``v3`` (the index) and ``v3/...``, and as
  ``template`` one of two custom kinds, one of them cluster-scoped.
"""

from __future__ import annotations

import json
import lzma
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver"
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Server:
    """A server to ask.

    Args:
        url: its URL.
        token: a bearer token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._context = ssl._create_unverified_context()

    def read(self, path: str, accept: str = "application/json") -> bytes:
        """Return what is at a path; nothing if it is not served."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        request = urllib.request.Request(f"{self._url}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=self._context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return b""
            raise

    def send(self, method: str, path: str, body: Any) -> None:
        """Write an object."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}{path}", json.dumps(body).encode(), headers, method=method)
        urllib.request.urlopen(request, context=self._context).close()

    def get(self, path: str, accept: str = "application/json") -> Any:
        """Return the JSON at a path."""
        return json.loads(self.read(path, accept))


def groups(server: Server) -> list[dict[str, Any]]:
    """Return the groups, the core group first, with the hash of each resource's storage version."""
    found = [*server.get("/api", _AGGREGATED)["items"], *server.get("/apis", _AGGREGATED)["items"]]
    for group in found:
        for version in group["versions"]:
            listed = server.get(f"{_base(group, version)}")["resources"]
            hashes = {each["name"]: each["storageVersionHash"] for each in listed if "storageVersionHash" in each}
            for resource in version["resources"]:
                if resource["resource"] in hashes:
                    resource["storageVersionHash"] = hashes[resource["resource"]]
    return found


def _base(group: dict[str, Any], version: dict[str, Any]) -> str:
    name = group["metadata"].get("name")
    return f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"


def columns(server: Server, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the columns by ``group/plural``; those without a table of their own have none."""
    tables = {}
    for group in found:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            for resource in version["resources"]:
                if "list" in resource["verbs"]:
                    table = server.get(f"{_base(group, version)}/{resource['resource']}", _TABLE)
                    tables[f"{name}/{resource['resource']}"] = table["columnDefinitions"]
    scale = "/api/v1/namespaces/default/replicationcontrollers/generator"
    server.send("POST", scale.rpartition("/")[0], _CONTROLLER)
    tables["autoscaling/scale"] = server.get(f"{scale}/scale", _TABLE)["columnDefinitions"]
    server.send("DELETE", scale, {})
    return tables


_CONTROLLER = {
    "metadata": {"name": "generator"},
    "spec": {
        "replicas": 0,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
    },
}


def documents(server: Server) -> bytes:
    """Return the OpenAPI documents by path, byte for byte."""
    paths = ["v2", "v3", *(f"v3/{path}" for path in server.get("/openapi/v3")["paths"])]
    members = [(path, server.read(f"/openapi/{path}")) for path in paths]
    for definition in _TEMPLATES:
        server.send("POST", _DEFINITIONS, definition)
    while (found := server.read(_TEMPLATE)).count(b"Zz") < 100:  # the server publishes them after a moment
        time.sleep(0.5)
    for definition in _TEMPLATES:
        server.send("DELETE", f"{_DEFINITIONS}/{definition['metadata']['name']}", {})
    members.append(("template", found))
    return b"{" + b",".join(f'"{path}":'.encode() + body.strip() for path, body in members) + b"}"


_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_TEMPLATE = "/openapi/v3/apis/template.example/vtemplate"


def _definition(scope: str) -> dict[str, Any]:
    kind = f"Zz{scope.lower()}"
    plural = f"{kind.lower()}s"
    version = {
        "name": "vtemplate",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.x", "statusReplicasPath": ".status.x"}},
    }
    names = {"kind": kind, "plural": plural}
    return {
        "metadata": {"name": f"{plural}.template.example"},
        "spec": {"group": "template.example", "scope": scope, "names": names, "versions": [version]},
    }


_TEMPLATES = [_definition(scope) for scope in ("Namespaced", "Cluster")]


def main(url: str, token: str) -> None:
    """Write the files."""
    server = Server(url, token)
    found = groups(server)
    (TARGET / "builtin" / "discovery.json").write_text(
        _lines(json.dumps(each, separators=(",", ":")) for each in found)
    )
    tables = columns(server, found)
    shown = (f"{json.dumps(name)}: {json.dumps(tables[name], separators=(',', ':'))}" for name in sorted(tables))
    (TARGET / "builtin" / "tables" / "columns.json").write_text("{\n " + ",\n ".join(shown) + "\n}\n")
    packed = lzma.compress(documents(server), preset=9 | lzma.PRESET_EXTREME)
    (TARGET / "definitions" / "openapi.json.xz").write_bytes(packed)


def _lines(items: Any) -> str:
    return "[\n " + ",\n ".join(items) + "\n]\n"


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2])
