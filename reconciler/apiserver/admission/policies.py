"""ValidatingAdmissionPolicies: which of them apply to a write, and whether they allow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.admission.webhooks import configured, endpoint_for, review_request, selected
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.builtin.strategies import policy_documents
from reconciler.apiserver.cel.rules import Condition, match_conditions, outcome_of, policy_variables
from reconciler.apiserver.encoding.refusals import Refusal, aggregate
from reconciler.apiserver.storage.cluster import Endpoint, Registry
from reconciler.apiserver.verbs.write_rules import Admitted

__all__ = ["Policy", "read_policies"]

_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}
_LONGEST_MESSAGE = 5 * 1024


class _ConfigurationProblem(Exception):
    """A policy or binding that cannot be applied; the message says why."""


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    reason: str = "Invalid"


@dataclass(frozen=True)
class Policy:
    """A policy with its bindings and compiled expressions."""

    name: str
    spec: JSONObject
    bindings: Sequence[tuple[str, JSONObject]]
    registry: Registry

    @property
    def _ignores_failures(self) -> bool:
        return bool(self.spec.get("failurePolicy") == "Ignore")

    @cached_property
    def _conditions(self) -> list[Condition]:
        documents = [name for name in policy_documents(self.spec) if name != "namespaceObject"]
        return match_conditions(self.spec, documents)

    @cached_property
    def _validations(self) -> list[tuple[JSONObject, Condition, Condition | None]]:
        """Return the validations, each with its condition and the expression of its message."""
        documents = policy_documents(self.spec)
        variables = policy_variables(self.spec.get("variables") or (), documents)

        def condition(source: str, result: str) -> Condition:
            return Condition(source, documents, (result,), variables)

        return [
            (
                each,
                condition(each["expression"], "bool"),
                condition(each["messageExpression"], "string") if each.get("messageExpression") else None,
            )
            for each in self.spec.get("validations") or ()
        ]

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if the rules do not match the write."""
        return _endpoint(self.spec["matchConstraints"], write)

    def denials(self, write: Admitted) -> Iterator[Refusal]:
        """Yield the errors for a write that the policy denies; bindings that only warn add their warnings to it.

        Raises:
            Refusal: 404, the namespace of the write does not exist.
        """
        endpoint = self.endpoint_for(write)
        if endpoint is None or not selected(self.spec["matchConstraints"], write, self.registry):
            return
        for name, binding in self.bindings:
            match = binding.get("matchResources")
            if match and not (selected(match, write, self.registry) and _endpoint(match, write) is not None):
                continue
            actions, where = binding.get("validationActions") or (), f"'{self.name}' with binding '{name}'"
            for failure in self._failures(binding, write, review_request(write, endpoint, "")):
                if "Warn" in actions:
                    text = f"Validation failed for ValidatingAdmissionPolicy {where}: {failure.message}"
                    write.call.warnings.append(text)
                if "Deny" in actions:
                    yield _denial(write, where, failure)

    def _failures(self, binding: JSONObject, write: Admitted, request: JSONObject) -> Iterator[_Failure]:
        try:
            params = self._params(binding.get("paramRef"), write)
        except _ConfigurationProblem as problem:
            if not self._ignores_failures:
                yield _Failure(f"failed to configure binding: {problem}")
            return
        namespace = write.call.namespace
        stored = self.registry.built_in("namespaces").store.objects.get(namespace) if namespace else None
        for param in params:
            yield from self._failures_with(
                {
                    "object": request["object"],
                    "oldObject": request["oldObject"],
                    "request": request,
                    "params": param,
                    "namespaceObject": None if stored is None else stored.doc,
                }
            )

    def _failures_with(self, documents: Mapping[str, Any]) -> Iterator[_Failure]:
        met, problems = outcome_of(self._conditions, documents)
        if problems:
            if not self._ignores_failures:
                yield _Failure(aggregate(problems))
            return
        for validation, condition, message in self._validations if met else ():
            value, problem = condition.evaluate(documents)
            if problem:
                if not self._ignores_failures:
                    yield _Failure(problem)
            elif value is not True:
                text = _computed(message, documents) or str(validation.get("message") or "").strip()
                text = text or f"failed expression: {condition.source.strip()}"
                yield _Failure(text, validation.get("reason") or "Invalid")

    def _params(self, ref: JSONObject | None, write: Admitted) -> list[JSONObject | None]:
        """Return the parameters of a binding: one evaluation for each."""
        kind = self.spec.get("paramKind")
        if kind is None or ref is None:
            return [None]
        endpoint = self.registry.by_kind(kind["apiVersion"], kind["kind"])
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


def read_policies(registry: Registry) -> Iterator[Policy]:
    """Yield the policies that have bindings, in the order of their names."""
    bindings: dict[str, list[tuple[str, JSONObject]]] = {}
    for name, binding in configured(registry, "validatingadmissionpolicybindings"):
        bindings.setdefault(binding["spec"]["policyName"], []).append((name, binding["spec"]))
    for name, policy in configured(registry, "validatingadmissionpolicies"):
        if name in bindings:
            yield Policy(name, policy["spec"], bindings[name], registry)


def _computed(message: Condition | None, documents: Mapping[str, Any]) -> str:
    """Return the message that an expression computes, or an empty string if it is not usable."""
    value = None if message is None else message.evaluate(documents)[0]
    text = value.strip() if isinstance(value, str) else ""
    return text if "\n" not in text and len(text) <= _LONGEST_MESSAGE else ""


def _refers(ref: JSONObject, doc: JSONObject) -> bool:
    if ref.get("name"):
        return bool(doc["metadata"]["name"] == ref["name"])
    return not ref["selector"] or selects(ref["selector"], doc["metadata"].get("labels") or {})


def _endpoint(match: JSONObject, write: Admitted) -> Endpoint | None:
    policy = match.get("matchPolicy")
    if endpoint_for(match.get("excludeResourceRules"), policy, write) is not None:
        return None
    rules = match.get("resourceRules")
    return endpoint_for(rules, policy, write) if rules else write.call.endpoint


def _denial(write: Admitted, where: str, failure: _Failure) -> Refusal:
    message = f"ValidatingAdmissionPolicy {where} denied request: {failure.message}"
    info, reason = write.call.endpoint.info, failure.reason
    refusal = Refusal.forbidden(info.plural, info.group, write.name, message)
    details = {**(refusal.details or {}), "causes": [{"message": message}]}
    return Refusal(_CODES.get(reason, 422), reason, refusal.message, details=details)
