"""Read label and field selectors and match objects with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.apiserver._status import bad_request

__all__ = ["FieldTerm", "Selector", "parse_fields", "parse_labels"]

LabelTerm = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_KEY = re.compile(r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class FieldTerm:
    """Hold one requirement of a field selector: a dotted path equals, or does not equal, a text."""

    __slots__ = ("negated", "path", "value")

    def __init__(self, path: str, value: str, *, negated: bool) -> None:
        self.path = path
        self.value = value
        self.negated = negated


class Selector:
    """Match objects by labels and fields; empty matches all.

    Args:
        labels: label requirements, all of which have to hold.
        fields: field requirements, all of which have to hold.
        read: reads a selectable field of a document as text.
    """

    __slots__ = ("_fields", "_labels", "_read", "empty")

    def __init__(
        self,
        labels: list[LabelTerm],
        fields: list[FieldTerm],
        read: Callable[[dict[str, Any], str], str],
    ) -> None:
        self._labels = labels
        self._fields = fields
        self._read = read
        self.empty = not labels and not fields

    def matches(self, doc: dict[str, Any]) -> bool:
        """Tell whether a document has the labels and fields asked for."""
        if self._labels:
            labels = doc["metadata"].get("labels") or {}
            for term in self._labels:
                if not term(labels):
                    return False
        for field in self._fields:
            if (self._read(doc, field.path) == field.value) is field.negated:
                return False
        return True


def parse_labels(text: str) -> list[LabelTerm]:
    """Read a label selector.

    Raises:
        Refusal: 400 when it cannot be read.
    """
    parser = _Labels(text)
    try:
        return parser.terms()
    except ValueError as error:
        raise bad_request(f"unable to parse requirement: {error}") from None


class _Labels:
    def __init__(self, text: str) -> None:
        self._tokens = [match.group(1) for match in _TOKEN.finditer(text)]
        self._at = 0

    def terms(self) -> list[LabelTerm]:
        if not self._tokens:
            return []
        found = [self._term()]
        while self._peek() == ",":
            self._at += 1
            found.append(self._term())
        if self._peek():
            raise ValueError(f"found '{self._peek()}', expected: ',' or 'end of string'")
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _term(self) -> LabelTerm:
        if self._peek() == "!":
            self._at += 1
            absent = self._key()
            return lambda labels: absent not in labels
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return lambda labels: key in labels
        self._at += 1
        if operator in ("=", "=="):
            value = self._value()
            return lambda labels: labels.get(key) == value
        if operator == "!=":
            value = self._value()
            return lambda labels: labels.get(key) != value
        if operator in ("in", "notin"):
            values = self._values()
            if operator == "in":
                return lambda labels: labels.get(key) in values
            return lambda labels: labels.get(key) not in values
        if operator in ("<", ">"):
            return self._comparison(key, operator)
        raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _comparison(self, key: str, operator: str) -> LabelTerm:
        text = self._take()
        try:
            bound = int(text)
        except ValueError:
            raise ValueError(f"for 'Gt', 'Lt' operators, the value must be an integer: found '{text}'") from None

        def holds(labels: Mapping[str, str]) -> bool:
            try:
                value = int(labels[key])
            except (KeyError, ValueError):
                return False
            return value > bound if operator == ">" else value < bound

        return holds

    def _key(self) -> str:
        token = self._take()
        if not _KEY.fullmatch(token):
            raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
        return token

    def _value(self) -> str:
        token = self._peek()
        if token in ("", ","):
            return ""
        self._at += 1
        return self._checked(token)

    def _values(self) -> frozenset[str]:
        if self._take() != "(":
            raise ValueError("found no '(' after in or notin")
        found: set[str] = set()
        while True:
            token = self._take()
            if token in (",", ")"):
                found.add("")
            else:
                found.add(self._checked(token))
                token = self._take()
            if token == ")":
                return frozenset(found)
            if token != ",":
                raise ValueError(f"found '{token}', expected: ',' or ')'")

    @staticmethod
    def _checked(value: str) -> str:
        if not _VALUE.fullmatch(value):
            raise ValueError(f"values[0]: Invalid value: {value!r}: a valid label value must consist of alphanumerics")
        return value


def parse_fields(text: str) -> list[FieldTerm]:
    """Read a field selector.

    Raises:
        Refusal: 400 when it cannot be read.
    """
    found = []
    for term in _split(text):
        if not term:
            continue
        for operator, negated in (("!=", True), ("==", False), ("=", False)):
            path, met, value = term.partition(operator)
            if met:
                found.append(FieldTerm(path, _unescape(value), negated=negated))
                break
        else:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
    return found


def _split(text: str) -> list[str]:
    return re.split(r"(?<!\\),", text)


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)
