"""Quality of the redaction over the corpus, and the patterns of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler._core.redaction import redact as redact_forms
from reconciler.errors import ConfigurationError
from reconciler.notification import NotificationOperator, NotificationOptions, Redactor
from tests.benchmarks.redaction import measure
from tests.notification.redaction_corpus import NAMED, SERVICES, manual_lines, samples

LINES = Path(__file__).parents[1] / "redaction" / "innocent.txt"
PAGE = Path(__file__).parents[2] / "docs" / "notification-tenants.md"


def test_the_corpus_has_at_least_fifty_services_and_two_thousand_samples() -> None:
    assert len(SERVICES) >= 50
    assert sum(1 for _ in samples()) >= 2_000


def test_hardly_a_secret_of_a_known_format_is_missed_and_nothing_else_is_lost() -> None:
    quality = measure()
    assert {(sample.form, sample.service in NAMED) for sample in quality.leaks} == {("prose", True)}
    assert quality.recall > 0.999
    assert quality.damaged == ()
    assert quality.false == ()


def test_lines_of_clusters_and_pipelines_are_unchanged() -> None:
    lines = LINES.read_text().splitlines()
    changed = [line for line in lines if redact_forms(line) != line]
    assert changed == ["cookie: SameSite=Lax policy missing"]
    text = " ".join(PAGE.read_text().split())
    assert f"{len(changed)} of {len(lines)} lines of kubelet, kubectl and pipelines" in text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("the password is x7!k2pQ until Monday", "the password is [REDACTED] until Monday"),
        ("Using Key=xuQIeWFVEp8k8Uu9FwPx6X5C8IViOe1o now", "Using Key=[REDACTED] now"),
        ("token=a1b2c3d4e5f6a7b8 failed: a1b2c3d4e5f6a7b8", "token=[REDACTED] failed: [REDACTED]"),
        ('if api_key != "a1b2c3d4e5":', 'if api_key != "[REDACTED]":'),
        ("curl -u ann:web-pass https://x.example", "curl -u ann:[REDACTED] https://x.example"),
        ("key=kube-system/coredns-5d78c9869d-4xk9z", "key=kube-system/coredns-5d78c9869d-4xk9z"),
        ('{"key": "web", "apiKey": "web"}', '{"key": "web", "apiKey": "[REDACTED]"}'),
    ],
)
def test_what_stands_around_a_value_decides(text: str, clean: str) -> None:
    assert redact_forms(text) == clean


def test_nothing_is_redacted_in_the_manual_of_the_language() -> None:
    pytest.importorskip("pydoc_data.topics", reason="some distributions of Python leave the manual out")
    assert [line for line in manual_lines() if redact_forms(line) != line] == []


# Patterns of users


def test_a_pattern_of_a_user_is_redacted_in_whole_or_by_its_group() -> None:
    redactor = Redactor(patterns=[r"ACME-[0-9]{6}", r"ticket=(\w+)"])
    assert redactor.redact("é id ACME-123456 ticket=abc done") == "é id [REDACTED] ticket=[REDACTED] done"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "not a valid pattern of RE2: missing"),
        (r"(?=x)", "not a valid pattern of RE2"),
        ("x*", "matches the empty text"),
    ],
)
def test_an_invalid_pattern_is_an_error_at_startup(pattern: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        NotificationOperator(NotificationOptions(redact=[pattern]))


def test_a_pattern_that_would_backtrack_is_linear() -> None:
    assert Redactor(patterns=["(a+)+b"]).redact("a" * 200_000) == "a" * 200_000
