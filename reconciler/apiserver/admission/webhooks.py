"""The configured webhooks, and which writes they match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from reconciler.apiserver.admission.matching import configured, endpoint_for
from reconciler.apiserver.cel.conditions import Condition, match_conditions, outcome_of
from reconciler.apiserver.encoding.refusals import aggregate, forbidden
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.verbs.write import Admitted
from reconciler.wire import JSONObject

__all__ = ["Webhook", "read_webhooks"]


@dataclass(frozen=True)
class Webhook:
    """One webhook of a configuration.

    Attributes:
        document: its entry in the configuration, with defaults.
        mutating: whether it may change objects.
    """

    document: JSONObject
    mutating: bool

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.document["name"])

    @property
    def ignores_failures(self) -> bool:
        """Return whether a write goes on if the webhook cannot be called."""
        return bool(self.document.get("failurePolicy") == "Ignore")

    @cached_property
    def _conditions(self) -> list[Condition]:
        return match_conditions(self.document)

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if no rule matches the write."""
        return endpoint_for(self.document.get("rules"), self.document.get("matchPolicy"), write)

    def meets_conditions(self, write: Admitted, request: JSONObject) -> bool:
        """Return whether all match conditions are true; the request has the object in the version of the rule.

        Raises:
            Refusal: 403, a condition cannot be evaluated, and the failure policy is ``Fail``.
        """
        documents = {"request": request, "object": request.get("object"), "oldObject": request.get("oldObject")}
        met, problems = outcome_of(self._conditions, documents)
        if problems and not self.ignores_failures:
            info = write.call.endpoint.info
            raise forbidden(info.plural, info.group, write.name, aggregate(problems))
        return met and not problems


def read_webhooks(registry: Registry, *, mutating: bool) -> Iterator[Webhook]:
    """Yield the mutating or the validating webhooks: by the name of their configuration, then as listed."""
    plural = "mutatingwebhookconfigurations" if mutating else "validatingwebhookconfigurations"
    for _, configuration in configured(registry, plural):
        for document in configuration.get("webhooks") or ():
            yield Webhook(document, mutating)
