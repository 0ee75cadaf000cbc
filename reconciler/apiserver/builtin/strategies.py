"""Know what is special about single built-in kinds: what the server adds to them and demands of them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver.builtin.fixed_fields import CHANGE_CHECKS
from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.preparation import (
    complete_autoscaler,
    complete_controller,
    complete_daemon_set,
    complete_job,
    complete_pod,
    finish_node,
    finish_pod,
    finish_service,
)
from reconciler.apiserver.builtin.validation import WORKLOAD_CHECKS
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.schema.names import CONFIG_KEY_MESSAGE, is_config_key

__all__ = ["PLAIN", "Strategy", "strategy_of"]


def _nothing(_doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Add nothing."""


def _fine(_doc: dict[str, Any], _before: dict[str, Any] | None) -> list[FieldError]:
    return []


def _unfinished(_doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Add nothing."""


def _silent(_doc: dict[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Strategy:
    """Hold what is special about a kind.

    Attributes:
        complete: completes a document in place, given the stored one on an update; it may replace members, but not
            change them.
        check: returns what is wrong with a document, given the stored one on an update.
        finish: adds in place what nobody owns, after ownership was noted, given the stored one on an update; it may
            replace members, but not change them.
        warn: returns what clients are warned of in a document that is accepted.
    """

    complete: Callable[[dict[str, Any], dict[str, Any] | None], None] = _nothing
    check: Callable[[dict[str, Any], dict[str, Any] | None], list[FieldError]] = _fine
    warn: Callable[[dict[str, Any]], list[str]] = _silent
    finish: Callable[[dict[str, Any], dict[str, Any] | None], None] = _unfinished


PLAIN = Strategy()
"""Nothing special."""


def strategy_of(info: KindInfo) -> Strategy:
    """Return what is special about a kind."""
    return _STRATEGIES.get((info.group, info.plural), PLAIN)


def _namespace(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    metadata = doc["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    doc["spec"] = {"finalizers": ["kubernetes"]} if before is None else before.get("spec", {})
    if before is None:
        doc["status"] = {"phase": "Active"}


def _secret(doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    doc["type"] = doc.get("type") or "Opaque"
    texts = doc.pop("stringData", None)
    if texts:
        data = {key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()}
        doc["data"] = {**(doc.get("data") or {}), **data}


def _pending(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    if before is None:
        doc["status"] = {"phase": "Pending"}


def _immutable(*members: str) -> Callable[[dict[str, Any], dict[str, Any] | None], list[FieldError]]:
    """Make the check of kinds whose content can be frozen with ``immutable: true``."""

    def check(doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
        if before is None or not before.get("immutable"):
            return []
        message = "Forbidden: field is immutable when `immutable` is set"
        changed = [key for key in members if doc.get(key) != before.get(key)]
        if not doc.get("immutable"):
            changed.insert(0, "immutable")
        return [FieldError(key, message, "FieldValueForbidden") for key in changed]

    return check


def _check_keys(doc: dict[str, Any], *members: str) -> list[FieldError]:
    return [
        FieldError(f"{member}[{key}]", f"Invalid value: {quoted(key)}: {CONFIG_KEY_MESSAGE}")
        for member in members
        for key in doc.get(member) or ()
        if not is_config_key(key)
    ]


def _check_config_map(doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
    both = [
        FieldError(f"data[{key}]", f"Invalid value: {quoted(key)}: duplicate of key present in binaryData")
        for key in doc.get("data") or ()
        if key in (doc.get("binaryData") or ())
    ]
    return _immutable("data", "binaryData")(doc, before) + both + _check_keys(doc, "data", "binaryData")


def _check_secret(doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
    errors = []
    if before is not None and doc.get("type") != before.get("type"):
        errors.append(FieldError("type", f"Invalid value: {quoted(str(doc.get('type')))}: field is immutable"))
    return errors + _immutable("data")(doc, before) + _check_keys(doc, "data")


def _check_lease(doc: dict[str, Any], _before: dict[str, Any] | None) -> list[FieldError]:
    spec = doc.get("spec") or {}
    errors = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        errors.append(FieldError("spec.leaseDurationSeconds", f"Invalid value: {duration}: must be greater than 0"))
    if transitions is not None and transitions < 0:
        message = f"Invalid value: {transitions}: must be greater than or equal to 0"
        errors.append(FieldError("spec.leaseTransitions", message))
    return errors


def _event(doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Fill in what Events always show, be it empty."""
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        doc.setdefault(key, None)
    for key in ("reportingComponent", "reportingInstance"):
        doc.setdefault(key, "")


def _check_event(doc: dict[str, Any], _before: dict[str, Any] | None) -> list[FieldError]:
    place, about = doc["metadata"].get("namespace"), (doc.get("involvedObject") or {}).get("namespace") or "default"
    if about == place:
        return []
    message = f"Invalid value: {quoted(about)}: does not match event.namespace"
    return [FieldError("involvedObject.namespace", message)]


def _new_event(doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Fill in what Events of events.k8s.io always show, be it empty."""
    for key in ("eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        doc.setdefault(key, None)


def _check_new_event(doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
    if before is not None:
        return []
    errors = []
    if not doc.get("eventTime"):
        errors.append(FieldError("eventTime", "Required value", "FieldValueRequired"))
    else:
        needed = ("reportingController", "reportingInstance", "action", "reason")
        errors += [FieldError(key, "Required value", "FieldValueRequired") for key in needed if not doc.get(key)]
    if doc.get("type") not in ("Normal", "Warning"):
        shown = doc.get("type") or ""
        errors.append(FieldError("type", f"Invalid value: {quoted(str(shown))}: has invalid value: {shown}"))
    return errors


_STRATEGIES = {
    ("", "configmaps"): Strategy(check=_check_config_map),
    ("", "events"): Strategy(finish=_event, check=_check_event),
    ("", "namespaces"): Strategy(complete=_namespace),
    ("", "persistentvolumeclaims"): Strategy(complete=_pending),
    ("", "persistentvolumes"): Strategy(complete=_pending),
    ("", "nodes"): Strategy(finish=finish_node),
    ("", "pods"): Strategy(finish=finish_pod, complete=complete_pod),
    ("", "secrets"): Strategy(complete=_secret, check=_check_secret),
    ("", "replicationcontrollers"): Strategy(complete=complete_controller),
    ("", "services"): Strategy(finish=finish_service),
    ("apps", "daemonsets"): Strategy(complete=complete_daemon_set),
    ("autoscaling", "horizontalpodautoscalers"): Strategy(complete=complete_autoscaler),
    ("batch", "jobs"): Strategy(complete=complete_job),
    ("coordination.k8s.io", "leases"): Strategy(check=_check_lease),
    ("events.k8s.io", "events"): Strategy(finish=_new_event, check=_check_new_event),
}
_STRATEGIES |= {
    key: dataclasses.replace(_STRATEGIES.get(key, PLAIN), check=check) for key, check in WORKLOAD_CHECKS.items()
}


def _with_changes(
    strategy: Strategy, changes: Callable[[dict[str, Any], dict[str, Any]], Iterator[FieldError]]
) -> Strategy:
    """Return a strategy that checks what an update changes as well."""

    def check(doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
        return strategy.check(doc, before) + ([] if before is None else list(changes(doc, before)))

    return dataclasses.replace(strategy, check=check)


_STRATEGIES |= {key: _with_changes(_STRATEGIES.get(key, PLAIN), changes) for key, changes in CHANGE_CHECKS.items()}
