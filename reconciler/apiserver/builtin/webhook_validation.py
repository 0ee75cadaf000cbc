"""Validation of ValidatingWebhookConfigurations and MutatingWebhookConfigurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from reconciler.apiserver.cel.compiler import CompileError
from reconciler.apiserver.cel.conditions import CONDITION_VARIABLES, Condition
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.names import label_1035_problems, qualified_name_problems, subdomain_problems
from reconciler.wire import JSONObject

__all__ = ["check_conditions", "check_expression", "check_rule", "check_webhooks", "choice"]

Findings = Iterator[FieldError]

_CHOICES = {
    "failurePolicy": ("Fail", "Ignore"),
    "matchPolicy": ("Equivalent", "Exact"),
    "reinvocationPolicy": ("IfNeeded", "Never"),
}
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_VERSIONS = ("v1", "v1beta1")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_MOST_CONDITIONS = 64


def choice(path: str, value: Any, known: tuple[str, ...]) -> Findings:
    """Check that a value is one of those that are supported; None is accepted."""
    if value is not None and value not in known:
        yield FieldError.not_supported(path, value, known)


def check_webhooks(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of a configuration."""
    known = {
        condition.get("expression")
        for hook in (before or {}).get("webhooks") or ()
        for condition in hook.get("matchConditions") or ()
    }
    names = set()
    for index, hook in enumerate(doc.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        yield from _check_webhook(hook, path, known)
        name = hook.get("name")
        if name and name in names:
            yield FieldError.duplicate(f"{path}.name", name)
        names.add(name)


def _check_webhook(hook: JSONObject, path: str, known: set[str | None]) -> Findings:
    yield from _check_name(hook.get("name") or "", f"{path}.name")
    for index, rule in enumerate(hook.get("rules") or ()):
        yield from check_rule(rule, f"{path}.rules[{index}]")
    for member, choices in _CHOICES.items():
        yield from choice(f"{path}.{member}", hook.get(member), choices)
    effects = hook.get("sideEffects")
    if effects is None:
        yield FieldError.required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}")
    yield from choice(f"{path}.sideEffects", effects, _SIDE_EFFECTS)
    timeout = hook.get("timeoutSeconds", 10)
    if not 1 <= timeout <= 30:
        words = "the timeout value must be between 1 and 30 seconds"
        yield FieldError.invalid(f"{path}.timeoutSeconds", timeout, words)
    yield from _check_client(hook.get("clientConfig") or {}, f"{path}.clientConfig")
    yield from check_conditions(hook.get("matchConditions") or (), f"{path}.matchConditions", known)
    yield from _check_versions(hook.get("admissionReviewVersions") or [], f"{path}.admissionReviewVersions")


def _check_name(name: str, path: str) -> Findings:
    if not name:
        yield FieldError.required(path)
    elif problems := subdomain_problems(name):
        yield FieldError.invalid(path, name, ",".join(problems))
    elif name.count(".") < 2:
        yield FieldError.invalid(path, name, "should be a domain with at least three segments separated by dots")


def check_rule(rule: JSONObject, path: str) -> Findings:
    """Yield the errors of a rule of a webhook or policy."""
    yield from _check_set(rule, path, "operations", "operations")
    for index, operation in enumerate(rule.get("operations") or ()):
        yield from choice(f"{path}.operations[{index}]", operation, _OPERATIONS)
    yield from _check_set(rule, path, "apiGroups", "API groups")
    yield from _check_set(rule, path, "apiVersions", "API versions")
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield FieldError.required(f"{path}.apiVersions[{index}]")
    yield from _check_resources(rule.get("resources") or [], f"{path}.resources")
    yield from choice(f"{path}.scope", rule.get("scope"), _SCOPES)


def _check_set(rule: JSONObject, path: str, member: str, what: str) -> Findings:
    """Check that a list is not empty, and that ``*`` stands alone in it."""
    values = rule.get(member) or []
    if not values:
        yield FieldError.required(f"{path}.{member}")
    elif len(values) > 1 and "*" in values:
        yield FieldError.invalid(f"{path}.{member}", values, f"if '*' is present, must not specify other {what}")


