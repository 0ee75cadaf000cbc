"""Field managers: the names under which the API server records who wrote which field.

Two writers with the same name overwrite each other's fields silently, and an apply of one removes what the other
applied. The default therefore names the program and, inside a reconcile, the controller:
``"database-operator/database"``. It stays the same after a restart.

A set of fields is a tree (FieldsV1): ``f:name`` is a member, ``k:{…}`` an item of a keyed list, ``v:…`` an item of a
set, ``.`` the value itself.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.meta.cycle import current_cycle

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

MAX_LENGTH = 128
"""Bytes. kube-apiserver rejects longer names, and unprintable characters (``ValidateFieldManager``)."""

_SUFFIXES = re.compile(r"\.(py|pyw|pyc|pyz|exe)$", re.IGNORECASE)

Tree = Mapping[str, Any]


def program_name(user_agent: str | None = None) -> str:
    """Return the name of the running program.

    It is, in this order: the first product of a chosen User-Agent, as the API server takes it; the module that ``python
    -m`` runs; the name of the script, console script or zipapp; ``"python"``.

    Args:
        user_agent: the User-Agent that the program chose; None if it chose none.
    """
    chosen = re.split(r"[/\s]", (user_agent or "").strip(), maxsplit=1)[0]
    if chosen:
        return chosen
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = str(getattr(spec, "name", "") or "").removesuffix("__main__").removesuffix(".")
    return module or _name_of_script(sys.argv[0] if getattr(sys, "argv", None) else "")


def current_controller() -> str:
    """Return the name of the controller of the current reconcile; ``""`` outside a reconcile."""
    return getattr(current_cycle.get(), "controller", "")


@functools.lru_cache(maxsize=1024)  # a program has few controllers, which write in every reconcile
def default_field_manager(program: str, controller: str) -> str:
    """Return the field manager of a program that chose none.

    Args:
        program: the program's name.
        controller: the controller's name; ``""`` for none.
    """
    return _fitting(f"{program}/{controller}" if controller else program)


def check_field_manager(name: str | None) -> str | None:
    """Check a chosen field manager, and return it; None is valid.

    Raises:
        ValueError: an API server would reject it.
    """
    if name is not None and (not name or _fitting(name) != name):
        raise ValueError(
            f"field_manager must have 1 to {MAX_LENGTH} bytes and only printable characters, not {name!r}: an API "
            "server would reject every write"
        )
    return name


def union_of_fields(left: Tree, right: Tree) -> JSONObject:
    """Return the fields that are in either tree."""
    united = dict(left)
    for name, sub in right.items():
        united[name] = union_of_fields(united.get(name, {}), sub)
    return united


@functools.lru_cache(maxsize=64)
def _name_of_script(argv0: str) -> str:
    if argv0 in ("", "-c", "-"):
        return "python"
    directory, name = os.path.split(os.path.abspath(argv0))  # noqa: PTH100 - the batcher must not load pathlib
    if name == "__main__.py":  # of a package or directory, whose name is the program's
        name = os.path.split(directory)[1]
    return _SUFFIXES.sub("", name) or "python"


def _fitting(name: str) -> str:
    """Return a name that an API server accepts; different names stay different."""
    printable = "".join(filter(str.isprintable, name))
    if printable == name and len(name.encode()) <= MAX_LENGTH:
        return name
    mark = "-" + hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    return printable.encode()[: MAX_LENGTH - len(mark)].decode(errors="ignore") + mark
