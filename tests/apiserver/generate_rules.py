"""A generator of rules of built-in kinds from the Go sources of Kubernetes.

Run it with the directory of the module k8s.io/api to update the rules to a newer Kubernetes::

    python tests/apiserver/generate_rules.py ~/go/pkg/mod/k8s.io/api@v0.36.3 [--enums] [--write]

It reads the tags of declarative validation (``+k8s:required``, ``+k8s:minimum=0``, …) of the types of built-in kinds.
It shows the lines that ``rules.txt`` does not have; ``--write`` adds them to the sections of their types. With
``--enums`` it also shows members whose type is marked with ``+enum``. The real server checks most of these, in code
without tags, so they are not written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from reconciler.apiserver.builtin.rule_table import section_lines

TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver" / "builtin" / "rules" / "rules.txt"
TYPES = json.loads(resources.files("reconciler.apiserver.builtin").joinpath("types.json").read_text())["types"]
_TAG = re.compile(r"// \+k8s:(?:\w+\(since: \"[\d.]+\"\)=\+k8s:)?(?P<tag>\S+)")
_FIELD = re.compile(r"\t(?P<go>\w+)?\s*(?P<type>[\w.*\[\]]+)\s+`json:\"(?P<name>\w*)")
_FORMATS = {
    "k8s-ip": "ip",
    "k8s-label-key": "qualified",
    "k8s-label-value": "label-value",
    "k8s-long-name": "subdomain",
    "k8s-path-segment-name": "path-name",
    "k8s-short-name": "label",
}
_CHECKS = {"minimum": "min", "maximum": "max", "maxItems": "at-most-items", "maxLength": "at-most-bytes"}


def rule_of(member: str, tag: str) -> str | None:
    """Return the line for a tag of a member, or None if the tag refuses nothing by default."""
    if tag.startswith("ifEnabled"):
        return None
    tag = re.sub(r"^ifDisabled\(\w+\)=\+k8s:", "", tag)
    inner = re.match(r"subfield\((\w+)\)=\+k8s:(.*)", tag)
    if inner:
        return rule_of(f"{member}.{inner[1]}", inner[2])
    word, _, value = tag.partition("=")
    if word in ("required", "immutable"):
        return f"{member} {word}"
    if word == "format":
        form = _FORMATS.get(value.strip('"'))
        return f"{member} {form}" if form else None
    return f"{member} {_CHECKS[word]} {value}" if word in _CHECKS else None


def enums_of(source: str) -> dict[str, list[str]]:
    """Return the constants of the types that are marked as enums."""
    marked = re.findall(r"// \+(?:k8s:\S*)?enum\n(?://[^\n]*\n)*type (\w+) string", source)
    constants = re.findall(r"^\t\w+\s+(\w+)\s+= \"([^\"]*)\"", source, re.MULTILINE)
    return {name: [value for kind, value in constants if kind == name] for name in marked}


def rules_of(source: str, prefix: str, *, with_enums: bool) -> Iterator[tuple[str, str]]:
    """Yield the types of a Go file with the lines that their tags stand for."""
    enums, name, tags = enums_of(source), "", []
    for line in source.split("\n"):
        if begun := re.match(r"type (\w+) struct", line):
            name, tags = f"{prefix}.{begun[1]}", []
        elif found := _TAG.search(line):
            tags.append(found["tag"])
        elif field := _FIELD.match(line):
            member = field["name"] or "."
            yield from ((name, rule) for tag in tags if (rule := rule_of(member, tag)))
            values = enums.get(field["type"].strip("*[]"))
            if with_enums and values:
                yield name, f"{member}{'[]' if '[' in field['type'] else ''} in {' '.join(values)}"
            tags = []
        elif not line.strip().startswith("//"):
            tags = []


def is_known(name: str, rule: str) -> bool:
    """Return whether the section of a type has a line with the path and the check of a rule."""
    path, check, *_ = rule.split()
    if path == "metadata.name":
        return True  # KindInfo.names
    heads = (line.split()[:2] for line in section_lines(name) if line[0] not in ">-")
    return any(check == found.rstrip("!:") and path in paths.split(",") for paths, found in heads)


def lacking(directory: Path, *, with_enums: bool) -> dict[str, list[str]]:
    """Return the lines that the rules do not have, by type."""
    found: dict[str, list[str]] = {}
    for path in sorted(directory.glob("*/v*/types.go")):
        prefix = f"{path.parts[-3]}.{path.parts[-2]}"
        for name, rule in rules_of(path.read_text(), prefix, with_enums=with_enums):
            if name in TYPES and not is_known(name, rule):
                found.setdefault(name, []).append(rule)
    return found


def write(rules: dict[str, list[str]]) -> None:
    """Add lines to the sections of their types."""
    text = TARGET.read_text()
    for name, lines in rules.items():
        head = next((line for line in text.split("\n") if line[:1] == "[" and name in line.strip("[]").split()), "")
        if not head:
            head = f"[{name}]"
            text += f"\n{head}\n"
        text = text.replace(f"{head}\n", "\n".join([head, *lines, ""]), 1)
    TARGET.write_text(text)


if __name__ == "__main__":
    for name, rules in lacking(Path(sys.argv[1]), with_enums="--enums" in sys.argv).items():
        sys.stdout.write("\n".join([f"[{name}]", *rules, "", ""]))
    if "--write" in sys.argv:
        write(lacking(Path(sys.argv[1]), with_enums=False))
