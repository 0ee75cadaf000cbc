"""Read YAML and remember on which line everything stands, so that errors can say where.

Size, nesting and what aliases stand for are bounded before anything is built: the parser's events are counted, which
takes no recursion and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = ["Path", "Problem", "Source", "read_yaml"]

Path = tuple[str | int, ...]
"""Keys and indexes from the top of the document."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Say what is wrong where.

    Attributes:
        line: from 1; 0 for the document as a whole.
        place: the path, as in ``route.routes[0].receiver``.
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
    """Hold a document, the lines of its parts, and what was found wrong with it.

    Attributes:
        data: the document.
        lines: the line of each part, by its path.
        problems: grows while the document is read.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: Path, message: str) -> None:
        """Note a problem at a path; the line is that of the nearest part that exists."""
        if len(self.problems) > PROBLEM_COUNT_LIMIT:
            return
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 0)
        self.problems.append(Problem(line, place_of(path), message))


def place_of(path: Path) -> str:
    """Return a path as people write it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


SIZE_LIMIT = 1_048_576
"""Most characters of a document: what a ConfigMap takes."""

NESTING_LIMIT = 64
"""Most levels of mappings and lists."""

NODE_LIMIT = 250_000
"""Most values of a document, those that aliases stand for counted again for each alias."""

PROBLEM_COUNT_LIMIT = 1000
"""Problems of a document that are noted."""

PROBLEM_LIMIT = 50
"""Problems of a document that are told."""


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Source:
    """Read one YAML document; syntax errors and repeated keys become problems."""
    source = Source()
    if len(text) > SIZE_LIMIT:
        source.problems.append(Problem(0, "", f"it has {len(text)} characters; at most {SIZE_LIMIT} are read"))
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
                source.complain(path, message)
            source.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        source.problems.append(Problem(mark.line + 1 if mark else 0, "", f"not YAML: {said}"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        source.problems.append(Problem(0, "", f"not YAML: {error}"))
    finally:
        loader.dispose()
    return source


@dataclass(slots=True)
class _Size:
    """The size of a value: how many values it is made of, and how deep.

    Attributes:
        anchor: under what aliases refer to it, if anything.
        nodes: values, itself counted.
        depth: levels, itself counted.
    """

    anchor: str | None = None
    nodes: int = 1
    depth: int = 1

    def hold(self, inner: _Size) -> None:
        """Count a value that stands in this one."""
        self.nodes += inner.nodes
        self.depth = max(self.depth, inner.depth + 1)


def _excess(text: str) -> Problem | None:
    """Return what is too large about a document, aliases taken for what they stand for; None when nothing is."""
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
            open_values[-1].hold(size)
        elif isinstance(event, yaml.ScalarEvent):
            size = _Size(event.anchor)
            open_values[-1].hold(size)
        elif isinstance(event, yaml.AliasEvent):
            if any(value.anchor == event.anchor for value in open_values):
                return Problem(line, "", f"the alias *{event.anchor} stands inside of what it refers to")
            size = anchors.get(event.anchor or "", _Size())  # an unknown one is told when the document is built
            open_values[-1].hold(size)
        else:
            continue
        if not isinstance(event, (yaml.CollectionStartEvent, yaml.AliasEvent)) and size.anchor:
            anchors[size.anchor] = size
        if len(open_values) + (size.depth if isinstance(event, yaml.AliasEvent) else 0) > NESTING_LIMIT + 1:
            return Problem(line, "", f"it is nested more than {NESTING_LIMIT} levels deep")
        if open_values[-1].nodes > NODE_LIMIT:
            return Problem(line, "", f"it has more than {NODE_LIMIT} values, aliases taken for what they stand for")
    return None


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Iterator[tuple[Path, str]]:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield (*path, name), f"the key {name!r} stands twice, also on line {key.start_mark.line + 1}"
            seen.add(name)
            lines.setdefault((*path, name), key.start_mark.line + 1)
            yield from _walk(value, (*path, name), lines)
