"""Admission and conversion webhooks, typed with the same models as everything else.

::

    class DatabaseRules(Validator[Database]):
        async def validate_create(self, db: Database, request: AdmissionRequest) -> Warnings:
            if db.spec.size > 50 and "admins" not in request.groups:
                raise Denied("more than 50 GB needs an administrator")

    manager.add_webhooks(DatabaseRules())

Modules: `review` (the wire format), `admission` (`Validator`, `Defaulter`, `Converter`), `server` (HTTPS, and from a
review to its response), and `configurations` (those of the cluster).
"""

from reconciler.webhook.admission import ConversionFailed, Converter, Defaulter, Denied, Validator, Warnings
from reconciler.webhook.configurations import ServiceReference, conversion_configuration, webhook_configurations
from reconciler.webhook.review import AdmissionRequest
from reconciler.webhook.server import WebhookServer

__all__ = [
    "AdmissionRequest",
    "ConversionFailed",
    "Converter",
    "Defaulter",
    "Denied",
    "ServiceReference",
    "Validator",
    "Warnings",
    "WebhookServer",
    "conversion_configuration",
    "webhook_configurations",
]
