"""hypothesis strategies of objects of a kind, drawn from its structural schema.

What is drawn is checked as the embedded API server checks it: pruned, completed with defaults, and validated, CEL rules
included. For a `Resource` class, the pydantic model must accept it as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.decoding import Decoding
from reconciler.apiserver.cluster import CustomContents, contents_of
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.schema.formats import ecma_pattern
from reconciler.apiserver.server import documents_of
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.meta.documents import without_nulls
from reconciler.objects import InvalidObject, Resource

try:
    from hypothesis import strategies as st
    from hypothesis.errors import UnsatisfiedAssumption
except ModuleNotFoundError as error:
    raise MissingExtra("hypothesis", extra="testing", purpose="drawing objects of a kind") from error

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

R = TypeVar("R", bound=Resource)

_SPAN = 100
"""How far an integer is drawn from its bound, since operators often make as many objects as it says."""
_MOST_ITEMS = 3
_ATTEMPTS = 20
"""How many documents are drawn for one that the server accepts."""
_NAME = "[a-z]([a-z0-9-]{0,6}[a-z0-9])?"
"""Strings without a form are names, which a typical operator can use."""
_TEXT = st.characters(min_codepoint=32, max_codepoint=126)
_FORMS = {
    "byte": "([a-z0-9]{4}){0,3}",
    "cidr": r"10\.[0-9]\.0\.0/16",
    "creditcard": "4111111111111111",
    "date": "2026-0[1-9]-[12][0-9]",
    "date-time": "2026-0[1-9]-[12][0-9]T0[0-9]:00:00Z",
    "datetime": "2026-0[1-9]-[12][0-9]T0[0-9]:00:00Z",
    "duration": "[1-9][0-9]?[smh]",
    "email": r"[a-z]{1,8}@example\.com",
    "hostname": r"[a-z]{1,8}\.example\.com",
    "ipv4": r"10\.0\.[0-9]\.[1-9]",
    "ipv6": "fd00::[1-9a-f]{1,4}",
    "isbn": "9783161484100",
    "isbn10": "3161484100",
    "isbn13": "9783161484100",
    "rgbcolor": r"rgb\([1-9][0-9], 0, [0-9]\)",
    "uri": r"https://[a-z]{1,8}\.example\.com",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
    "uuid3": "[0-9a-f]{8}-[0-9a-f]{4}-3[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
    "uuid4": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
    "uuid5": "[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
}
"""The patterns of strings with a format; others are those of the server's table, or names."""
_WRONG: tuple[Any, ...] = ("", "?", -1, 0, 2**31, 1.5, True, [], {}, ["?"], {"?": "?"}, "x" * 300)


@dataclass(frozen=True, slots=True)
class Schema:
    """The kind that objects are drawn of, and what decides whether one is valid.

    Attributes:
        definition: the CustomResourceDefinition.
        version: its version that is drawn, as written in the definition.
        model: the class; None if only the definition is given.
        refusals: why the last drawn document was refused, for errors.
    """

    definition: JSONObject
    version: JSONObject
    model: type[Resource] | None
    _contents: CustomContents = field(repr=False)
    refusals: list[str] = field(default_factory=list, init=False, repr=False)

    @property
    def api_version(self) -> str:
        """Return the group and the version."""
        return f"{self.definition['spec']['group']}/{self.version['name']}"

    @property
    def kind(self) -> str:
        """Return the kind."""
        return str(self.definition["spec"]["names"]["kind"])

    @property
    def namespaced(self) -> bool:
        """Return whether the objects have namespaces."""
        return bool(self.definition["spec"].get("scope") != "Cluster")

    @property
    def document(self) -> JSONObject:
        """Return the schema of the whole object."""
        found: JSONObject = self.version["schema"]["openAPIV3Schema"]
        return found

    def complete(self, document: JSONObject) -> JSONObject:
        """Return a document without unknown fields and nulls, and with its defaults."""
        return self._contents.decode(document, None, Decoding())

    def problems(self, document: JSONObject, before: JSONObject | None = None) -> list[str]:
        """Return why the server refuses a document as a new object, or as a change of one; empty if it is valid."""
        errors = self._contents.check(self.complete(document), before, "", blocked=False)
        return [f"{error.field}: {error.message}" for error in errors]

    def unfit(self, document: JSONObject) -> list[str]:
        """Return why the pydantic model does not accept a document; empty if it does or there is none."""
        try:
            if self.model is not None:
                self.model.from_dict(self.complete(document))
        except InvalidObject as error:
            return [f"{path}: {text}" for path, text in error.problems]
        return []


Kind = type[Resource] | Mapping[str, Any] | str | Path
"""A Resource class, or a CustomResourceDefinition as a document or the path of a YAML or JSON file."""


