"""Definitions of custom kinds: which are refused, versions, scale, columns (17)."""

from __future__ import annotations

import copy
from typing import Any

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, in_any_order, names, table, version

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(plural: str, kind: str, *versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a definition; a version without a schema takes anything below spec."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    given = versions or ({"name": "v1"},)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
                    **each,
                }
                for index, each in enumerate(given)
            ],
            **spec,
        },
    }


async def _try(api: Api, change: Any) -> None:
    """Try a definition, changed, as a dry run."""
    plural = api.ns.replace("-", "")
    body = definition(plural, f"Kind{plural}")
    changed = change(copy.deepcopy(body))
    await api.call("POST", CRDS, body if changed is None else changed, query={"dryRun": "All"}, keep=["none"])


def _set(path: str, value: Any) -> Any:
    """Return a change that sets what a dotted path names."""

    def change(body: dict[str, Any]) -> dict[str, Any]:
        at: Any = body
        *way, last = path.split(".")
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        if value is ...:
            at.pop(last, None)
        else:
            at[int(last) if isinstance(at, list) else last] = value
        return body

    return change


def _schema(schema: Any) -> Any:
    """Return a change that sets the schema of spec."""
    return _set("spec.versions.0.schema.openAPIV3Schema.properties.spec", schema)


def _obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_STRING = {"type": "string"}

table(
    [
        ("the least definition", _set("spec.preserveUnknownFields", False)),
        ("the name must be plural and group", _set("metadata.name", "others.conformance.reconciler.dev")),
        ("no group", _set("spec.group", "")),
        ("a group without dots", _set("spec.group", "nodots")),
        ("no scope", _set("spec.scope", ...)),
        ("an unknown scope", _set("spec.scope", "Everywhere")),
        ("no plural", _set("spec.names.plural", "")),
        ("a plural in capitals", _set("spec.names.plural", "Things")),
        ("no kind", _set("spec.names.kind", "")),
        ("a kind with a blank", _set("spec.names.kind", "My Kind")),
        ("a short name in capitals", _set("spec.names.shortNames", ["UP"])),
        ("a category in capitals", _set("spec.names.categories", ["UP"])),
        ("no versions", _set("spec.versions", [])),
        ("no storage version", _set("spec.versions.0.storage", False)),
        ("no schema", _set("spec.versions.0.schema", ...)),
        ("preserveUnknownFields", _set("spec.preserveUnknownFields", True)),
        ("a version's name in capitals", _set("spec.versions.0.name", "V1")),
        ("a protected group", _set("spec.group", "x.k8s.io")),
        ("an unknown conversion strategy", _set("spec.conversion", {"strategy": "Magic"})),
        ("a webhook conversion without a webhook", _set("spec.conversion", {"strategy": "Webhook"})),
        ("an unknown field in a definition", _set("spec.bogus", 1)),
        ("a list kind that is the kind", lambda b: _set("spec.names.listKind", b["spec"]["names"]["kind"])(b)),
        (
            "two versions of one name",
            lambda b: _set("spec.versions", [*b["spec"]["versions"], {**b["spec"]["versions"][0], "storage": False}])(
                b
            ),
        ),
        (
            "two storage versions",
            lambda b: _set("spec.versions", [*b["spec"]["versions"], {**b["spec"]["versions"][0], "name": "v2"}])(b),
        ),
    ],
)(_try)

