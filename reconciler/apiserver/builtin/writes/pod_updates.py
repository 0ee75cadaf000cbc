"""Updates of pods: what may change in their specs, and by resizing in the resources of their containers."""

from __future__ import annotations

import difflib
import json

from reconciler.apiserver.builtin.rules.checks import without_empty
from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.builtin.writes.preparation import admitted_pod_spec, complete_pod, qos_class
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted
from reconciler.wire import JSONObject

__all__ = ["check_ephemeral_containers", "check_pod_update", "check_resize", "complete_resize", "difference"]

_ALLOWED_CHANGES = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_LISTS = ("containers", "initContainers")


def check_pod_update(doc: JSONObject, stored: JSONObject) -> Findings:
    """Yield the errors of an update of a Pod's spec."""
    before = stored.get("spec") or {}
    spec = doc.get("spec") or {}
    if spec == before:
        return
    spec = admitted_pod_spec(spec, before)
    for key in _LISTS:
        containers = spec.get(key) or []
        if len(containers) != len(before.get(key) or []):
            yield FieldError.forbidden(f"spec.{key}", "pod updates may not add or remove containers")
            return
        yield from _check_images(containers, f"spec.{key}")
    deadline = list(_check_deadline(spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")))
    yield from deadline
    if deadline and "activeDeadlineSeconds" in spec:
        return
    yield from _check_tolerations(spec.get("tolerations") or [], before.get("tolerations") or [])
    yield from _check_gates(spec.get("schedulingGates") or [], before.get("schedulingGates") or [])
    kept = _without_allowed_changes(spec, before)
    if without_empty(kept) != without_empty(before):
        message = f"pod updates may not change fields other than {_ALLOWED_CHANGES}\n{difference(before, kept)}"
        yield FieldError.forbidden("spec", message)


def check_ephemeral_containers(doc: JSONObject, stored: JSONObject) -> Findings:
    """Yield the errors of an update of the ephemeral containers of a Pod."""
    yield from violations("core.v1.Pod", doc, stored)
    path = "spec.ephemeralContainers"
    kept = {each.get("name"): each for each in doc["spec"].get("ephemeralContainers") or ()}
    for old in stored["spec"].get("ephemeralContainers") or ():
        shown = f"existing ephemeral containers {quoted(old.get('name'))} may not be"
        if old.get("name") not in kept:
            yield FieldError.forbidden(path, f"{shown} removed\n")
        elif without_empty(kept[old.get("name")]) != without_empty(old):
            yield FieldError.forbidden(path, f"{shown} changed\n{difference(old, kept[old.get('name')])}")


def _check_images(containers: list[JSONObject], path: str) -> Findings:
    for index, container in enumerate(containers):
        image = container.get("image") or ""
        if not image:
            yield FieldError.required(f"{path}[{index}].image")
        if image != image.strip():
            yield FieldError.invalid(f"{path}[{index}].image", image, "must not have leading or trailing whitespace")


def _check_deadline(seconds: int | None, before: int | None) -> Findings:
    path = "spec.activeDeadlineSeconds"
    if seconds is None:
        if before is not None:
            yield FieldError.invalid(path, None, "must not update from a positive integer to nil value")
    elif not 0 <= seconds < 2**31:
        yield FieldError.invalid(path, seconds, "must be between 0 and 2147483647, inclusive")
    elif before is not None and before < seconds:
        yield FieldError.invalid(path, seconds, "must be less than or equal to previous value")


def _check_tolerations(tolerations: list[JSONObject], before: list[JSONObject]) -> Findings:
    kept = [_without_seconds(each) for each in tolerations]
    if any(_without_seconds(old) not in kept for old in before):
        message = "existing toleration can not be modified except its tolerationSeconds"
        yield FieldError.forbidden("spec.tolerations", message)


def _without_seconds(toleration: JSONObject) -> JSONObject:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _check_gates(gates: list[JSONObject], before: list[JSONObject]) -> Findings:
    known = {gate.get("name") for gate in before}
    for index, gate in enumerate(gates):
        if gate.get("name") not in known:
            message = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield FieldError.forbidden(f"spec.schedulingGates[{index}].name", message)


def _without_allowed_changes(spec: JSONObject, before: JSONObject) -> JSONObject:
    """Return a spec with the old values in the fields that an update may change."""
    kept = dict(spec)
    for key in _LISTS:
        if spec.get(key):
            pairs = zip(spec[key], before[key], strict=True)
            kept[key] = [{**container, "image": old.get("image")} for container, old in pairs]
    mutable = ["activeDeadlineSeconds", "schedulingGates", "tolerations"]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        mutable.append("terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        # The node selection of a gated Pod may still be narrowed; that it is narrower is not checked.
        mutable += ["affinity", "nodeSelector"]
    for key in mutable:
        kept[key] = before.get(key)
    return kept


def difference(before: JSONObject, after: JSONObject) -> str:
    """Return a diff of two values; the real server's diff shows the fields of its internal types."""
    old, new = (json.dumps(without_empty(spec), indent=1, sort_keys=True).split("\n") for spec in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="")
    return "\n".join([line for line in lines if not line.startswith(("---", "+++"))] + [""])


def complete_resize(doc: JSONObject, before: JSONObject | None) -> None:
    """Restore all of a pod except the resources of its containers, unless containers were added, removed or renamed."""
    spec, known = doc.get("spec") or {}, (before or {}).get("spec") or {}
    if not list(_reordered(spec, known)):
        kept = dict(known)
        for key in _LISTS:
            if known.get(key):
                pairs = zip(spec[key], known[key], strict=True)
                kept[key] = [_resized(container, old) for container, old in pairs]
        doc["spec"] = kept
    complete_pod(doc, before)


def _resized(container: JSONObject, old: JSONObject) -> JSONObject:
    members = ("resources", "resizePolicy")
    kept = {key: value for key, value in old.items() if key not in members}
    return {**kept, **{key: container[key] for key in members if key in container}}


def _reordered(spec: JSONObject, known: JSONObject) -> Findings:
    for key in _LISTS:
        containers, old = spec.get(key) or [], known.get(key) or []
        if len(containers) != len(old):
            yield FieldError.forbidden(f"spec.{key}", f"{key} may not be added or removed on resize")
            continue
        for index, container in enumerate(containers):
            if container.get("name") != old[index].get("name"):
                words = "containers may not be renamed or reordered on resize"
                yield FieldError.forbidden(f"spec.{key}[{index}].name", words)


def check_resize(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of new resources of a pod's containers."""
    spec, known = doc.get("spec") or {}, (before or {}).get("spec") or {}
    yield from violations("core.v1.PodSpec", spec, None, "spec")
    if qos_class(spec) != qos_class(known):
        shown = (doc.get("status") or {}).get("qosClass") or ""
        yield FieldError.invalid("spec", shown, "Pod QOS Class may not change as a result of resizing")
    reordered = list(_reordered(spec, known))
    yield from reordered
    if reordered:
        return
    for key in _LISTS:
        for index, container in enumerate(spec.get(key) or ()):
            yield from _check_resources(container, known[key][index], f"spec.{key}[{index}].resources")


def _check_resources(container: JSONObject, before: JSONObject, path: str) -> Findings:
    new, old = container.get("resources") or {}, before.get("resources") or {}
    for kind in ("requests", "limits"):
        if (old.get(kind) or {}).keys() - (new.get(kind) or {}).keys():
            yield FieldError.forbidden(f"{path}.{kind}", f"resource {kind} cannot be removed")
    if _immutable_resources(new) != _immutable_resources(old):
        yield FieldError.forbidden("spec", "only cpu and memory resources are mutable")


def _immutable_resources(resources: JSONObject) -> list[JSONObject]:
    return [
        {name: value for name, value in (resources.get(kind) or {}).items() if name not in ("cpu", "memory")}
        for kind in ("requests", "limits")
    ]
