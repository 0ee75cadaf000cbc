"""Check what an update changes of a Pod: nearly everything in its spec stays as it was created."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from reconciler.apiserver.builtin.pod_validation import in_whole_numbers, required
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted

__all__ = ["bare", "check_pod_changes", "difference"]

Findings = Iterator[FieldError]
_CHANGEABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_LISTS = ("containers", "initContainers")


def check_pod_changes(spec: dict[str, Any], before: dict[str, Any]) -> Findings:
    """Yield what an update of a Pod's spec may not change."""
    for key in _LISTS:
        containers = spec.get(key) or []
        if len(containers) != len(before.get(key) or []):
            message = "Forbidden: pod updates may not add or remove containers"
            yield FieldError(f"spec.{key}", message, "FieldValueForbidden")
            return
        yield from _check_images(containers, f"spec.{key}")
    deadline = list(_check_deadline(spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")))
    yield from deadline
    if deadline and "activeDeadlineSeconds" in spec:
        return
    yield from _check_tolerations(spec.get("tolerations") or [], before.get("tolerations") or [])
    yield from _check_gates(spec.get("schedulingGates") or [], before.get("schedulingGates") or [])
    kept = _with_what_may_change(spec, before)
    if bare(kept) != bare(before):
        words = f"pod updates may not change fields other than {_CHANGEABLE}\n{difference(before, kept)}"
        yield FieldError("spec", f"Forbidden: {words}", "FieldValueForbidden")


def _check_images(containers: list[dict[str, Any]], path: str) -> Findings:
    for index, container in enumerate(containers):
        image = container.get("image") or ""
        if not image:
            yield required(f"{path}[{index}].image")
        if image != image.strip():
            message = f"Invalid value: {quoted(image)}: must not have leading or trailing whitespace"
            yield FieldError(f"{path}[{index}].image", message)


def _check_deadline(seconds: int | None, before: int | None) -> Findings:
    path = "spec.activeDeadlineSeconds"
    if seconds is None:
        if before is not None:
            yield FieldError(path, "Invalid value: null: must not update from a positive integer to nil value")
    elif not in_whole_numbers(seconds):
        yield FieldError(path, f"Invalid value: {seconds}: must be between 0 and 2147483647, inclusive")
    elif before is not None and before < seconds:
        yield FieldError(path, f"Invalid value: {seconds}: must be less than or equal to previous value")


def _check_tolerations(tolerations: list[dict[str, Any]], before: list[dict[str, Any]]) -> Findings:
    kept = [_without_seconds(each) for each in tolerations]
    if any(_without_seconds(old) not in kept for old in before):
        message = "Forbidden: existing toleration can not be modified except its tolerationSeconds"
        yield FieldError("spec.tolerations", message, "FieldValueForbidden")


def _without_seconds(toleration: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _check_gates(gates: list[dict[str, Any]], before: list[dict[str, Any]]) -> Findings:
    known = {gate.get("name") for gate in before}
    for index, gate in enumerate(gates):
        if gate.get("name") not in known:
            message = f"Forbidden: only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield FieldError(f"spec.schedulingGates[{index}].name", message, "FieldValueForbidden")


def _with_what_may_change(spec: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return a spec in which what may change is as it was."""
    kept = dict(spec)
    for key in _LISTS:
        if spec.get(key):
            pairs = zip(spec[key], before[key], strict=True)
            kept[key] = [{**container, "image": old.get("image")} for container, old in pairs]
    mutable = ["activeDeadlineSeconds", "schedulingGates", "tolerations"]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        mutable.append("terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        # Where a Pod that waits may run can be narrowed still; what narrows is not checked.
        mutable += ["affinity", "nodeSelector"]
    for key in mutable:
        kept[key] = before.get(key)
    return kept


def bare(value: Any) -> Any:
    """Return a value without members that say nothing, which Go does not tell from absent ones."""
    if isinstance(value, dict):
        kept = {key: bare(item) for key, item in value.items() if item is not False}
        return {key: item for key, item in kept.items() if item not in (None, "", [], {})}
    return [bare(item) for item in value] if isinstance(value, list) else value


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return which lines of two values differ; the real server shows the members of its internal types."""
    old, new = (json.dumps(bare(spec), indent=1, sort_keys=True).split("\n") for spec in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="")
    return "\n".join([line for line in lines if not line.startswith(("---", "+++"))] + [""])
