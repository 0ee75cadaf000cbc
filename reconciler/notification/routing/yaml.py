"""YAML documents with the line of each value, for error messages.

Size, nesting and expanded aliases are limited before the document is built: the parser's events are counted, which
needs neither recursion nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from reconciler._core.scalars import use_kubernetes_scalars
from reconciler.notification.redaction.text import shortened

__all__ = ["Path", "Problem", "Source", "read_yaml"]

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a value from the top of the document."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error in a document.

    Attributes:
        line: line number from 1; 0 for the document as a whole.
        place: path of the value, such as ``route.routes[0].receiver``.
        message: what is wrong, and what to do.
    """

    line: int
    place: str
    message: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"line {self.line}: {place}{self.message}" if self.line else f"{place}{self.message}"


@dataclass(slots=True)
class Source:
    """A document with line numbers and the errors found so far.

    Attributes:
        data: the document.
        lines: the line of each value, by its path.
        problems: the errors.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add_problem(self, path: Path, message: str) -> None:
        """Add an error at a path, with the line of the nearest existing value."""
        if len(self.problems) > PROBLEM_COUNT_LIMIT:
            return
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 0)
        self.problems.append(Problem(line, place_of(path), shortened(message, TEXT_LIMIT)))


def place_of(path: Path) -> str:
    """Return a path in the notation ``route.routes[0].receiver``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        if len(text) > TEXT_LIMIT:
            return shortened(text, TEXT_LIMIT)
    return text


SIZE_LIMIT = 1_048_576
"""Maximum characters in a document: the limit of a ConfigMap."""

NESTING_LIMIT = 64
"""Maximum nesting of mappings and lists."""

NODE_LIMIT = 250_000
"""Maximum values in a document after expanding aliases."""

TEXT_LIMIT = 1000
"""Maximum characters of the place and of the message of an error."""

PROBLEM_COUNT_LIMIT = 1000
"""Maximum errors that are collected for a document."""

PROBLEM_LIMIT = 50
"""Maximum errors that a message lists."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader that reads numbers and timestamps as Kubernetes does."""


use_kubernetes_scalars(_Loader)


def read_yaml(text: str) -> Source:
    """Parse one YAML document; syntax errors and duplicate keys become problems."""
    source = Source()
    if len(text) > SIZE_LIMIT:
        source.problems.append(Problem(0, "", f"the document has {len(text)} characters; the maximum is {SIZE_LIMIT}"))
        return source
    loader = _Loader(text)
    try:
        problem = _excess(text)
        if problem is not None:
            source.problems.append(problem)
            return source
        node = loader.get_single_node()
        if node is not None:
            for path, message in _walk(node, (), source.lines):
                source.add_problem(path, message)
            if not source.problems:  # the time to merge many duplicates of the key << is quadratic
                source.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = ", ".join(part for part in (error.context, error.problem) if part)
        source.problems.append(Problem(mark.line + 1 if mark else 0, "", f"invalid YAML: {text}"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        source.problems.append(Problem(0, "", f"invalid YAML: {error}"))
    finally:
        loader.dispose()
    return source


@dataclass(slots=True)
class _Size:
    """The size of a value.

    Attributes:
        anchor: the anchor by which aliases refer to it, if any.
        nodes: number of values, including itself.
        depth: number of levels, including itself.
        length: number of characters.
    """

    anchor: str | None = None
    nodes: int = 1
    depth: int = 1
    length: int = 0

    def add(self, inner: _Size) -> None:
        """Add the size of a value inside this one."""
        self.nodes += inner.nodes
        self.length += inner.length
        self.depth = max(self.depth, inner.depth + 1)


def _excess(text: str) -> Problem | None:
    """Return which limit a document exceeds after expanding aliases, or None."""
    anchors: dict[str, _Size] = {}
    open_values: list[_Size] = [_Size()]
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_values.append(_Size(event.anchor))
            if event.anchor:
                anchors.pop(event.anchor, None)
            size = open_values[-1]
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_values.pop()
            open_values[-1].add(size)
        elif isinstance(event, yaml.ScalarEvent):
            size = _Size(event.anchor, length=len(event.value))
            open_values[-1].add(size)
        elif isinstance(event, yaml.AliasEvent):
            if any(value.anchor == event.anchor for value in open_values):
                return Problem(line, "", f"the alias *{event.anchor} refers to a value that contains it")
            size = anchors.get(event.anchor or "", _Size())  # unknown ones are reported when the document is built
            open_values[-1].add(size)
        else:
            continue
        if not isinstance(event, (yaml.CollectionStartEvent, yaml.AliasEvent)) and size.anchor:
            anchors[size.anchor] = size
        if len(open_values) + (size.depth if isinstance(event, yaml.AliasEvent) else 0) > NESTING_LIMIT + 1:
            return Problem(line, "", f"nested more than {NESTING_LIMIT} levels deep")
        if open_values[-1].nodes > NODE_LIMIT:
            return Problem(line, "", f"more than {NODE_LIMIT} values after expanding aliases")
        if open_values[-1].length > SIZE_LIMIT:
            return Problem(line, "", f"more than {SIZE_LIMIT} characters after expanding aliases")
    return None


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Iterator[tuple[Path, str]]:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield path, f"a list or mapping cannot be a key, on line {key.start_mark.line + 1}"
                continue
            name = key.value
            if name in seen:
                yield (*path, name), f"duplicate key {shortened(name, 80)!r}, also on line {key.start_mark.line + 1}"
            seen.add(name)
            lines.setdefault((*path, name), key.start_mark.line + 1)
            yield from _walk(value, (*path, name), lines)
