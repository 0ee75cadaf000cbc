"""Validation of names, label keys and label values, with the messages of Kubernetes.

Their forms are in ``names.json``: a pattern, the maximum length (0 for none) and its unit, and the message, in
which braces stand for the pattern; or it has a message for each pattern of what a text must not contain.
"""

from __future__ import annotations

import re

from reconciler.apiserver.encoding.data_files import recorded

__all__ = [
    "RANDOM_LETTERS",
    "form_problems",
    "label_problems",
    "name_problems",
    "path_name_problems",
    "qualified_name_problems",
]

RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of the suffixes of generated names."""


def form_problems(form: str, text: str) -> list[str]:
    """Return why a string does not have a form of ``names.json``."""
    found = recorded("schema/names.json")[form]
    if isinstance(found, dict):
        return [message for pattern, message in found.items() if re.search(pattern, text)]
    pattern, most, unit, message = found
    problems = [f"must be no more than {most} {unit}"] if most and len(text.encode()) > most else []
    return problems if re.fullmatch(pattern, text) else [*problems, message.replace("{}", pattern)]


def label_problems(text: str) -> list[str]:
    """Return why a string is not an RFC 1123 label."""
    problems = form_problems("label", text)
    if "." in text and re.fullmatch(recorded("schema/names.json")["subdomain"][0], text):
        problems[-1] = "must not contain dots"
    return problems


def name_problems(name: str, rule: str) -> list[str]:
    """Return why an object's name is invalid by one of the rules of `KindInfo.names`."""
    if rule == "path":
        return path_name_problems(name)
    return ["must not contain dots"] if rule != "subdomain" and "." in name else form_problems(rule, name)


def path_name_problems(name: str) -> list[str]:
    """Return why a name cannot be a segment of a path: it is ``.`` or ``..``, or contains ``/`` or ``%``."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in name]


def qualified_name_problems(key: str) -> list[str]:
    """Return why a string is not a valid label key, annotation key or finalizer."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return [_QUALIFIED_MESSAGE]
    problems = [f"prefix part {problem}" for problem in form_problems("subdomain", prefix)[-1:]] if slash else []
    if slash and not prefix:
        problems = ["prefix part must be non-empty"]
    if not name:
        problems.append("name part must be non-empty")
    found = form_problems("name-part", name)
    return problems + [problem if problem.startswith("name part") else f"name part {problem}" for problem in found]


_QUALIFIED_MESSAGE = (
    "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' "
    "(e.g. 'example.com/MyName')"
)
