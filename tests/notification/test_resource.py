"""The CRD: its schema, and the same limits in Python."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.notification import NotificationRequest, NotificationRequestSpec, RetryPolicy
from reconciler.notification.api import NotificationRequestStatus
from reconciler.objects import InvalidObject


def spec(**changes: Any) -> dict[str, Any]:
    return {"type": "Simple", "subject": "s", "body": "b", "channels": ["console"]} | changes


def schema(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = NotificationRequest.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for key in path:
        found = found["items"] if key == "[]" else found["properties"][key]
    return found


def test_the_names_of_the_crd() -> None:
    crd = NotificationRequest.crd()["spec"]
    assert (crd["group"], crd["scope"], crd["versions"][0]["name"]) == (
        "notify.reconciler.dev",
        "Namespaced",
        "v1alpha1",
    )
    assert crd["names"]["shortNames"] == ["notif", "notifs"]
    assert crd["versions"][0]["subresources"] == {"status": {}}


def test_the_columns_of_kubectl_get() -> None:
    columns = NotificationRequest.crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [(column["name"], column["type"], column.get("priority", 0)) for column in columns] == [
        ("Type", "string", 0),
        ("Priority", "string", 0),
        ("Phase", "string", 0),
        ("Attempts", "integer", 0),
        ("Next", "string", 0),
        ("At", "string", 0),
        ("Reason", "string", 1),
        ("Age", "date", 0),
    ]


def test_the_spec_cannot_change_and_the_message_says_what_to_do() -> None:
    (rule,) = schema()["x-kubernetes-validations"]
    assert rule["rule"] == "self.spec == oldSelf.spec"
    assert "delete the request and create another one" in rule["message"]


def test_the_lists_of_the_status_are_maps_so_that_writers_do_not_replace_each_others_items() -> None:
    assert schema("status", "channels")["x-kubernetes-list-map-keys"] == ["name"]
    assert schema("status", "deliveryAttempts")["x-kubernetes-list-map-keys"] == ["channel", "attempt"]


def test_times_keep_their_microseconds() -> None:
    text = "2026-01-01T00:00:30.000001Z"
    status = NotificationRequestStatus.model_validate({"channels": [{"name": "a", "nextAttemptTime": text}]})
    assert status.model_dump(mode="json", by_alias=True)["channels"][0]["nextAttemptTime"] == text


def test_the_defaults_of_the_policy() -> None:
    policy = NotificationRequestSpec.model_validate(spec()).retry_policy
    assert policy.model_dump(by_alias=True) == {
        "maxAttempts": 5,
        "initialBackoffSeconds": 30,
        "backoffMultiplier": 2,
        "maxBackoffSeconds": 480,
        "jitter": 0.1,
    }
    assert {
        name: field["default"] for name, field in schema("spec", "retryPolicy")["properties"].items()
    } == policy.model_dump(by_alias=True)


def test_an_omitted_priority_is_medium() -> None:
    assert NotificationRequestSpec.model_validate(spec()).priority == "Medium"
    assert schema("spec", "priority")["default"] == "Medium"
    assert "priority" not in schema("spec")["required"]


def test_a_multiplier_may_be_fractional() -> None:
    assert RetryPolicy(backoff_multiplier=1.5).backoff_multiplier == 1.5
    assert schema("spec", "retryPolicy", "backoffMultiplier")["type"] == "number"


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "Alarm"},
        {"priority": "Urgent"},
        {"subject": ""},
        {"subject": "s" * 501},
        {"body": ""},
        {"body": "b" * 65_537},
        {"channels": []},
        {"channels": ["-"]},
        {"channels": ["a b"]},
        {"channels": [f"c{n}" for n in range(17)]},
        {"retryPolicy": {"maxAttempts": 0}},
        {"retryPolicy": {"maxAttempts": 11}},
        {"retryPolicy": {"initialBackoffSeconds": 0}},
        {"retryPolicy": {"backoffMultiplier": 0.5}},
        {"retryPolicy": {"jitter": -0.1}},
        {"retryPolicy": {"jitter": 1.1}},
        {"retryPolicy": {"maxBackoffSeconds": 86_401}},
        {"retryPolicy": {"initialBackoffSeconds": 60, "maxBackoffSeconds": 30}},
    ],
)
def test_what_the_schema_rejects_the_models_reject_too(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NotificationRequestSpec.model_validate(spec(**changes))
    with pytest.raises(InvalidObject, match=r"spec\."):
        NotificationRequest.from_dict({"metadata": {"name": "n"}, "spec": spec(**changes)})


def test_a_request_at_all_its_limits_fits_into_what_etcd_takes() -> None:
    """B18: attempts, error texts and bodies were unlimited, so the last status write failed permanently."""
    from reconciler.notification.api import BODY_LIMIT, CHANNEL_LIMIT
    from reconciler.notification.redaction import ERROR_LIMIT

    widest = "\U0001f4a3"
    attempts = 10 * CHANNEL_LIMIT * (ERROR_LIMIT * len(widest.encode()) + 400)
    body_and_copy = 2 * BODY_LIMIT * len(widest.encode())
    assert attempts + body_and_copy < 1.5 * 1024 * 1024
    assert schema("spec", "body")["maxLength"] == BODY_LIMIT
    assert schema("spec", "channels")["maxItems"] == CHANNEL_LIMIT
