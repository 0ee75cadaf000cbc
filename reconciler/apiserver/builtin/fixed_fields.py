"""Check what an update changes of objects parts of which stay as they were created."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.apiserver.builtin.pod_changes import bare, difference
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_json, quoted

__all__ = ["CHANGE_CHECKS"]

Findings = Iterator[FieldError]
Check = Callable[[dict[str, Any], dict[str, Any]], Findings]


def _at(doc: dict[str, Any], path: str) -> Any:
    value: Any = doc
    for key in path.split("."):
        value = (value or {}).get(key)
    return value


def _fixed(*paths: str) -> Check:
    """Make the check that members are as they were."""

    def check(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
        for path in paths:
            yield from _same(doc, before, path)

    return check


def _same(doc: dict[str, Any], before: dict[str, Any], path: str) -> Findings:
    value = _at(doc, path)
    if bare(value) != bare(_at(before, path)):
        yield FieldError(path, f"Invalid value: {quoted(value)}: field is immutable")


def _role(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    role = doc.get("roleRef") or {}
    if role != (before.get("roleRef") or {}):
        shown = {"APIGroup": role.get("apiGroup") or "", "Kind": role.get("kind") or "", "Name": role.get("name") or ""}
        yield FieldError("roleRef", f"Invalid value: {go_json(shown, sort=False)}: cannot change roleRef")


def _priority_class(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    if (doc.get("value") or 0) != (before.get("value") or 0):
        yield FieldError("value", "Forbidden: may not be changed in an update.", "FieldValueForbidden")
    yield from _same(doc, before, "preemptionPolicy")


def _service(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    address, old = spec.get("clusterIP"), known.get("clusterIP")
    moves = "ExternalName" in (spec.get("type"), known.get("type"))
    if address and old and address != old and not moves:
        yield FieldError("spec.clusterIPs[0]", f"Invalid value: {go_json([address])}: may not change once set")


def _claim(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    kept = dict(spec)
    # A volume and a class are given once; what is bound may grow.
    free = [key for key in ("volumeName", "storageClassName") if not known.get(key)]
    if _at(doc, "status.phase") == "Bound":
        free += ["resources", "volumeAttributesClassName"]
    for key in free:
        kept[key] = known.get(key)
    if bare(kept) != bare(known):
        excepted = "spec is immutable after creation except resources.requests and volumeAttributesClassName"
        words = f"{excepted} for bound claims\n{difference(known, kept)}"
        yield FieldError("spec", f"Forbidden: {words}", "FieldValueForbidden")


_BESIDE_THE_SOURCE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _volume(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    source, known = (
        {key: value for key, value in (each.get("spec") or {}).items() if key not in _BESIDE_THE_SOURCE}
        for each in (doc, before)
    )
    if bare(source) != bare(known):
        path = "spec.persistentvolumesource"
        words = f"{path} is immutable after creation\n{difference(known, source)}"
        yield FieldError(path, f"Forbidden: {words}", "FieldValueForbidden")
    if _at(doc, "spec.volumeMode") != _at(before, "spec.volumeMode"):
        yield FieldError("volumeMode", f"Invalid value: {quoted(_at(doc, 'spec.volumeMode'))}: field is immutable")


_OF_A_JOB = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def _job(doc: dict[str, Any], before: dict[str, Any]) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    if spec.get("selector") != known.get("selector") and not spec.get("manualSelector"):
        shown = go_json(spec.get("selector"))
        yield FieldError("spec.selector", f"Invalid value: {shown}: `selector` not auto-generated")
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed":
        yield from _same(doc, before, "spec.completions")
    elif completions not in (known.get("completions"), None, spec.get("parallelism")):
        words = "can only be modified in tandem with spec.parallelism"
        yield FieldError("spec.completions", f"Invalid value: {completions}: {words}")
    yield from _same(doc, before, "spec.selector")
    if not known.get("suspend"):
        # What may be changed of a job that is suspended is not told apart.
        yield from _same(doc, before, "spec.template")
    for key in _OF_A_JOB:
        yield from _same(doc, before, f"spec.{key}")


_BINDINGS = "rbac.authorization.k8s.io"

CHANGE_CHECKS: dict[tuple[str, str], Check] = {
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _volume,
    ("", "services"): _service,
    ("batch", "jobs"): _job,
    ("discovery.k8s.io", "endpointslices"): _fixed("addressType"),
    ("networking.k8s.io", "ingressclasses"): _fixed("spec.controller"),
    (_BINDINGS, "clusterrolebindings"): _role,
    (_BINDINGS, "rolebindings"): _role,
    ("scheduling.k8s.io", "priorityclasses"): _priority_class,
    ("storage.k8s.io", "storageclasses"): _fixed("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"),
}
"""What is wrong with a change, given the stored object."""
