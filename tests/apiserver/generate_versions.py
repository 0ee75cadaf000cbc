"""A generator of reconciler/apiserver/versions: what differs between the newest recorded Kubernetes and older ones.

Run it with the directory of the Go modules and the patch releases, the newest one first::

    go mod download k8s.io/kubernetes@v1.36.3 k8s.io/kubernetes@v1.35.4 k8s.io/kubernetes@v1.34.4 …
    python -m tests.apiserver.generate_versions ~/go/pkg/mod/k8s.io v1.36.3 v1.35.4 v1.34.4 v1.33.13

The module k8s.io/kubernetes has what a server publishes with all its APIs and feature gates on: discovery, OpenAPI
documents, roles. Those of the newest release must match what was recorded from a server with its defaults, or the
generator fails. A change between two releases is then written as a JSON merge patch of the recorded file. The files of
discovery are kept beside the tests, in ``discovery_of_versions.json.xz``, to compare with what the server answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from reconciler.apiserver.encoding.json_documents import merge_patch
from reconciler.apiserver.encoding.text import recorded
from tests.apiserver.generate_roles import shortened
from tests.apiserver.generate_schemas import tables

DISCOVERY = Path(__file__).parent / "discovery_of_versions.json.xz"
TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver"
_STABLE = re.compile(r"v\d+")
_CBOR = "application/cbor"
_PATCH = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
_REFERENCE = re.compile(r"#/definitions/([\w.-]+)")
_ROLES = "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata"
_ROLE_FILES = (
    "cluster-roles",
    "controller-roles",
    "namespace-roles",
    "cluster-role-bindings",
    "controller-role-bindings",
    "namespace-role-bindings",
)
Document = dict[str, Any]


class Release:
    """What the modules of a patch release have.

    Args:
        modules: the directory of the Go modules below ``k8s.io``.
        tag: such as ``v1.34.4``.
    """

    def __init__(self, modules: Path, tag: str) -> None:
        self._root = modules / f"kubernetes@{tag}"
        self.minor = tag.removeprefix("v").rpartition(".")[0]

    def _read(self, path: str) -> Any:
        return json.loads((self._root / "api" / path).read_text())

    def discovery(self) -> dict[str, Document]:
        """Return the documents in the older form of discovery by path, without what aggregates them."""
        files = (self._root / "api" / "discovery").glob("api*__v*.json")
        return {f"/{file.stem.replace('__', '/')}": json.loads(file.read_text()) for file in sorted(files)}

    @functools.cached_property
    def groups(self) -> list[Document]:
        """Return the groups in the form of ``discovery.json``, with the versions that are served by default."""
        served: list[Document] = [{"metadata": {}, "versions": [self._core()]}]
        for group in self._read("discovery/aggregated_v2.json")["items"]:
            versions = [each for each in group["versions"] if _STABLE.fullmatch(each["version"])]
            for version in versions:
                self._add_hashes(f"apis__{group['metadata']['name']}__{version['version']}", version["resources"])
            if versions:
                served.append({"metadata": {"name": group["metadata"]["name"]}, "versions": versions})
        return served

    def _add_hashes(self, name: str, resources: list[Document]) -> None:
        listed = {each["name"]: each for each in self._read(f"discovery/{name}.json")["resources"]}
        for resource in resources:
            if hashed := listed[resource["resource"]].get("storageVersionHash"):
                resource["storageVersionHash"] = hashed

    def _core(self) -> Document:
        """Return the core group, of which there is only the older form of discovery."""
        found: dict[str, Document] = {}
        for each in self._read("discovery/api__v1.json")["resources"]:
            plural, _, subresource = each["name"].partition("/")
            kind = {"group": each.get("group", ""), "version": each.get("version", ""), "kind": each["kind"]}
            if subresource:
                below = {"subresource": subresource, "responseKind": kind, "verbs": each["verbs"]}
                found[plural].setdefault("subresources", []).append(below)
                continue
            optional = ("shortNames", "categories", "storageVersionHash")
            found[plural] = {
                "resource": plural,
                "responseKind": kind,
                "scope": "Namespaced" if each["namespaced"] else "Cluster",
                "singularResource": each["singularName"],
                "verbs": each["verbs"],
                **{key: each[key] for key in optional if key in each},
            }
        return {"version": "v1", "resources": list(found.values()), "freshness": "Current"}

    @functools.cached_property
    def documents(self) -> dict[str, Document]:
        """Return the OpenAPI documents by path: ``v2``, and ``v3/...`` of what is served by default."""
        paths = ["api", "api/v1", "apis", ".well-known/openid-configuration", "openid/v1/jwks", "version"]
        for group in self.groups[1:]:
            name = f"apis/{group['metadata']['name']}"
            paths += [name, *(f"{name}/{version['version']}" for version in group["versions"])]
        found = {f"v3/{each}": self._read(f"openapi-spec/v3/{each.replace('/', '__')}_openapi.json") for each in paths}
        served = {f"/{each}/" for each in paths}
        found["v2"] = _served_part(self._read("openapi-spec/swagger.json"), served)
        return {name: _of_defaults(each) for name, each in found.items()}

    @functools.cached_property
    def types(self) -> dict[str, Document]:
        """Return the content of ``types.json``."""
        schemas: Document = {}
        for document in self.documents.values():
            schemas |= document.get("components", {}).get("schemas", {})
        return tables(schemas)

    @functools.cached_property
    def columns(self) -> Document:
        """Return the content of ``tables/columns.json``; of what differs, users see only the secrets of accounts."""
        printers = (self._root / "pkg" / "printers" / "internalversion" / "printers.go").read_text()
        found = dict(recorded("builtin/tables/columns.json"))
        if 'ServiceAccount{}.SwaggerDoc()["secrets"]' in printers:
            name, age = found["/serviceaccounts"]
            account = self.documents["v2"]["definitions"]["io.k8s.api.core.v1.ServiceAccount"]
            about = account["properties"]["secrets"]["description"]
            secrets = {"name": "Secrets", "type": "string", "format": "", "description": about, "priority": 0}
            found["/serviceaccounts"] = [name, secrets, age]
        return found

    @functools.cached_property
    def kinds(self) -> Document:
        """Return the content of ``kinds.json``; of what differs, users see which names Services may have."""
        features = (self._root / "pkg" / "features" / "kube_features.go").read_text()
        gate = re.search(r"RelaxedServiceNameValidation: \{(.*?)\n\t\}", features, re.DOTALL)
        found = dict(recorded("builtin/kinds.json"))
        if gate is None or "Default: true" not in gate[1]:
            found["/services"] = {**found["/services"], "names": "label-1035"}
        return found

    @functools.cached_property
    def roles(self) -> list[Document]:
        """Return the content of ``bootstrap.json``."""
        files = [self._root / _ROLES / f"{name}.yaml" for name in _ROLE_FILES]
        found = [shortened(each) for file in files for each in yaml.safe_load(file.read_text())["items"]]
        return sorted(
            found, key=lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        )


def _served_part(swagger: Document, served: set[str]) -> Document:
    """Return an OpenAPI 2 document with the paths below others, and the definitions that they use."""
    roots = {path: f"/{'/'.join(path.split('/')[1:4])}/" for path in swagger["paths"] if path.startswith("/apis/")}
    paths = {
        path: item
        for path, item in swagger["paths"].items()
        if not path.startswith("/logs/")
        and (path == "/apis/" or roots.get(path, "").replace("//", "/") in {"", *served})
    }
    used: Document = {}
    waiting = {_PATCH, *_REFERENCE.findall(json.dumps(paths))}
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = swagger["definitions"][name]
            waiting |= {*_REFERENCE.findall(json.dumps(used[name]))}
    return {**swagger, "paths": paths, "definitions": used}


def _of_defaults(value: Any) -> Any:
    """Return a part of an OpenAPI document without CBOR, which a server offers only behind a feature gate."""
    if isinstance(value, dict):
        return {key: _of_defaults(each) for key, each in value.items() if key != _CBOR}
    if isinstance(value, list):
        return [_of_defaults(each) for each in value if each != _CBOR]
    return value


def difference(old: Any, new: Any) -> Any:
    """Return the merge patch that turns one value into another; an empty one if they are equal."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone = dict.fromkeys(old.keys() - new.keys())
    changed = {
        key: difference(old[key], each) if key in old else each for key, each in new.items() if old.get(key) != each
    }
    return {**gone, **changed}