def _check_resources(resources: Sequence[str], path: str) -> Findings:
    if not resources:
        yield FieldError.required(path)
    whole, everywhere = set(), set()
    for index, resource in enumerate(resources):
        plural, slash, below = resource.partition("/")
        if not resource:
            yield FieldError.required(f"{path}[{index}]")
        if not slash:
            continue
        if plural in whole:
            words = f"if '{plural}/*' is present, must not specify {resource}"
            yield FieldError.invalid(f"{path}[{index}]", resource, words)
        if below in everywhere:
            words = f"if '*/{below}' is present, must not specify {resource}"
            yield FieldError.invalid(f"{path}[{index}]", resource, words)
        if below == "*":
            whole.add(plural)
        if plural == "*":
            everywhere.add(below)
    if len(resources) > 1 and "*/*" in resources:
        yield FieldError.invalid(path, resources, "if '*/*' is present, must not specify other resources")
    if "*" in resources and any("/" not in each and each != "*" for each in resources):
        words = "if '*' is present, must not specify other resources without subresources"
        yield FieldError.invalid(path, resources, words)


def _check_client(client: JSONObject, path: str) -> Findings:
    url, service = client.get("url"), client.get("service") or {}
    if (url is None) == (client.get("service") is None):
        yield FieldError.required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from _check_url(str(url), f"{path}.url")
    else:
        for member in ("name", "namespace"):
            if not service.get(member):
                yield FieldError.required(f"{path}.service.{member}")
        port = service.get("port", 443)
        if not 1 <= port <= 65535:
            words = "port is not valid: must be between 1 and 65535, inclusive"
            yield FieldError.invalid(f"{path}.service.port", port, words)
        where = service.get("path")
        if where and not where.startswith("/"):
            yield FieldError.invalid(f"{path}.service.path", where, "must start with a '/'")


def _check_url(url: str, path: str) -> Findings:
    parts, form = urlsplit(url), "; desired format: https://host[/path]"
    if parts.scheme != "https":
        yield FieldError.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not parts.netloc:
        yield FieldError.invalid(path, "", f"host must be specified{form}")
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        yield FieldError.invalid(path, user, "user information is not permitted in the URL")
    if parts.fragment:
        yield FieldError.invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield FieldError.invalid(path, parts.query, "query parameters are not permitted in the URL")


def check_conditions(
    conditions: Sequence[JSONObject], path: str, known: set[str | None], documents: Sequence[str] = CONDITION_VARIABLES
) -> Findings:
    """Yield the errors of match conditions.

    Args:
        conditions: the conditions.
        path: their path.
        known: the expressions that the stored object has already; they are not compiled again.
        documents: the names of the documents that they may use.
    """
    if len(conditions) > _MOST_CONDITIONS:
        words = f"Too many: {len(conditions)}: must have at most {_MOST_CONDITIONS} items"
        yield FieldError(path, words, "FieldValueTooMany")
    names = set()
    for index, condition in enumerate(conditions):
        place, name = f"{path}[{index}]", condition.get("name") or ""
        source = str(condition.get("expression") or "").strip()
        if not source:
            yield FieldError.required(f"{place}.expression")
        elif condition.get("expression") not in known:
            yield from check_expression(Condition(source, documents), f"{place}.expression")
        if not name:
            yield FieldError.required(f"{place}.name")
        for problem in qualified_name_problems(name) if name else ():
            yield FieldError.invalid(f"{place}.name", name, problem)
        if name and name in names:
            yield FieldError.duplicate(f"{place}.name", name)
        names.add(name)


def check_expression(condition: Condition, path: str) -> Findings:
    """Yield the error of an expression that does not compile, or whose value has another type."""
    try:
        condition.check()
    except CompileError as error:
        yield FieldError.invalid(path, condition.source, str(error))


def _check_versions(versions: Sequence[str], path: str) -> Findings:
    if not versions:
        yield FieldError.required(path, f"must specify one of {', '.join(_VERSIONS)}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield FieldError.invalid(f"{path}[{index}]", version, "duplicate version")
            continue
        for problem in label_1035_problems(version):
            yield FieldError.invalid(f"{path}[{index}]", version, problem)
    if not set(_VERSIONS) & set(versions):
        yield FieldError.invalid(path, versions, f"must include at least one of {', '.join(_VERSIONS)}")
