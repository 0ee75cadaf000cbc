"""The commands about recordings: what is shown, replayed and written, and one line for what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler import Client, Manager, Outcome, Recording, Request
from reconciler.apiserver import APIServer
from reconciler.cli import main
from reconciler.cli.demo import new_notification, running_operator
from reconciler.manager import EndpointSecurity, console
from reconciler.manager.endpoints.handlers import debug_recording
from reconciler.manager.endpoints.server import EndpointRequest
from reconciler.recording.recording import RecordingReader, write_recording
from reconciler.testing import replay, virtual_time
from tests.recording.incident import Sizes, config_map, record

TARGET = "tests.recording.incident"


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("incident") / "recording"
    record(directory)
    return directory


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a command; return its exit status and what it printed, without its progress."""
    with pytest.raises(SystemExit) as exit_:
        main([str(each) for each in arguments])
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines(keepends=True) if not line.startswith("replaying ")]
    return int(exit_.value.code or 0), captured.out + "".join(said)


def test_show_names_the_objects(capsys: Any, incident: Path) -> None:
    code, text = run(capsys, "recording", "show", incident)
    assert code == 0
    assert "v1/ConfigMap default/good, controller configmap: 3 reconciles, 0 failed, 3 writes, from 2026-01-01T" in text


def test_show_tells_which_reconcile_wrote_which_field(capsys: Any, incident: Path) -> None:
    _, text = run(capsys, "recording", "show", incident, "ConfigMap", "default/good")
    first, *_ = text.split("because")[1:]
    assert "the object appeared or changed; took 0 ms and succeeded, to run again after 10 min" in first
    assert "ConfigMap default/good was added" in first
    assert "PATCH /api/v1/namespaces/default/configmaps/good: 200" in first
    assert 'data.half was added: "4"' in first


def test_show_tells_how_a_reconcile_failed(capsys: Any, incident: Path) -> None:
    _, text = run(capsys, "recording", "show", incident, "configmap", "bad", "--to", "00:00:01")
    assert "ValueError: invalid literal for int() with base 10: 'eight'" in text
    assert "recording/incident.py:" in text


def test_show_as_json_and_as_a_page(capsys: Any, incident: Path, tmp_path: Path) -> None:
    _, text = run(capsys, "recording", "show", incident, "ConfigMap", "good", "--output", "json")
    assert [
        field["path"] for run in json.loads(text) for write in run["written"] for field in write.get("fields", ())
    ] == ["data.half"]
    page = tmp_path / "page.html"
    assert run(capsys, "recording", "show", incident, "ConfigMap", "good", "--html", page)[0] == 0
    assert page.read_text().startswith("<!doctype html><html")
    assert "<svg" in page.read_text()
    css = Path(console.__file__).with_name("static") / "console.css"
    assert f"<style>{css.read_text()}</style>" in page.read_text()
    assert "data.half" in page.read_text()
    assert "http://" not in page.read_text().replace("http://www.w3.org", "")
    assert page.stat().st_mode & 0o077 == 0


