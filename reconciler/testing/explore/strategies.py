"""hypothesis strategies of objects of a kind, drawn from its structural schema.

What is drawn is checked as the embedded API server checks it: pruned, completed with defaults, and validated, CEL rules
included. For a `Resource` class, the pydantic model must accept it as well.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.decoding import Decoding
from reconciler.apiserver.cluster import CustomContents, contents_of
from reconciler.apiserver.encoding.formats import ecma_pattern
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.manifests import documents_of
from reconciler.apiserver.store import encode
from reconciler.errors import ConfigurationError, importing
from reconciler.meta.documents import without_nulls
from reconciler.objects import InvalidObject, Resource

with importing(extra="testing", purpose="drawing objects of a kind"):
    from hypothesis import strategies as st
    from hypothesis.errors import UnsatisfiedAssumption

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

R = TypeVar("R", bound=Resource)

_NOT_DRAWN = ("apiVersion", "kind", "metadata", "status")
_SPAN = 100
"""How far an integer is drawn from its bound, since operators often make as many objects as it says."""
_MOST_ITEMS = 3
_ATTEMPTS = 20
"""How many documents are drawn for one that the server accepts."""
_NAME = "[a-z]([a-z0-9-]{0,6}[a-z0-9])?"
"""Strings without a form are names, which a typical operator can use."""
_TEXT = st.characters(min_codepoint=32, max_codepoint=126)
_FORMATS: Mapping[str, str] = {
    **recorded("encoding/formats.json"),
    **json.loads(Path(__file__).with_name("formats.json").read_text(encoding="utf-8")),
}
"""The patterns of strings with a format; a string with another format is a name."""
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
    def drawn(self) -> JSONObject:
        """Return the schema of what users write, besides the metadata."""
        whole = self.version["schema"]["openAPIV3Schema"]
        members = {key: each for key, each in whole["properties"].items() if key not in _NOT_DRAWN}
        return {**whole, "properties": members, "required": [*(whole.get("required") or ()), "spec"]}

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
        contents = contents_of(encode(version["schema"]["openAPIV3Schema"]))
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
    own = {f".{path.removeprefix('.')}": strategy for path, strategy in (fields or {}).items()}
    known = dict(_fields(schema.drawn, ""))
    for path in own:
        if path not in known:
            choices = ", ".join(each[1:] for each in known)
            raise ConfigurationError(f"fields: {path[1:]!r} is not a field of {schema.kind}: choose from {choices}")
    metadata = {"name": name} | ({"namespace": namespace} if schema.namespaced else {})
    head = {"apiVersion": schema.api_version, "kind": schema.kind}
    contents = _ValueStrategies(own).of(schema.drawn, "")

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
        places = [*_places(document["spec"], ("spec",))][:0:-1] or [("spec",)]
        for _ in range(_ATTEMPTS):
            value = draw(st.sampled_from((None, *_WRONG)))
            broken: JSONObject = replaced(document, draw(st.sampled_from(places)), value)
            if schema.problems(broken) or schema.unfit(broken):
                return broken
        raise UnsatisfiedAssumption("no invalid object was drawn")

    return refused()


def wrong_alone(schema: Schema, documents: Sequence[JSONObject], path: str) -> Iterator[JSONObject]:
    """Yield documents with a wrong value in one field, which the server or the model refuses."""
    for document, value in itertools.product(documents, _WRONG):
        with contextlib.suppress(LookupError):
            broken: JSONObject = replaced(document, steps_of(path), value)
            if schema.problems(broken) or schema.unfit(broken):
                yield broken


def _places(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of a value and of all values in it."""
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in below:
        yield from _places(member, (*path, key))


def steps_of(path: str) -> list[str | int]:
    """Return the keys of a field's path; a list stands for its first item."""
    return [0 if part == "[]" else part for part in path.replace("[]", ".[]").split(".")]


