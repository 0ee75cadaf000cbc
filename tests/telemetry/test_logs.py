"""Log lines: their fields, and that no line is lost."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle
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
    assert (fields["message"], fields["level"], fields["time"][:5]) == ("still here", "INFO", "2026-")
    assert (fields["odd"], fields["surrogate"]) == ({"(1, 2)": "key"}, r"\ud800")


def test_value_without_text_does_not_lose_the_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise LookupError

    fields = json.loads(JSONFormatter().format(record(odd=Broken(), even=2)))
    assert (fields["message"], fields["odd"], fields["even"]) == ("reconciled", "<Broken>", 2)
    assert TextFormatter().format(record(odd=Broken(), none=None)).endswith(" reconciled odd=<Broken> none=None")
    line = TextFormatter().format(record(object_name="db1", object_namespace=Broken()))
    assert line.endswith(" [<Broken>/db1] reconciled")


def test_text_of_a_message_cannot_forge_a_record() -> None:
    forged = "2026-01-01T00:00:00.000Z ERROR reconciler.manager forged"
    for end in ("\n", "\r", "\r\n"):
        text = f"no disk{end}{forged}"
        for made in (record(text), record(extra=text), raised(ValueError(text))):
            lines = TextFormatter().format(made).replace("\r", "\n").split("\n")
            assert lines[0].startswith("2026-")
            assert f"  {forged}" in lines
            assert not any(line.startswith("2026-") for line in lines[1:])


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


def raised(error: Exception, logged: str = "failed") -> logging.LogRecord:
    made = record(logged, severity=logging.ERROR)
    made.exc_info = type(error), error, error.__traceback__
    return made


def caught(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - returned
        return error
    raise AssertionError("nothing was raised")


def parse(text: str) -> object:
    return json.loads(text)


def test_headline_names_the_exception() -> None:
    error = caught(lambda: parse("x"))
    headline = TextFormatter().format(raised(error, "could not sync")).splitlines()[0]
    assert headline.endswith("could not sync: JSONDecodeError: Expecting value: line 1 column 1 (char 0)")


def test_headline_does_not_name_the_exception_twice() -> None:
    headline = TextFormatter().format(raised(ValueError("bad"), "failed: ValueError: bad")).splitlines()[0]
    assert headline.endswith("reconciler.controller failed: ValueError: bad")


def test_exception_without_text_is_named_by_its_type() -> None:
    assert TextFormatter().format(raised(TimeoutError())).splitlines()[0].endswith("failed: TimeoutError")


def test_frames_of_libraries_are_folded() -> None:
    lines = TextFormatter().format(raised(caught(lambda: parse("x")))).splitlines()
    assert lines[1] == "Traceback (most recent call last):"
    assert "    return json.loads(text)" in lines
    assert [line for line in lines if "json/" in line] == [
        next(line for line in lines if line.startswith("  ... 3 frames of Python, the last at json/decoder.py:"))
    ]
    assert lines[-1] == "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"


def test_json_has_all_frames() -> None:
    fields = json.loads(JSONFormatter().format(raised(caught(lambda: parse("x")))))
    assert fields["exception"].count('json/decoder.py", line') == 2


def test_traceback_of_libraries_alone_is_not_folded() -> None:
    """It is an error in a library, and its frames are all that there is."""
    error = caught(lambda: parse("x"))
    frames = error.__traceback__
    assert frames is not None
    assert frames.tb_next is not None
    assert frames.tb_next.tb_next is not None
    error.__traceback__ = frames.tb_next.tb_next.tb_next
    assert TextFormatter().format(raised(error)).count('  File "') == 3


def test_chains_and_groups_are_folded() -> None:
    def chain() -> None:
        try:
            parse("x")
        except ValueError as error:
            raise ExceptionGroup("parts", [error, caught(lambda: parse("y"))]) from error

    text = TextFormatter().format(raised(caught(chain)))
    assert "The above exception was the direct cause" in text
    assert text.count("... 3 frames of Python") == 3
    assert "    | ExceptionGroup" not in text
    assert "    |   ... 3 frames of Python, the last at json/decoder.py:" in text
    assert text.count("return json.loads(text)") == 3


def test_installed_operator_is_recognized_by_what_calls_it() -> None:
    """In an image all code is installed; the operator is the package that this library calls."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "/venv/lib/python3.13/site-packages/operator_app/main.py", line 3, in reconcile\n'
        "    await self.sync()\n"
        '  File "/venv/lib/python3.13/site-packages/operator_app/sync.py", line 7, in sync\n'
        "    session.get(url)\n"
        "    ~~~~~~~~~~~^^^^^\n"
        '  File "/venv/lib/python3.13/site-packages/requests/sessions.py", line 602, in get\n'
        '    return self.request("GET", url)\n'
        '  File "/venv/lib/python3.13/site-packages/urllib3/pool.py", line 789, in urlopen\n'
        "    raise error\n"
        "OSError: no network"
    )
    made = record("failed")
    made.exc_text = text
    lines = TextFormatter().format(made).splitlines()
    assert lines[1:7] == text.splitlines()[:6]
    assert lines[7:] == [
        "  ... 2 frames of requests, urllib3, the last at urllib3/pool.py:789",
        "OSError: no network",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_gets_columns_and_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    formatter = TextFormatter.for_stream(Terminal())
    line = formatter.format(
        record("slow", severity=logging.WARNING, controller="database", object_name="n1", attempt=2)
    )
    assert line == (
        "2026-01-01T00:00:00.125Z \x1b[33mWARNING\x1b[0m reconciler.controller \x1b[36m[database n1]\x1b[0m slow "
        "\x1b[2mattempt=2\x1b[0m"
    )
    made = record()
    made.name = "app"
    assert formatter.format(made) == "2026-01-01T00:00:00.125Z INFO    app                   reconciled"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_color_can_be_disabled(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    line = TextFormatter.for_stream(Terminal()).format(record(severity=logging.ERROR))
    assert line == "2026-01-01T00:00:00.125Z ERROR   reconciler.controller reconciled"


def test_file_gets_neither_columns_nor_color() -> None:
    assert TextFormatter.for_stream(io.StringIO()).format(record()) == TextFormatter().format(record())
