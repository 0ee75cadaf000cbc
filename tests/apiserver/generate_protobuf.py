"""A generator of reconciler/apiserver/encoding/protobuf.json from the sources of k8s.io/api, apimachinery and
apiextensions-apiserver.

Run it with the directory that contains these Go modules to update the built-in kinds to a newer Kubernetes::

    python tests/apiserver/generate_protobuf.py ~/go/pkg/mod/k8s.io v0.36.3

The file lists the members of each message by number, in a short form: the name in JSON and after a colon
``s`` string, ``y`` bytes, ``b`` boolean, ``i`` integer, ``d`` double, ``@Name`` another message, ``[x]`` list, ``{x}``
map of strings. A ``*`` before the name marks a member whose zero value is significant: a pointer, or a boolean that is
always written. A member without a name is part of the message around it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver" / "encoding" / "protobuf.json"
_TYPES = Path(__file__).parents[2] / "reconciler" / "apiserver" / "builtin" / "types.json"
_SCALARS = {"string": "s", "bytes": "y", "bool": "b", "int32": "i", "int64": "i", "uint32": "i", "double": "d"}
_BESIDE = (
    "meta.v1.DeleteOptions",
    "apiextensions.v1.CustomResourceDefinition",
    "autoscaling.v1.Scale",
    "core.v1.Binding",
    "policy.v1.Eviction",
    "policy.v1beta1.Eviction",
    "authentication.v1.TokenRequest",
)
_MEMBER = re.compile(r"^\s*(optional|repeated|required)?\s*(map<string, ([\w.]+)>|[\w.]+) (\w+) = (\d+);", re.MULTILINE)
_FIELD = re.compile(
    r'^\t(?:(\w+)\s+)?(\*)?[\w.\[\]*]+\s+`json:"([^",]*)(,[^"]*)?"[^`]* protobuf:"\w+,(\d+),', re.MULTILINE
)


def short(name: str) -> str:
    """Return the name of a type without the parts that all names share."""
    for prefix in (
        "k8s.io.apiextensions_apiserver.pkg.apis.",
        "k8s.io.apimachinery.pkg.apis.",
        "k8s.io.apimachinery.pkg.",
        "k8s.io.api.",
    ):
        name = name.removeprefix(prefix)
    return name


def blocks(text: str, opening: str) -> Iterator[tuple[str, str]]:
    """Yield name and body of each message or struct."""
    for found in re.finditer(rf"^{opening} \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def members(package: Path) -> dict[str, dict[int, tuple[str, str, bool]]]:
    """Return for each Go struct the name in JSON, whether it is inline, and whether it is a pointer, by number."""
    found: dict[str, dict[int, tuple[str, str, bool]]] = {}
    for source in package.glob("*.go"):
        for name, body in blocks(source.read_text(), r"type (\w+) struct"):
            for _, pointer, json_name, options, number in _FIELD.findall(body):
                found.setdefault(name, {})[int(number)] = (json_name, options, bool(pointer))
    return found


def describe(package: str, name: str) -> str:
    """Return the short form of a type that stands in a message."""
    if name in _SCALARS:
        return _SCALARS[name]
    return f"@{short(name[1:])}" if name.startswith(".") else f"@{package}.{name}"


def read(proto: Path) -> dict[str, dict[str, str]]:
    """Return the messages of one file."""
    text = proto.read_text()
    package = short(re.search(r"^package ([\w.]+);", text, re.MULTILINE)[1])  # type: ignore[index]
    structs = members(proto.parent)
    found: dict[str, dict[str, str]] = {}
    for name, body in blocks(text, r"message (\w+)"):
        message = found[f"{package}.{name}"] = {}
        for label, kind, value, member, number in _MEMBER.findall(body):
            form = f"{{{describe(package, value)}}}" if value else describe(package, kind)
            json_name, options, pointer = structs.get(name, {}).get(int(number), (member, "", False))
            shown = "" if "inline" in options else json_name or member
            written = kind == "bool" and "omitempty" not in options
            mark = "*" if pointer or (written and shown) else ""
            message[number] = f"{mark}{shown}:[{form}]" if label == "repeated" else f"{mark}{shown}:{form}"
    return found


def main(modules: Path, version: str) -> None:
    """Write the file."""
    messages: dict[str, dict[str, str]] = {}
    for module in ("api", "apimachinery", "apiextensions-apiserver"):
        for proto in (modules / f"{module}@{version}").rglob("generated.proto"):
            messages |= read(proto)
    kinds: dict[str, Any] = json.loads(_TYPES.read_text())["kinds"]
    waiting = [name for name in kinds.values() if name in messages] + list(_BESIDE)
    wanted: dict[str, dict[str, str]] = {}
    while waiting:
        name = waiting.pop()
        if name in wanted or name not in messages:
            continue
        wanted[name] = messages[name]
        waiting += [form.split("@")[1].rstrip("]}") for form in messages[name].values() if "@" in form]
    lines = [f" {json.dumps(name)}: {json.dumps(wanted[name], separators=(',', ':'))}" for name in sorted(wanted)]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).expanduser(), sys.argv[2])