def replaced(document: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a document with another value at a path; None removes a member, and ``"*"`` is the first one of a map.

    Raises:
        LookupError: there is no such place.
    """
    step, *rest = path
    if step == "*":
        step = next(iter(document), "")
    copied = document.copy()
    inner = replaced(document[step], rest, value) if rest else value
    if inner is None and isinstance(copied, dict):
        copied.pop(step, None)
    else:
        copied[step] = inner
    return copied


def _fields(schema: JSONObject, path: str) -> Iterator[tuple[str, JSONObject]]:
    """Yield the path of each field below a place, as `objects` names them, with its schema."""
    below = {f"{path}.{key}": member for key, member in (schema.get("properties") or {}).items()}
    below |= {path + step: schema.get(key) for key, step in (("items", "[]"), ("additionalProperties", ".*"))}
    for inner, member in below.items():
        if isinstance(member, dict):
            yield inner, member
            yield from _fields(member, inner)


def field_paths(schema: Schema) -> list[str]:
    """Return the path of each field of the spec that has a value of its own, not only members."""
    found = _fields(schema.drawn, "")
    leaves = (path[1:] for path, place in found if not place.get("properties") and path[-2:] not in ("[]", ".*"))
    return [path for path in leaves if path.startswith("spec")]


def field_values(schema: Schema, path: str, own: Mapping[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    """Return the strategy of the values of a field, by its path."""
    return own.get(path) or _ValueStrategies({}).of(dict(_fields(schema.drawn, ""))[f".{path}"], path)


@dataclass(frozen=True, slots=True)
class _ValueStrategies:
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
            return st.one_of([self.of(_merged(plain, branch), path) for branch in branches])
        drawn = self._plain(plain, path)
        return st.none() | drawn if schema.get("nullable") else drawn

    def _plain(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        if schema.get("enum"):
            return st.sampled_from(list(schema["enum"]))
        if schema.get("x-kubernetes-int-or-string"):
            return st.integers(0, _SPAN) | _text("[1-9][0-9]?%")
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
        least, most = _size(schema, "Properties")
        return st.builds(dict.__or__, st.dictionaries(_text(_NAME), values, min_size=least, max_size=most), named)

    def _array(self, schema: JSONObject, path: str) -> SearchStrategy[Any]:
        items = self.of(schema.get("items") or {}, f"{path}[]")
        least, most = _size(schema, "Items")
        list_type = "set" if schema.get("uniqueItems") else schema.get("x-kubernetes-list-type")
        keys = schema.get("x-kubernetes-list-map-keys") or []
        identities: dict[Any, Callable[[Any], str]] = {
            "map": lambda item: repr([item.get(key) for key in keys]),
            "set": repr,
        }
        return st.lists(items, min_size=least, max_size=most, unique_by=identities.get(list_type))


def _size(schema: JSONObject, what: str) -> tuple[int, int]:
    """Return how many items or members are drawn at least and at most."""
    least = int(schema.get(f"min{what}") or 0)
    return least, max(least, min(int(schema.get(f"max{what}", least + _MOST_ITEMS)), least + _MOST_ITEMS))


def _text(pattern: str) -> SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True, alphabet=_TEXT)


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


def _integer(schema: JSONObject, _path: str) -> SearchStrategy[Any]:
    step = max(1, int(schema.get("multipleOf") or 1))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        low = 0 if high is None or high >= 0 else high - _SPAN
    low = math.ceil(low) + bool(schema.get("exclusiveMinimum"))
    high = low + _SPAN if high is None else math.floor(high) - bool(schema.get("exclusiveMaximum"))
    return st.integers(-(-low // step), min(high, low + _SPAN) // step).map(lambda number: number * step)


def _number(schema: JSONObject, path: str) -> SearchStrategy[Any]:
    if schema.get("multipleOf"):
        return _integer(schema, path)
    low = float(schema.get("minimum", 0.0))
    high = min(float(schema.get("maximum", low + _SPAN)), low + _SPAN)
    return st.floats(min(low, high), high)


def _string(schema: JSONObject, path: str) -> SearchStrategy[Any]:
    least, most = int(schema.get("minLength") or 0), int(schema.get("maxLength", 10_000))
    if "pattern" in schema:
        drawn = _matching(schema["pattern"], path)
    elif schema.get("format") in _FORMATS:
        drawn = _text(_FORMATS[schema["format"]])
    elif least > 1 or "maxLength" in schema:
        drawn = _text(f"[a-z]{{{least},{max(least, min(8, most))}}}")
    else:
        drawn = _text(_NAME)
    return drawn.filter(lambda text: least <= len(text) <= most)


def _matching(pattern: str, path: str) -> SearchStrategy[str]:
    """Return a strategy of strings in which a pattern in Go's syntax is found."""
    translated = re.sub(r"\(\?<(?![=!])", "(?P<", ecma_pattern(pattern))
    try:
        drawn = st.from_regex(
            re.compile(translated), alphabet=_TEXT if translated.isascii() else st.characters(codec="utf-8")
        )
        drawn.validate()
    except (re.error, ValueError) as error:
        raise ConfigurationError(
            f"{path.removeprefix('.')}: cannot draw strings of the pattern {pattern!r}: {error}; pass a strategy of "
            "your own with fields="
        ) from error
    return drawn


def _anything(*_: object) -> SearchStrategy[Any]:
    """Return a strategy of small values of any type, for places that the schema leaves open."""
    scalars = st.booleans() | st.integers(0, _SPAN) | _text(_NAME)
    return scalars | st.dictionaries(_text(_NAME), scalars, max_size=2)