table(
    [
        ("the root has no type", _set("spec.versions.0.schema.openAPIV3Schema", {"properties": {"spec": _obj()}})),
        ("the root is not an object", _set("spec.versions.0.schema.openAPIV3Schema", {"type": "string"})),
        ("a field has no type", _schema(_obj(a={}))),
        ("an unknown type", _schema(_obj(a={"type": "text"}))),
        ("a list without items", _schema(_obj(a={"type": "array"}))),
        ("properties beside additionalProperties", _schema({**_obj(a=_STRING), "additionalProperties": _STRING})),
        ("additionalProperties: false", _schema({"type": "object", "additionalProperties": False})),
        ("unique items", _schema(_obj(a={"type": "array", "items": _STRING, "uniqueItems": True}))),
        ("a reference", _schema(_obj(a={"$ref": "#/x"}))),
        ("a broken pattern", _schema(_obj(a={"type": "string", "pattern": "["}))),
        (
            "a set of objects that are not atomic",
            _schema(_obj(a={"type": "array", "items": _obj(), "x-kubernetes-list-type": "set"})),
        ),
        (
            "a map without keys",
            _schema(_obj(a={"type": "array", "items": _obj(k=_STRING), "x-kubernetes-list-type": "map"})),
        ),
        (
            "map keys that items do not have",
            _schema(
                _obj(
                    a={
                        "type": "array",
                        "items": _obj(k=_STRING),
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["z"],
                    }
                )
            ),
        ),
        (
            "map keys that are not required",
            _schema(
                _obj(
                    a={
                        "type": "array",
                        "items": _obj(k=_STRING),
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                    }
                )
            ),
        ),
        ("an unknown list type", _schema(_obj(a={"type": "array", "items": _STRING, "x-kubernetes-list-type": "bag"}))),
        ("an unknown map type", _schema(_obj(a={"type": "object", "x-kubernetes-map-type": "loose"}))),
        ("a list type of a text", _schema(_obj(a={"type": "string", "x-kubernetes-list-type": "set"}))),
        ("a default of the wrong type", _schema(_obj(a={"type": "integer", "default": "x"}))),
        ("a default out of bounds", _schema(_obj(a={"type": "integer", "minimum": 3, "default": 1}))),
        ("a default with an unknown field", _schema(_obj(a={**_obj(x=_STRING), "default": {"y": 1}}))),
        ("a default of null", _schema(_obj(a={"type": "string", "default": None}))),
        (
            "a default that a rule forbids",
            _schema(_obj(a={"type": "integer", "default": 1, "x-kubernetes-validations": [{"rule": "self > 3"}]})),
        ),
        ("a type inside anyOf", _schema({**_obj(a=_STRING), "anyOf": [{"properties": {"a": {"type": "string"}}}]})),
        (
            "a field that only anyOf knows",
            _schema({**_obj(a=_STRING), "anyOf": [{"properties": {"b": {"minLength": 1}}}]}),
        ),
        (
            "anyOf done right",
            _schema({**_obj(a=_STRING, b=_STRING), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        ),
        ("int or string with a type", _schema(_obj(a={"type": "string", "x-kubernetes-int-or-string": True}))),
        (
            "int or string with its anyOf",
            _schema(_obj(a={"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]})),
        ),
        ("preserve-unknown-fields: false", _schema({**_obj(), "x-kubernetes-preserve-unknown-fields": False})),
        (
            "an embedded resource without preserving",
            _schema(_obj(a={"type": "object", "x-kubernetes-embedded-resource": True})),
        ),
        (
            "rules on metadata",
            _set(
                "spec.versions.0.schema.openAPIV3Schema.properties.metadata",
                {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}},
            ),
        ),
        (
            "labels in metadata's schema",
            _set(
                "spec.versions.0.schema.openAPIV3Schema.properties.metadata",
                {"type": "object", "properties": {"labels": {"type": "object"}}},
            ),
        ),
        ("an unknown format is warned of", _schema(_obj(a={"type": "string", "format": "hostname-ish"}))),
        ("an enum without values", _schema(_obj(a={"type": "string", "enum": []}))),
        ("bounds that exclude", _schema(_obj(a={"type": "integer", "minimum": 5, "maximum": 1}))),
        ("multipleOf zero", _schema(_obj(a={"type": "integer", "multipleOf": 0}))),
        ("a negative maxLength", _schema(_obj(a={"type": "string", "maxLength": -1}))),
        ("nullable and a default of null", _schema(_obj(a={"type": "string", "nullable": True, "default": None}))),
    ],
)(_try)

table(
    [
        (
            "a column without a path",
            _set("spec.versions.0.additionalPrinterColumns", [{"name": "A", "type": "string"}]),
        ),
        (
            "a column with an unknown type",
            _set("spec.versions.0.additionalPrinterColumns", [{"name": "A", "type": "text", "jsonPath": ".a"}]),
        ),
        (
            "a column with a broken path",
            _set("spec.versions.0.additionalPrinterColumns", [{"name": "A", "type": "string", "jsonPath": "a["}]),
        ),
        (
            "a column without a name",
            _set("spec.versions.0.additionalPrinterColumns", [{"type": "string", "jsonPath": ".a"}]),
        ),
        ("scale without paths", _set("spec.versions.0.subresources", {"scale": {}})),
        (
            "scale with a foreign path",
            _set(
                "spec.versions.0.subresources",
                {"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.replicas"}},
            ),
        ),
        (
            "a selectable field that is not in the schema",
            _set("spec.versions.0.selectableFields", [{"jsonPath": ".spec.x"}]),
        ),
        ("a selectable field of metadata", _set("spec.versions.0.selectableFields", [{"jsonPath": ".metadata.name"}])),
        ("a selectable field without a path", _set("spec.versions.0.selectableFields", [{}])),
        ("a warning without deprecation", _set("spec.versions.0.deprecationWarning", "old")),
    ],
)(_try)

_V1 = {"type": "object", "properties": {"a": {"type": "string"}, "old": {"type": "integer"}}}
_V2 = {"type": "object", "properties": {"a": {"type": "string"}, "new": {"type": "integer", "default": 7}}}
VERSIONED = definition(
    "versioneds",
    "Versioned",
    {"name": "v1", "schema": {"openAPIV3Schema": _obj(spec=_V1)}},
    {"name": "v2", "schema": {"openAPIV3Schema": _obj(spec=_V2)}, "deprecated": True},
    {"name": "v3", "schema": {"openAPIV3Schema": _obj(spec=_V2)}, "served": False},
    names={"plural": "versioneds", "kind": "Versioned", "shortNames": ["vs"], "categories": ["every"]},
)
V1, V2 = "versioneds:Versioned:v1", "versioneds:Versioned:v2"


@case("an object is served in each version, pruned and completed by its schema", VERSIONED)
async def _(api: Api) -> None:
    await api.create(V1, {"metadata": {"name": "a"}, "spec": {"a": "x", "old": 1, "new": 2}})
    await api.get(V2, "a")
    await api.create(V2, {"metadata": {"name": "b"}, "spec": {"a": "x", "old": 1}})
    await api.get(V1, "b")
    await api.list(V2)


@case("a version that is deprecated warns", VERSIONED)
async def _(api: Api) -> None:
    await api.get(V2, "absent")
    await api.list(V2, keep=["kind"])


@case("a version that is not served is a plain 404", VERSIONED)
async def _(api: Api) -> None:
    await api.list("versioneds:Versioned:v3")


@case("a write in one version is seen by a watch in the other", VERSIONED)
async def _(api: Api) -> None:
    made = await api.create(V1, {"metadata": {"name": "a"}, "spec": {"a": "x"}}, quiet=True)
    await api.patch(V2, "a", {"spec": {"a": "y"}}, quiet=True)
    await api.watch(V1, {"resourceVersion": version(made)}, 1)
    await api.watch(V2, {"resourceVersion": version(made)}, 1)


@case("managedFields keep the version in which they were written", VERSIONED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply(V1, "a", {"metadata": {"name": "a"}, "spec": {"a": "x"}})
    await api.apply(V2, "a", {"metadata": {"name": "a"}, "spec": {"a": "x"}}, "two")
    await api.apply(V2, "a", {"metadata": {"name": "a"}, "spec": {"a": "y"}}, "three")
    in_any_order(api)


SCALED = definition(
    "scaleds",
    "Scaled",
    {
        "name": "v1",
        "schema": {
            "openAPIV3Schema": _obj(
                spec=_obj(replicas={"type": "integer", "minimum": 0, "maximum": 9}),
                status=_obj(replicas={"type": "integer"}, selector={"type": "string"}),
            )
        },
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    },
)
S = "scaleds:Scaled"


@case("the scale of a custom object", SCALED)
async def _(api: Api) -> None:
    await api.create(S, {"metadata": {"name": "a"}, "spec": {"replicas": 2}}, quiet=True)
    await api.get(S, "a", "scale")
    await api.patch(S, "a", {"status": {"replicas": 1, "selector": "x=y"}}, "status", quiet=True)
    await api.get(S, "a", "scale")
    await api.patch(S, "a", {"spec": {"replicas": 3}}, "scale")
    await api.patch(S, "a", {"spec": {"replicas": 3}}, "scale")
    await api.get(S, "a")


@case("a scale is put, with its version as a condition", SCALED)
async def _(api: Api) -> None:
    await api.create(S, {"metadata": {"name": "a"}, "spec": {"replicas": 2}}, quiet=True)
    scale = await api.get(S, "a", "scale", quiet=True)
    path = api.path(S, "a", "scale")
    scale["spec"]["replicas"] = 5
    await api.call("PUT", path, scale)
    await api.call("PUT", path, {**scale, "spec": {"replicas": 6}})


@case("a scale is validated", SCALED)
async def _(api: Api) -> None:
    await api.create(S, {"metadata": {"name": "a"}, "spec": {"replicas": 2}}, quiet=True)
    await api.patch(S, "a", {"spec": {"replicas": -1}}, "scale")
    await api.patch(S, "a", {"spec": {"replicas": 10}}, "scale")
    await api.patch(S, "a", {"spec": {"replicas": "many"}}, "scale")
    await api.patch(S, "absent", {"spec": {"replicas": 1}}, "scale")


@case("an object without replicas has a scale, or none", SCALED)
async def _(api: Api) -> None:
    await api.create(S, {"metadata": {"name": "a"}, "spec": {}}, quiet=True)
    await api.get(S, "a", "scale")
    await api.patch(S, "a", {"spec": {"replicas": 1}}, "scale")


@case("a scale write is owned under its subresource", SCALED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create(S, {"metadata": {"name": "a"}, "spec": {"replicas": 2}}, query={"fieldManager": "one"}, quiet=True)
    await api.patch(S, "a", {"spec": {"replicas": 3}}, "scale", query={"fieldManager": "two"}, quiet=True)
    await api.get(S, "a")


async def _established(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    while True:
        made = await api.call("GET", f"{CRDS}/{body['metadata']['name']}", quiet=True)
        conditions = (made.get("status") or {}).get("conditions") or []
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return made


@case("a definition is established, changed and withdrawn")
async def _(api: Api) -> None:
    plural = "life" + api.ns.replace("-", "")
    body = definition(plural, "Life" + plural)
    made = await api.call("POST", CRDS, body, keep=["spec", "metadata.generation"])
    made = await _established(api, body)
    api.transcript.append({"status": made["status"]})
    await api.call("DELETE", f"{CRDS}/{body['metadata']['name']}", keep=["status"])


@case("a definition's scope, group and names are fixed")
async def _(api: Api) -> None:
    plural = "fixed" + api.ns.replace("-", "")
    body = definition(plural, "Fixed" + plural)
    await api.call("POST", CRDS, body, quiet=True)
    await _established(api, body)
    path = f"{CRDS}/{body['metadata']['name']}"
    merge = "application/merge-patch+json"
    for spec in ({"scope": "Cluster"}, {"group": "other.reconciler.dev"}, {"names": {"plural": "others"}}):
        await api.call("PATCH", path, {"spec": spec}, content=merge, query={"dryRun": "All"}, keep=["none"])
    await api.call("DELETE", path, quiet=True)


@case(
    "columns make a table",
    definition(
        "columns",
        "Column",
        {
            "name": "v1",
            "additionalPrinterColumns": [
                {"name": "Text", "type": "string", "jsonPath": ".spec.text"},
                {"name": "Number", "type": "integer", "jsonPath": ".spec.number", "description": "A number."},
                {"name": "Truth", "type": "boolean", "jsonPath": ".spec.truth", "priority": 1},
                {"name": "Ready", "type": "string", "jsonPath": ".spec.conditions[?(@.type=='Ready')].status"},
                {"name": "First", "type": "string", "jsonPath": ".spec.list[0]"},
                {"name": "All", "type": "string", "jsonPath": ".spec.list[*]"},
                {"name": "Object", "type": "string", "jsonPath": ".spec.object"},
                {"name": "When", "type": "date", "jsonPath": ".spec.when"},
            ],
        },
    ),
)
async def _(api: Api) -> None:
    plural = "columns:Column"
    spec: dict[str, Any] = {
        "text": "x",
        "number": 3,
        "truth": True,
        "conditions": [{"type": "Ready", "status": "True"}],
        "list": ["a", "b"],
        "object": {"k": 1},
        "when": "1999-01-01T00:00:00Z",
    }
    await api.create(plural, {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.create(
        plural, {"metadata": {"name": "b"}, "spec": {"number": "3", "text": 4, "when": "soon"}}, quiet=True
    )
    found = await api.list(plural, accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json", quiet=True)
    for row in found["rows"]:
        row["cells"][8] = "old" if str(row["cells"][8]).endswith("y") else row["cells"][8]
    for column in found["columnDefinitions"][:1]:
        del column["description"]  # the words of the API's documentation
    api.transcript.append({"columns": found["columnDefinitions"], "cells": [row["cells"] for row in found["rows"]]})
    assert names({"items": [row["object"] for row in found["rows"]]}) == ["a", "b"]
