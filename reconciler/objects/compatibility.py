"""Comparison of two CustomResourceDefinitions: breaking and harmless changes.

A change is breaking if an object that exists, or a manifest that was valid, may be refused, lose a field or change its
meaning, or if a request that was served may fail. The rules are tables: one function per keyword of a structural
schema, which returns why a change of its value is breaking, or None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Schema = Mapping[str, Any]
_SHOWN = 120
"""Maximum characters of a value in a message."""

_Check = Callable[[Any, Any], str | None]
"""The reason for which a change from the first value to the second is breaking; None if it is harmless."""


@dataclass(frozen=True, slots=True)
class CRDChange:
    """A difference between two definitions of a kind.

    Attributes:
        path: where, such as ``v1: spec.size`` or ``spec.names.plural``.
        what: what changed, with the values before and after.
        why: the reason for which it is breaking; ``""`` if it is harmless.
    """

    path: str
    what: str
    why: str = ""

    @property
    def breaking(self) -> bool:
        """Return whether the change is breaking."""
        return bool(self.why)


def compare_crds(old: Schema, new: Schema) -> list[CRDChange]:
    """Return the changes from one CustomResourceDefinition (apiextensions.k8s.io/v1) to another, breaking ones first.

    Descriptions and printer columns are not compared. Within the two groups the order is that of the documents.

    Args:
        old: the definition that is installed; with the ``status.storedVersions`` of a cluster, they are checked too.
        new: the definition that will replace it.
    """
    before, after = _mapping(old.get("spec")), _mapping(new.get("spec"))
    changes = [
        *_names(before, after),
        *_versions(before, after, _list(_mapping(old.get("status")).get("storedVersions"))),
        *_conversion(before, after),
    ]
    return sorted(changes, key=lambda change: not change.breaking)


def _names(before: Schema, after: Schema) -> Iterator[CRDChange]:
    fixed = {
        "group": "the kind has another API group: its objects stay in the old one",
        "scope": "the API server refuses another scope",
    }
    for key, why in fixed.items():
        yield from _value(f"spec.{key}", before.get(key), after.get(key), why)
    old, new = _defaulted(before.get("names")), _defaulted(after.get("names"))
    for key in ("kind", "plural", "singular", "listKind"):
        yield from _value(f"spec.names.{key}", old.get(key), new.get(key), "clients and roles use this name")
    for key, why in (("shortNames", "kubectl does not find the kind by this name"), ("categories", "")):
        yield from _members(f"spec.names.{key}", old.get(key), new.get(key), why)
    if before.get("preserveUnknownFields") is True and after.get("preserveUnknownFields") is not True:
        yield CRDChange("spec.preserveUnknownFields", "changed from true to false", "unknown fields are pruned")


def _defaulted(names: Any) -> Schema:
    """Return names with those that the API server adds if they are omitted."""
    given = {key: value for key, value in _mapping(names).items() if value}
    kind = given.get("kind")
    return {"singular": kind.lower(), "listKind": f"{kind}List", **given} if isinstance(kind, str) else given


def _value(path: str, old: Any, new: Any, why: str) -> Iterator[CRDChange]:
    if old != new:
        yield CRDChange(path, _changed(old, new), why)


def _members(path: str, old: Any, new: Any, removed: str, added: str = "") -> Iterator[CRDChange]:
    """Compare two sets; a removed or added member is breaking if there is a reason."""
    before, after = ({_json(member): member for member in _list(side)} for side in (old, new))
    for one, other, done, why in ((before, after, "removed", removed), (after, before, "added", added)):
        for key, member in one.items():
            if key not in other:
                yield CRDChange(path, f"{_text(member)} {done}", why)


def _versions(before: Schema, after: Schema, stored: list[Any]) -> Iterator[CRDChange]:
    old, new = _by_name(before), _by_name(after)
    for name, version in old.items():
        if name not in new:
            kept = version.get("storage") is True or name in stored
            reason = "stored objects cannot be read any more" if kept else "requests for this version fail"
            yield CRDChange(name, "version removed", reason)
            continue
        yield from _version(name, version, new[name])
    for name in new:
        if name not in old:
            yield CRDChange(name, "version added")
    for name in stored:
        if name not in new and name not in old:
            yield CRDChange(name, "stored version missing", "stored objects cannot be read any more")


def _version(name: str, old: Schema, new: Schema) -> Iterator[CRDChange]:
    if old.get("served") is True and new.get("served") is not True:
        yield CRDChange(name, "not served any more", "requests for this version fail")
    elif old.get("served") is not True and new.get("served") is True:
        yield CRDChange(name, "served again")
    if new.get("storage") is True and old.get("storage") is not True:
        yield CRDChange(name, "is the stored version now")
    if new.get("deprecated") is True and old.get("deprecated") is not True:
        yield CRDChange(name, "deprecated")
    yield from _subresources(name, _mapping(old.get("subresources")), _mapping(new.get("subresources")))
    before, after = (
        [_mapping(each).get("jsonPath") for each in _list(side.get("selectableFields"))] for side in (old, new)
    )
    yield from _members(f"{name}: selectableFields", before, after, "field selectors with it fail")
    for change in _schema("", _schema_of(old), _schema_of(new)):
        yield replace(change, path=f"{name}: {change.path.lstrip('.') or 'schema'}")


def _subresources(name: str, old: Schema, new: Schema) -> Iterator[CRDChange]:
    if ("status" in old) != ("status" in new):
        what, why = ("removed", "writes to it fail") if "status" in old else ("added", "other writes ignore the status")
        yield CRDChange(f"{name}: subresources.status", what, why)
    if "scale" in old and "scale" not in new:
        yield CRDChange(f"{name}: subresources.scale", "removed", "kubectl scale and autoscalers fail")
    elif "scale" in new and "scale" not in old:
        yield CRDChange(f"{name}: subresources.scale", "added")
    else:
        yield from _value(
            f"{name}: subresources.scale", old.get("scale"), new.get("scale"), "autoscalers use other fields"
        )


def _conversion(before: Schema, after: Schema) -> Iterator[CRDChange]:
    old, new = (_mapping(side.get("conversion")).get("strategy") or "None" for side in (before, after))
    if new != old and len(_by_name(after)) > 1:
        why = "objects of the other versions are not converted any more" if new == "None" else ""
        yield CRDChange("spec.conversion.strategy", _changed(old, new), why)
    if new != "None" or old != "None":
        return
    known = set(_unconvertible(before))
    for names, field in _unconvertible(after):
        if (names, field) not in known:
            yield CRDChange(
                "spec.conversion",
                f"missing: {' and '.join(names)} differ in {field}",
                "without a conversion webhook the field is lost or does not fit",
            )


def _unconvertible(spec: Schema) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield pairs of versions and a field that strategy None, which changes only apiVersion, does not convert.

    A field that only one version has is lost, unless all that this version adds is optional.
    """
    versions = list(_by_name(spec).items())
    for position, (name, version) in enumerate(versions):
        for other_name, other in versions[position + 1 :]:
            here, there = _fields(_schema_of(version)), _fields(_schema_of(other))
            only_here, only_there = here.keys() - there.keys(), there.keys() - here.keys()
            lost = only_here | only_there if only_here and only_there else set()
            lost |= {path for path in only_here | only_there if (here | there)[path][1]}
            lost |= {path for path in here.keys() & there.keys() if here[path][0] != there[path][0]}
            for path in sorted(lost):
                yield (name, other_name), path


