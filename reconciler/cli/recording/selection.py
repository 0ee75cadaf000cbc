"""The choice of recorded reconciles on the command line: by object, by time, by id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path

from reconciler.errors import ConfigurationError
from reconciler.recording.records import ReconcileRecord
from reconciler.recording.segments import RecordingReader, ServedKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which reconciles of a recording are meant.

    Attributes:
        kind: the kind of the object, in any case, or the name of the controller; None for any.
        key: ``NAMESPACE/NAME`` or ``NAME``; None for any.
        since: ``--from``: a time of day, or a date and time, in UTC.
        until: ``--to``, in the same form.
        reconcile: the id of one reconcile, or its beginning.
    """

    kind: str | None = None
    key: str | None = None
    since: str | None = None
    until: str | None = None
    reconcile: str | None = None

    def read(self, recording: Path) -> tuple[list[ReconcileRecord], dict[str, ServedKind], list[str]]:
        """Return the reconciles of a recording, oldest first, the kinds, and what could not be read.

        Raises:
            ConfigurationError: it is not a recording, or nothing in it is meant.
        """
        reader = RecordingReader(recording)
        everything = sorted(reader.records(), key=lambda record: record.started)
        if not everything:
            raise ConfigurationError(f"{recording} contains no reconciles")
        latest = everything[-1].started
        since, until = _moment("--from", self.since, latest), _moment("--to", self.until, latest)
        found = [
            record
            for record in everything
            if self._is_meant(record)
            and (since is None or record.ended >= since)
            and (until is None or record.started <= until)
        ]
        if not found:
            raise ConfigurationError(self._missing(recording, everything))
        return found, reader.kinds, reader.problems

    def _is_meant(self, record: ReconcileRecord) -> bool:
        kind = record.kind.rpartition("/")[2].lower()
        kinds = {kind, f"{kind}s", record.kind.lower(), record.controller.lower()}
        keys = {str(record.request), record.name}
        return (
            (self.kind is None or self.kind.lower() in kinds)
            and (self.key is None or self.key in keys)
            and (self.reconcile is None or record.id.startswith(self.reconcile))
        )

    def _missing(self, recording: Path, everything: list[ReconcileRecord]) -> str:
        if self.reconcile is not None:
            return f"{recording} contains no reconcile whose id begins with {self.reconcile!r}"
        objects = list(dict.fromkeys(f"{each.kind.rpartition('/')[2]} {each.request}" for each in everything))
        span = f"{everything[0].started:%Y-%m-%dT%H:%M:%SZ} to {everything[-1].started:%Y-%m-%dT%H:%M:%SZ}"
        more = f" and {len(objects) - 5} more" if len(objects) > 5 else ""
        return f"{recording} contains no such reconcile; it has {', '.join(objects[:5])}{more}, from {span}"


def _moment(option: str, text: str | None, latest: datetime) -> datetime | None:
    """Return the time of an option; a time of day belongs to the day of the latest reconcile."""
    if text is None:
        return None
    try:
        if ":" in text and "-" not in text:
            return datetime.combine(latest.astimezone(UTC).date(), time.fromisoformat(text), UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r} is not a time: write 03:12, 03:12:30 or 2026-01-31T03:12"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