def defaults(types: Document) -> Document:
    """Return the content of ``defaults.json`` without the members that the types of a release do not have."""

    def kept(row: Document, members: Document) -> Document:
        return {key: value for key, value in row.items() if key == "if" or key.partition(".")[0] in members}

    found: Document = {}
    for name, rows in recorded("builtin/defaults.json").items():
        if name in types:
            found[name] = (
                [kept(row, types[name]) for row in rows] if isinstance(rows, list) else kept(rows, types[name])
            )
    return found


@functools.cache
def _newest_documents() -> Document:
    return dict(json.loads(lzma.decompress((TARGET / "serving" / "openapi.json.xz").read_bytes())))


def openapi(newest: Release, old: Release) -> Document:
    """Return the merge patch of each OpenAPI document; None for one that the older release does not serve."""
    base = _newest_documents()
    found: Document = {}
    for name, document in base.items():
        if name in ("v3", "template"):
            continue
        if name not in old.documents:
            found[name] = None
            continue
        change = {"info": {"version": old.minor}}
        for part in ("paths", "definitions", "components"):
            if part in document:
                change |= {
                    part: _limited(
                        difference(newest.documents[name][part], old.documents[name].get(part, {})), document[part]
                    )
                }
        found[name] = {key: value for key, value in change.items() if value}
    schemas = old.documents["v3/apis/apps/v1"]["components"]["schemas"]
    now = newest.documents["v3/apis/apps/v1"]["components"]["schemas"]
    known = base["template"]["components"]["schemas"]
    changed = {
        name: difference(now[name], schemas.get(name))
        for name in known
        if name in now and now[name] != schemas.get(name)
    }
    found["template"] = {"components": {"schemas": changed}}
    paths: Document = {}
    for name, entry in base["v3"]["paths"].items():
        path = f"v3/{name}"
        whole = None if found.get(path, "") is None else merge_patch(base[path], found[path])
        digest = hashlib.sha512(json.dumps(whole, sort_keys=True).encode()).hexdigest().upper()
        url = entry["serverRelativeURL"].partition("=")[0]
        paths[name] = None if whole is None else {"serverRelativeURL": f"{url}={digest}"}
    found["v3"] = {"paths": paths}
    return found


