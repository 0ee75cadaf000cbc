"""Check texts against the formats that CEL rules may name: ``format.dns1123Label().validate(self.name)``."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.apiserver.cel.urls import check_request_uri
from reconciler.apiserver.schema.formats import FORMATS
from reconciler.apiserver.schema.names import (
    label_1035_problems,
    label_problems,
    label_value_problems,
    qualified_name_problems,
    subdomain_problems,
)

__all__ = ["NAMED_FORMATS"]

Problems = Callable[[str], list[str]]


def _or(message: str, fits: Callable[[str], bool]) -> Problems:
    return lambda text: [] if fits(text) else [message]


def _prefix(problems: Problems) -> Problems:
    """Make the check of what names are generated from: a dash may end it."""
    return lambda text: problems(text[:-2] + "a" if len(text) > 1 and text.endswith("-") else text)


def _uri(text: str) -> list[str]:
    try:
        check_request_uri(text)
    except ValueError as error:
        return [str(error)]
    return []


def _byte(text: str) -> bool:
    return bool(text) and FORMATS["byte"](text)


NAMED_FORMATS: dict[str, Problems] = {
    "byte": _or("invalid base64", _byte),
    "date": _or("invalid date", FORMATS["date"]),
    "datetime": _or("invalid datetime", FORMATS["datetime"]),
    "dns1035Label": label_1035_problems,
    "dns1035LabelPrefix": _prefix(label_1035_problems),
    "dns1123Label": label_problems,
    "dns1123LabelPrefix": _prefix(label_problems),
    "dns1123Subdomain": subdomain_problems,
    "dns1123SubdomainPrefix": _prefix(subdomain_problems),
    "labelValue": label_value_problems,
    "qualifiedName": qualified_name_problems,
    "uri": _uri,
    "uuid": _or("does not match the UUID format", FORMATS["uuid"]),
}
"""What is wrong with a text, by the name of the format."""
