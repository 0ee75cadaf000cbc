"""The reference, generated from the code: a page for each public package, the command line, and the metrics.

The pages are written to ``docs/api/`` before a build and are not committed.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

import reconciler
from reconciler.cli.app import app

CODE = Path(reconciler.__file__).parent
PREFIXES = (
    "certwatcher_",
    "controller_runtime_",
    "leader_election_",
    "notification_",
    "reconciler_",
    "rest_client_",
    "workqueue_",
)
"""How the name of a metric begins."""


def public_packages() -> list[str]:
    """Return the modules that have ``__all__`` and no private part: packages, their public subpackages, and leaves."""
    found = ["reconciler"]
    for module in pkgutil.walk_packages(reconciler.__path__, "reconciler."):
        private = any(part.startswith("_") for part in module.name.split("."))
        if (
            (module.ispkg or module.name.count(".") == 1)
            and not private
            and _documented(importlib.import_module(module.name))
        ):
            found.append(module.name)
    return sorted(found)


def _documented(module: ModuleType) -> bool:
    return bool(getattr(module, "__all__", None)) and module.__name__ != "reconciler.cli"


def write_api_pages(sphinx: Sphinx) -> None:
    """Write ``docs/api/PACKAGE.md`` for each public package; pages of packages that are gone are removed."""
    directory = Path(sphinx.srcdir) / "api"
    directory.mkdir(exist_ok=True)
    pages = {f"{name}.md": _page(importlib.import_module(name)) for name in public_packages()}
    for stale in {path.name for path in directory.glob("*.md")} - set(pages):
        (directory / stale).unlink()
    for name, text in pages.items():
        page = directory / name
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _page(module: ModuleType) -> str:
    """Return the page of a package. The names of `reconciler` itself are documented where they are defined."""
    name = module.__name__
    body = f".. automodule:: {name}\n   :show-inheritance:"
    if module is reconciler:
        homes = {each: _home(module, each) for each in module.__all__ if not each.startswith("__")}
        body += "\n\n" + "\n".join(f"* :py:obj:`{each} <{home}.{each}>`" for each, home in homes.items())
    else:
        above = importlib.import_module(name.rpartition(".")[0])
        there = set() if above is reconciler else set(getattr(above, "__all__", ()))
        lazy = [each for each in module.__all__ if each not in vars(module)]
        data = [found for each in module.__all__ if each not in there and (found := _data(module, each))]
        elsewhere = ", ".join(sorted(there | {each for each, _ in data}))
        body += f"\n   :members:\n   :imported-members:\n   :exclude-members: {elsewhere}\n\n"
        body += "\n\n".join(text for _, text in data)
        body += "".join(f"\n\n.. autoclass:: {name}.{each}\n   :members:" for each in lazy)
    return f"# `{name}`\n\n```{{eval-rst}}\n{body}\n```\n"


def _data(module: ModuleType, name: str) -> tuple[str, str] | None:
    """Return name and entry of an alias or a constant; its docstring follows it where it is defined.

    autodoc does not find that docstring, because it looks for it only in the package that exports the name.
    """
    value = vars(module).get(name)
    if value is None or inspect.isclass(value) or inspect.isroutine(value) or not hasattr(module, "__path__"):
        return None
    for path in sorted(Path(module.__path__[0]).parent.rglob("*.py")):
        for node, following in pairwise(_tree(path).body):
            match node, following:
                case (
                    ast.Assign(targets=[ast.Name(id=found)], value=ast.expr() as code)
                    | ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as code),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ) if found == name and _has_value(path, name, value):
                    source = ast.unparse(code)
                    shown = f"\n   :value: {source}" if len(source) < 160 else ""
                    text = textwrap.indent(inspect.cleandoc(text), "   ")
                    return name, f".. py:data:: {name}{shown}\n\n{text}"
    raise LookupError(f"{module.__name__}.{name} has no docstring where it is defined")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _has_value(path: Path, name: str, value: object) -> bool:
    """Return whether the module in a file defines this very value, and not another one of the same name."""
    module = ".".join(path.relative_to(CODE.parent).with_suffix("").parts).removesuffix(".__init__")
    return getattr(importlib.import_module(module), name, None) is value


def _home(module: ModuleType, name: str) -> str:
    """Return the package that documents a name that ``reconciler`` re-exports."""
    parts = getattr(module, name).__module__.split(".") if hasattr(getattr(module, name), "__module__") else []
    home = ".".join(parts[:2])
    return home if home.startswith("reconciler.") else "reconciler.controller"


class MetricRow(NamedTuple):
    """A metric as the code declares it.

    Attributes:
        name: the exported name; counters end with ``_total``.
        kind: ``counter``, ``gauge`` or ``histogram``.
        labels: names of its labels.
        text: the help text.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def metrics() -> list[MetricRow]:
    """Return every metric that the source declares, in order of their names."""
    found = {row.name: row for path in sorted(CODE.rglob("*.py")) for row in _declared(_tree(path))}
    return sorted(found.values(), key=lambda row: row.name)


