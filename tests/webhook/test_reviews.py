"""What is answered to a review, without sockets."""

from __future__ import annotations

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
from reconciler.webhook.admission import Admission
from reconciler.webhook.endpoint import AdmissionEndpoint, ConversionEndpoint
from reconciler.webhook.patch import apply_json_patch, json_patch
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


async def answered(body: bytes, *reviewers: Admission[Any]) -> dict[str, Any]:
    reply = await AdmissionEndpoint(reviewers).answer(body)
    assert reply.status == 200
    found = msgspec.json.decode(reply.body)
    assert found["kind"] == "AdmissionReview"
    assert found["response"]["uid"] == "u-1"
    response: dict[str, Any] = found["response"]
    return response


def patched(response: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    assert response["patchType"] == "JSONPatch"
    result: dict[str, Any] = jsonpatch.apply_patch(document, msgspec.json.decode(base64.b64decode(response["patch"])))
    return result


async def test_what_is_allowed_is_allowed_with_the_warnings() -> None:
    assert await answered(review("CREATE", database("db1", 5)), Rules()) == {"uid": "u-1", "allowed": True}
    response = await answered(review("CREATE", database("db1", 1)), Rules())
    assert (response["allowed"], response["warnings"]) == (True, ["1 GB is little"])


async def test_a_refusal_says_what_and_where() -> None:
    response = await answered(review("CREATE", database("db1", 51)), Rules())
    assert response["allowed"] is False
    assert response["status"] == {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": "more than 50 GB needs an administrator",
        "details": {"causes": [{"reason": "FieldValueInvalid", "field": "spec.size", "message": "must be at most 50"}]},
    }
    assert (await answered(review("CREATE", database("db1", 51), groups=("admins",)), Rules()))["allowed"]


async def test_an_update_sees_both_objects_and_a_delete_the_old_one() -> None:
    response = await answered(review("UPDATE", database("db1", 4), database("db1", 5)), Rules())
    assert (response["status"]["code"], response["status"]["message"]) == (403, "a database never shrinks")
    response = await answered(review("DELETE", None, database("db1", 5, annotations={"keep": "y"})), Rules())
    assert (response["status"]["code"], response["status"]["reason"]) == (409, "Conflict")
    assert (await answered(review("DELETE", None, database("db1", 5)), Rules()))["allowed"]
    assert (await answered(review("CONNECT", None, None), Rules()))["allowed"]


async def test_a_fault_of_a_validator_refuses_and_tells_nobody_its_text(caplog: pytest.LogCaptureFixture) -> None:
    response = await answered(review("UPDATE", database("db1", 13), database("db1", 5)), Rules())
    assert response["status"]["code"] == 500
    assert response["status"]["message"] == "Rules failed: RuntimeError"
    assert "a secret inside" in caplog.text


async def test_a_typed_error_of_the_api_is_passed_on_with_its_code() -> None:
    class Asks(Validator[Database]):
        def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            raise Forbidden("quota is used up", status=403, reason="Forbidden")

    response = await answered(review("CREATE", database("db1", 5)), Asks())
    assert (response["status"]["code"], response["status"]["message"]) == (403, "quota is used up")


async def test_an_object_that_its_model_refuses_is_invalid() -> None:
    broken = {"apiVersion": "example.com/v1", "kind": "Database", "metadata": {"name": "x"}, "spec": {"size": "big"}}
    response = await answered(review("CREATE", broken), Rules())
    assert response["status"]["code"] == 422
    assert "size" in response["status"]["message"]


async def test_a_defaulter_patches_what_it_changed_and_nothing_else() -> None:
    document = database("db1", 5).to_dict()
    document["spec"]["unknown"] = {"kept": [1, None]}
    document["metadata"]["annotations"] = {"x": "1"}
    response = await answered(review("CREATE", document), Defaults())
    result = patched(response, document)
    assert result["spec"] == {"size": 5, "engine": "postgres", "unknown": {"kept": [1, None]}}
    assert result["metadata"]["labels"] == {"example.com/engine": "defaulted"}
    assert "patch" not in await answered(review("CREATE", result), Defaults())
    assert "patch" not in await answered(review("DELETE", None, document), Defaults())


async def test_an_omitted_field_with_a_default_is_not_written_down_by_the_way() -> None:
    document = {"apiVersion": "example.com/v1", "kind": "Database", "metadata": {"name": "x"}, "spec": {}}
    result = patched(await answered(review("CREATE", document), Defaults()), document)
    assert result["spec"] == {"engine": "postgres"}


async def test_true_is_not_one_where_a_default_says_so() -> None:
    class Strict(Defaulter[Unstructured], resource="v1/ConfigMap"):
        def default(self, obj: Unstructured, request: AdmissionRequest, /) -> Warnings:
            obj["flags"] = [True]
            return None

    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "flags": [1]}
    assert patched(await answered(review("CREATE", document), Strict()), document)["flags"][0] is True


