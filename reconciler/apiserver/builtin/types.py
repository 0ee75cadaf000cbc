"""The types of the built-in kinds, as compiled schemas with defaults.

They are read from ``types.json``, which is generated from the OpenAPI documents of a real API server; ``scalars.json``
has the type, the format and the Go type of scalars, by their short form there.

The defaults are those of the functions ``SetDefaults_*`` of Kubernetes 1.36, as its responses show them.
``defaults.json`` has the values of missing members by type, or several steps of such values, each with conditions in
the form of those of ``rules.txt``. A dotted name stands for a member of a member, which is added if it is missing, and
a null for a time that Go writes even if it is not set.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable

from reconciler.apiserver.builtin.rules.rule import Place, condition
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.wire import JSONObject

__all__ = ["built_in_node", "member_types", "metadata_node", "place_of", "type_name", "type_node"]


Completion = Callable[[JSONObject], JSONObject]
_NODES: dict[str, Node] = {}
_WITH_UIDS = ("core.", "meta.")
"""The groups in which ``uid`` is the uid of an object; elsewhere it is that of a user."""
_OBJECTS = re.compile(r"\[?@([\w.]+)")


def _with(value: JSONObject, defaults: JSONObject) -> JSONObject:
    missing = {key: default for key, default in defaults.items() if value.get(key, "") == ""}
    return {**value, **missing} if missing else value


def _step(row: JSONObject) -> Completion:
    """Return the function that fills in the values of a row if its condition is met."""
    conditions = [condition(each) for each in row["if"].split(" and ")] if "if" in row else []
    plain = {key: default for key, default in row.items() if key != "if" and "." not in key}
    inner: dict[str, JSONObject] = {}
    for member, _, key in (path.partition(".") for path in row if path not in plain and path != "if"):
        inner.setdefault(member, {})[key] = row[f"{member}.{key}"]

    def complete(value: JSONObject) -> JSONObject:
        if not all(applies(Place(value, None, "")) for applies in conditions):
            return value
        value = _with(value, plain)
        for member, defaults in inner.items():
            whole = _with(value.get(member) or {}, defaults)
            value = value if whole is value.get(member) else {**value, member: whole}
        return value

    return complete


def _image_pull_policy(value: JSONObject) -> JSONObject:
    name = str(value.get("image") or "").rpartition("/")[2]
    latest = "@" not in name and name.partition(":")[2] in ("", "latest")
    return _with(value, {"imagePullPolicy": "Always" if latest else "IfNotPresent"})


def _pod_spec(value: JSONObject) -> JSONObject:
    account = value.get("serviceAccountName") or value.get("serviceAccount")
    if account:
        value = {**value, "serviceAccountName": account, "serviceAccount": account}
    if value.get("hostNetwork"):
        for key in ("containers", "initContainers"):
            if isinstance(value.get(key), list):
                value = {**value, key: [_on_host(container) for container in value[key]]}
    return value


def _on_host(container: JSONObject) -> JSONObject:
    ports = [_with(port, {"hostPort": port.get("containerPort", 0)}) for port in container.get("ports") or ()]
    return {**container, "ports": ports} if ports else container


def _claim_templates(value: JSONObject) -> JSONObject:
    known = value.get("volumeClaimTemplates") or []
    claims = [_complete_claim(claim) for claim in known]
    return value if claims == known else {**value, "volumeClaimTemplates": claims}


_complete_claim = _step({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status.phase": "Pending"})


def _limits(value: JSONObject) -> JSONObject:
    """Return a container limit with defaults derived from its maximum and minimum."""
    if value.get("type") != "Container":
        return value
    limits = {**(value.get("max") or {}), **(value.get("default") or {})}
    requests = {**(value.get("min") or {}), **limits, **(value.get("defaultRequest") or {})}
    found = {"default": limits, "defaultRequest": requests}
    return {**value, **{key: amounts for key, amounts in found.items() if amounts}}


def _probe(value: JSONObject) -> JSONObject:
    """Return a probe without those numbers that are zero and have defaults: they count as missing."""
    defaults = recorded("builtin/defaults.json")["core.v1.Probe"]
    return {key: member for key, member in value.items() if member != 0 or key not in defaults}


_COMPUTED: dict[str, Completion] = {
    "apps.v1.StatefulSetSpec": _claim_templates,
    "core.v1.Container": _image_pull_policy,
    "core.v1.EphemeralContainer": _image_pull_policy,
    "core.v1.LimitRangeItem": _limits,
    "core.v1.NodeSpec": lambda value: {"podCIDRs": [value["podCIDR"]], **value} if value.get("podCIDR") else value,
    "core.v1.NodeStatus": lambda value: {"allocatable": value["capacity"], **value} if value.get("capacity") else value,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Probe": _probe,
    "core.v1.ServicePort": lambda value: {**value, "targetPort": value.get("targetPort") or value.get("port", 0)},
    "core.v1.Volume": lambda value: value if value.keys() - {"name"} else {**value, "emptyDir": {}},
}


def completion_of(name: str) -> Completion | None:
    """Return the function that fills in the defaults of a type of ``types.json``, or None if it has none.

    The function returns a new value if something was missing, and its argument otherwise.
    """
    rows = recorded("builtin/defaults.json").get(name, [])
    steps = [*map(_step, rows if isinstance(rows, list) else [rows])]
    if name in _COMPUTED:
        steps.insert(0, _COMPUTED[name])

    def complete(value: JSONObject) -> JSONObject:
        for step in steps:
            value = step(value)
        return value

    return steps[0] if len(steps) == 1 else complete if steps else None


def _table() -> dict[str, JSONObject]:
    table: dict[str, JSONObject] = recorded("builtin/types.json")
    return table


@functools.cache
def type_node(name: str) -> Node:
    """Return the node of a named type, such as ``core.v1.Pod``; types may be recursive."""
    node = _NODES.get(name)
    if node is None:
        package, _, kind = name.rpartition(".")
        go_name = f"{package.rpartition('.')[2]}.{kind}"
        node = _NODES[name] = Node("object", name=go_name, complete=completion_of(name))
        members = _table()["types"][name]
        keyed = name in ("core.v1.ContainerPort", "core.v1.ServicePort")
        node.map_type = "atomic" if members.get("|") == "atomic" else "granular"
        for key, text in members.items():
            if key != "|":
                node.properties[key] = _member(text)
            if key == "uid" and name.startswith(_WITH_UIDS):
                node.properties[key].name = "types.UID"
            elif key == "propagationPolicy":
                node.properties[key].name = "v1.DeletionPropagation"
        if keyed:
            # The protocol is part of an item's key even if the item does not set it.
            node.properties["protocol"].default = "TCP"
    return node


def _member(text: str) -> Node:
    """Return the node of a member from its short form in ``types.json``."""
    form, *attributes = text.split("|")
    node = _form(form)
    for attribute in attributes:
        word, _, rest = attribute.partition(":")
        if word in ("set", "map"):
            node.list_type, node.map_keys = word, tuple(rest.split(",")) if rest else ()
        elif word in ("atomic", "granular"):
            # Only this member of a type that others share is merged so.
            node = copy.copy(node)
            node.map_type = word
        elif word == "merge":
            node.merge, node.merge_key = True, rest
    return node


def _form(form: str) -> Node:
    if form == "*":
        return ANYTHING
    if form.startswith("@"):
        return type_node(form[1:])
    if form.startswith("?"):
        named = type_node(form[2:])
        return Node(properties=named.properties, name=named.name, complete=named.complete)
    if form.startswith("["):
        items = _form(form[1:-1])
        return Node("array", items=items, name=f"[]{items.name or 'interface {}'}")
    if form.startswith("{"):
        values = _form(form[1:-1])
        return Node("object", additional=values, name=f"map[string]{values.name or 'interface {}'}")
    kind, node_format, go_type = recorded("builtin/scalars.json")[form]
    return Node(kind, node_format, int_or_string=form == "o", name=go_type)


def built_in_node(group: str, version: str, kind: str) -> Node | None:
    """Return the node of a built-in kind, or None if its type is unknown."""
    name = type_name(group, version, kind)
    return None if name is None else type_node(name)


def type_name(group: str, version: str, kind: str) -> str | None:
    """Return the name of a built-in kind's type, or None if it is unknown."""
    name: str | None = _table()["kinds"].get(f"{group}/{version}/{kind}")
    return name


@functools.cache
def member_types(name: str) -> dict[str, str]:
    """Return the members of a type that are objects, or lists of them, with the names of their types."""
    found = ((key, _OBJECTS.match(text)) for key, text in _table()["types"].get(name, {}).items())
    return {key: match[1] for key, match in found if match is not None}


def metadata_node() -> Node:
    """Return the node of ``metadata``."""
    return type_node("meta.v1.ObjectMeta")


def place_of(node: Node | None) -> Node:
    """Return the node of whole documents of a kind: its members, and those of metadata."""
    node = node or ANYTHING
    return Node("object", properties={**node.properties, "metadata": metadata_node()}, preserve=node.preserve)
