"""``reconciler check``: an operator under disturbances, with the scenario of an example."""

from __future__ import annotations

import logging
import shlex
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.server import documents_of
from reconciler.cli.options import CheckOptions
from reconciler.cli.output import print_json
from reconciler.cli.servers import load_objects
from reconciler.cli.targets import load_target
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.testing.explore.scenario import ExampleScenario
from reconciler.testing.explore.strategies import Schema, schema_of

try:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
except ModuleNotFoundError as error:
    raise MissingExtra("rich", extra="cli", purpose="'reconciler check'") from error


def example_of(path: Path, kinds: Sequence[str]) -> tuple[JSONObject, list[JSONObject]]:
    """Return the first object of a file that has one of the kinds, and the objects before and after it.

    Args:
        path: a YAML or JSON file.
        kinds: kinds as ``Kind.group``; empty for any.

    Raises:
        ConfigurationError: the file cannot be read, or has no such object.
    """
    documents = [dict(each) for each in documents_of(path)]
    for number, document in enumerate(documents):
        if not kinds or _kind(document) in kinds:
            if not (document.get("metadata") or {}).get("name"):
                raise ConfigurationError(f"{path}: {document['kind']} has no metadata.name")
            return document, documents[:number] + documents[number + 1 :]
    found = ", ".join(dict.fromkeys(str(each.get("kind")) for each in documents)) or "nothing"
    raise ConfigurationError(f"{path} has {found}, and the operator reconciles {', '.join(kinds)}")


def _kind(document: JSONObject) -> str:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    return f"{document.get('kind')}.{group}" if group else str(document.get("kind"))
