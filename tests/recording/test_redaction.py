"""What is replaced in recorded documents, and that what is not secret stays as it is, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import cProfile
import json
import random
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from reconciler import Client, Manager, Recording
from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler.apiserver import APIServer
from reconciler.notification import (
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
)
from reconciler.notification.credentials import LABEL
from reconciler.recording.recording import RecordingReader
from reconciler.recording.records import ListStep, LogStep, ReadStep, ReconcileRecord, RequestStep
from reconciler.recording.redaction import (
    DocumentRedactor,
    concerns_secret,
    redact_request,
    redact_step,
    secret_values,
)

TOKEN = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    "document",
    [
        {"spec": {"password": "hunter22", "size": 3}},
        {"spec": {"env": [{"name": "DB_PASSWORD", "value": "hunter22"}, {"name": "MODE", "value": "fast"}]}},
        {"spec": {"env": [{"value": "hunter22", "name": "DB_PASSWORD"}, {"value": "fast", "name": "MODE"}]}},
        {"value": {"inner": ["hunter22"]}, "size": 3, "name": "DB_PASSWORD", "key": "b"},
        {"spec": [{"op": "add", "value": "hunter22", "path": "/spec/password"}]},
        {"spec": {"args": ["--password", "hunter22"]}},
        {"spec": {"url": "https://user:hunter22@example.com/x"}},
        {"status": {"message": f"the token {TOKEN} was refused"}},
        {"spec": {"secrets": {"a": {"b": "hunter22"}}}},
        {"metadata": {"annotations": {"note": TOKEN}}},
        {"spec": {"nested": json.dumps({"password": "hunter22"})}},
        {"data": {TOKEN: "as a name"}},
        {"labels": {"note": TOKEN}},
        {"name": "DB_PASSWORD", "default": "hunter22"},
        {"spec": {"env": [{"Name": "DB_PASSWORD", "Value": "hunter22"}]}},
        {"spec": {"pairs": [["Authorization", "hunter22"], ["--token", "hunter22"]]}},
        {"spec": {"a": "words", "b": json.dumps({"name": "DB_PASSWORD", "value": "hunter22"}), "c": "more words"}},
        {"spec": {"managedFields": {"password": "hunter22"}}},
        {"metadata": {"managedFields": [{"fieldsV1": {"f:data": {f"f:{TOKEN}": {}}}}]}, "data": {TOKEN: "1"}},
    ],
)
def test_a_document_is_redacted_as_its_text_would_be(document: dict[str, Any]) -> None:
    document = {"kind": "Any", **document}
    text = json.dumps(document, separators=(",", ":"))
    redactor = DocumentRedactor()
    for _ in range(2):  # also when its parts are known
        found = redactor.redact(text.encode()).decode()
        assert json.loads(found) == json.loads(redact(text))
        assert "hunter22" not in found
        assert TOKEN not in found


def test_a_harmless_document_is_the_same_bytes() -> None:
    text = b'{"kind":"Any",  "metadata":{"name":"a","uid":"6b1f7b3e-33a1-4a0e-8f59-1d64ffb6cd8e"},"spec":{"size":1.50}}'
    assert DocumentRedactor().redact(text) == text


def test_a_known_text_is_not_a_harmless_name() -> None:
    redactor = DocumentRedactor()
    redactor.redact(b'{"status":{"reason":"password"}}')
    assert b"hunter22" not in redactor.redact(b'{"spec":{"password":"hunter22"}}')


VALUE = base64.b64encode(b"hunter22").decode()


@pytest.mark.parametrize(
    ("document", "secret"),
    [
        ({"kind": "Secret", "data": {"any": VALUE}, "stringData": {"other": "hunter22"}}, False),
        ({"kind": "SecretList", "items": [{"data": {"any": VALUE}}]}, False),
        ({"data": {"any": VALUE}}, True),
        ([{"op": "replace", "path": "/data/any", "value": VALUE}], True),
        ({"kind": "Secret", "metadata": {"annotations": {"last": json.dumps({"data": VALUE})}}}, False),
        ({"kind": "Secret", "metadata": {"annotations": {"password": "hunter22"}}}, False),
        ({"metadata": {"labels": {"password": "hunter22"}}}, True),
        ({"kind": "TokenRequest", "status": {"token": VALUE}}, True),
        ({"kind": "Table", "rows": [{"object": {"data": {"any": VALUE}}}]}, True),
        ({"kind": "List", "items": [{"kind": "Secret", "data": {"any": VALUE}}]}, False),
        ({"kind": "Work", "spec": {"manifests": [{"kind": "Secret", "stringData": {"any": "hunter22"}}]}}, False),
        ({"kind": "Work", "spec": {"json": json.dumps({"kind": "Secret", "data": {"any": VALUE}})}}, False),
        ({"kind": "ConfigMap", "data": {"s.yaml": f"apiVersion: v1\nkind: Secret\ndata:\n  any: {VALUE}\n"}}, False),
    ],
)
def test_the_values_of_a_secret_are_replaced_however_it_is_written(document: Any, secret: bool) -> None:
    found = DocumentRedactor().redact(json.dumps(document).encode(), secret=secret)
    assert VALUE.encode() not in found
    assert b"hunter22" not in found
    assert type(json.loads(found)) is type(document)


def test_text_that_cannot_be_encoded_is_written_all_the_same() -> None:
    assert DocumentRedactor().text("cannot read caf\udce9") == "cannot read caf?"


def test_the_data_of_a_secret_is_still_base64() -> None:
    found = json.loads(DocumentRedactor().redact(json.dumps({"kind": "Secret", "data": {"any": VALUE}}).encode()))
    assert base64.b64decode(found["data"]["any"]) == b"[REDACTED]"


@pytest.mark.parametrize("text", [TOKEN, "password=hunter22", json.dumps({"password": "hunter22"}), "a" * 24])
def test_text_in_base64_is_searched(text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    found = DocumentRedactor().redact(json.dumps({"kind": "Any", "data": {"any": encoded}}).encode())
    assert (encoded.encode() in found) == (redact(text) == text)


@pytest.mark.parametrize(
    "line",
    [
        f"answered {base64.b64encode(b'password=hunter22').decode()}",
        f"answered\n{base64.b64encode(b'password=hunter22').decode()}\n",
        json.dumps({"note": f"a\n{base64.b64encode(b'password=hunter22').decode()}"}),
        f"kind: Secret\ndata:\n  any: {VALUE}",
        json.dumps({"kind": "Secret", "data": {"any": VALUE}}),
        "[worker] password=hunter22",
    ],
)
def test_a_log_line_is_searched_as_a_document_is(line: str) -> None:
    redactor = DocumentRedactor()
    for _ in range(2):  # also when it is known
        found = redactor.text(line) + redactor.redact(json.dumps({"status": {"message": line}}).encode()).decode()
        assert [word for word in ("hunter22", VALUE, "cGFzc3dvcmQ9aHVudGVyMjI") if word in found] == []


def test_a_known_log_line_is_not_a_harmless_document() -> None:
    redactor = DocumentRedactor()
    document = json.dumps({"kind": "Secret", "data": {"any": VALUE}})
    assert VALUE not in redactor.text(document) + redactor.redact(document.encode()).decode()


def test_a_token_in_a_path_or_a_header_is_replaced() -> None:
    step = RequestStep(0.0, 0.0, "GET", f"/proxy/{TOKEN}/send?token=hunter22", "", b"", retry_after=TOKEN)
    redact_request(step, DocumentRedactor(), None)
    assert step.target == "/proxy/[REDACTED]/send?token=[REDACTED]"
    assert TOKEN not in repr(step)


@pytest.mark.parametrize(
    "line",
    [
        f"applying {json.dumps({'kind': 'Secret', 'data': {'any': VALUE}})}",
        f"applying { {'apiVersion': 'v1', 'kind': 'Secret', 'data': {'any': VALUE}} }",
        f"{{apiVersion: v1, kind: Secret, data: {{any: {VALUE}}}}}",
    ],
)
def test_a_secret_within_a_log_line_is_replaced(line: str) -> None:
    assert VALUE not in DocumentRedactor().text(line)


@pytest.mark.parametrize("piece", ["\n", " \n", "- ", "kind:\n ", "{ ", ",\n", "{kind: ", "\\"])
def test_the_search_for_a_secret_in_yaml_looks_at_each_character_a_few_times(piece: str) -> None:
    # A quadratic search would take hours, in which no other thread runs.
    text = piece * (2**20 // len(piece)) + "x Secret"
    assert DocumentRedactor().text(text) == text


AWKWARD = "p&ss<w0rd>\"q' é"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"note": AWKWARD}),
        json.dumps({"note": AWKWARD}, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003c"),
        json.dumps({"note": json.dumps({"inner": AWKWARD}).replace("&", "\\u0026")}),
        f"refused {AWKWARD!r}",
        f"GET /login?as={quote(AWKWARD)}",
        str({AWKWARD.encode(): 1}),
    ],
)
def test_the_value_of_a_secret_is_replaced_however_it_is_spelled(text: str) -> None:
    data = json.dumps({"data": {"password": base64.b64encode(AWKWARD.encode()).decode()}}).encode()
    read = ReadStep(0.0, "v1/Secret", "a", "default", "1", data)
    record = ReconcileRecord("1", "c", "v1/ConfigMap", "a", "default", datetime.now(UTC), (), steps=[read])
    redactor = DocumentRedactor()
    redactor.values = secret_values(record, [read])
    found = redactor.redact(text.encode()).decode()
    assert "0rd" not in found
    assert PLACEHOLDER in found


def values_of(secret: dict[str, Any]) -> DocumentRedactor:
    """Return a redactor of the record of a reconcile that read a Secret."""
    read = ReadStep(0.0, "v1/Secret", "a", "default", "1", json.dumps(secret).encode())
    record = ReconcileRecord("1", "c", "v1/ConfigMap", "a", "default", datetime.now(UTC), (), steps=[read])
    redactor = DocumentRedactor()
    redactor.values = secret_values(record, [read])
    return redactor


WORD = "k?~ swordfish"  # whose base64 has characters of which each alphabet has its own


@pytest.mark.parametrize(
    "login", [f"{before}{WORD}{after}" for before in ("", "u:", "us:", "use:") for after in ("", "!", ":2")]
)
@pytest.mark.parametrize(
    "encode",
    [
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.b64encode(data).decode().rstrip("="),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: quote(base64.b64encode(data).decode(), safe=""),
        lambda data: data.hex(),
        lambda data: data.hex().upper(),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [
        {"data": {"password": base64.b64encode(WORD.encode()).decode()}},
        {"stringData": {"password": WORD}},
        {"stringData": {f"password-{number}": f"{WORD}{number or ''}" for number in range(100)}},
    ],
)
def test_an_encoded_text_with_the_value_of_a_secret_is_replaced(
    login: str, encode: Callable[[bytes], str], secret: dict[str, Any]
) -> None:
    encoded = encode(login.encode())
    redactor = values_of(secret)
    inner = json.dumps({"auths": {"registry": {"note": encoded}}})
    for text in (encoded, f"sent {encoded}.", f"line\n{encoded}", f"x-login:{encoded};", inner, json.dumps([inner])):
        found = redactor.redact(json.dumps({"message": text}).encode())
        kept = json.loads(found)["message"]
        assert encode(login.replace(WORD, PLACEHOLDER).encode()).rstrip("=") in kept or "W1JFREFDVEVEXQ==" in kept
        inside = encode(WORD.encode()).rstrip("=")
        assert [part for part in (encoded[8:16], inside[:7], inside[-7:]) if part in kept] == []


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("123456789", '{"pin": 123456789, "port": 8080}', '{"pin":"[REDACTED]","port":8080}'),
        ("123456789", "61313233343536373839", "615b52454441435445445d"),  # the digits are a number in JSON
        ('{"a":"b","c":1}', '{"all":{"a":"b","c":1}}', '{"all":[REDACTED]}'),
        ("1.2345678", "[[1.2345678]]", '[["[REDACTED]"]]'),
    ],
)
def test_a_value_that_is_no_text_in_json_is_replaced(value: str, text: str, expected: str) -> None:
    assert values_of({"stringData": {"password": value}}).redact(text.encode()).decode() == expected


def test_an_encoded_value_leaves_the_text_around_it() -> None:
    redactor = values_of({"data": {"password": VALUE}})
    encoded = base64.b64encode(b"users:hunter22 and others").decode()
    found = redactor.text(f"a {encoded} b {b'hunter22'.hex()} c")
    expected = base64.b64encode(b"users:[REDACTED] and others").decode()
    assert found == f"a {expected} b {b'[REDACTED]'.hex()} c"


def test_ordinary_text_stays_with_a_short_value() -> None:
    redactor = values_of({"stringData": {"password": "abc", "token": "abcde", "username": "somebody"}})
    text = f"abc abcde somebody {b'abcde'.hex()} {base64.b64encode(b'somebody').decode()}"
    assert redactor.text(text) == text


def steps_with(keys: int) -> int:
    """Return the calls that a document costs in a reconcile that read a Secret with so many keys."""
    values = {f"password-{number}": f"the-same-beginning-{number:06}" for number in range(keys)}
    redactor = values_of({"stringData": values})
    document = json.dumps(
        {"kind": "Any", "spec": {"list": ["a few words"] * 300, "one": values["password-7"]}}
    ).encode()
    profile = cProfile.Profile()
    with profile:
        found = redactor.redact(document)
    assert b"the-same-beginning" not in found
    return sum(each.callcount for each in profile.getstats())


def test_a_document_costs_no_more_if_a_secret_has_many_keys() -> None:
    assert steps_with(4000) < 1.1 * steps_with(500)


def test_no_part_of_a_step_keeps_a_secret() -> None:
    steps = [LogStep(0.0, TOKEN, TOKEN, TOKEN), ListStep(0.0, "v1/Pod", None, f"a={TOKEN}", f"b={TOKEN}", [])]
    for step in steps:
        redact_step(step, DocumentRedactor(), None)
    assert TOKEN not in repr(steps)
    assert redact(f"labelSelector=note%3D{TOKEN}") == "labelSelector=note%3D[REDACTED]"


@pytest.mark.parametrize("data", [b"", b"not json", b"\xff\xfe", b"{", b"[" * 10_000, b'"text"', b"null"])
def test_what_is_not_a_document_is_no_error(data: bytes) -> None:
    DocumentRedactor().redact(data)
    DocumentRedactor().redact(data, secret=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces/default/secrets/a", True),
        ("/api/v1/secrets", True),
        ("/api/v1/namespaces/default/serviceaccounts/a/token", True),
        ("/api/v1/namespaces/default/configmaps/secrets", False),
        ("/api/v1/namespaces/secrets/configmaps/a", False),
    ],
)
def test_paths_of_secrets(path: str, expected: bool) -> None:
    assert concerns_secret(path) == expected


@pytest.mark.virtual_time
async def test_a_recording_is_without_what_the_notification_operator_knows(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "pager").write_text("swordfish-of-the-pager")
    operator = NotificationOperator(
        NotificationOptions(credentials=credentials, redact=["BADGE-[0-9]+"], log=False, namespace_credentials=True)
    )
    metadata = {"name": "own", "namespace": "default", "labels": {LABEL: "true"}}
    own = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"hook": "tenant word"}}
    text = 'BADGE-47 said "swordfish-of-the-pager" to tenant word'
    metadata = {"name": "a", "namespace": "default", "annotations": {"note": text}}
    spec = {"type": "Simple", "subject": "later", "body": text, "channels": ["console", "nowhere"]}
    request = NotificationRequest.from_dict({"metadata": metadata, "spec": spec})
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest, own)
        manager = Manager(client, recording=Recording(tmp_path / "r"))
        operator.add_to(manager)
        async with manager.running():
            await client.create(request)
            await asyncio.sleep(60)
            (credentials / "new").write_text("later")  # learned when the subject has been seen
            await client.patch(NotificationRequest, "a", "default", patch={"metadata": {"annotations": {"again": "1"}}})
            await asyncio.sleep(60)
    records = list(RecordingReader(tmp_path / "r").records())
    found = repr(records)
    assert [word for word in ("BADGE-47", "swordfish", "tenant word") if word in found] == []
    assert "said" in found
    assert "later" not in repr(records[-1])


def test_a_part_with_a_secret_is_replaced_wherever_it_stands() -> None:
    inner = {"password": "hunter22"}
    document = {
        "apiVersion": "v1",
        "kind": "Any",
        "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": inner},
        "spec": inner,
        "status": {"inner": inner, "token": "hunter23"},
    }
    redactor = DocumentRedactor()
    for _ in range(2):
        found = json.loads(redactor.redact(json.dumps(document).encode()))
        assert "hunter" not in repr(found)
        assert found["metadata"]["labels"] == {"app": "a"}
        assert found["status"].keys() == {"inner", "token"}


def test_what_a_server_sets_is_searched_if_it_does_not_look_like_it() -> None:
    document = {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "a", "uid": TOKEN}}
    assert TOKEN.encode() not in DocumentRedactor().redact(json.dumps(document).encode())


def calls_at(depth: int) -> int:
    """Return the calls that a document of so many levels costs, of which only the innermost has a secret."""
    inner = json.dumps({"password": "hunter22", "text": "x y " * 100})
    document = ('{"a":' * depth + inner + "}" * depth).encode()
    profile = cProfile.Profile()
    with profile:
        found = DocumentRedactor().redact(document)
    assert b"hunter22" not in found
    return sum(each.callcount for each in profile.getstats() if "redaction" in getattr(each.code, "co_filename", ""))


@pytest.mark.parametrize("depth", [200, 800])
def test_each_level_of_a_deep_document_is_searched_a_few_times(depth: int) -> None:
    assert calls_at(depth) < 50 * depth  # 35 and 16 times it when this was set


def test_large_texts_are_not_kept() -> None:
    redactor = DocumentRedactor()
    redactor.text("warm up")
    tracemalloc.start()
    try:
        for number in range(100):
            encoded = base64.b64encode(random.Random(number).randbytes(60_000)).decode()
            redactor.redact(json.dumps({"data": {"any": encoded}}).encode())
            redactor.text(f"{number} " + "x y " * 10_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
