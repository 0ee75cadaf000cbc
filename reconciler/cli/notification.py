"""The command ``reconciler routes test``: the receivers that a notification reaches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from reconciler.cli.output import print_json
from reconciler.errors import ConfigurationError
from reconciler.notification import NotificationRequest
from reconciler.notification.channels.services import RECEIVER_KINDS
from reconciler.notification.router import attributes_of
from reconciler.notification.routing_config import RoutingConfig, read_routing


def print_routes(file: Path, attributes: Sequence[str], *, request: Path | None, as_json: bool) -> int:
    """Print the receivers and channels that a notification reaches.

    Raises:
        ConfigurationError: a file is invalid; the message lists every mistake.
    """
    config = _read_config(file)
    given = {**(_attributes_of(request) if request is not None else {}), **_parse_attributes(attributes)}
    receivers = config.route.receivers(given)
    channels = tuple(dict.fromkeys(name for each in receivers for name in config.receivers[each].channel_names))
    if as_json:
        answer = {"attributes": given, "receivers": receivers, "channels": channels}
        print_json(answer)
        return 0
    for name in receivers:
        reached = ", ".join(config.receivers[name].channel_names) or "no channels: nobody would be notified"
        sys.stdout.write(f"{name}: {reached}\n")
    return 0


def _read_config(file: Path) -> RoutingConfig:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {file}: {reason}") from error
    return read_routing(text, name=str(file), kinds=RECEIVER_KINDS)


def _parse_attributes(attributes: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in attributes:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"{text!r} is not a valid attribute: write NAME=VALUE, such as priority=Critical")
        pairs[name] = value
    return pairs


def _attributes_of(file: Path) -> dict[str, str]:
    """Return the attributes of a NotificationRequest in a file."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        request = NotificationRequest.from_dict(document)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--request {file}: not a valid NotificationRequest: {error}") from error
    return attributes_of(request)
