"""Log lines: their fields, and that no line is lost."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace

import pytest

from reconciler.meta import Request, current_cycle
from reconciler.telemetry import JSONFormatter, TextFormatter


def record(
    message: str = "reconciled", /, *args: object, severity: int = logging.INFO, **extra: object
) -> logging.LogRecord:
    made = logging.getLogger("reconciler.controller").makeRecord(
        "reconciler.controller", severity, __file__, 1, message, args, None, extra=extra or None
    )
    made.created = 1767225600.125
    return made


@pytest.fixture
def _in_reconcile():
    cycle = SimpleNamespace(request=Request("db1", "prod"), controller="database", reconcile_id="3f2a91c0-aaaa-bbbb")
    token = current_cycle.set(cycle)  # type: ignore[arg-type]
    yield
    current_cycle.reset(token)


def test_json_has_time_level_logger_message_first_and_extra_after() -> None:
    line = JSONFormatter().format(record("%d of %d", 1, 2, controller="database", attempt=3))
    assert line == (
        '{"time":"2026-01-01T00:00:00.125Z","level":"INFO","logger":"reconciler.controller","message":"1 of 2",'
        '"controller":"database","attempt":3}'
    )


@pytest.mark.usefixtures("_in_reconcile")
def test_json_adds_the_reconcile_to_records_of_other_libraries() -> None:
    fields = json.loads(JSONFormatter().format(record()))
    assert fields["controller"] == "database"
    assert fields["object_namespace"] == "prod"
    assert fields["object_name"] == "db1"
    assert fields["reconcile_id"] == "3f2a91c0-aaaa-bbbb"


@pytest.mark.usefixtures("_in_reconcile")
def test_fields_of_a_record_take_precedence_over_the_context() -> None:
    fields = json.loads(JSONFormatter().format(record(object_name="db2", level_of_detail=1)))
    assert (fields["object_name"], fields["controller"], fields["level_of_detail"]) == ("db2", "database", 1)


def test_extra_cannot_forge_the_standard_fields() -> None:
    fields = json.loads(JSONFormatter().format(record(level="DEBUG", time="never", logger="other")))
    assert (fields["level"], fields["time"][:4], fields["logger"]) == ("INFO", "2026", "reconciler.controller")


def test_json_is_one_line_whatever_the_message_holds() -> None:
    line = JSONFormatter().format(record('quotes " and\nnew lines \x00 \u2028'))
    assert "\n" not in line
    assert json.loads(line)["message"] == 'quotes " and\nnew lines \x00 \u2028'


def test_json_writes_unsupported_values_as_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    line = JSONFormatter().format(record(key=Request("db1", "prod"), odd=Odd(), keys={"b"}, nan=float("nan")))
    fields = json.loads(line)
    assert (fields["key"], fields["odd"], fields["keys"], fields["nan"]) == ("prod/db1", "odd", ["b"], None)


def test_value_that_cannot_be_encoded_does_not_lose_the_line() -> None:
    fields = json.loads(JSONFormatter().format(record("still here", odd={(1, 2): "key"}, surrogate="\ud800")))
    assert "still here" in fields["message"]


def test_exceptions_are_in_both_formats() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    assert json.loads(JSONFormatter().format(failed))["exception"].endswith("ValueError: bad")
    assert TextFormatter().format(failed).splitlines()[-1] == "ValueError: bad"


def test_text_is_one_readable_line() -> None:
    assert TextFormatter().format(record(severity=logging.WARNING)) == (
        "2026-01-01T00:00:00.125Z WARNING reconciler.controller reconciled"
    )
    line = TextFormatter().format(
        record(controller="database", object_namespace="prod", object_name="db1", reconcile_id="3f2a91c0-aa", attempt=2)
    )
    assert line == (
        "2026-01-01T00:00:00.125Z INFO  reconciler.controller [database prod/db1 3f2a91c0] reconciled attempt=2"
    )


@pytest.mark.usefixtures("_in_reconcile")
def test_text_adds_the_reconcile_from_the_context() -> None:
    assert "[database prod/db1 3f2a91c0] reconciled" in TextFormatter().format(record())


def test_text_of_a_cluster_scoped_object_has_no_namespace() -> None:
    line = TextFormatter().format(record(controller="node", object_namespace=None, object_name="n1"))
    assert "[node n1] reconciled" in line


def test_outside_a_reconcile_there_are_no_brackets() -> None:
    assert "[" not in TextFormatter().format(record())
