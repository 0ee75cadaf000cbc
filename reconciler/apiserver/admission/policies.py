"""ValidatingAdmissionPolicies: which of them apply to a write, and whether they allow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.apiserver.admission.matching import GROUP, aggregate, endpoint_for, selected
from reconciler.apiserver.builtin.policy_validation import policy_documents
from reconciler.apiserver.builtin.validation import selects
from reconciler.apiserver.cel.conditions import Condition, outcome_of, policy_variables
from reconciler.apiserver.encoding.refusals import Refusal, forbidden
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.verbs.write import Admitted
from reconciler.wire import JSONObject

__all__ = ["Policies"]

_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}
_LONGEST_MESSAGE = 5 * 1024


class _ConfigurationProblem(Exception):
    """A policy or binding that cannot be applied; the message says why."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A validation that failed: its message and the reason of the refusal."""

    message: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Validation:
    condition: Condition
    message_condition: Condition | None
    message: str
    reason: str


@dataclass(frozen=True)
class _Policy:
    """A policy with its compiled expressions.

    Attributes:
        name: its name.
        spec: its ``spec``.
    """

    name: str
    spec: JSONObject

    @property
    def ignores_failures(self) -> bool:
        return bool(self.spec.get("failurePolicy") == "Ignore")

    @cached_property
    def _conditions(self) -> list[Condition]:
        documents = [name for name in policy_documents(self.spec) if name != "namespaceObject"]
        sources = [each["expression"].strip() for each in self.spec.get("matchConditions") or ()]
        return [Condition(source, documents) for source in sources]

    @cached_property
    def _validations(self) -> list[_Validation]:
        documents = policy_documents(self.spec)
        variables = policy_variables(self.spec.get("variables") or (), documents)

        def condition(source: str, result: str) -> Condition:
            return Condition(source, documents, (result,), variables)

        return [
            _Validation(
                condition(each["expression"], "bool"),
                condition(each["messageExpression"], "string") if each.get("messageExpression") else None,
                str(each.get("message") or "").strip(),
                each.get("reason") or "Invalid",
            )
            for each in self.spec.get("validations") or ()
        ]

    def failures(self, documents: Mapping[str, Any]) -> Iterator[_Failure]:
        """Yield the validations that fail for a write; none if the match conditions are not met."""
        met, problems = outcome_of(self._conditions, documents)
        if problems:
            if not self.ignores_failures:
                yield _Failure(aggregate(problems))
            return
        for validation in self._validations if met else ():
            value, problem = validation.condition.evaluate(documents)
            if problem:
                if not self.ignores_failures:
                    yield _Failure(problem)
            elif value is not True:
                yield _Failure(_message(validation, documents), validation.reason)


def _message(validation: _Validation, documents: Mapping[str, Any]) -> str:
    if validation.message_condition is not None:
        text, _ = validation.message_condition.evaluate(documents)
        text = text.strip() if isinstance(text, str) else ""
        if text and "\n" not in text and len(text) <= _LONGEST_MESSAGE:
            return text
    return validation.message or f"failed expression: {validation.condition.source.strip()}"