def _fields(schema: Schema, prefix: str = "") -> dict[str, tuple[str, bool]]:
    """Return the type of each field by its path, and whether the field is required."""
    found: dict[str, tuple[str, bool]] = {}
    required = _required(schema)
    for name, member in _mapping(schema.get("properties")).items():
        path, schema_of_member = f"{prefix}{name}", _mapping(member)
        found[path] = _type(schema_of_member), name in required and "default" not in schema_of_member
        found |= _fields(schema_of_member, f"{path}.")
    for key, step in (("items", "[]."), ("additionalProperties", "[*].")):
        if prefix and isinstance(schema.get(key), Mapping):
            found |= _fields(schema[key], prefix.removesuffix(".") + step)
    return found


def _schema(path: str, old: Schema, new: Schema, *, required: bool = False) -> Iterator[CRDChange]:
    """Yield the changes of a schema and of all below it; `required` means that no object lacks the field."""
    if _type(old) != _type(new):
        wider = (_type(old), _type(new)) in _WIDER_TYPES or (_type(new) == "any" and _keeps_unknown(new))
        why = "" if wider else "values of the old type are refused"
        yield CRDChange(path, f"type {_changed(_type(old), _type(new))}", why)
        if not wider:
            return
    for keyword, check in _KEYWORDS.items():
        before, after = (side.get(keyword, _IMPLIED.get(keyword)) for side in (old, new))
        if before != after:
            why = "" if keyword == "default" and required else check(before, after) or ""
            yield CRDChange(path, _keyword_changed(keyword, before, after), why)
    yield from _enum(path, old.get("enum"), new.get("enum"))
    before, after = ([_mapping(each).get("rule") for each in _list(side.get(_RULES))] for side in (old, new))
    for change in _members(path, before, after, "", added="objects that break it are refused"):
        yield replace(change, what=f"rule {change.what}")
    yield from _properties(path, old, new)
    for key, step in (("items", "[]"), ("additionalProperties", "[*]")):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _schema(path + step, before, after)
        elif isinstance(before, Mapping) and before and not _keeps_unknown(new) and after is not True:
            yield CRDChange(path + step, "other keys are not allowed any more", "they are pruned")
        elif isinstance(after, Mapping) and after and _keeps_unknown(old):
            yield CRDChange(path + step, "values have a schema now", "objects may have other values")


def _enum(path: str, old: Any, new: Any) -> Iterator[CRDChange]:
    if old is None and new is not None:
        yield CRDChange(path, f"enum {_text(new)} added", "other values are refused")
    elif old is not None and new is None:
        yield CRDChange(path, "enum removed")
    else:
        for change in _members(path, old, new, "objects with this value are refused"):
            yield replace(change, what=f"value {change.what} {'from' if change.why else 'to'} the enum")


