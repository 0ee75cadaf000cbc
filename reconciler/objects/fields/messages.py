"""The messages of pydantic about fields of this library's types."""

from __future__ import annotations

import re
from datetime import timedelta

from reconciler.objects.fields.duration import format_duration

__all__ = ["wire_message"]

# pydantic shows a bound that is not a number as its repr.
_BOUND = re.compile(r"Quantity\('([^']*)'\)|datetime\.timedelta\(([^)]*)\)")


def wire_message(message: str) -> str:
    """Return a message of pydantic with the bounds of a Quantity or Duration as on the wire: ``1Gi``, ``1h0m0s``."""
    return _BOUND.sub(lambda found: found[1] or _duration(found[2]), message)


def _duration(arguments: str) -> str:
    parts = (part.split("=") for part in arguments.split(", ") if "=" in part)
    return format_duration(timedelta(**{name: int(number) for name, number in parts}))
