"""The cells of tables: functions of an object and the current time, and functions that return them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from reconciler.wire import JSONObject

__all__ = ["NONE", "UNKNOWN", "UNSET", "Cell", "joined", "selector", "shortened", "show_age", "value_at"]

Cell = Callable[[JSONObject, datetime], Any]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"


def show_age(text: str, now: datetime) -> str:
    """Return the time since a timestamp, as ``kubectl`` shows it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "<invalid>"
    return UNKNOWN if moment.tzinfo is None else _human_duration(now - moment)


def _human_duration(passed: timedelta) -> str:
    """Return a duration as ``kubectl`` shows ages, with at most two units."""
    seconds = int(passed.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    for bound, unit, major, rest, minor in (
        (120, "s", seconds, 0, ""),
        (600, "m", minutes, seconds % 60, "s"),
        (3 * 3600, "m", minutes, 0, ""),
        (8 * 3600, "h", hours, minutes % 60, "m"),
        (48 * 3600, "h", hours, 0, ""),
        (8 * 86400, "d", days, hours % 24, "h"),
        (730 * 86400, "d", days, 0, ""),
        (2920 * 86400, "y", days // 365, days % 365, "d"),
    ):
        if seconds < bound:
            return f"{major}{unit}{rest}{minor}" if rest else f"{major}{unit}"
    return f"{days // 365}y"


def value_at(doc: Any, path: str, default: Any = None) -> Any:
    """Return the value at a dotted path of a document, or the default."""
    for part in path.split("."):
        doc = doc.get(part) if isinstance(doc, dict) else None
    return default if doc is None else doc


def age(path: str, default: str = UNKNOWN) -> Cell:
    """Return the cell with the time since that at a path."""

    def cell(doc: JSONObject, now: datetime) -> str:
        found = value_at(doc, path)
        return show_age(str(found), now) if found else default

    return cell


def joined(values: Iterable[Any], default: str = NONE) -> str:
    """Return values with commas between them, or the default."""
    return ",".join(str(value) for value in values) or default


def shortened(values: Sequence[Any], most: int = 3, separator: str = ",") -> str:
    """Return the first values, and how many more there are."""
    shown = separator.join(str(value) for value in values[:most]) or NONE
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


def containers(path: str, key: str) -> Cell:
    """Return the cell with the names or images of the containers of a pod spec."""
    return lambda doc, _now: joined((each.get(key, "") for each in value_at(doc, f"{path}.containers", ())), "")


def selector(path: str) -> Cell:
    """Return the cell with a map of labels, or a label selector."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path, {})
        labels = found.get("matchLabels", {}) if "matchLabels" in found or "matchExpressions" in found else found
        return joined(f"{key}={labels[key]}" for key in sorted(labels))

    return cell


def named(path: str, *parts: str, default: str = NONE, separator: str = "/") -> Cell:
    """Return the cell with the parts of a reference at a path, such as kind and name."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path)
        return separator.join(str(found[part]) for part in parts if found.get(part)) if found else default

    return cell


def state(path: str, name: str, default: str = UNKNOWN, reason: str = "") -> Cell:
    """Return the cell with the status of a condition.

    Args:
        path: where the conditions are.
        name: the type of the condition.
        default: the cell if there is no such condition.
        reason: anything shows why it is not true.
    """

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = [each for each in value_at(doc, path, ()) if each.get("type") == name]
        if not found:
            return default
        status = str(found[0].get("status"))
        why = found[0].get("reason") if reason and status != "True" else ""
        return f"{status} ({why})" if why else status

    return cell


def seconds(path: str) -> Cell:
    """Return the cell with a number of seconds as a duration."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path)
        return NONE if found is None else _human_duration(timedelta(seconds=found))

    return cell


def subjects(kind: str) -> Cell:
    """Return the cell with the subjects of a role binding that are of a kind."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = (each for each in doc.get("subjects") or () if each.get("kind") == kind)
        shown = (
            f"{each.get('namespace', '')}/{each['name']}" if kind == "ServiceAccount" else each["name"]
            for each in found
        )
        return ", ".join(shown)

    return cell


def amounts(kind: str) -> Cell:
    """Return the cell with the used and the hard amounts of a ResourceQuota: of ``limits``, or of everything else."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        hard, used = value_at(doc, "status.hard", {}), value_at(doc, "status.used", {})
        chosen = [name for name in sorted(hard) if name.startswith("limits.") is (kind == "limits")]
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in chosen)

    return cell


def event_age(*paths: str) -> Cell:
    """Return the cell with the time since the first that is set."""

    def cell(doc: JSONObject, now: datetime) -> str:
        found = next((value for path in paths if (value := value_at(doc, path))), None)
        return show_age(str(found), now) if found else UNKNOWN

    return cell


def text(path: str, default: str = "") -> Cell:
    """Return the cell with a value as text, without spaces around it."""
    return lambda doc, _now: str(value_at(doc, path, default)).strip()


def listed(path: str, default: str = "") -> Cell:
    """Return the cell with the values of a list."""
    return lambda doc, _now: joined(value_at(doc, path, ()), default)


def first(path: str, key: str) -> Cell:
    """Return the cell with a member of the first item of a list."""
    return lambda doc, _now: next((str(each.get(key)) for each in value_at(doc, path, ())), NONE)


def flag(path: str) -> Cell:
    """Return the cell with a boolean as text."""
    return lambda doc, _now: str(bool(value_at(doc, path)))


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def modes(path: str) -> Cell:
    """Return the cell with access modes in their short form."""
    return lambda doc, _now: joined((mode for name, mode in _MODES.items() if name in value_at(doc, path, ())), "")


def default(annotation: str) -> Cell:
    """Return the cell with a name, and whether an annotation says that the object is the default one."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        is_default = (value_at(doc, "metadata.annotations") or {}).get(annotation) == "true"
        return f"{value_at(doc, 'metadata.name')}{' (default)' if is_default else ''}"

    return cell
