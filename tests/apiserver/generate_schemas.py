"""A generator of reconciler/apiserver/builtin/types.json from the OpenAPI documents of a real API server.

Run it with the server's URL and a bearer token to update the built-in kinds to a newer Kubernetes::

    python tests/apiserver/generate_schemas.py https://127.0.0.1:6443 TOKEN

The file lists the members of each type in a short form:

* scalars: ``s`` string, ``i`` int32, ``l`` int64, ``n`` number, ``b`` boolean, ``q`` quantity, ``o`` int or string,
  ``t`` time, ``u`` time with microseconds, ``y`` bytes;
* others: ``*`` anything, ``@Name`` another type, ``?@Name`` another type or anything except an object, ``[x]`` list,
  ``{x}`` map.

A bar is followed by the way in which lists and maps are merged: ``set``, ``map:keys``, ``atomic``, and ``merge:key``
for strategic merge patches.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

from reconciler.apiserver.builtin.kinds import BUILT_IN

TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver" / "builtin" / "types.json"
_SCALARS = {
    ("string", ""): "s",
    ("string", "date-time"): "t",
    ("string", "byte"): "y",
    ("string", "int-or-string"): "o",
    ("integer", "int32"): "i",
    ("integer", "int64"): "l",
    ("integer", ""): "l",
    ("number", ""): "n",
    ("number", "double"): "n",
    ("boolean", ""): "b",
    ("object", ""): "*",
}
_SPECIAL = {
    "api.resource.Quantity": "q",
    "meta.v1.Time": "t",
    "meta.v1.MicroTime": "u",
    "util.intstr.IntOrString": "o",
    "apiextensions.v1.JSON": "*",
    "meta.v1.FieldsV1": "*",
    "runtime.RawExtension": "*|atomic",
    "apiextensions.v1.JSONSchemaPropsOrArray": "?@apiextensions.v1.JSONSchemaProps",
    "apiextensions.v1.JSONSchemaPropsOrBool": "?@apiextensions.v1.JSONSchemaProps",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "*",
}


_UNSTORED = (
    "authentication.v1.TokenRequest",
    "autoscaling.v1.Scale",
    "core.v1.Binding",
    "meta.v1.DeleteOptions",
    "policy.v1.Eviction",
)
"""The types besides those of kinds with paths of their own."""


def short(name: str) -> str:
    """Return the name of a type without the parts that all names share."""
    for prefix in (
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apimachinery.pkg.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
        "io.k8s.kube-aggregator.pkg.apis.",
        "io.k8s.api.",
    ):
        name = name.removeprefix(prefix)
    return name


def describe(schema: dict[str, Any]) -> str:
    """Return the short form of a member."""
    if "$ref" in schema or "allOf" in schema:
        target = short((schema.get("$ref") or schema["allOf"][0]["$ref"]).rsplit("/", 1)[1])
        text = _SPECIAL.get(target, f"@{target}")
    elif schema.get("type") == "array":
        text = f"[{describe(schema['items'])}]"
    elif isinstance(schema.get("additionalProperties"), dict):
        text = f"{{{describe(schema['additionalProperties'])}}}"
    elif "oneOf" in schema or "type" not in schema:
        text = "*"
    else:
        text = _SCALARS[schema["type"], schema.get("format", "")]
    return text + attributes(schema)


def attributes(schema: dict[str, Any]) -> str:
    """Return how a member merges."""
    found = []
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "map":
        found.append(f"map:{','.join(schema['x-kubernetes-list-map-keys'])}")
    elif list_type == "set":
        found.append("set")
    if map_type := schema.get("x-kubernetes-map-type"):
        found.append(map_type)
    if "merge" in schema.get("x-kubernetes-patch-strategy", ""):
        found.append(f"merge:{schema.get('x-kubernetes-patch-merge-key', '')}")
    return "".join(f"|{word}" for word in found)


def fetch(url: str, token: str) -> dict[str, dict[str, Any]]:
    """Return the schemas of all groups of the built-in kinds."""
    context = ssl._create_unverified_context()
    schemas: dict[str, dict[str, Any]] = {}
    served = [(info.group, version) for info, versions in BUILT_IN for version in versions]
    for group, version in served:
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        request = urllib.request.Request(f"{url}/openapi/v3/{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, context=context) as answer:
            schemas |= json.load(answer)["components"]["schemas"]
    return schemas


def tables(schemas: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the content of the file for the schemas of a server that may serve fewer kinds than the newest one."""
    kinds: dict[str, str] = {}
    wanted: list[str] = []
    for info, versions in BUILT_IN:
        for version in versions:
            for name, schema in schemas.items():
                gvk = {"group": info.group, "kind": info.kind, "version": version}
                if gvk in schema.get("x-kubernetes-group-version-kind", []) and "properties" in schema:
                    kinds[f"{info.group}/{version}/{info.kind}"] = short(name)
                    wanted.append(name)
    by_short = {short(name): schema for name, schema in schemas.items()}
    types: dict[str, dict[str, str]] = {}
    waiting = [*_UNSTORED, *(short(name) for name in wanted)]
    while waiting:
        name = waiting.pop()
        if name in types or name in _SPECIAL:
            continue
        schema = by_short[name]
        types[name] = {key: describe(member) for key, member in schema.get("properties", {}).items()}
        if schema.get("x-kubernetes-map-type") == "atomic":
            types[name]["|"] = "atomic"
        for text in types[name].values():
            if "@" in text:
                waiting.append(text.split("@")[1].split("|")[0].rstrip("]}"))
    return {"kinds": kinds, "types": types}


def main(url: str, token: str) -> None:
    """Write the file."""
    found = tables(fetch(url, token))
    kinds, types = found["kinds"], found["types"]
    lines = [f" {json.dumps(name)}: {json.dumps(types[name], separators=(',', ':'))}" for name in sorted(types)]
    head = [f" {json.dumps(kind)}: {json.dumps(kinds[kind])}" for kind in sorted(kinds)]
    TARGET.write_text('{"kinds": {\n' + ",\n".join(head) + '\n}, "types": {\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2])