async def test_of_several_defaulters_each_sees_the_work_of_those_before_and_a_refusal_drops_it_all() -> None:
    class Grows(Defaulter[Database]):
        def default(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            if obj.spec.engine != "postgres":
                raise Denied("only postgres grows")
            obj.spec.size += 1
            return ["grown"]

    document = database("db1", 5).to_dict()
    response = await answered(review("CREATE", document), Defaults(), Grows())
    assert patched(response, document)["spec"] == {"size": 6, "engine": "postgres"}
    assert response["warnings"] == ["grown"]
    refused = await answered(review("CREATE", document), Grows(), Defaults())
    assert (refused["allowed"], "patch" in refused) == (False, False)


async def test_of_several_validators_the_first_refusal_counts_and_warnings_add_up() -> None:
    class Second(Validator[Database]):
        def validate_create(self, obj: Database, request: AdmissionRequest, /) -> Warnings:
            raise Denied("no")

    response = await answered(review("CREATE", database("db1", 1)), Rules(), Second(), Rules())
    assert (response["allowed"], response["warnings"], response["status"]["message"]) == (
        False,
        ["1 GB is little"],
        "no",
    )


async def test_the_old_version_of_the_review_is_answered_in_kind() -> None:
    reply = await AdmissionEndpoint([Rules()]).answer(review("CREATE", database("db1", 5), version="v1beta1"))
    assert msgspec.json.decode(reply.body)["apiVersion"] == "admission.k8s.io/v1beta1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v2"}', "no AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
    ],
)
async def test_a_body_that_is_no_review_gets_400_and_the_reason(body: bytes, words: str) -> None:
    reply = await AdmissionEndpoint([Rules()]).answer(body)
    assert reply.status == 400
    assert words in reply.body.decode()


def test_a_kind_without_a_class_is_named() -> None:
    class Pods(Validator[Unstructured], resource="v1/Pod"):
        pass

    assert Pods().served_at == "/validate--v1-pod"
    assert Rules().served_at == "/validate-example-com-v1-database"
    assert Defaults().served_at == "/mutate-example-com-v1-database"

    class Nothing(Validator):  # type: ignore[type-arg]
        pass

    with pytest.raises(ConfigurationError, match=r"names no kind|is not a valid kind"):
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
def test_a_patch_makes_the_one_document_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    operations = json_patch(before, after)
    for result in (jsonpatch.apply_patch(before, operations), apply_json_patch(before, operations)):
        assert msgspec.json.encode(result, order="sorted") == msgspec.json.encode(after, order="sorted")


# Conversion


def gigabytes(document: dict[str, Any]) -> None:
    document["spec"]["size"] = int(document["spec"]["size"].removesuffix("G"))


def text(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "spec": {**document["spec"], "size": f"{document['spec']['size']}G"}}


def converter() -> Converter:
    made = Converter("example.com", "Database", hub="v1")
    made.add("v1alpha1", to_hub=gigabytes, from_hub=text)
    made.add("v1beta1", to_hub=lambda document: None, from_hub=lambda document: None)
    return made


def old(size: str = "5G") -> dict[str, Any]:
    return {"apiVersion": "example.com/v1alpha1", "kind": "Database", "metadata": {"name": "x"}, "spec": {"size": size}}


def test_objects_are_converted_by_way_of_the_hub() -> None:
    found = converter().convert(old(), "example.com/v1beta1")
    assert (found["apiVersion"], found["spec"]) == ("example.com/v1beta1", {"size": 5})
    assert converter().convert(found, "example.com/v1alpha1") == old()
    assert converter().convert(old(), "example.com/v1alpha1") == old()


def test_a_way_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ConversionFailed, match=r"known are example\.com/v1, example\.com/v1alpha1"):
        converter().convert(old(), "example.com/v7")
    with pytest.raises(ConversionFailed, match=r"not converted from or to 'other\.com/v1'"):
        converter().convert({**old(), "apiVersion": "other.com/v1"}, "example.com/v1")
    with pytest.raises(ConversionFailed, match="Table is not Database"):
        converter().convert({**old(), "kind": "Table"}, "example.com/v1")
    with pytest.raises(ConversionFailed, match="x cannot be converted to v1"):
        converter().convert(old("much"), "example.com/v1")
    with pytest.raises(ConfigurationError, match="known already"):
        converter().add("v1", to_hub=gigabytes, from_hub=text)


def conversion(*objects: Any, to: str = "example.com/v1") -> bytes:
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


async def test_a_review_converts_all_objects_or_none() -> None:
    response = await converted(old("1G"), old("2G"), to="example.com/v1")
    assert response["result"] == {"status": "Success"}
    assert [each["spec"]["size"] for each in response["convertedObjects"]] == [1, 2]
    response = await converted(old("1G"), old("much"), to="example.com/v1")
    assert (response["convertedObjects"], response["result"]["status"]) == ([], "Failure")
    assert "cannot be converted" in response["result"]["message"]


async def test_what_is_no_object_is_answered_too() -> None:
    response = await converted("text", to="example.com/v1")
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
        (b'{"uid":"\\ud800"}', "no JSON"),
        (b'{"uid":"\xff"}', "no JSON"),
    ],
)
async def test_a_review_that_is_malformed_gets_400_and_the_place(
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


async def test_a_refusal_that_cannot_be_written_still_refuses() -> None:
    reply = await AdmissionEndpoint([Unwritable()]).answer(review("CREATE", database("a", 1)))
    response = msgspec.json.decode(reply.body)["response"]
    assert (reply.status, reply.failed, response["allowed"]) == (200, True, False)
    assert response["status"]["message"] == "the answer cannot be written: UnicodeEncodeError"


@pytest.mark.parametrize("request_", ['"objects":1', '"objects":[1]', '"objects":[[]]', '"desiredAPIVersion":[]'])
async def test_a_conversion_of_what_are_no_objects_is_answered(request_: str) -> None:
    body = b'{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","request":{"uid":"u",%b}}'
    reply = await ConversionEndpoint(converter()).answer(body % request_.encode())
    assert reply.status == 200
    assert msgspec.json.decode(reply.body)["response"]["result"].get("status") in ("Failure", "Success")
