"""The configured webhooks, and which writes they match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.apiserver.builtin.validation import selects
from reconciler.apiserver.cel.compiler import CONDITION_VARIABLES, compile_condition
from reconciler.apiserver.cel.rules import problem_in_words, run_program
from reconciler.apiserver.encoding.refusals import forbidden, not_found
from reconciler.apiserver.storage.registry import Endpoint, Registry, Resource
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs.write import Admitted
from reconciler.wire import JSONObject

__all__ = ["Webhook", "Webhooks"]

_GROUP = "admissionregistration.k8s.io"


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
    def _conditions(self) -> list[tuple[str, Any]]:
        """The expressions of the match conditions, and their programs."""
        sources = [each["expression"].strip() for each in self.document.get("matchConditions") or ()]
        return [(source, compile_condition(source, CONDITION_VARIABLES)) for source in sources]

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if no rule matches the write.

        With the match policy ``Equivalent``, a rule for another version of the kind matches as well.
        """
        asked = write.call.endpoint
        if asked.info.group == _GROUP:
            return None  # a broken webhook must not keep its own configuration from being repaired
        others = () if self.document.get("matchPolicy") == "Exact" else tuple(asked.resource.endpoints.values())
        rules = self.document.get("rules") or ()
        if any(_matches(rule, asked, write) for rule in rules):
            return asked
        for rule in rules:
            for endpoint in others:
                if endpoint is not asked and _matches(rule, endpoint, write):
                    return endpoint
        return None

    def selects(self, write: Admitted, labels_of_namespace: Callable[[str], JSONObject]) -> bool:
        """Return whether the selectors match the namespace and the object of a write, before or after it.

        Args:
            write: the write.
            labels_of_namespace: returns the labels of a namespace.
        """
        wanted, info = self.document.get("namespaceSelector") or {}, write.call.endpoint.info
        if wanted and (write.call.namespace or (info.plural == "namespaces" and not info.group)):
            # A Namespace is selected by its own labels.
            namespace = write.call.namespace
            labels = labels_of_namespace(namespace) if namespace else _labels(write.doc or write.before)
            if not selects(wanted, labels):
                return False
        wanted = self.document.get("objectSelector") or {}
        return not wanted or any(
            selects(wanted, _labels(each)) for each in (write.doc, write.before) if each is not None
        )

    def meets_conditions(self, write: Admitted, request: JSONObject) -> bool:
        """Return whether all match conditions are true.

        Args:
            write: the write.
            request: the request of the review, with the object in the version of the rule.

        Raises:
            Refusal: 403, a condition cannot be evaluated, and the failure policy is ``Fail``.
        """
        variables = {"request": request, "object": request.get("object"), "oldObject": request.get("oldObject")}
        problems = []
        for source, program in self._conditions:
            outcome, problem = run_program(program, variables)
            if outcome is False:
                return False
            if problem:
                problems.append(f"expression '{source}' resulted in error: {problem_in_words(problem)}")
        if problems and not self.ignores_failures:
            info = write.call.endpoint.info
            why = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise forbidden(info.plural, info.group, write.name, why)
        return not problems


def _labels(document: JSONObject | None) -> dict[str, Any]:
    return ((document or {}).get("metadata") or {}).get("labels") or {}


def _matches(rule: JSONObject, endpoint: Endpoint, write: Admitted) -> bool:
    info, scope = endpoint.info, rule.get("scope", "*")
    return (
        scope in ("*", "Namespaced" if info.namespaced else "Cluster")
        and _includes(rule.get("operations"), write.operation)
        and _includes(rule.get("apiGroups"), info.group)
        and _includes(rule.get("apiVersions"), endpoint.version)
        and any(_names(each, info.plural, write.call.subresource) for each in rule.get("resources") or ())
    )


def _includes(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _names(pattern: str, plural: str, subresource: str) -> bool:
    """Return whether ``pods``, ``pods/status``, ``pods/*``, ``*/scale``, ``*`` or ``*/*`` names a resource."""
    resource, _, below = pattern.partition("/")
    return resource in ("*", plural) and below in ("*" if "/" in pattern else "", subresource)


class Webhooks:
    """The webhooks of all configurations, in the order in which they are called.

    Args:
        registry: the served kinds.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[bool, tuple[Webhook, ...]] = {}

    def committed(self, resource: Resource, _old: Stored | None, _new: Stored | None) -> None:
        """Notice changed configurations; a commit hook."""
        if resource.info.group == _GROUP:
            self._known.clear()

    def all(self, *, mutating: bool) -> tuple[Webhook, ...]:
        """Return the mutating or the validating webhooks: by the name of their configuration, then as listed."""
        known = self._known.get(mutating)
        if known is None:
            known = self._known[mutating] = tuple(self._read(mutating))
        return known

    def _read(self, mutating: bool) -> Iterator[Webhook]:
        plural = "mutatingwebhookconfigurations" if mutating else "validatingwebhookconfigurations"
        resource = self._registry.resource(_GROUP, plural)
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
        return _labels(found.doc)
