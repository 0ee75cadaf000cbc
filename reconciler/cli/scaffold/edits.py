"""Small edits of a project's files: an import, a statement at the end of a function, an item of a list in YAML.

Nothing is formatted anew, and a file in which the place for an edit cannot be found is refused.
"""

from __future__ import annotations

import ast
import io
import re

from reconciler.errors import ConfigurationError

__all__ = ["add_resource", "add_to_function", "find_classes", "find_function", "parse_module"]


def parse_module(path: str, text: str) -> ast.Module:
    """Return the syntax tree of a module.

    Raises:
        ConfigurationError: it is not valid Python.
    """
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigurationError(f"{path}{where}: not valid Python: {reason}") from error


def find_function(tree: ast.Module, name: str) -> bool:
    """Return whether a module defines a function."""
    return _function(tree, name) is not None


def find_classes(tree: ast.Module) -> dict[str, str | None]:
    """Return the Resource classes of a module by name, each with its API group; None if that is not a literal."""
    return {
        node.name: group
        for node in tree.body
        if isinstance(node, ast.ClassDef) and {"group", "version"} <= (keywords := _keywords(node)).keys()
        for group in [keywords["group"]]
    }


def _keywords(node: ast.ClassDef) -> dict[str | None, str | None]:
    return {
        each.arg: each.value.value
        if isinstance(each.value, ast.Constant) and isinstance(each.value.value, str)
        else None
        for each in node.keywords
    }


def add_to_function(path: str, text: str, function: str, *, imports: str, name: str, statement: str) -> str:
    """Return a module with an import and a statement at the end of a function.

    Args:
        path: the module's path, for messages.
        text: the module.
        function: the name of a function at its top level.
        imports: the import.
        name: what it imports.
        statement: the statement, in which ``{0}`` is the function's first parameter.

    Raises:
        ConfigurationError: the function cannot be extended, or a name is in use.
    """
    end_of_line, text = _line_ending(text), text.replace("\r\n", "\n")
    tree = parse_module(path, text)
    found = _function(tree, function)
    if found is None or not found.args.args:
        raise ConfigurationError(f"{path}: no function {function!r} with a parameter")
    statement = statement.format(found.args.args[0].arg)
    if re.search(rf"\b{name}\b", text):
        raise ConfigurationError(f"{path}: the name {name} is in use already")
    last = found.body[-1]
    if last.lineno == found.lineno or isinstance(last, ast.Return | ast.Raise):
        raise ConfigurationError(f"{path}: {function} ends with a return or is a single line: add '{statement}' first")
    lines = io.StringIO(text).readlines()  # splitlines would also split at a form feed, where Python does not
    indentation = re.match(r"\s*", lines[last.lineno - 1])
    end, at = last.end_lineno or last.lineno, _import_position(tree, imports)
    lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    lines.insert(end, f"{indentation[0] if indentation else '    '}{statement}\n")
    before = lines[at - 1] if at else "\n"
    own = any(_module(node).partition(".")[0] == _first_part(imports) for node in tree.body)
    separator = "" if own or not before.strip() else "\n"
    lines.insert(at, f"{separator}{imports}\n")
    changed = "".join(lines)
    parse_module(path, changed)
    return changed.replace("\n", end_of_line)


def add_resource(text: str, resource: str) -> str | None:
    """Return a kustomization with one more resource; None if there is no list of resources in the usual form."""
    end_of_line, lines = _line_ending(text), io.StringIO(text.replace("\r\n", "\n")).readlines()
    for position, line in enumerate(lines):
        if re.fullmatch(r"resources:\s*", line):
            end = position + 1
            while end < len(lines) and (item := re.match(r"(\s*- )(\S+)", lines[end])):
                if item[2] == resource:
                    return text
                end += 1
            if end == position + 1:
                return None
            prefix = re.match(r"\s*- ", lines[end - 1])
            lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
            lines.insert(end, f"{prefix[0] if prefix else '  - '}{resource}\n")
            return "".join(lines).replace("\n", end_of_line)
    return None


def _line_ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    return None


def _module(node: ast.stmt) -> str:
    return node.module or "" if isinstance(node, ast.ImportFrom) and not node.level else ""


def _first_part(imports: str) -> str:
    return imports.split()[1].partition(".")[0]


def _import_position(tree: ast.Module, imports: str) -> int:
    """Return the line after which an import belongs: among those of the same package, by name, or after all others."""
    module, package = imports.split()[1], _first_part(imports)
    existing = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [node for node in existing if _module(node).partition(".")[0] == package]
    earlier = [node for node in own if _module(node) <= module]
    if earlier:
        return earlier[-1].end_lineno or 0
    if own:
        return own[0].lineno - 1
    if existing:
        return existing[-1].end_lineno or 0
    first = tree.body[0] if tree.body else None
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or 0) if first is not None and has_docstring else 0
