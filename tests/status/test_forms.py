"""Equal times, numbers and quantities are not a change if the model declares them, and only then."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import Field

from reconciler.meta.documents import parse_quantity
from reconciler.objects import Condition, ConditionedStatus, Model, Resource, schema_extra
from reconciler.status import StatusBatcher
from tests.status.scripted import ScriptedServer

Quantity = Annotated[str, Field(json_schema_extra=schema_extra(format="quantity"))]


class Spec(Model):
    size: int = 1


class Part(Model):
    since: datetime | None = None
    label: str = ""


class Status(ConditionedStatus):
    ended_at: datetime | None = None
    price: Decimal | None = None
    used: Quantity | None = None
    hard: dict[str, Quantity] = Field(default_factory=dict)
    parts: list[Part] = Field(default_factory=list)
    part: Part | None = None
    text: str | None = None
    either: int | str | None = None


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    """A database."""


SAME = [
    ("endedAt", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00+01:00"),
    ("endedAt", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000000Z"),
    ("endedAt", "2026-01-01T10:00:00Z", datetime(2026, 1, 1, 10, tzinfo=UTC)),
    ("price", "1.50", "1.5"),
    ("used", "1", "1000m"),
    ("used", "1Gi", "1073741824"),
    ("hard", {"cpu": "1", "pods": "10"}, {"cpu": "1000m", "pods": "10"}),
    ("part", {"since": "2026-01-01T10:00:00Z"}, {"since": "2026-01-01T10:00:00.0Z"}),
    ("parts", [{"since": "2026-01-01T10:00:00Z", "label": "a"}], [{"label": "a", "since": "2026-01-01T10:00:00.0Z"}]),
    (
        "conditions",
        [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:00Z"}],
        [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:00+00:00"}],
    ),
]
UNTYPED = [case for case in SAME if not isinstance(case[2], datetime) and case[0] != "conditions"]
DIFFERENT = [
    ("endedAt", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000001Z"),
    ("endedAt", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00"),
    ("endedAt", "yesterday", "Yesterday"),
    ("price", "1.50", "1.51"),
    ("used", "1", "1001m"),
    ("used", "1", 1),
    ("hard", {"cpu": "1"}, {"cpu": "2"}),
    ("text", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00.0Z"),
    ("text", "1.50", "1.5"),
    ("either", "1000m", "1"),
    ("part", {"label": "2026-01-01T10:00:00Z"}, {"label": "2026-01-01T10:00:00.0Z"}),
    ("part", {"unknown": "2026-01-01T10:00:00Z"}, {"unknown": "2026-01-01T10:00:00.0Z"}),
    ("parts", [{"since": "2026-01-01T10:00:00Z"}], []),
]


def write(server: ScriptedServer, obj: Any, field: str, value: Any) -> StatusBatcher[Any]:
    with StatusBatcher(server.blocking_writer(), obj) as status:
        status.set(field, value)
    return status


@pytest.mark.parametrize(("field", "stored", "wanted"), SAME)
def test_a_different_text_with_the_same_meaning_does_not_change_a_typed_status(
    field: str, stored: Any, wanted: Any
) -> None:
    server = ScriptedServer(status={field: stored})
    assert write(server, Database.from_dict(server.document()), field, wanted).written is False
    assert server.writes == []


@pytest.mark.parametrize(("field", "stored", "wanted"), DIFFERENT)
def test_a_text_with_a_different_meaning_is_written(field: str, stored: Any, wanted: Any) -> None:
    server = ScriptedServer(status={field: stored})
    with StatusBatcher(server.blocking_writer(), Database, name="db1", namespace="prod") as status:
        status.set(field, wanted)
    assert server.status[field] == wanted
    assert type(server.status[field]) is type(wanted)


@pytest.mark.parametrize(("field", "stored", "wanted"), UNTYPED)
def test_an_untyped_status_is_compared_as_json(field: str, stored: Any, wanted: Any) -> None:
    server = ScriptedServer(status={field: stored})
    assert write(server, server.document(), field, wanted).written is True


def test_the_stored_text_stays_when_another_field_changes() -> None:
    parts = [{"since": "2026-01-01T10:00:00Z", "label": "a"}]
    server = ScriptedServer(status={"endedAt": "2026-01-01T10:00:00Z", "parts": parts})
    with StatusBatcher(server.blocking_writer(), Database, name="db1", namespace="prod") as status:
        status.set(ended_at="2026-01-01T10:00:00.0Z", text="new")
        status.mutate(lambda s: s["parts"][0].update(since="2026-01-01T11:00:00+01:00"))
        status.append("parts", {"since": "2026-01-02T10:00:00.5Z"})
    (body, _, _) = server.writes[0]
    assert body["status"] == {"text": "new", "parts": [*parts, {"since": "2026-01-02T10:00:00.5Z"}]}


def test_an_equal_condition_is_not_a_change_whatever_the_format_of_its_time() -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Done", "message": ""}
    server = ScriptedServer(status={"conditions": [{**condition, "lastTransitionTime": "2026-01-01T10:00:00Z"}]})
    model = Condition(**condition, last_transition_time=datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC))
    assert write(server, Database.from_dict(server.document()), "conditions", [model]).written is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("+.5", 0.5),
        ("1.", 1),
        ("100m", 0.1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 1.5 * 2**30),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1E3", 1000),
        ("12e-1", 1.2),
        ("0", 0),
    ],
)
def test_quantities_are_read_exactly(text: str, value: float) -> None:
    assert float(parse_quantity(text)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "m", "1 ", "1K", "1KI", "1e", "0x1", "1e9999", "1" * 41, "٣", "NaN"])
def test_an_invalid_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid quantity"):
        parse_quantity(text)