def test_show_tells_who_made_changes_from_outside(capsys: Any, tmp_path: Path) -> None:
    class Owns(Sizes):
        async def reconcile(self, request: Request, /) -> Outcome:
            found = await self.client.get("v1/ConfigMap", request.name, request.namespace)
            metadata = {"name": "owned", "namespace": "default"}
            await self.client.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, owner=found)
            return None

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, recording=Recording(tmp_path / "r"))
            manager.add_controller(Owns(), resource="v1/ConfigMap", owns=["v1/ServiceAccount"])
            async with manager.running():
                await client.create(config_map("a", "4"), field_manager="ann")
                await asyncio.sleep(10)
                await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"count": "8"}}, field_manager="bob")
                await asyncio.sleep(10)
                labels = {"metadata": {"labels": {"team": "web"}}}  # of an object that no reconcile reads
                await client.patch("v1/ServiceAccount", "owned", "default", patch=labels, field_manager="eve")
                await asyncio.sleep(10)

    with virtual_time():
        asyncio.run(main())
    _, text = run(capsys, "recording", "show", tmp_path / "r", "ConfigMap", "a")
    lines = [line.strip() for line in text.splitlines()]
    assert "ConfigMap default/a was added by ann" in lines
    at = lines.index("ConfigMap default/a was updated by bob:")
    assert lines[at + 1] == 'data.count: "4" → "8"'
    at = lines.index("ServiceAccount default/owned was updated by eve:")
    assert lines[at + 1] == 'metadata.labels.team was added: "web"'
    run(capsys, "recording", "show", tmp_path / "r", "ConfigMap", "a", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "was updated by <strong>bob</strong></p><ul><li><code>data.count</code>" in page
    assert "by <strong>eve</strong>" in page


def test_replay_compares(capsys: Any, incident: Path) -> None:
    code, text = run(capsys, "replay", incident, f"{TARGET}:Sizes", "--all")
    assert code == 0
    assert "same writes, same outcome" in text
    assert ", 0 different" in text
    code, text = run(capsys, "replay", incident, f"{TARGET}:Mended", "--object", "ConfigMap", "default/bad")
    assert code == 1
    assert "first difference: sends PATCH /api/v1/namespaces/default/configmaps/bad" in text
    assert "then: ends otherwise: ValueError: invalid literal" in text


def test_replay_as_json(capsys: Any, incident: Path) -> None:
    _, text = run(capsys, "replay", incident, f"{TARGET}:Mended", "--object", "ConfigMap", "bad", "--output", "json")
    assert {found["error"] for found in json.loads(text)} == {None}


def test_a_breakpoint_stops_a_replay(incident: Path, tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(
        "from tests.recording.incident import Sizes\n\n"
        "class Stopping(Sizes):\n"
        "    async def reconcile(self, request):\n"
        "        breakpoint()\n"
        "        return await super().reconcile(request)\n"
    )
    root = str(Path(__file__).parents[2])
    command = [
        sys.executable,
        "-m",
        "reconciler",
        "replay",
        incident,
        "stopping:Stopping",
        "--object",
        "ConfigMap",
        "good",
    ]
    done = subprocess.run(
        list(map(str, command)),
        input="p request.name\ncontinue\n" * 3,
        text=True,
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert "'good'" in done.stdout
    assert "same writes, same outcome" in done.stdout


def test_a_test_fails_before_the_fix_and_passes_after(capsys: Any, incident: Path, tmp_path: Path) -> None:
    output = tmp_path / "test_bad.py"
    arguments = ("--object", "ConfigMap", "default/bad", "--output", output)
    code, text = run(capsys, "recording", "to-test", incident, f"{TARGET}:Sizes", *arguments)
    assert code == 0
    assert "the test fails now" in text
    assert {each.name for each in RecordingReader(output.with_suffix(".segment")).records()} == {"bad"}
    test: dict[str, Any] = {"__file__": str(output)}
    exec(output.read_text(), test)
    with pytest.raises(AssertionError):
        test["test_bad"]()
    exec(output.read_text().replace("Sizes", "Mended"), test)
    test["test_bad"]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recording", "show", "nowhere"), "cannot read the recording nowhere: No such file or directory"),
        (("recording", "show", "{}", "ConfigMap", "none"), "contains no such reconcile; it has ConfigMap default/"),
        (("recording", "show", "{}", "--from", "soon"), "--from 'soon' is not a time: write 03:12"),
        (("recording", "show", "{}", "--from", "23:00"), "contains no such reconcile"),
        (("recording", "show", "{}", "--html", "/dev/null/x"), "cannot write /dev/null/x"),
        (("replay", "{}", f"{TARGET}:Sizes"), "say what to replay: --reconcile ID"),
        (("replay", "{}", f"{TARGET}:config_map", "--all"), "must be a Reconciler"),
        (("replay", "{}", f"{TARGET}:Nobody", "--all"), "has no 'Nobody'"),
        (("recording", "to-test", "{}", f"{TARGET}:Sizes"), "the test would be of 2 objects"),
        (
            ("recording", "to-test", "{}", f"{TARGET}:Sizes", "--object", "ConfigMap", "bad", "--output", "x.py"),
            "pytest finds files that are called test_NAME.py",
        ),
    ],
)
def test_what_is_wrong_is_one_line(capsys: Any, incident: Path, arguments: tuple[str, ...], message: str) -> None:
    code, text = run(capsys, *(each.format(incident) for each in arguments))
    assert (code, text.count("\n")) == (1, 1)
    assert message in text


async def test_fetch_copies_the_recording_of_a_running_operator(capsys: Any, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r")
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, metrics="127.0.0.1:0", recording=recording)
        manager.add_controller(Sizes(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a", "4"))
            async with asyncio.timeout(30):
                while not recording.statistics().reconciles:
                    await asyncio.to_thread(recording._write)
            fetch = ("recording", "fetch", tmp_path / "copy", "--endpoint", manager.metrics_url)
            code, text = await asyncio.to_thread(run, capsys, *fetch)
            assert (code, text.partition(",")[0]) == (0, "1 segments")
            code, text = await asyncio.to_thread(run, capsys, *fetch)
            assert (code, "is not empty: choose another directory" in text) == (1, True)
    assert {each.name for each in RecordingReader(tmp_path / "copy").records()} == {"a"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "copy").iterdir())


async def test_fetch_needs_the_token_and_an_operator_that_records(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame-open-the-door")
    security = EndpointSecurity(token_file=tmp_path / "token", tls=False)
    async with (
        APIServer() as server,
        Client(server) as client,
        Manager(client, metrics="127.0.0.1:0", security=security).running() as manager,
    ):
        fetch = ("recording", "fetch", tmp_path / "copy", "--endpoint", manager.metrics_url)
        assert "it needs a token: pass --token-file" in (await asyncio.to_thread(run, capsys, *fetch))[1]
        _, text = await asyncio.to_thread(run, capsys, *fetch, "--token-file", tmp_path / "token")
        assert "the operator does not record" in text


async def test_other_machines_do_not_get_a_recording(incident: Path) -> None:
    handle = debug_recording(lambda: sorted(incident.glob("*.segment")))
    response = await handle(EndpointRequest("", (), "", local=False))
    assert response.status == 403
    response = await handle(EndpointRequest("", (("segment", "../lock"),), "", local=True))
    assert response.status == 404


def test_the_storm_of_the_demo_becomes_a_test(capsys: Any, tmp_path: Path) -> None:
    scenario = "reconciler.cli.demo"
    assert run(capsys, "demo", "--naive", "--speed", 0, "--record", tmp_path / "r")[0] == 0
    assert run(capsys, "replay", tmp_path / "r", f"{scenario}:add_naive", "--all")[0] == 0
    output = tmp_path / "test_storm.py"
    arguments = ("--object", "NotificationRequest", "default/disk-full", "--output", output)
    _, text = run(capsys, "recording", "to-test", tmp_path / "r", f"{scenario}:add_naive", *arguments)
    assert "it writes the status 2 times" in text
    test: dict[str, Any] = {"__file__": str(output)}
    exec(output.read_text(), test)
    with pytest.raises(AssertionError):
        test["test_storm"]()
    exec(output.read_text().replace("add_naive", "add_reconciler"), test)
    test["test_storm"]()


def test_the_notification_operator_is_replayed(tmp_path: Path) -> None:
    from reconciler.cli.demo import add_reconciler

    async def main() -> None:
        async with running_operator(naive=False, record=tmp_path / "r") as (_, client, _manager):
            await client.create(new_notification("a", {"maxAttempts": 3, "initialBackoffSeconds": 30}))
            await asyncio.sleep(3600)

    with virtual_time():
        asyncio.run(main())
    found = replay(tmp_path / "r", add_reconciler)
    assert len(found) >= 3
    assert [each.differences for each in found] == [()] * len(found)


def test_texts_of_a_recording_are_no_code(capsys: Any, incident: Path, tmp_path: Path) -> None:
    reader = RecordingReader(incident)
    records = [each for each in reader.records() if each.failure is not None]
    for each in records:
        each.name = 'a"""\nimport os\x1b[2J'
        each.failure = msgspec.structs.replace(each.failure, type="E\nimport os")
    write_recording(tmp_path / "hostile.segment", records, list(reader.kinds.values()))
    _, text = run(capsys, "replay", tmp_path / "hostile.segment", f"{TARGET}:Sizes", "--all")
    assert "\x1b" not in text
    output = tmp_path / "test_it.py"
    run(capsys, "recording", "to-test", tmp_path / "hostile.segment", f"{TARGET}:Sizes", "--output", output)
    assert "\nimport os" not in output.read_text()
    compile(output.read_text(), output, "exec")


def test_a_recording_that_is_torn_in_its_first_batch_says_so(capsys: Any, incident: Path, tmp_path: Path) -> None:
    (segment,) = incident.glob("*.segment")
    torn = tmp_path / segment.name
    torn.write_bytes(segment.read_bytes()[:60])
    code, text = run(capsys, "recording", "show", str(torn))
    assert code == 1
    assert "contains no reconciles" in text
    assert "is torn at byte" in text
