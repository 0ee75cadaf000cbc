"""The size of the library: modules, code lines (no blank, comment or docstring) and public names of each package.

python -m tests.benchmarks.size
"""

# ruff: noqa: T201 - a script that prints its findings

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "reconciler"
_QUIET = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass
class Size:
    """What was counted, by package; `classes` counts the modules that define a class of a name."""

    modules: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def ambiguous(self) -> list[str]:
        """Return the names of classes that several modules define."""
        return sorted(name for name, count in self.classes.items() if count > 1)


def measure() -> Size:
    """Count the library."""
    size = Size()
    for path in sorted(LIBRARY.rglob("*.py")):
        source, parts = path.read_text(), path.relative_to(LIBRARY).parts
        tree = ast.parse(source)
        package = parts[0] if len(parts) > 1 else "(modules)"
        size.modules[package] += 1
        size.lines[package] += _code_lines(source, tree)
        if path.name == "__init__.py" and not any(part.startswith("_") for part in parts[:-1]):
            size.names[package] += _public_names(tree)
        size.classes.update({node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)})
    return size


def _code_lines(source: str, tree: ast.Module) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _QUIET:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def _public_names(tree: ast.Module) -> int:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names) | ast.Tuple(elts=names)):
                return len(names)
    return 0


def main() -> None:
    """Print the size of each package, the largest first."""
    size = measure()
    for package, lines in size.lines.most_common():
        print(f"{package:22} modules {size.modules[package]:4}  code lines {lines:6}  names {size.names[package]:4}")
    totals = (size.modules.total(), size.lines.total(), size.names.total())
    print(f"{'all':22} modules {totals[0]:4}  code lines {totals[1]:6}  names {totals[2]:4}")
    print("classes of the same name in several modules:", ", ".join(size.ambiguous))


if __name__ == "__main__":
    main()
