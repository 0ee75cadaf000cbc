"""The cells of tables: functions of an object, the current time, and arguments from ``cells.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from reconciler.apiserver.builtin.rules.rule import Place, getter
from reconciler.apiserver.encoding.json_documents import condition_of, value_at
from reconciler.wire import JSONObject

__all__ = ["NONE", "UNKNOWN", "UNSET", "Cell", "joined", "selector", "shortened", "show_age"]

Cell = Callable[[JSONObject, datetime], Any]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def show_age(text: str, now: datetime) -> str:
    """Return the time since a timestamp, as ``kubectl`` shows it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "<invalid>"
    return UNKNOWN if moment.tzinfo is None else _kubectl_duration(now - moment)


def _kubectl_duration(passed: timedelta) -> str:
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


def joined(values: Iterable[Any], default: str = NONE) -> str:
    """Return values with commas between them, or the default."""
    return ",".join(str(value) for value in values) or default


def shortened(values: Sequence[Any], most: int = 3, separator: str = ",") -> str:
    """Return the first values, and how many more there are."""
    shown = separator.join(str(value) for value in values[:most]) or NONE
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


# The functions that ``cells.json`` names, with their arguments.


def age(doc: JSONObject, now: datetime, path: str, default: str = UNKNOWN) -> str:
    """Return the time since that at a path."""
    found = value_at(doc, path)
    return show_age(str(found), now) if found else default


def event_age(doc: JSONObject, now: datetime, *paths: str) -> str:
    """Return the time since the first that is set."""
    return next((show_age(str(value), now) for path in paths if (value := value_at(doc, path))), UNKNOWN)


def selector(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return a map of labels, or a label selector."""
    found = value_at(doc, path, {})
    labels = found.get("matchLabels", {}) if "matchLabels" in found or "matchExpressions" in found else found
    return joined(f"{key}={labels[key]}" for key in sorted(labels))


def named(doc: JSONObject, _now: datetime, path: str, *parts: str, default: str = NONE) -> str:
    """Return the parts of a reference at a path, such as kind and name."""
    found = value_at(doc, path)
    return "/".join(str(found[part]) for part in parts if found.get(part)) if found else default


def state(doc: JSONObject, _now: datetime, name: str, default: str = UNKNOWN, reason: str = "") -> str:
    """Return the status of a condition, and with `reason` why it is not true; the default if there is none."""
    found = condition_of(doc, name)
    status = str(found.get("status"))
    why = found.get("reason") if reason and status != "True" else ""
    return default if not found else f"{status} ({why})" if why else status


def seconds(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return a number of seconds as a duration."""
    found = value_at(doc, path)
    return NONE if found is None else _kubectl_duration(timedelta(seconds=found))


def subjects(doc: JSONObject, _now: datetime, kind: str) -> str:
    """Return the subjects of a role binding that are of a kind."""
    found = (each for each in doc.get("subjects") or () if each.get("kind") == kind)
    accounts = kind == "ServiceAccount"
    return ", ".join(f"{each.get('namespace', '')}/{each['name']}" if accounts else each["name"] for each in found)


def amounts(doc: JSONObject, _now: datetime, kind: str) -> str:
    """Return the used and the hard amounts of a ResourceQuota: of ``limits``, or of everything else."""
    hard, used = value_at(doc, "status.hard", {}), value_at(doc, "status.used", {})
    chosen = [name for name in sorted(hard) if name.startswith("limits.") is (kind == "limits")]
    return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in chosen)


def text(doc: JSONObject, _now: datetime, path: str, default: str = "") -> str:
    """Return a value as text, without spaces around it."""
    return str(value_at(doc, path, default)).strip()


def listed(doc: JSONObject, _now: datetime, path: str, default: str = "") -> str:
    """Return the values at a path with ``[]``."""
    return joined(_values(doc, path), default)


def some(doc: JSONObject, _now: datetime, path: str, default: str) -> str:
    """Return the first values at a path with ``[]``, and how many more there are."""
    found = list(filter(None, _values(doc, path)))
    return shortened(found) if found else default


def _values(doc: JSONObject, path: str) -> list[Any]:
    return ["" if value is None else value for value in getter(path)(Place(doc, None, ""))]


def first(doc: JSONObject, _now: datetime, path: str, key: str, kind: str = "") -> str:
    """Return a member of the first item of a list, or of the first one of a type."""
    items = (each for each in value_at(doc, path, ()) if not kind or each.get("type") == kind)
    return next((str(each.get(key)) for each in items), NONE)


def modes(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return access modes in their short form."""
    return joined((mode for name, mode in _MODES.items() if name in value_at(doc, path, ())), "")


def default(doc: JSONObject, _now: datetime, annotation: str) -> str:
    """Return the name of an object, and whether an annotation says that it is the default one."""
    is_default = value_at(doc, "metadata.annotations", {}).get(annotation) == "true"
    return f"{value_at(doc, 'metadata.name')}{' (default)' if is_default else ''}"
