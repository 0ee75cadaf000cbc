"""A request to a kind: its verb, kind, namespace, name and subresource, and its label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import Endpoint, Registry, split_path
from reconciler.apiserver.encoding.formats import form_problems, qualified_name_problems
from reconciler.apiserver.encoding.refusals import Refusal, aggregate
from reconciler.apiserver.encoding.text import duration_problem, go_bool, go_int, quoted
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import ADMIN, UserInfo
from reconciler.http import HTTPRequest

_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ACTION = {"POST": "create"}
ACTIONS = {"binding": "Binding", "eviction": "Eviction", "token": "TokenRequest"}
"""The subresources that support create only, with their kinds."""
_SUBRESOURCE = {"GET": "get", "PUT": "update", "PATCH": "patch"}
_FINALIZE = {"PUT": "update"}
_INVALID_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_OF_A_NODE = {
    "nodes": frozenset({"proxy"}),
    "pods": frozenset({"log", "exec", "attach", "portforward", "proxy"}),
    "services": frozenset({"proxy"}),
}
"""Subresources that a kubelet or a pod serves behind the real server."""
_UNSUPPORTED = {"DELETE": "delete", "POST": "create"}


@dataclass(slots=True)
class Call:
    """A request to a kind, parsed.

    Attributes:
        request: the request.
        verb: the API's verb: get, list, watch, create, update, patch, delete, deletecollection; connect for what a
            kubelet or a pod answers.
        endpoint: the kind in the requested version.
        namespace: None for cluster-scoped kinds and lists over all namespaces.
        name: empty for collections.
        subresource: empty for the object itself.
        query: the last value of each parameter.
        warnings: the warnings so far, which are sent with an error response too.
        metadata_warnings: those about metadata, which are sent once the write is accepted.
        duplicates: messages about fields that the body contains twice.
        dry_run: whether nothing will be stored, once `check_write_options` has read the parameters of a write.
        by_server: whether the server itself makes it; its writes need no admission.
        user: who makes it.
    """

    request: HTTPRequest
    verb: str
    endpoint: Endpoint
    namespace: str | None
    name: str
    subresource: str
    query: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    metadata_warnings: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    dry_run: bool = False
    by_server: bool = False
    user: UserInfo = ADMIN

    def find(self) -> Stored | None:
        """Return the stored object that the request names, or None."""
        return self.endpoint.resource.find(self.namespace, self.name)

    def existing(self) -> Stored:
        """Return the stored object that the request names; raise the 404 if there is none."""
        found = self.find()
        if found is None:
            raise Refusal.not_found(self.endpoint.info.plural, self.endpoint.info.group, self.name)
        return found


def route(request: HTTPRequest, registry: Registry, user: UserInfo) -> Call | None:
    """Return the call of a user to a path under ``/api/v1`` or ``/apis/group/version``; None for discovery paths.

    Raises:
        Refusal: 400 or 404 in plain text if the path is invalid or not served, 405 if the verb is not, 400 if
            the timeout is not a duration in Go's form.
    """
    if _INVALID_ESCAPE.search(request.path):
        raise Refusal(400, "", "Bad Request", text="400 Bad Request")
    query = dict(request.query)
    timeout = query.get("timeout")
    if timeout and not go_bool(query.get("watch", "")) and (problem := duration_problem(timeout)):
        raise Refusal.bad_request(f"invalid timeout specified in the request URL - {problem}")
    found = split_path(request.path)
    if found is None or not found.plural or (found.group, found.plural) == ("", "componentstatuses"):
        return None
    group, version, namespace, plural, name, subresource, watched = found
    if (group, plural, name, watched) == ("", "bindings", "", False):
        plural, subresource = "pods", "binding"  # of the pod that the body names
    endpoint = registry.endpoint(group, version, plural)
    if endpoint is None:
        raise Refusal.no_such_resource() if registry.is_built_in(group, version) else Refusal.not_served()
    call = Call(request, "", endpoint, namespace, name, subresource, query, user=user)
    verbs = _OBJECT if name else _COLLECTION
    if subresource:
        verbs = _ACTION if subresource in ACTIONS else _FINALIZE if subresource == "finalize" else _SUBRESOURCE
    verb = _custom_verb(call, verbs) if endpoint.resource.custom else _built_in_verb(call, verbs)
    if watched and subresource:
        raise Refusal.no_such_resource()
    if watched and request.method != "GET":
        raise Refusal.method_not_allowed()
    call.verb = "watch" if watched or (verb == "list" and go_bool(call.query.get("watch", ""))) else verb
    return call


def _built_in_verb(call: Call, verbs: Mapping[str, str]) -> str:
    """Return the verb of a request to a built-in kind, whose handlers are registered path by path."""
    info = call.endpoint.info
    behind = call.subresource.partition("/")[0]
    if behind in _OF_A_NODE.get(info.plural, ()) and not info.group and call.name:
        return "connect"
    stored = "list" in info.verbs
    has_collections = info.namespaced and stored  # over all namespaces
    misplaced = info.namespaced != (call.namespace is not None) and (bool(call.name) or not has_collections)
    if misplaced or (call.name and not stored):
        raise Refusal.no_such_resource()
    if call.subresource and call.subresource not in call.endpoint.subresources:
        raise Refusal.no_such_resource()
    verb = verbs.get(call.request.method)
    over_all = info.namespaced and call.namespace is None
    if verb is None or (over_all and verb != "list") or not (stored or verb in info.verbs):
        raise Refusal.method_not_allowed()
    return verb


def _custom_verb(call: Call, verbs: Mapping[str, str]) -> str:
    """Return the verb of a request to a custom kind, for which one handler serves all paths."""
    info, method = call.endpoint.resource.info, call.request.method
    if info.namespaced != (call.namespace is not None) and not (info.namespaced and method == "GET" and not call.name):
        raise Refusal.not_served()
    if call.subresource:
        if call.subresource not in call.endpoint.subresources:
            raise Refusal.not_found(info.plural, info.group, call.name)
        if method in _UNSUPPORTED:
            raise Refusal.verb_not_supported(_UNSUPPORTED[method], info.plural, info.group)
    if not call.name and method in ("PUT", "PATCH"):
        raise Refusal.bad_request("name must be provided")
    if call.name and method == "POST":
        # The name of a created object comes from the document alone.
        call.name, verbs = "", _COLLECTION
    verb = verbs.get(method)
    if verb is None:
        raise Refusal.method_not_allowed()
    return verb


LabelTerm = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(r"(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_MARKS = frozenset({"=", "==", "!=", "<", ">", "(", ")", ",", "!"})


class FieldTerm(NamedTuple):
    """A requirement of a field selector: the field at a dotted path equals, or does not equal, a string."""

    path: str
    value: str
    negated: bool


class Selector:
    """A condition on the labels and fields of objects; empty matches all.

    Args:
        labels: label requirements; all must hold.
        fields: field requirements; all must hold.
        read: reads a selectable field of a document as text.

    Attributes:
        empty: everything matches.
        name: the one name that an object must have, or empty.
        namespace: the one namespace that an object must be in, or empty.
    """

    __slots__ = ("_fields", "_labels", "_read", "empty", "name", "namespace")

    def __init__(
        self,
        labels: list[LabelTerm],
        fields: list[FieldTerm],
        read: Callable[[JSONObject, str], str],
    ) -> None:
        self._labels = labels
        self._fields = fields
        self._read = read
        self.empty = not labels and not fields
        self.name, self.namespace = (
            next((field.value for field in fields if field.path == path and not field.negated), "")
            for path in ("metadata.name", "metadata.namespace")
        )

    def matches(self, doc: JSONObject) -> bool:
        """Return whether a document has the labels and fields."""
        if self._labels:
            labels = doc["metadata"].get("labels") or {}
            for term in self._labels:
                if not term(labels):
                    return False
        return all((self._read(doc, field.path) == field.value) is not field.negated for field in self._fields)


def parse_label_selector(text: str) -> list[LabelTerm]:
    """Parse a label selector; raise the 400 if it is not valid."""
    tokens = _Tokens(text)
    if not tokens.next:
        return []
    if tokens.next != "!" and tokens.next in _MARKS:
        raise Refusal.bad_request(f"found '{tokens.next}', expected: !, identifier, or 'end of string'")
    found = [_term(tokens)]
    while tokens.next:
        if (word := tokens.take()) != ",":
            raise Refusal.bad_request(f"found '{word}', expected: ',' or 'end of string'")
        if tokens.next != "!" and (not tokens.next or tokens.next in _MARKS):
            raise Refusal.bad_request(f"found '{tokens.next}', expected: identifier after ','")
        found.append(_term(tokens))
    return found


class _Tokens:
    """The tokens of a label selector, and the next one to be read; empty at the end."""

    def __init__(self, text: str) -> None:
        self._rest = iter(_TOKEN.findall(text))
        self.next = next(self._rest, "")

    def take(self) -> str:
        token, self.next = self.next, next(self._rest, "")
        return token


def _term(tokens: _Tokens) -> LabelTerm:
    absent = tokens.next == "!" and bool(tokens.take())
    key = tokens.take()
    if not key or key in _MARKS:
        raise _requirement(f"found '{key}', expected: identifier")
    if problems := qualified_name_problems(key):
        raise _requirement(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(problems)}")
    if absent:
        return lambda labels: key not in labels
    if tokens.next in ("", ","):
        return lambda labels: key in labels
    operator = tokens.take()
    if operator in ("<", ">"):
        return _comparison(key, operator, tokens.take())
    if operator not in ("in", "notin", "=", "==", "!="):
        raise _requirement(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    values = _values(key, tokens) if operator in ("in", "notin") else frozenset({_value(key, tokens)})
    if operator in ("notin", "!="):
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values


def _comparison(key: str, operator: str, text: str) -> LabelTerm:
    try:
        bound = go_int(text)
    except ValueError:
        problem = f"values[0]: Invalid value: {quoted(text)}: for 'Gt', 'Lt' operators, the value must be an integer"
        raise _requirement(aggregate([problem, *_value_problems(key, text)])) from None

    def holds(labels: Mapping[str, str]) -> bool:
        try:
            value = go_int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > bound if operator == ">" else value < bound

    return holds


def _value(key: str, tokens: _Tokens) -> str:
    if tokens.next == "!":
        raise _requirement("found '!', expected: identifier")
    return "" if tokens.next in ("", ",") else _checked(key, tokens.take())


def _values(key: str, tokens: _Tokens) -> frozenset[str]:
    found, word = set(), tokens.take()
    if word != "(":
        raise _requirement(f"found '{word}' expected: '('")
    while word != ")":
        word = tokens.take()
        found.add("" if word in (",", ")") else _checked(key, word))
        word = word if word in (",", ")") else tokens.take()
        if word not in (",", ")"):
            raise _requirement(f"found '{word}', expected: ',' or ')'")
    return frozenset(found)


def _checked(key: str, value: str) -> str:
    for problem in _value_problems(key, value):
        raise _requirement(problem)
    return value


def _value_problems(key: str, value: str) -> list[str]:
    place = f"values[0][{key}]: Invalid value: {quoted(value)}"
    return [f"{place}: {problem}" for problem in form_problems("label-value", value)[:1]]


def _requirement(problem: str) -> Refusal:
    return Refusal.bad_request(f"unable to parse requirement: {problem}")


def parse_field_selector(text: str) -> list[FieldTerm]:
    """Parse a field selector; raise the 400 if it is not valid."""
    found = []
    for term in re.split(r"(?<!\\),", text):
        if not term:
            continue
        for operator, negated in (("!=", True), ("==", False), ("=", False)):
            path, met, value = term.partition(operator)
            if met:
                if not path and not value:
                    break
                found.append(FieldTerm(path, re.sub(r"\\([\\,=])", r"\1", value), negated))
                if re.search(r"(?<!\\)=", value):
                    raise Refusal.bad_request(f"invalid field selector: unescaped character in value: {ord('=')}")
                break
        else:
            raise Refusal.bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
    return found
