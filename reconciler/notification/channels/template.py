"""Render templates that a receiver's configuration brings along, within bounds."""

from __future__ import annotations

from typing import Any

from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.notification.errors import PermanentDeliveryError

__all__ = ["Template"]

FUEL = 100_000
"""Instructions that one rendering may take; a template that loops for ever ends here, in milliseconds."""

OUTPUT_LIMIT = 1_048_576
"""Most characters of a rendering."""


class Template:
    """Render a Jinja template (minijinja's dialect) with a message; ``tojson`` writes a value as JSON.

    What a message does not have is empty: to lose a message for want of an extension would be worse.

    Args:
        source: the template.
        name: of the receiver, for errors.

    Raises:
        ConfigurationError: it cannot be read.
        MissingExtra: minijinja is not installed.
    """

    def __init__(self, source: str, *, name: str) -> None:
        try:
            import minijinja
        except ImportError:
            raise MissingExtra("minijinja", extra="notification", purpose="a template") from None
        self._error = minijinja.TemplateError
        self._environment = minijinja.Environment(
            templates={name: source}, fuel=FUEL, undefined_behavior="lenient", auto_escape_callback=lambda _name: False
        )
        self._name = name
        try:
            self._environment.render_template(name, **_SAMPLE)
        except minijinja.TemplateError as error:
            if error.kind in {"SyntaxError", "UnknownFilter", "UnknownTest", "UnknownFunction"}:
                raise ConfigurationError(f"the template of {name} cannot be read: {error}") from error

    def render(self, document: dict[str, Any]) -> str:
        """Render with the members of a document.

        Raises:
            PermanentDeliveryError: it fails, or takes too long.
        """
        try:
            # The engine may change what it is given, so it gets what nobody else holds.
            members = {"recipients": [], "extensions": {}, "actionLinks": [], **document}
            text = self._environment.render_template(self._name, **members)
        except self._error as error:
            raise PermanentDeliveryError(f"the template of {self._name} failed: {error.kind}") from error
        if len(text) > OUTPUT_LIMIT:
            raise PermanentDeliveryError(f"the template of {self._name} wrote more than {OUTPUT_LIMIT} characters")
        return text


_SAMPLE: dict[str, Any] = {
    "notification": "sample",
    "namespace": "default",
    "uid": "00000000-0000-0000-0000-000000000000",
    "type": "Simple",
    "priority": "Medium",
    "subject": "subject",
    "body": "body",
    "channel": "webhook:sample",
    "attempt": 1,
    "idempotencyKey": "sample/webhook:sample",
    "recipients": [],
    "extensions": {},
    "actionLinks": [],
}
"""What a template is tried with when it is loaded; one that fails on its values may still be right for others."""
