"""Redaction of secrets, for notifications, Events, conditions, logs, the console and errors alike.

It needs nothing but the standard library, so that every room can use it.
"""

from __future__ import annotations

from reconciler._core.redaction.engine import redact, redact_error
from reconciler._core.redaction.names import PLACEHOLDER, is_secret_name

__all__ = ["PLACEHOLDER", "is_secret_name", "redact", "redact_error"]
