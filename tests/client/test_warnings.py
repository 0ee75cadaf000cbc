"""Warnings of the server, and what is never logged."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reconciler.client import Client
from reconciler.client.memory import Reported, warning_text
from reconciler.http import HTTPRequest

SECRET = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "prod"},
    "data": {"password": "hunter2"},
}


async def test_a_warning_is_logged_once(script: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(script)
    for _ in range(3):
        script.answers(SECRET, warnings=['299 - "v1 ConfigMap is old"', '299 - "unknown field \\"spec.x\\""'])
        await client.create(SECRET)
    assert [record.getMessage() for record in caplog.records] == [
        "API server warning for POST /api/v1/namespaces/prod/configmaps: v1 ConfigMap is old",
        'API server warning for POST /api/v1/namespaces/prod/configmaps: unknown field "spec.x"',
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {("reconciler.client", logging.WARNING)}


def test_the_memory_of_warnings_is_bounded() -> None:
    reported = Reported(2)
    assert [text for text in "abacb" if reported.is_new(text)] == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ('299 - "plain"', "plain"),
        ('299 kube "a \\"b\\" \\\\ c" "Thu, 01 Jan 2026 00:00:00 GMT"', 'a "b" \\ c'),
        ("no quotes", "no quotes"),
        ('299 - "open', '299 - "open'),
    ],
)
def test_the_text_of_a_warning(header: str, text: str) -> None:
    assert warning_text(header) == text


async def test_no_body_and_no_header_is_logged(script: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script.refuses(429).answers(SECRET)
    request = HTTPRequest("GET", "/x", headers={"authorization": "Bearer hunter2"})
    await Client(script).create(SECRET)
    script.refuses(403)
    await Client(script).send(request)
    assert len(caplog.records) == 1
    assert "hunter2" not in caplog.text
