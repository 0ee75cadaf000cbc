"""Print CustomResourceDefinitions."""

from __future__ import annotations

import sys

import msgspec
import yaml

from reconciler.cli.targets import load_target
from reconciler.errors import ConfigurationError
from reconciler.objects import Resource

__all__ = ["load_resource", "print_crd"]


def load_resource(target: str) -> type[Resource]:
    """Return the Resource class that a person named; ``"notification"`` is the one that comes along.

    Raises:
        ConfigurationError: the name leads to something else.
    """
    if target == "notification":
        from reconciler.notification import NotificationRequest

        return NotificationRequest
    found = load_target(target)
    if not (isinstance(found, type) and issubclass(found, Resource)):
        raise ConfigurationError(f"{target!r} is {found!r}, not a subclass of reconciler.Resource")
    return found


def print_crd(target: str, *, as_json: bool) -> int:
    """Print the CRD of the class named by `target`."""
    document = load_resource(target).crd()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))
    return 0
