"""The fields of ``request`` and ``namespaceObject``, the documents of conditions whose types are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.apiserver.cel.syntax_tree import Expr, Tree

__all__ = ["unknown_fields"]

_Fields = Mapping[str, "_Fields | None"]


def _fields(names: str) -> _Fields:
    return dict.fromkeys(names.split())


_KIND, _RESOURCE = _fields("group version kind"), _fields("group version resource")
_DOCUMENTS: _Fields = {
    "request": {
        **_fields("subResource requestSubResource name namespace operation dryRun options"),
        "kind": _KIND,
        "requestKind": _KIND,
        "resource": _RESOURCE,
        "requestResource": _RESOURCE,
        "userInfo": _fields("username uid groups extra"),
    },
    "namespaceObject": {
        "metadata": _fields(
            "name generateName namespace labels annotations UID creationTimestamp deletionGracePeriodSeconds "
            "deletionTimestamp generation resourceVersion finalizers"
        ),
        "spec": _fields("finalizers"),
        "status": _fields("phase conditions"),
    },
}


def unknown_fields(tree: Tree) -> Iterator[tuple[int, str]]:
    """Yield the selections of fields that these documents do not have: the id of the expression, and the name."""
    every = list(tree.root.walk())
    loops = {name for each in every if each.kind == "loop" for name in (each.name, each.second)}
    for each in every:
        if each.kind == "select":
            fields = _fields_of(each.parts[0], loops)
            if fields is not None and each.name not in fields:
                yield each.id, each.name


def _fields_of(expr: Expr, loops: set[str]) -> _Fields | None:
    """Return the fields of the value of an expression, or None if they are not known."""
    if expr.kind == "ident":
        return None if expr.name in loops else _DOCUMENTS.get(expr.name)
    if expr.kind != "select":
        return None
    fields = _fields_of(expr.parts[0], loops)
    return None if fields is None else fields.get(expr.name)
