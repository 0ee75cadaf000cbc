"""The strategies of the built-in kinds: how the server completes, validates and finishes their objects.

Most rules are in ``rules.txt``; here are those of match conditions and of updates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin import preparation
from reconciler.apiserver.builtin.checks import without_empty
from reconciler.apiserver.builtin.kinds import type_name
from reconciler.apiserver.builtin.preparation import COMPLETE, FINISH, Change, complete_pod, finish_job
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.cel.expressions import CompileError
from reconciler.apiserver.cel.rules import MatchCondition
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.apiserver.encoding.refusals import FieldError, Findings

Check = Callable[[JSONObject, JSONObject | None], Iterable[FieldError]]
UpdateCheck = Callable[[JSONObject, JSONObject], Findings]
_BESIDES_THE_SOURCE = {
    *("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy"),
    *("storageClassName", "volumeAttributesClassName", "volumeMode"),
}


def check_webhook_expressions(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of the match conditions of a configuration, except those that the stored one has already."""
    known = {
        condition.get("expression")
        for hook in (before or {}).get("webhooks") or ()
        for condition in hook.get("matchConditions") or ()
    }
    for index, hook in enumerate(doc.get("webhooks") or ()):
        for position, condition in enumerate(hook.get("matchConditions") or ()):
            source = condition.get("expression") or ""
            if source.strip() and source not in known:
                try:
                    MatchCondition(source.strip()).check()
                except CompileError as error:
                    path = f"webhooks[{index}].matchConditions[{position}].expression"
                    yield FieldError.invalid(path, source.strip(), str(error))


def _check_claim_update(doc: JSONObject, before: JSONObject) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    kept = dict(spec)
    # The volume and the storage class may be set once; a bound claim may be resized.
    free = [key for key in ("volumeName", "storageClassName") if not known.get(key)]
    if value_at(doc, "status.phase") == "Bound":
        free += ["resources", "volumeAttributesClassName"]
    for key in free:
        kept[key] = known.get(key)
    if without_empty(kept) != without_empty(known):
        excepted = "spec is immutable after creation except resources.requests and volumeAttributesClassName"
        yield FieldError.forbidden("spec", f"{excepted} for bound claims\n{preparation.difference(known, kept)}")
    if spec.get("volumeMode") != known.get("volumeMode"):
        yield FieldError.invalid("volumeMode", spec.get("volumeMode"), "field is immutable")


def _check_volume_update(doc: JSONObject, before: JSONObject) -> Findings:
    source, known = (
        {key: value for key, value in (each.get("spec") or {}).items() if key not in _BESIDES_THE_SOURCE}
        for each in (doc, before)
    )
    if without_empty(source) != without_empty(known):
        path = "spec.persistentvolumesource"
        yield FieldError.forbidden(path, f"{path} is immutable after creation\n{preparation.difference(known, source)}")


_CHECKS: dict[str, Check] = {
    "admissionregistration.v1.MutatingWebhookConfiguration": check_webhook_expressions,
    "admissionregistration.v1.ValidatingWebhookConfiguration": check_webhook_expressions,
}
_UPDATE_CHECKS: dict[str, UpdateCheck] = {
    "core.v1.PersistentVolume": _check_volume_update,
    "core.v1.PersistentVolumeClaim": _check_claim_update,
    "core.v1.Pod": preparation.check_pod_update,
}


def _errors(doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
    group, _, version = doc["apiVersion"].rpartition("/")
    name = type_name(group, version, doc["kind"]) or ""
    if name == "batch.v1.Job":
        # The selector and the labels that nobody owns are set later, and are valid only together with what was sent.
        doc = {**doc, "metadata": dict(doc["metadata"])}
        finish_job(doc, before)
    errors = violations(name, doc, before)
    if name in _CHECKS:
        errors += _CHECKS[name](doc, before)
    if name in _UPDATE_CHECKS and before is not None:
        errors += _UPDATE_CHECKS[name](doc, before)
    return errors


def _no_change(_doc: JSONObject, _before: JSONObject | None) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """The special treatment of a kind. Each function gets a document and, on an update, the stored one.

    Attributes:
        complete: completes a document in place. It may replace members, but not change them.
        check: returns the errors of a document.
        warn: returns the warnings for a document that is accepted.
        finish: sets the fields that nobody owns, in place, after field ownership was recorded. It may replace members,
            but not change them.
    """

    complete: Change = _no_change
    check: Check = lambda _doc, _before: ()
    warn: Callable[[JSONObject], list[str]] = lambda _doc: []
    finish: Change = _no_change


@functools.lru_cache(maxsize=256)
def strategy_of(group: str, plural: str, subresource: str) -> Strategy:
    """Return the strategy of a kind, or of a subresource that has one of its own."""
    if (plural, subresource) in _OF_SUBRESOURCES:
        return _OF_SUBRESOURCES[plural, subresource]
    kind = (group, plural)
    return Strategy(COMPLETE.get(kind, _no_change), _errors, finish=FINISH.get(kind, _no_change))


_OF_SUBRESOURCES = {
    ("namespaces", "finalize"): Strategy(),
    ("pods", "ephemeralcontainers"): Strategy(
        complete_pod, lambda doc, before: preparation.check_ephemeral_containers(doc, before or doc)
    ),
}