def _declared(tree: ast.Module) -> Iterator[MetricRow]:
    """Yield the metrics of a module: calls ``counter(NAME, TEXT, LABELS, …)``, and tables of names and texts."""
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("attribute_families"), [kind, ast.Name(table), labels, _]):
                for name, (text, _) in ast.literal_eval(assigned[table]).items():
                    yield from _row([kind, ast.Constant(name), ast.Constant(text), labels], [], assigned)
            case ast.Call():
                yield from _row([node.func, *node.args], node.keywords, assigned)


def _row(parts: list[ast.expr], keywords: list[ast.keyword], constants: dict[str, ast.expr]) -> Iterator[MetricRow]:
    if len(parts) < 3:
        return
    try:
        name, text = ast.literal_eval(parts[1]), _text(parts[2])
    except ValueError:
        return
    if not isinstance(name, str) or not name.startswith(PREFIXES):
        return
    kind = ast.unparse(parts[0]).lower().rpartition(".")[2].removesuffix("metricfamily")
    given = [each.value for each in keywords if each.arg in {"labels", "labelnames"}]
    labels = _labels((parts[3:4] or given or [ast.Tuple([])])[0], constants)
    yield MetricRow(f"{name}_total" if kind == "counter" else name, kind, labels, text)


def _text(node: ast.expr) -> str:
    """Return a help text; the fields of an f-string are shown by their names."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "N" for each in node.values)
    return str(ast.literal_eval(node))


def _labels(node: ast.expr, constants: dict[str, ast.expr]) -> tuple[str, ...]:
    """Return label names from a literal, a constant of the module, or a tuple that unpacks one."""
    match node:
        case ast.Name() if node.id in constants:
            return _labels(constants[node.id], constants)
        case ast.Starred():
            return _labels(node.value, constants)
        case ast.Tuple() | ast.List():
            return tuple(label for each in node.elts for label in _labels(each, constants))
        case ast.Constant(value=str() as label):
            return (label,)
    return ()


class MetricsTable(SphinxDirective):
    """``{metrics} PREFIX…``: the table of the metrics whose names begin so."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        chosen = tuple(self.arguments[0].split())
        lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
        for row in metrics():
            if row.name.startswith(chosen):
                labels = ", ".join(f"`{label}`" for label in row.labels)
                lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.text.rstrip('.')} |")
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, source="metrics"), self.content_offset, parent)
        for table in parent.findall(nodes.table):
            table["classes"].append("names")
        return parent.children


def command_sections() -> str:
    """Return a Markdown section for each command: usage, arguments, options."""
    text = app.generate_docs(output_format="markdown", heading_level=1, max_heading_level=2)
    text = text[text.index("\n## reconciler ") :].replace("## reconciler ", "## ")
    return re.sub(r"^(reconciler) (.+?) \2 ", r"\1 \2 ", text, flags=re.MULTILINE)  # usage of a nested command


class CommandLine(SphinxDirective):
    """``{commands}``: every command with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command."""
        text = command_sections()
        parent = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source="commands"), 0, parent, match_titles=True)
        return parent.children


class TidyEntries(SphinxPostTransform):
    """Corrections of what autodoc writes.

    ``type`` and ``bytes`` are code; otherwise they would link to an attribute of that name. A class of another package
    is linked, too. The base class ``object`` is not mentioned, and attributes are called attributes.
    """

    default_priority = 5  # before references are resolved

    def run(self, **_kwargs: Any) -> None:
        """Change the page."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") == "py" and node["reftarget"] in dir(builtins):
                node.replace_self(nodes.Text(node["reftarget"]))
            elif node.get("reftype") == "obj" and node["reftarget"][0].isupper():
                node["refspecific"] = True
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if paragraph.astext() == "Bases: object":
                paragraph.parent.remove(paragraph)
        for name in self.document.findall(nodes.field_name):
            if name.astext() == "Variables":
                name[:] = [nodes.Text("Attributes")]


def setup(sphinx: Sphinx) -> dict[str, bool]:
    """Register the directive and write the pages."""
    sphinx.connect("builder-inited", write_api_pages)
    sphinx.add_directive("metrics", MetricsTable)
    sphinx.add_directive("commands", CommandLine)
    sphinx.add_post_transform(TidyEntries)
    return {"parallel_read_safe": True}