def schema_of(kind: Kind) -> Schema:
    """Return the schema of a kind: of the stored version of a definition, or of the version of a class.

    Raises:
        ConfigurationError: it is not a kind, or its definition cannot be used.
    """
    model = kind if isinstance(kind, type) and issubclass(kind, Resource) else None
    found = [each for each in documents_of(kind) if each.get("kind") == "CustomResourceDefinition"]
    if len(found) != 1:
        raise ConfigurationError(
            f"{kind!r} contains {len(found)} CustomResourceDefinitions: pass a Resource class, or one definition"
        )
    definition = dict(found[0])
    try:
        versions = definition["spec"]["versions"]
        version = next(
            each for each in versions if (each["name"] == model.gvk.version if model else each.get("storage"))
        )
        contents = contents_of(version["schema"]["openAPIV3Schema"])
    except (KeyError, TypeError, StopIteration) as error:
        raise ConfigurationError(f"{kind!r} is not a complete CustomResourceDefinition: {error!r}") from error
    except ValueError as error:
        raise ConfigurationError(f"the schema of {kind!r} is invalid: {error}") from error
    return Schema(definition, version, model, contents)


@overload
def objects(
    kind: type[R],
    *,
    name: str = ...,
    namespace: str = ...,
    fields: Mapping[str, SearchStrategy[Any]] | None = ...,
    invalid: Literal[False] = ...,
) -> SearchStrategy[R]: ...
@overload
def objects(
    kind: Kind,
    *,
    name: str = ...,
    namespace: str = ...,
    fields: Mapping[str, SearchStrategy[Any]] | None = ...,
    invalid: bool = ...,
) -> SearchStrategy[Any]: ...
def objects(
    kind: Kind,
    *,
    name: str = "example",
    namespace: str = "default",
    fields: Mapping[str, SearchStrategy[Any]] | None = None,
    invalid: bool = False,
) -> SearchStrategy[Any]:
    """Return a strategy of objects of a kind that the API server accepts.

    Strings without an enum, pattern or format are short lowercase names, integers stay within 100 of their bounds, or
    of 0, and lists have up to three items more than they must.

    ::

        @given(explore.objects(Site, fields={"spec.image": st.sampled_from(["nginx:1", "nginx:2"])}))
        def test_sites(site: Site) -> None: ...

    Args:
        kind: a Resource class, or a CustomResourceDefinition as a document or the path of a YAML file.
        name: the name of all objects.
        namespace: their namespace, unless the kind is cluster-scoped.
        fields: strategies of your own by path, with the names of the API: ``"spec.image"``, ``"spec.parts[].name"`` for
            a member of list items, ``"spec.labels.*"`` for the values of a map. Optional fields are drawn sometimes.
        invalid: draw objects that the server refuses instead, for one wrong value each.

    Returns:
        Instances of the class. For a definition, and for invalid objects, documents.

    Raises:
        ConfigurationError: `kind` is not a kind, or a path is not in its schema.
    """
    schema = schema_of(kind)
    documents = valid_documents(schema, name=name, namespace=namespace, fields=fields)
    if invalid:
        return invalid_documents(schema, documents)
    return documents if schema.model is None else documents.map(schema.model.from_dict)


def valid_documents(
    schema: Schema, *, name: str, namespace: str, fields: Mapping[str, SearchStrategy[Any]] | None
) -> SearchStrategy[JSONObject]:
    """Return a strategy of documents that the server and the model accept, with their defaults.

    Raises:
        ConfigurationError: a path of `fields` is not in the schema.
    """
    own = {path.removeprefix("."): strategy for path, strategy in (fields or {}).items()}
    members = {
        key: _Values(own).of(member, key)
        for key, member in (schema.document.get("properties") or {}).items()
        if key not in ("apiVersion", "kind", "metadata", "status")
    }
    known = list(_paths(schema.document, ""))
    for path in own:
        if path not in known:
            raise ConfigurationError(
                f"fields: {path!r} is not a field of {schema.kind}: choose from {', '.join(known)}"
            )
    metadata = {"name": name} | ({"namespace": namespace} if schema.namespaced else {})
    head = {"apiVersion": schema.api_version, "kind": schema.kind}
    required = set(schema.document.get("required") or ()) | {"spec"}
    contents = st.fixed_dictionaries(
        {key: member for key, member in members.items() if key in required},
        optional={key: member for key, member in members.items() if key not in required},
    )

    @st.composite
    def accepted(draw: st.DrawFn) -> JSONObject:
        for _ in range(_ATTEMPTS):
            document = {**head, "metadata": dict(metadata), **draw(contents)}
            schema.refusals[:] = schema.problems(document) or schema.unfit(document)
            if not schema.refusals:
                found: JSONObject = without_nulls(schema.complete(document))
                return found
        raise UnsatisfiedAssumption(f"{_ATTEMPTS} drawn objects are not a valid {schema.kind}")

    return accepted()