def _properties(path: str, old: Schema, new: Schema) -> Iterator[CRDChange]:
    before, after = _mapping(old.get("properties")), _mapping(new.get("properties"))
    needed, others = _required(new), new.get("additionalProperties")
    for name in (each for each in needed if each not in _required(old)):
        why = "" if "default" in _mapping(after.get(name)) else "objects without it are refused"
        yield CRDChange(f"{path}.{name}", "required now", why)
    for name in _required(old):
        if name not in needed and name in after:
            yield CRDChange(f"{path}.{name}", "optional now")
    for name, member in before.items():
        if name in after or (isinstance(others, Mapping) and others):
            schema = _mapping(after.get(name, others))
            yield from _schema(f"{path}.{name}", _mapping(member), schema, required=name in _required(old))
        else:
            why = "" if _keeps_unknown(new) else "its values are pruned; a renamed field is a removed one"
            yield CRDChange(f"{path}.{name}", "field removed", why)
    for name in after:
        if name not in before:
            why = "objects may have another value there" if _keeps_unknown(old) else ""
            yield CRDChange(f"{path}.{name}", "field added", why)
    if _keeps_unknown(old) and not _keeps_unknown(new):
        yield CRDChange(path, "unknown fields are not preserved any more", "they are pruned")
    elif _keeps_unknown(new) and not _keeps_unknown(old):
        yield CRDChange(path, "unknown fields are preserved now")


def _not_higher(old: Any, new: Any) -> str | None:
    return None if new is None or _number(new) <= _number(old, -math.inf) else "values below it are refused"


def _not_lower(old: Any, new: Any) -> str | None:
    return None if new is None or _number(new) >= _number(old, math.inf) else "values above it are refused"


def _number(value: Any, otherwise: float = math.nan) -> float:
    """Return a number; the API server accepts no definition with another value, so none compares as equal to it."""
    return value if isinstance(value, (int, float)) else otherwise


def _not_set(_old: Any, new: Any) -> str | None:
    return "values that were valid are refused" if new else None


def _not_different(reason: str) -> _Check:
    return lambda _old, _new: reason


def _multiple(old: Any, new: Any) -> str | None:
    divides = new is None or (_number(new, 0) > 0 and math.fmod(_number(old), _number(new)) == 0)
    return None if divides else "other values are refused"


def _format(old: Any, new: Any) -> str | None:
    wider = {("int32", "int64"), ("float", "double")}
    return None if new is None or (old, new) in wider else "values of another format are refused"


def _default(_old: Any, new: Any) -> str | None:
    return "objects without the field mean something else" if new is not None else "objects without the field lack it"


def _nullable(_old: Any, new: Any) -> str | None:
    return None if new else "null is refused or pruned"


_LISTS = "server-side apply merges it in another way, and duplicates may be refused"

_RULES = "x-kubernetes-validations"
_KEYWORDS: Mapping[str, _Check] = {
    **dict.fromkeys(("minimum", "minLength", "minItems", "minProperties"), _not_higher),
    **dict.fromkeys(("maximum", "maxLength", "maxItems", "maxProperties"), _not_lower),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "pattern"), _not_set),
    "multipleOf": _multiple,
    "format": _format,
    "default": _default,
    "nullable": _nullable,
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "not", "x-kubernetes-embedded-resource"), _not_set),
    **dict.fromkeys(("x-kubernetes-list-type", "x-kubernetes-list-map-keys"), _not_different(_LISTS)),
    "x-kubernetes-map-type": _not_different("server-side apply merges it in another way"),
}
_IMPLIED = {"x-kubernetes-list-type": "atomic", "x-kubernetes-map-type": "granular"}
_WIDER_TYPES = frozenset({("integer", "number"), ("integer", "integer or string"), ("string", "integer or string")})


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string") is True:
        return "integer or string"
    return str(schema.get("type") or "any")


def _keeps_unknown(schema: Schema) -> bool:
    return schema.get("x-kubernetes-preserve-unknown-fields") is True or schema.get("additionalProperties") is True


def _keyword_changed(keyword: str, old: Any, new: Any) -> str:
    if old is None:
        return f"{keyword} {_text(new)} added"
    return f"{keyword} {_text(old)} removed" if new is None else f"{keyword} {_changed(old, new)}"


def _changed(old: Any, new: Any) -> str:
    return f"changed from {_text(old)} to {_text(new)}"


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else _json(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _by_name(spec: Schema) -> dict[str, Schema]:
    return {str(_mapping(each).get("name")): _mapping(each) for each in _list(spec.get("versions"))}


def _schema_of(version: Schema) -> Schema:
    return _mapping(_mapping(version.get("schema")).get("openAPIV3Schema"))


def _required(schema: Schema) -> dict[str, None]:
    return dict.fromkeys(str(name) for name in _list(schema.get("required")))


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