def _limited(change: Any, document: Any) -> Any:
    """Return a change without what it removes from parts that the document does not have."""
    return {
        key: _limited(each, document.get(key))
        if isinstance(each, dict) and isinstance(document.get(key), dict)
        else each
        for key, each in change.items()
        if each is not None or key in document
    }


def changes(newest: Release, old: Release) -> Document:
    """Return the merge patches of an older release by the path of the file."""
    pairs = {
        "builtin/types.json": (recorded("builtin/types.json"), old.types),
        "builtin/defaults.json": (recorded("builtin/defaults.json"), defaults(old.types["types"])),
        "builtin/tables/columns.json": (recorded("builtin/tables/columns.json"), old.columns),
        "builtin/discovery.json": (recorded("builtin/discovery.json"), old.groups),
        "builtin/kinds.json": (recorded("builtin/kinds.json"), old.kinds),
        "bootstrap.json": (recorded("bootstrap.json"), old.roles),
    }
    found = {path: difference(now, then) for path, (now, then) in pairs.items() if now != then}
    major, minor = old.minor.split(".")
    version = recorded("serving/discovery.json")["version"]
    found["serving/discovery.json"] = {
        "version": {
            "minor": minor,
            "emulationMinor": minor,
            "minCompatibilityMinor": str(int(minor) - 1),
            "gitVersion": version["gitVersion"].replace(f"v{newest.minor}.", f"v{major}.{minor}."),
        }
    }
    return found | {f"openapi/{name}": change for name, change in openapi(newest, old).items()}


def problems(newest: Release) -> Iterator[str]:
    """Yield what was recorded of the newest release and does not match its modules."""
    own = {
        "builtin/discovery.json": newest.groups,
        "builtin/types.json": newest.types,
        "builtin/kinds.json": newest.kinds,
        "bootstrap.json": newest.roles,
    }
    for path, found in own.items():
        if found != recorded(path):
            yield f"{path} is not that of the modules: {json.dumps(_first(recorded(path), found))[:500]}"
    swagger = _newest_documents()["v2"]
    for part in ("paths", "definitions"):
        if differing := newest.documents["v2"][part].keys() ^ swagger[part].keys():
            yield f"the OpenAPI document of the modules has other {part}: {sorted(differing)[:10]}"


def _first(one: Any, other: Any) -> Any:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(_first(a, b) for a, b in zip(one, other, strict=True) if a != b)
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _first(one.get(key), other.get(key))
            for key in one.keys() | other.keys()
            if one.get(key) != other.get(key)
        }
    return [one, other]


def main(modules: Path, tags: list[str]) -> None:
    """Write the files."""
    newest, *older = (Release(modules, tag) for tag in tags)
    if found := list(problems(newest)):
        sys.exit("\n".join(found))
    for release in older:
        write(TARGET / "versions" / f"{release.minor}.json.xz", changes(newest, release))
    write(DISCOVERY, {release.minor: release.discovery() for release in (newest, *older)})


def write(path: Path, content: Document) -> None:
    """Write a packed file."""
    packed = lzma.compress(json.dumps(content, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME)
    path.write_bytes(packed)
    sys.stdout.write(f"{path}: {len(packed)} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).expanduser(), sys.argv[2:])
