"""The checks of webhook configurations and policies that ``rules.txt`` names."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from reconciler.apiserver.builtin.rules.rule import Check, Place, Rule
from reconciler.apiserver.encoding.refusals import FieldError, Findings

__all__ = ["WEBHOOK_CHECKS"]


def _webhook_resources(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check that no resource of a rule is covered by another one."""
    whole: set[str] = set()
    everywhere: set[str] = set()
    resources: list[str] = value or []
    for index, resource in enumerate(resources):
        plural, slash, below = resource.partition("/")
        if not slash:
            continue
        for covered, name in ((plural in whole, f"{plural}/*"), (below in everywhere, f"*/{below}")):
            if covered:
                words = f"if '{name}' is present, must not specify {resource}"
                yield FieldError.invalid(f"{path}[{index}]", resource, words)
        whole |= {plural} if below == "*" else set()
        everywhere |= {below} if plural == "*" else set()
    if "*" in resources and any("/" not in each and each != "*" for each in resources):
        words = "if '*' is present, must not specify other resources without subresources"
        yield FieldError.invalid(path, value, words)


def _webhook_url(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    parts, form = urlsplit(value or "https://host"), "; desired format: https://host[/path]"
    user, at, _ = parts.netloc.rpartition("@")
    for wrong, shown, words in (
        (parts.scheme != "https", parts.scheme, f"'https' is the only allowed URL scheme{form}"),
        (not parts.netloc, "", f"host must be specified{form}"),
        (at, user, "user information is not permitted in the URL"),
        (parts.fragment, parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, parts.query, "query parameters are not permitted in the URL"),
    ):
        if wrong:
            yield FieldError.invalid(path, shown, words)


WEBHOOK_CHECKS: dict[str, Check] = {"webhook-resources": _webhook_resources, "webhook-url": _webhook_url}
