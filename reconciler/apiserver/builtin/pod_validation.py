"""Validation of pods and pod templates: the spec itself, and what an update of a Pod may change in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.schema.names import LABEL_MESSAGE, is_label
from reconciler.wire import JSONObject

__all__ = [
    "check_ephemeral_containers",
    "check_pod_spec",
    "check_pod_update",
    "check_port",
    "choice",
    "difference",
    "without_empty",
]

Findings = Iterator[FieldError]
_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESTART = ("Always", "OnFailure", "Never")


def choice(path: str, value: Any, known: tuple[str, ...]) -> Findings:
    """Check that a value is one of those that are supported; None is accepted."""
    if value is not None and value not in known:
        yield FieldError.not_supported(path, value, known)


def check_port(path: str, value: Any) -> Findings:
    """Check that a number is a port number; other types are accepted."""
    if isinstance(value, int) and not 1 <= value <= 65535:
        yield FieldError.invalid(path, value, "must be between 1 and 65535, inclusive")


def _is_int32_count(value: int) -> bool:
    """Return whether a number is a nonnegative 32-bit integer."""
    return 0 <= value < 2**31


def _duplicate_names(path: str, names: list[Any]) -> Findings:
    """Check that the names in a list are unique."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            yield FieldError.duplicate(f"{path}[{index}].name", name)


def check_pod_spec(spec: JSONObject, path: str) -> Findings:
    """Yield the errors of a pod's spec; their paths begin with `path`."""
    volumes = spec.get("volumes") or []
    yield from _named(f"{path}.volumes", volumes)
    known = {volume.get("name") for volume in volumes}
    containers = spec.get("containers") or []
    if not containers:
        yield FieldError.required(f"{path}.containers")
    for key in ("containers", "initContainers"):
        listed = spec.get(key) or []
        for index, container in enumerate(listed):
            yield from _check_container(container, f"{path}.{key}[{index}]", known)
        yield from _duplicate_names(f"{path}.{key}", [container.get("name") for container in listed])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and (deadline == 0 or not _is_int32_count(deadline)):
        message = "must be between 1 and 2147483647, inclusive"
        yield FieldError.invalid(f"{path}.activeDeadlineSeconds", deadline, message)
    yield from choice(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART)
    yield from choice(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS)


def _named(path: str, items: list[JSONObject]) -> Findings:
    for index, item in enumerate(items):
        yield from _check_name(f"{path}[{index}].name", item.get("name"))
    yield from _duplicate_names(path, [item.get("name") for item in items])


def _check_name(path: str, name: Any) -> Findings:
    if not name:
        yield FieldError.required(path)
    elif not is_label(str(name)):
        yield FieldError.invalid(path, name, LABEL_MESSAGE)


def _check_container(container: JSONObject, path: str, volumes: set[Any]) -> Findings:
    yield from _check_name(f"{path}.name", container.get("name"))
    image = container.get("image")
    if not image:
        yield FieldError.required(f"{path}.image")
    elif image != image.strip():
        yield FieldError.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    for index, port in enumerate(container.get("ports") or ()):
        place = f"{path}.ports[{index}]"
        if not port.get("containerPort"):
            yield FieldError.required(f"{place}.containerPort")
        yield from check_port(f"{place}.containerPort", port.get("containerPort") or 1)
        yield from choice(f"{place}.protocol", port.get("protocol"), _PROTOCOLS)
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield FieldError.required(f"{path}.env[{index}].name")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        yield from _check_mount(mount, f"{path}.volumeMounts[{index}]", volumes)
    yield from choice(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL)


def _check_mount(mount: JSONObject, path: str, volumes: set[Any]) -> Findings:
    name = mount.get("name")
    if not name:
        yield FieldError.required(f"{path}.name")
    elif name not in volumes:
        yield FieldError(f"{path}.name", f"Not found: {quoted(name)}", "FieldValueNotFound")
    if not mount.get("mountPath"):
        yield FieldError.required(f"{path}.mountPath")


# Updates.

_ALLOWED_CHANGES = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_LISTS = ("containers", "initContainers")


def check_pod_update(spec: JSONObject, before: JSONObject) -> Findings:
    """Yield the errors of an update of a Pod's spec."""
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


_FORBIDDEN_IF_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources")


def check_ephemeral_containers(spec: JSONObject, before: JSONObject) -> Findings:
    """Yield the errors of the ephemeral containers that an update leaves a Pod with."""
    path, containers = "spec.ephemeralContainers", spec.get("ephemeralContainers") or []
    others = [each for key in _LISTS for each in spec.get(key) or ()]
    names = [each.get("name") for each in others]
    for index, container in enumerate(containers):
        place = f"{path}[{index}]"
        yield from _check_container(container, place, {volume.get("name") for volume in spec.get("volumes") or ()})
        if container.get("name") in (*names, *(each.get("name") for each in containers[:index])):
            yield FieldError.duplicate(f"{place}.name", container.get("name"))
        for member in _FORBIDDEN_IF_EPHEMERAL:
            if container.get(member):
                yield FieldError.forbidden(f"{place}.{member}", "cannot be set for an Ephemeral Container")
        target = container.get("targetContainerName")
        if target and target not in names:
            yield FieldError(f"{place}.targetContainerName", f"Not found: {quoted(target)}", "FieldValueNotFound")
    kept = {each.get("name"): each for each in containers}
    for old in before.get("ephemeralContainers") or ():
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
    elif not _is_int32_count(seconds):
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


def without_empty(value: Any) -> Any:
    """Return a value without empty members, which Go does not distinguish from missing ones."""
    if isinstance(value, dict):
        kept = {key: without_empty(item) for key, item in value.items() if item is not False}
        return {key: item for key, item in kept.items() if item not in (None, "", [], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def difference(before: JSONObject, after: JSONObject) -> str:
    """Return a diff of two values; the real server's diff shows the fields of its internal types."""
    old, new = (json.dumps(without_empty(spec), indent=1, sort_keys=True).split("\n") for spec in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="")
    return "\n".join([line for line in lines if not line.startswith(("---", "+++"))] + [""])
