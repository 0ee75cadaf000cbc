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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler._core.cycle import current_cycle

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

FORMER_FIELD_MANAGER = "kube-reconciler"
"""The default of earlier releases, the same in all programs. Fields written under it are taken over."""

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


def default_field_manager(program: str, controller: str | None = None) -> str:
    """Return the field manager of a program that chose none.

    Args:
        program: the program's name.
        controller: the controller's name. Default: the controller of the current reconcile, if any.
    """
    if controller is None:
        controller = getattr(current_cycle.get(), "controller", "")
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


def upgrade_managed_fields(
    managed_fields: Sequence[Mapping[str, Any]], manager: str, taken: Callable[[Mapping[str, Any]], Tree]
) -> list[JSONObject] | None:
    """Move fields of other entries to the applied ones of a manager; return None if nothing changes.

    An apply removes only fields that its manager applied before. Fields written by updates and patches, or under an
    earlier name, must be moved first; client-go's ``csaupgrade`` does the same.

    Args:
        managed_fields: the entries of one version of the object.
        manager: the manager that takes over the fields.
        taken: returns the fields to move out of an entry; ``{}`` leaves the entry unchanged.
    """
    moved = [(entry, fields) for entry in managed_fields if (fields := taken(entry))]
    if not moved:
        return None
    places = {entry.get("subresource") for entry, _ in moved}
    own = [
        entry
        for entry in managed_fields
        if (entry.get("manager"), entry.get("operation")) == (manager, "Apply") and entry.get("subresource") in places
    ]
    tree: Tree = {}
    for fields in (*(entry.get("fieldsV1") or {} for entry in own), *(fields for _, fields in moved)):
        tree = union_of_fields(tree, fields)
    united = {**(own or [moved[0][0]])[0], "manager": manager, "operation": "Apply", "fieldsV1": tree}
    kept: list[JSONObject] = []
    for entry in managed_fields:
        if any(entry is one for one in own):
            continue
        rest = difference_of_fields(entry.get("fieldsV1") or {}, taken(entry))
        if rest or not entry.get("fieldsV1"):
            kept.append({**entry, "fieldsV1": rest})
    return [*kept, united]


def union_of_fields(left: Tree, right: Tree) -> JSONObject:
    """Return the fields that are in either tree."""
    united = dict(left)
    for name, sub in right.items():
        united[name] = union_of_fields(united.get(name, {}), sub)
    return united


def difference_of_fields(tree: Tree, gone: Tree) -> JSONObject:
    """Return the fields of a tree that are not in another one."""
    rest: JSONObject = {}
    for name, sub in tree.items():
        if name not in gone:
            rest[name] = sub
        elif left := difference_of_fields(sub, gone[name]):
            rest[name] = left
    return rest


@functools.lru_cache(maxsize=64)
def _name_of_script(argv0: str) -> str:
    if argv0 in ("", "-c", "-"):
        return "python"
    directory, name = os.path.split(os.path.abspath(argv0))  # noqa: PTH100 - the batcher must not load pathlib
    if name == "__main__.py":  # of a package or directory, whose name is the program's
        name = os.path.split(directory)[1]
    return _SUFFIXES.sub("", name) or "python"


@functools.lru_cache(maxsize=1024)
def _fitting(name: str) -> str:
    """Return a name that an API server accepts; different names stay different."""
    printable = "".join(filter(str.isprintable, name))
    if printable == name and len(name.encode()) <= MAX_LENGTH:
        return name
    mark = "-" + hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    return printable.encode()[: MAX_LENGTH - len(mark)].decode(errors="ignore") + mark
