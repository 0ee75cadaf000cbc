"""The table columns of built-in kinds, as ``kubectl get`` shows them.

Their definitions in ``columns.json`` are recorded from a real API server. ``cells.json`` lists their cells by kind and
column, under ``*`` those of all kinds:

* ``path|default``: the value at a path, or the default, which may be missing;
* ``#path path``: the number of items of lists and maps;
* ``path/path``: two numbers;
* ``path ? cell : cell``: one cell if the value at a path is set, another one if it is not;
* ``@function``: a function of `cells` or `kind_cells`, with the arguments after it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from reconciler.apiserver.builtin.tables import cells, kind_cells
from reconciler.apiserver.builtin.tables.cells import Cell
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.wire import JSONObject

__all__ = ["Column", "built_in_columns"]


class Column(NamedTuple):
    """A column: its definition in a Table, and its cell function."""

    definition: JSONObject
    cell: Cell


def _cell(form: str) -> Cell:
    condition, asked, choice = form.partition(" ? ")
    if asked:
        then, otherwise = map(_cell, choice.split(" : ", 1))
        return lambda doc, now: (then if value_at(doc, condition) else otherwise)(doc, now)
    if form.startswith("@"):
        return _function(*form[1:].split())
    if form.startswith("#"):
        paths = form[1:].split()
        return lambda doc, _now: sum(len(value_at(doc, path, ())) for path in paths)
    left, slash, right = form.partition("/")
    if slash:
        return lambda doc, _now: f"{value_at(doc, left, 0)}/{value_at(doc, right, 0)}"
    path, _, text = form.partition("|")
    default: Any = {"0": 0, "1": 1, "false": False, "true": True}.get(text, text)
    return lambda doc, _now: default if (found := value_at(doc, path)) in (None, "") else found


def _function(name: str, *arguments: str) -> Cell:
    found = next(getattr(module, name) for module in (cells, kind_cells) if hasattr(module, name))
    plain = [each for each in arguments if "=" not in each]
    named = dict(each.split("=") for each in arguments if "=" in each)
    return lambda doc, now: found(doc, now, *plain, **named)


@functools.cache
def built_in_columns(group: str, plural: str) -> tuple[Column, ...]:
    """Return the columns of a built-in kind."""
    kind, forms = f"{group}/{plural}", recorded("builtin/tables/cells.json")
    known = forms["*"] | forms.get(kind, {})
    columns = recorded("builtin/tables/columns.json")[kind]
    return tuple(Column(each, _cell(known[each["name"]])) for each in columns)