class Policies:
    """The policies of a cluster with their bindings.

    Args:
        registry: the served kinds.
        labels_of_namespace: returns the labels of a namespace.
    """

    def __init__(self, registry: Registry, labels_of_namespace: Callable[[str], JSONObject]) -> None:
        self._registry = registry
        self._labels_of_namespace = labels_of_namespace
        self._known: list[tuple[_Policy, list[tuple[str, JSONObject]]]] | None = None

    def forget(self) -> None:
        """Read the configurations again before they are used next."""
        self._known = None

    def _bound(self) -> list[tuple[_Policy, list[tuple[str, JSONObject]]]]:
        """Return the policies that have bindings, with the names and the ``spec`` of those."""
        if self._known is None:
            bindings: dict[str, list[tuple[str, JSONObject]]] = {}
            for name, spec in self._specs("validatingadmissionpolicybindings"):
                bindings.setdefault(spec["policyName"], []).append((name, spec))
            self._known = [
                (_Policy(name, spec), bindings[name])
                for name, spec in self._specs("validatingadmissionpolicies")
                if name in bindings
            ]
        return self._known

    def _specs(self, plural: str) -> Iterator[tuple[str, JSONObject]]:
        resource = self._registry.resource(GROUP, plural)
        for name, stored in sorted(resource.store.objects.items()) if resource is not None else ():
            yield name, stored.doc["spec"]

    def applies(self, write: Admitted) -> bool:
        """Return whether the rules of any policy match a write."""
        return any(_endpoint(policy.spec["matchConstraints"], write) is not None for policy, _ in self._bound())

    def validate(self, write: Admitted, request_in: Callable[[Endpoint], JSONObject]) -> None:
        """Return if all policies allow a write; those that only warn add their warnings.

        Args:
            write: the write.
            request_in: returns the request as webhooks get it, in the version of the kind that a rule names.

        Raises:
            Refusal: a policy denies the write; the first one in the order of their names.
        """
        denials: list[Refusal] = []
        for policy, bindings in self._bound():
            match = policy.spec["matchConstraints"]
            endpoint = _endpoint(match, write)
            if endpoint is None or not selected(match, write, self._labels_of_namespace):
                continue
            for name, binding in bindings:
                if not self._binds(binding, write):
                    continue
                actions = binding.get("validationActions") or ()
                for failure in self._failures(policy, binding, write, request_in(endpoint)):
                    if "Warn" in actions:
                        where = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{name}'"
                        write.call.warnings.append(f"Validation failed for {where}: {failure.message}")
                    if "Deny" in actions:
                        denials.append(_denial(write, policy.name, name, failure))
        if denials:
            raise denials[0]

    def _binds(self, binding: JSONObject, write: Admitted) -> bool:
        match = binding.get("matchResources")
        if match is None:
            return True
        return selected(match, write, self._labels_of_namespace) and _endpoint(match, write) is not None

    def _failures(
        self, policy: _Policy, binding: JSONObject, write: Admitted, request: JSONObject
    ) -> Iterator[_Failure]:
        try:
            params = self._params(policy.spec, binding.get("paramRef"), write)
        except _ConfigurationProblem as problem:
            if not policy.ignores_failures:
                yield _Failure(f"failed to configure binding: {problem}")
            return
        namespace = write.call.namespace
        stored = self._registry.core("namespaces").store.objects.get(namespace) if namespace else None
        for param in params:
            yield from policy.failures(
                {
                    "object": request.get("object"),
                    "oldObject": request.get("oldObject"),
                    "request": request,
                    "params": param,
                    "namespaceObject": None if stored is None else stored.doc,
                }
            )

    def _params(self, spec: JSONObject, ref: JSONObject | None, write: Admitted) -> list[JSONObject | None]:
        """Return the parameters of a binding: one evaluation for each."""
        kind = spec.get("paramKind")
        if kind is None or ref is None:
            return [None]
        endpoint = self._registry.by_kind(kind["apiVersion"], kind["kind"])
        if endpoint is None:
            raise _ConfigurationProblem(f"paramKind kind `{kind['apiVersion']}, Kind={kind['kind']}` not known")
        namespace = ref.get("namespace") or (write.call.namespace if endpoint.info.namespaced else None)
        if endpoint.info.namespaced and not namespace:
            raise _ConfigurationProblem(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )
        if ref.get("namespace") and not endpoint.info.namespaced:
            raise _ConfigurationProblem("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        objects = (endpoint.store.objects[key] for key in endpoint.store.keys(namespace))
        found = [endpoint.to_served(stored.doc) for stored in objects if _refers(ref, stored.doc)]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise _ConfigurationProblem("no params found for policy binding with `Deny` parameterNotFoundAction")
        return list(found)


def _refers(ref: JSONObject, doc: JSONObject) -> bool:
    if ref.get("name"):
        return bool(doc["metadata"]["name"] == ref["name"])
    return not ref["selector"] or selects(ref["selector"], doc["metadata"].get("labels") or {})


def _endpoint(match: JSONObject, write: Admitted) -> Endpoint | None:
    """Return the kind in the version that a rule names, or None if the rules do not match the write."""
    policy = match.get("matchPolicy")
    if endpoint_for(match.get("excludeResourceRules"), policy, write) is not None:
        return None
    rules = match.get("resourceRules")
    return endpoint_for(rules, policy, write) if rules else write.call.endpoint


def _denial(write: Admitted, policy: str, binding: str, failure: _Failure) -> Refusal:
    message = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {failure.message}"
    info, reason = write.call.endpoint.info, failure.reason or "Invalid"
    refusal = forbidden(info.plural, info.group, write.name, message)
    details = {**(refusal.details or {}), "causes": [{"message": message}]}
    return Refusal(_CODES.get(reason, 422), reason, refusal.message, details=details)
