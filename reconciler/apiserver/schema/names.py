"""Validation of names, label keys and label values, with the messages of Kubernetes."""

from __future__ import annotations

import re

__all__ = [
    "CONFIG_KEY_MESSAGE",
    "DNS_LABEL_1035_MESSAGE",
    "LABEL_MESSAGE",
    "LABEL_VALUE_MESSAGE",
    "RANDOM_LETTERS",
    "SUBDOMAIN_MESSAGE",
    "is_config_key",
    "is_label",
    "is_label_1035",
    "is_label_value",
    "is_subdomain",
    "label_1035_problems",
    "label_problems",
    "label_value_problems",
    "name_problems",
    "path_name_problems",
    "qualified_name_problems",
    "subdomain_problems",
]

RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of the suffixes of generated names."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
DNS_LABEL_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_QUALIFIED_MESSAGE = (
    "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' "
    "(e.g. 'example.com/MyName')"
)


def is_label(text: str) -> bool:
    """Return whether a string is an RFC 1123 label."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def is_label_1035(text: str) -> bool:
    """Return whether a string is an RFC 1035 label, which begins with a letter."""
    return len(text) <= 63 and _LABEL_1035.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Return whether a string is an RFC 1123 subdomain."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Return whether a string consists of the characters of a label value; its length is not checked."""
    return _LABEL_VALUE.fullmatch(text) is not None


def label_problems(text: str) -> list[str]:
    """Return why a string is not an RFC 1123 label."""
    problems = _length_problems(text, 63)
    if _LABEL.fullmatch(text):
        return problems
    return [*problems, "must not contain dots" if _SUBDOMAIN.fullmatch(text) else LABEL_MESSAGE]


def label_1035_problems(text: str) -> list[str]:
    """Return why a string is not an RFC 1035 label."""
    return _length_problems(text, 63) + ([] if _LABEL_1035.fullmatch(text) else [DNS_LABEL_1035_MESSAGE])


def subdomain_problems(text: str) -> list[str]:
    """Return why a string is not an RFC 1123 subdomain."""
    return _length_problems(text, 253) + ([] if _SUBDOMAIN.fullmatch(text) else [SUBDOMAIN_MESSAGE])


def label_value_problems(text: str) -> list[str]:
    """Return why a string is not a label value."""
    return _length_problems(text, 63, "bytes") + ([] if is_label_value(text) else [LABEL_VALUE_MESSAGE])


def _length_problems(text: str, most: int, unit: str = "characters") -> list[str]:
    return [f"must be no more than {most} {unit}"] if len(text.encode()) > most else []


def name_problems(name: str, rule: str) -> list[str]:
    """Return why an object's name is invalid.

    Args:
        name: the name.
        rule: ``subdomain``, ``label``, ``label1035``, or ``path`` (see `path_name_problems`).
    """
    if rule == "path":
        return path_name_problems(name)
    pattern, most, message = {
        "label": (_LABEL, 63, LABEL_MESSAGE),
        "label1035": (_LABEL_1035, 63, DNS_LABEL_1035_MESSAGE),
    }.get(rule, (_SUBDOMAIN, 253, SUBDOMAIN_MESSAGE))
    if rule != "subdomain" and "." in name:
        return ["must not contain dots"]
    problems = [] if len(name) <= most else [f"must be no more than {most} characters"]
    return problems if pattern.fullmatch(name) else [*problems, message]


def path_name_problems(name: str) -> list[str]:
    """Return why a name cannot be a segment of a path: it is ``.`` or ``..``, or contains ``/`` or ``%``."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in name]


def qualified_name_problems(key: str) -> list[str]:
    """Return why a string is not a valid label key, annotation key or finalizer."""
    prefix, slash, name = key.partition("/")
    if not slash:
        prefix, name = "", key
    elif "/" in name:
        return [_QUALIFIED_MESSAGE]
    problems: list[str] = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash and not is_subdomain(prefix):
        problems.append(f"prefix part {SUBDOMAIN_MESSAGE}")
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _NAME.fullmatch(name):
        problems.append(_NAME_MESSAGE)
    return problems


def is_config_key(text: str) -> bool:
    """Return whether a string can be a key of a ConfigMap or Secret."""
    return _CONFIG_KEY.fullmatch(text) is not None and len(text) <= 253 and text not in (".", "..")


_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
CONFIG_KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
