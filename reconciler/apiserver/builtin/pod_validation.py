"""Check what a pod says of itself, in a Pod and in the template of a workload: what is there and fits together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.schema.names import LABEL_MESSAGE, is_label

__all__ = ["check_pod_spec", "check_schedule", "choice", "in_range", "in_whole_numbers", "required", "twice"]

Findings = Iterator[FieldError]
_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESTART = ("Always", "OnFailure", "Never")


def required(path: str, words: str = "") -> FieldError:
    """Make the finding that something is not there."""
    return FieldError(path, f"Required value: {words}" if words else "Required value", "FieldValueRequired")


def choice(path: str, value: Any, known: tuple[str, ...]) -> Findings:
    """Yield the finding that a value is none of those that are known; nothing is fine where nothing stands."""
    if value is not None and value not in known:
        shown = ", ".join(f'"{name}"' for name in known)
        message = f"Unsupported value: {quoted(value)}: supported values: {shown}"
        yield FieldError(path, message, "FieldValueNotSupported")


def in_range(path: str, value: Any) -> Findings:
    """Yield the finding that a number is no port."""
    if isinstance(value, int) and not 1 <= value <= 65535:
        yield FieldError(path, f"Invalid value: {value}: must be between 1 and 65535, inclusive")


def in_whole_numbers(value: int) -> bool:
    """Tell whether a number is neither negative nor beyond 32 bits."""
    return 0 <= value < 2**31


def twice(path: str, names: list[Any]) -> Findings:
    """Yield the findings that names stand twice in a list."""
    for index, name in enumerate(names):
        if name and name in names[:index]:
            yield FieldError(f"{path}[{index}].name", f"Duplicate value: {quoted(name)}", "FieldValueDuplicate")


def check_pod_spec(spec: dict[str, Any], path: str) -> Findings:
    """Yield what is wrong with the spec of a pod; the paths begin with `path`."""
    volumes = spec.get("volumes") or []
    yield from _named(f"{path}.volumes", volumes)
    known = {volume.get("name") for volume in volumes}
    containers = spec.get("containers") or []
    if not containers:
        yield required(f"{path}.containers")
    for key in ("containers", "initContainers"):
        listed = spec.get(key) or []
        for index, container in enumerate(listed):
            yield from _check_container(container, f"{path}.{key}[{index}]", known)
        yield from twice(f"{path}.{key}", [container.get("name") for container in listed])
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and (deadline == 0 or not in_whole_numbers(deadline)):
        message = f"Invalid value: {deadline}: must be between 1 and 2147483647, inclusive"
        yield FieldError(f"{path}.activeDeadlineSeconds", message)
    yield from choice(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART)
    yield from choice(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS)


def _named(path: str, items: list[dict[str, Any]]) -> Findings:
    for index, item in enumerate(items):
        yield from _check_name(f"{path}[{index}].name", item.get("name"))
    yield from twice(path, [item.get("name") for item in items])


def _check_name(path: str, name: Any) -> Findings:
    if not name:
        yield required(path)
    elif not is_label(str(name)):
        yield FieldError(path, f"Invalid value: {quoted(name)}: {LABEL_MESSAGE}")


def _check_container(container: dict[str, Any], path: str, volumes: set[Any]) -> Findings:
    yield from _check_name(f"{path}.name", container.get("name"))
    image = container.get("image")
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        message = f"Invalid value: {quoted(image)}: must not have leading or trailing whitespace"
        yield FieldError(f"{path}.image", message)
    for index, port in enumerate(container.get("ports") or ()):
        place = f"{path}.ports[{index}]"
        if not port.get("containerPort"):
            yield required(f"{place}.containerPort")
        yield from in_range(f"{place}.containerPort", port.get("containerPort") or 1)
        yield from choice(f"{place}.protocol", port.get("protocol"), _PROTOCOLS)
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{path}.env[{index}].name")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        yield from _check_mount(mount, f"{path}.volumeMounts[{index}]", volumes)
    yield from choice(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL)


def _check_mount(mount: dict[str, Any], path: str, volumes: set[Any]) -> Findings:
    name = mount.get("name")
    if not name:
        yield required(f"{path}.name")
    elif name not in volumes:
        yield FieldError(f"{path}.name", f"Not found: {quoted(name)}", "FieldValueNotFound")
    if not mount.get("mountPath"):
        yield required(f"{path}.mountPath")


_ENDS = re.compile(r"\s+")


def check_schedule(schedule: str, path: str) -> Findings:
    """Yield the finding that a schedule does not have five fields and is no macro."""
    fields = _ENDS.split(schedule.strip())
    if not schedule:
        yield required(path)
    elif len(fields) != 5 and not schedule.startswith("@"):
        message = f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        yield FieldError(path, f"Invalid value: {quoted(schedule)}: {message}")
