"""Responses to reviews, without sockets."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import jsonpatch
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigurationError, Forbidden
from reconciler.objects import Unstructured
from reconciler.webhook import (
    AdmissionRequest,
    ConversionFailed,
    Converter,
    Defaulter,
    Denied,
    Validator,
    Warnings,
)
from reconciler.webhook.admission import AdmissionWebhook
from reconciler.webhook.review import json_patch
from reconciler.webhook.server import AdmissionEndpoint, ConversionEndpoint
from tests.webhook.database import Database, Defaults, Rules, database


def review(
    operation: str, obj: Any = None, old: Any = None, *, version: str = "v1", groups: tuple[str, ...] = ()
) -> bytes:
    request = {
        "uid": "u-1",
        "operation": operation,
        "name": "db1",
        "namespace": "default",
        "userInfo": {"username": "ann", "groups": list(groups)},
        "object": obj.to_dict() if hasattr(obj, "to_dict") else obj,
        "oldObject": old.to_dict() if hasattr(old, "to_dict") else old,
    }
    return msgspec.json.encode(
        {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": request}
    )


async def response_to(body: bytes, *reviewers: AdmissionWebhook[Any]) -> dict[str, Any]:
    reply = await AdmissionEndpoint(reviewers).answer(body)
    assert reply.status == 200
    found = msgspec.json.decode(reply.body)
    assert found["kind"] == "AdmissionReview"
    assert found["response"]["uid"] == "u-1"
    response: dict[str, Any] = found["response"]
    return response


def apply_patch(response: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    assert response["patchType"] == "JSONPatch"
    result: dict[str, Any] = jsonpatch.apply_patch(document, msgspec.json.decode(base64.b64decode(response["patch"])))
    return result


async def test_allowed_request_returns_the_warnings() -> None:
    assert await response_to(review("CREATE", database("db1", 5)), Rules()) == {"uid": "u-1", "allowed": True}
    response = await response_to(review("CREATE", database("db1", 1)), Rules())
    assert (response["allowed"], response["warnings"]) == (True, ["1 GB is little"])


async def test_denial_has_message_and_causes() -> None:
    response = await response_to(review("CREATE", database("db1", 51)), Rules())
    assert response["allowed"] is False
    assert response["status"] == {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": "more than 50 GB needs an administrator: spec.size: must be at most 50",
        "details": {
            "name": "db1",
            "group": "webhook.example.com",
            "kind": "Database",
            "causes": [{"reason": "FieldValueInvalid", "field": "spec.size", "message": "must be at most 50"}],
        },
    }
    assert (await response_to(review("CREATE", database("db1", 51), groups=("admins",)), Rules()))["allowed"]


async def test_update_gets_both_objects_and_delete_the_old_one() -> None:
    response = await response_to(review("UPDATE", database("db1", 4), database("db1", 5)), Rules())
    assert (response["status"]["code"], response["status"]["message"]) == (403, "a database never shrinks")
    response = await response_to(review("DELETE", None, database("db1", 5, annotations={"keep": "y"})), Rules())
    assert (response["status"]["code"], response["status"]["reason"]) == (409, "Conflict")
    assert (await response_to(review("DELETE", None, database("db1", 5)), Rules()))["allowed"]
    assert (await response_to(review("CONNECT", None, None), Rules()))["allowed"]


async def test_failing_validator_denies_without_revealing_the_exception_text(caplog: pytest.LogCaptureFixture) -> None:
    response = await response_to(review("UPDATE", database("db1", 13), database("db1", 5)), Rules())
    assert response["status"]["code"] == 500
    assert response["status"]["message"] == "Rules failed: RuntimeError"
    assert "a secret inside" in caplog.text


async def test_validator_that_raises_a_cancellation_itself_denies() -> None:
    class Impatient(Validator[Database]):
        def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            raise asyncio.CancelledError

    response = await response_to(review("CREATE", database("db1", 5)), Impatient())
    assert response["status"]["message"] == "Impatient failed: CancelledError"


async def test_typed_api_error_denies_with_its_code() -> None:
    class Asks(Validator[Database]):
        def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            raise Forbidden("quota is used up", status=403, reason="Forbidden")

    response = await response_to(review("CREATE", database("db1", 5)), Asks())
    assert (response["status"]["code"], response["status"]["message"]) == (403, "quota is used up")


async def test_object_that_its_model_rejects_is_invalid() -> None:
    broken = {**database("x", 1).to_dict(), "spec": {"size": "big"}}
    response = await response_to(review("CREATE", broken), Rules())
    assert response["status"]["code"] == 422
    assert "size" in response["status"]["message"]


async def test_defaulter_patches_only_its_changes() -> None:
    document = database("db1", 5).to_dict()
    document["spec"]["unknown"] = {"kept": [1, None]}
    document["metadata"]["annotations"] = {"x": "1"}
    response = await response_to(review("CREATE", document), Defaults())
    result = apply_patch(response, document)
    assert result["spec"] == {"size": 5, "engine": "postgres", "unknown": {"kept": [1, None]}}
    assert result["metadata"]["labels"] == {"webhook.example.com/engine": "defaulted"}
    assert "patch" not in await response_to(review("CREATE", result), Defaults())
    assert "patch" not in await response_to(review("DELETE", None, document), Defaults())


async def test_omitted_field_with_a_model_default_is_not_patched() -> None:
    document = {"apiVersion": "webhook.example.com/v1", "kind": "Database", "metadata": {"name": "x"}, "spec": {}}
    result = apply_patch(await response_to(review("CREATE", document), Defaults()), document)
    assert result["spec"] == {"engine": "postgres"}


async def test_patch_distinguishes_true_from_one() -> None:
    class Strict(Defaulter[Unstructured], resource="v1/ConfigMap"):
        def default(self, obj: Unstructured, request: AdmissionRequest, /) -> Warnings:
            obj["flags"] = [True]
            return None

    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "flags": [1]}
    assert apply_patch(await response_to(review("CREATE", document), Strict()), document)["flags"][0] is True


async def test_defaulters_see_earlier_changes_and_a_denial_drops_all() -> None:
    class Grows(Defaulter[Database]):
        def default(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            if obj.spec.engine != "postgres":
                raise Denied("only postgres grows")
            obj.spec.size += 1
            return ["grown"]

    document = database("db1", 5).to_dict()
    response = await response_to(review("CREATE", document), Defaults(), Grows())
    assert apply_patch(response, document)["spec"] == {"size": 6, "engine": "postgres"}
    assert response["warnings"] == ["grown"]
    refused = await response_to(review("CREATE", document), Grows(), Defaults())
    assert (refused["allowed"], "patch" in refused) == (False, False)


async def test_first_denial_of_several_validators_counts_and_warnings_add_up() -> None:
    class Second(Validator[Database]):
        def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            raise Denied("no")

    response = await response_to(review("CREATE", database("db1", 1)), Rules(), Second(), Rules())
    assert (response["allowed"], response["warnings"], response["status"]["message"]) == (
        False,
        ["1 GB is little"],
        "no",
    )


async def test_v1beta1_review_gets_a_v1beta1_response() -> None:
    reply = await AdmissionEndpoint([Rules()]).answer(review("CREATE", database("db1", 5), version="v1beta1"))
    assert msgspec.json.decode(reply.body)["apiVersion"] == "admission.k8s.io/v1beta1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "not of kind AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v2"}', "not of kind AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": ["admission.k8s.io/v1"]}', "not of kind AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
    ],
)
async def test_body_that_is_not_a_review_gets_400_with_the_reason(body: bytes, words: str) -> None:
    reply = await AdmissionEndpoint([Rules()]).answer(body)
    assert reply.status == 400
    assert words in reply.body.decode()


def test_kind_without_a_class_is_given_as_resource() -> None:
    class Pods(Validator[Unstructured], resource="v1/Pod"):
        pass

    assert Pods().served_at == "/validate--v1-pod"
    assert Rules().served_at == "/validate-webhook-example-com-v1-database"
    assert Defaults().served_at == "/mutate-webhook-example-com-v1-database"

    class Nothing(Validator):  # type: ignore[type-arg]
        pass

    with pytest.raises(ConfigurationError, match="has no kind"):
        _ = Nothing().gvk
    with pytest.raises(ConfigurationError, match=r"names no kind|is not a valid kind"):

        class Wrong(Validator[int]):
            pass


KEYS = ["a", "b/c", "~d", ""]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "b/c", "~d"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/c", "~d", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=2), json_values, max_size=4),
    st.dictionaries(st.text(max_size=2), json_values, max_size=4),
)
def test_patch_turns_one_document_into_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    result = jsonpatch.apply_patch(before, json_patch(before, after))
    assert msgspec.json.encode(result, order="sorted") == msgspec.json.encode(after, order="sorted")


# Conversion


def gigabytes(document: dict[str, Any]) -> None:
    document["spec"]["size"] = int(document["spec"]["size"].removesuffix("G"))


def text(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "spec": {**document["spec"], "size": f"{document['spec']['size']}G"}}


def converter() -> Converter:
    made = Converter("webhook.example.com", "Database", hub="v1")
    made.add("v1alpha1", to_hub=gigabytes, from_hub=text)
    made.add("v1beta1", to_hub=lambda document: None, from_hub=lambda document: None)
    return made


def old(size: str = "5G") -> dict[str, Any]:
    return {
        "apiVersion": "webhook.example.com/v1alpha1",
        "kind": "Database",
        "metadata": {"name": "x"},
        "spec": {"size": size},
    }


def test_objects_are_converted_through_the_hub() -> None:
    found = converter().convert(old(), "webhook.example.com/v1beta1")
    assert (found["apiVersion"], found["spec"]) == ("webhook.example.com/v1beta1", {"size": 5})
    assert converter().convert(found, "webhook.example.com/v1alpha1") == old()
    assert converter().convert(old(), "webhook.example.com/v1alpha1") == old()


def test_unknown_version_is_refused_by_name() -> None:
    with pytest.raises(ConversionFailed, match=r"known are webhook\.example\.com/v1, webhook\.example\.com/v1alpha1"):
        converter().convert(old(), "webhook.example.com/v7")
    with pytest.raises(ConversionFailed, match=r".other\.com/v1. is not a known version"):
        converter().convert({**old(), "apiVersion": "other.com/v1"}, "webhook.example.com/v1")
    with pytest.raises(ConversionFailed, match="kind is Table, not Database"):
        converter().convert({**old(), "kind": "Table"}, "webhook.example.com/v1")
    with pytest.raises(ConversionFailed, match="cannot convert Database x to v1"):
        converter().convert(old("much"), "webhook.example.com/v1")
    with pytest.raises(ConfigurationError, match="already exists"):
        converter().add("v1", to_hub=gigabytes, from_hub=text)


def conversion(*objects: Any, to: str = "webhook.example.com/v1") -> bytes:
    request = {"uid": "c-1", "desiredAPIVersion": to, "objects": list(objects)}
    return msgspec.json.encode(
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    )


async def converted(*objects: Any, to: str) -> dict[str, Any]:
    reply = await ConversionEndpoint(converter()).answer(conversion(*objects, to=to))
    assert reply.status == 200
    response: dict[str, Any] = msgspec.json.decode(reply.body)["response"]
    assert response["uid"] == "c-1"
    return response


async def test_review_converts_all_objects_or_none() -> None:
    response = await converted(old("1G"), old("2G"), to="webhook.example.com/v1")
    assert response["result"] == {"status": "Success"}
    assert [each["spec"]["size"] for each in response["convertedObjects"]] == [1, 2]
    response = await converted(old("1G"), old("much"), to="webhook.example.com/v1")
    assert (response["convertedObjects"], response["result"]["status"]) == ([], "Failure")
    assert "cannot convert" in response["result"]["message"]


async def test_objects_that_are_not_documents_get_a_response() -> None:
    response = await converted("text", to="webhook.example.com/v1")
    assert (response["convertedObjects"], response["result"]["status"]) == ([], "Failure")
    assert response["result"]["message"] == "conversion failed: AttributeError"


def _nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b'{"uid":"u","object":%b}' % _nested(200), "more than 128 levels"),
        (b'{"uid":"u","object":%b}' % _nested(100_000), "more than 128 levels"),
        (b'{"uid":"u","name":1}', "$.name"),
        (b'{"uid":"u","operation":"EAT"}', "$.operation"),
        (b'{"uid":"u","operation":[]}', "$.operation"),
        (b'{"uid":"u","userInfo":"x"}', "$.userInfo"),
        (b'{"uid":"u","userInfo":{"groups":5}}', "$.userInfo.groups"),
        (b'{"uid":"u","object":[]}', "$.object"),
        (b'{"uid":"u","oldObject":"x"}', "$.oldObject"),
        (b'{"uid":"u","options":1}', "$.options"),
        (b'{"uid":"\\ud800"}', "not valid JSON"),
        (b'{"uid":"\xff"}', "not valid JSON"),
    ],
)
async def test_malformed_review_gets_400_with_the_field(
    request_: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":%b}' % request_
    reply = await AdmissionEndpoint([Rules()]).answer(body)
    assert (reply.status, reply.failed) == (400, False)
    assert words in reply.body.decode()
    assert not caplog.records


class Unwritable(Validator[Database]):
    """A validator whose refusal cannot be encoded."""

    def validate_create(self, obj: Database, request: AdmissionRequest) -> None:
        raise Denied("a lone surrogate: \ud800")


async def test_denial_that_cannot_be_encoded_still_denies() -> None:
    reply = await AdmissionEndpoint([Unwritable()]).answer(review("CREATE", database("a", 1)))
    response = msgspec.json.decode(reply.body)["response"]
    assert (reply.status, reply.failed, response["allowed"]) == (200, True, False)
    assert response["status"]["message"] == "the response cannot be encoded: UnicodeEncodeError"


@pytest.mark.parametrize("request_", ['"objects":1', '"objects":[1]', '"objects":[[]]', '"desiredAPIVersion":[]'])
async def test_conversion_of_non_objects_gets_a_response(request_: str) -> None:
    body = b'{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","request":{"uid":"u",%b}}'
    reply = await ConversionEndpoint(converter()).answer(body % request_.encode())
    assert reply.status == 200
    assert msgspec.json.decode(reply.body)["response"]["result"].get("status") in ("Failure", "Success")
