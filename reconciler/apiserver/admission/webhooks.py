"""The configured webhooks, and which writes they match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from reconciler.apiserver.admission.matching import GROUP, aggregate, endpoint_for, labels_of
from reconciler.apiserver.cel.conditions import CONDITION_VARIABLES, Condition, outcome_of
from reconciler.apiserver.encoding.refusals import forbidden, not_found
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.verbs.write import Admitted
from reconciler.wire import JSONObject

__all__ = ["Webhook", "Webhooks"]


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
        sources = [each["expression"].strip() for each in self.document.get("matchConditions") or ()]
        return [Condition(source, CONDITION_VARIABLES) for source in sources]

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if no rule matches the write."""
        return endpoint_for(self.document.get("rules"), self.document.get("matchPolicy"), write)

    def meets_conditions(self, write: Admitted, request: JSONObject) -> bool:
        """Return whether all match conditions are true.

        Args:
            write: the write.
            request: the request of the review, with the object in the version of the rule.

        Raises:
            Refusal: 403, a condition cannot be evaluated, and the failure policy is ``Fail``.
        """
        documents = {"request": request, "object": request.get("object"), "oldObject": request.get("oldObject")}
        met, problems = outcome_of(self._conditions, documents)
        if problems and not self.ignores_failures:
            info = write.call.endpoint.info
            raise forbidden(info.plural, info.group, write.name, aggregate(problems))
        return met and not problems


class Webhooks:
    """The webhooks of all configurations, in the order in which they are called.

    Args:
        registry: the served kinds.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[bool, tuple[Webhook, ...]] = {}

    def forget(self) -> None:
        """Read the configurations again before they are used next."""
        self._known.clear()

    def all(self, *, mutating: bool) -> tuple[Webhook, ...]:
        """Return the mutating or the validating webhooks: by the name of their configuration, then as listed."""
        known = self._known.get(mutating)
        if known is None:
            known = self._known[mutating] = tuple(self._read(mutating))
        return known

    def _read(self, mutating: bool) -> Iterator[Webhook]:
        plural = "mutatingwebhookconfigurations" if mutating else "validatingwebhookconfigurations"
        resource = self._registry.resource(GROUP, plural)
        for _, stored in sorted(resource.store.objects.items()) if resource is not None else ():
            for document in stored.doc.get("webhooks") or ():
                yield Webhook(document, mutating)

    def labels_of_namespace(self, name: str) -> JSONObject:
        """Return the labels of a namespace.

        Raises:
            Refusal: 404, it does not exist.
        """
        found = self._registry.core("namespaces").store.objects.get(name)
        if found is None:
            raise not_found("namespaces", "", name)
        return labels_of(found.doc)
