"""The resizing of running pods: what it may change in the resources of their containers."""

from __future__ import annotations

from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.builtin.writes.preparation import complete_pod, qos_class
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.wire import JSONObject

__all__ = ["check_resize", "complete_resize"]

_LISTS = ("containers", "initContainers")


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
