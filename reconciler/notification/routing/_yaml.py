"""Read YAML and remember on which line everything stands, so that errors can say where."""

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
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 0)
        self.problems.append(Problem(line, place_of(path), message))


def place_of(path: Path) -> str:
    """Return a path as people write it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Source:
    """Read one YAML document; syntax errors and repeated keys become problems."""
    source = Source()
    loader = _Loader(text)
    try:
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