def invalid_documents(schema: Schema, valid: SearchStrategy[JSONObject]) -> SearchStrategy[JSONObject]:
    """Return a strategy of documents that the server or the model refuses, each for one wrong or missing value."""

    @st.composite
    def refused(draw: st.DrawFn) -> JSONObject:
        document = draw(valid)
        for _ in range(_ATTEMPTS):
            places = [*_places(document.get("spec"), ("spec",))][::-1]  # the last is the whole spec
            place = draw(st.sampled_from(places[:-1] or places))
            broken: JSONObject = _replaced(document, place, draw(st.sampled_from((None, *_WRONG))))
            if schema.problems(broken) or schema.unfit(broken):
                return broken
        raise UnsatisfiedAssumption("no invalid object was drawn")

    return refused()


def _places(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of a value and of all values in it."""
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in below:
        yield from _places(member, (*path, key))


def _replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a document with another value at a path; None removes a member."""
    if not path:
        return value
    copied = document.copy()
    inner = _replaced(document[path[0]], path[1:], value)
    if inner is None and isinstance(copied, dict):
        del copied[path[0]]
    else:
        copied[path[0]] = inner
    return copied


def _paths(schema: JSONObject, path: str) -> Iterator[str]:
    """Yield the path of each field of a schema, as `objects` names them."""
    for key, member in (schema.get("properties") or {}).items():
        if path or key not in ("apiVersion", "kind", "metadata", "status"):
            below = f"{path}.{key}" if path else key
            yield below
            yield from _paths(member, below)
    for key, step in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(schema.get(key), dict):
            yield path + step
            yield from _paths(schema[key], path + step)


def field_paths(schema: JSONObject, path: str) -> Iterator[str]:
    """Yield the path of each field of a schema that is not an object with members of its own."""
    members = {f"{path}.{key}": member for key, member in (schema.get("properties") or {}).items()}
    if not members:
        yield path
    for below, member in members.items():
        yield from field_paths(member, below)
    items = schema.get("items")
    if isinstance(items, dict) and items.get("properties"):
        yield from field_paths(items, f"{path}[]")


def field_values(schema: Schema, path: str, own: Mapping[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    """Return the strategy of the values of a field, by its path."""
    place = schema.document
    for part in path.replace("[]", ".[]").split("."):
        place = place["items"] if part == "[]" else place["properties"][part]
    return _Values(own).of(place, path)


@dataclass(frozen=True, slots=True)
class _Values:
    """Strategies of the values of a schema; those of the user take precedence."""

    own: Mapping[str, SearchStrategy[Any]]

    def of(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        """Return the strategy of the values at a path."""
        if path in self.own:
            return self.own[path]
        branches = [branch for key in ("oneOf", "anyOf") for branch in schema.get(key) or ()]
        for branch in schema.get("allOf") or ():
            schema = _merged(schema, branch)
        plain = {key: value for key, value in schema.items() if key not in ("oneOf", "anyOf", "allOf")}
        if branches and not schema.get("x-kubernetes-int-or-string"):
            return st.one_of(
                *(self.of(_merged(_without_others(plain, branch, branches), branch), path) for branch in branches)
            )
        drawn = self._plain(plain, path)
        return st.none() | drawn if schema.get("nullable") else drawn

    def _plain(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        if schema.get("enum"):
            return st.sampled_from(list(schema["enum"]))
        if schema.get("x-kubernetes-int-or-string"):
            return st.integers(0, _SPAN) | st.from_regex("[1-9][0-9]?%", fullmatch=True, alphabet=_TEXT)
        drawn: dict[str, Callable[[JSONObject, str], SearchStrategy[Any]]] = {
            "object": self._object,
            "array": self._array,
            "string": _string,
            "integer": _integer,
            "number": _number,
            "boolean": lambda *_: st.booleans(),
        }
        return drawn.get(str(schema.get("type")), _anything)(schema, path)

    def _object(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        properties = {key: self.of(member, f"{path}.{key}") for key, member in (schema.get("properties") or {}).items()}
        required = set(schema.get("required") or ())
        named = st.fixed_dictionaries(
            {key: value for key, value in properties.items() if key in required},
            optional={key: value for key, value in properties.items() if key not in required},
        )
        additional = schema.get("additionalProperties")
        if not additional:
            return named
        values = self.of(additional, f"{path}.*") if isinstance(additional, dict) else _anything()
        least = int(schema.get("minProperties") or 0)
        most = min(int(schema.get("maxProperties") or least + _MOST_ITEMS), least + _MOST_ITEMS)
        keys = st.from_regex(_NAME, fullmatch=True, alphabet=_TEXT)
        return st.builds(dict.__or__, st.dictionaries(keys, values, min_size=least, max_size=most), named)

    def _array(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        items = self.of(schema.get("items") or {}, f"{path}[]")
        least = int(schema.get("minItems") or 0)
        most = min(int(schema.get("maxItems") or least + _MOST_ITEMS), least + _MOST_ITEMS)
        unique: Callable[[Any], Any] | None = None
        if schema.get("x-kubernetes-list-type") == "map":
            keys = schema.get("x-kubernetes-list-map-keys") or []
            unique = lambda item: repr([item.get(key) for key in keys])  # noqa: E731
        elif schema.get("x-kubernetes-list-type") == "set" or schema.get("uniqueItems"):
            unique = repr
        return st.lists(items, min_size=least, max_size=max(least, most), unique_by=unique)


def _merged(schema: JSONObject, branch: JSONObject) -> JSONObject:
    """Return a schema with the restrictions of a branch of oneOf, anyOf or allOf."""
    merged = schema | {key: value for key, value in branch.items() if key not in ("properties", "required", "items")}
    if branch.get("required"):
        merged["required"] = [*(schema.get("required") or ()), *branch["required"]]
    if branch.get("properties"):
        known = schema.get("properties") or {}
        inner = {key: _merged(known.get(key) or {}, value) for key, value in branch["properties"].items()}
        merged["properties"] = known | inner
    if isinstance(branch.get("items"), dict):
        merged["items"] = _merged(schema.get("items") or {}, branch["items"])
    return merged


def _without_others(schema: JSONObject, branch: JSONObject, branches: list[JSONObject]) -> JSONObject:
    """Return a schema without the members that only the other branches require, so that often one branch is valid."""
    others = {key for each in branches for key in each.get("required") or ()} - set(branch.get("required") or ())
    others -= set(schema.get("required") or ())
    properties = schema.get("properties") or {}
    return schema | {"properties": {key: value for key, value in properties.items() if key not in others}}


def _integer(schema: JSONObject, _path: str) -> SearchStrategy[Any]:
    step = int(schema.get("multipleOf") or 1)
    low, high = schema.get("minimum"), schema.get("maximum")
    low = None if low is None else int(low) + bool(schema.get("exclusiveMinimum"))
    high = None if high is None else int(high) - bool(schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None or high >= 0 else high - _SPAN
    high = low + _SPAN if high is None else min(high, low + _SPAN)
    return st.integers(-(-low // step), high // step).map(lambda number: number * step)


def _number(schema: JSONObject, path: str) -> SearchStrategy[Any]:
    if schema.get("multipleOf"):
        return _integer({**schema, "multipleOf": max(1, int(schema["multipleOf"]))}, path)
    low = float(schema.get("minimum", 0.0))
    high = min(float(schema.get("maximum", low + _SPAN)), low + _SPAN)
    return st.floats(
        min(low, high),
        high,
        exclude_min=bool(schema.get("exclusiveMinimum")),
        exclude_max=bool(schema.get("exclusiveMaximum")),
    )


def _string(schema: JSONObject, path: str) -> SearchStrategy[Any]:
    least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
    if "pattern" in schema:
        pattern = (
            ecma_pattern(schema["pattern"]).replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
        )
        try:
            drawn = st.from_regex(
                re.compile(pattern), alphabet=_TEXT if pattern.isascii() else st.characters(codec="utf-8")
            )
            drawn.validate()
        except (re.error, ValueError) as error:
            raise ConfigurationError(
                f"cannot draw strings of the pattern {schema['pattern']!r} of {path}: {error}; pass a strategy of your "
                f"own: fields={{{path!r}: …}}"
            ) from error
    else:
        formats = {**recorded("schema/formats.json"), **_FORMS}
        form = formats.get(str(schema.get("format")))
        if form is None and (least > 1 or most is not None):
            longest = max(least, min(8, least + 8 if most is None else int(most)))
            form = f"[a-z]{{{least},{longest}}}"
        drawn = st.from_regex(form or _NAME, fullmatch=True, alphabet=_TEXT)
    return drawn.filter(lambda text: least <= len(text) and (most is None or len(text) <= most))


def _anything(*_: object) -> SearchStrategy[Any]:
    """Return a strategy of small values of any type, for places that the schema leaves open."""
    scalars = st.booleans() | st.integers(0, _SPAN) | st.from_regex(_NAME, fullmatch=True, alphabet=_TEXT)
    return scalars | st.dictionaries(st.from_regex(_NAME, fullmatch=True, alphabet=_TEXT), scalars, max_size=2)
