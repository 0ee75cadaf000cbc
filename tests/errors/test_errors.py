"""Typed errors: the class of each response, and its message."""

import re

import pytest

from reconciler import errors
from reconciler.errors import APIError, Conflict, FieldManagerConflict, NotFound, NotServed, error_from_response


def status(code: int, reason: str, **details: object) -> dict[str, object]:
    return {"kind": "Status", "code": code, "reason": reason, "message": "words", "details": details}


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (406, "NotAcceptable", errors.NotAcceptable),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Expired),
        (413, "RequestEntityTooLarge", errors.RequestTooLarge),
        (415, "UnsupportedMediaType", errors.UnsupportedMediaType),
        (418, "", errors.APIError),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (503, "ServiceUnavailable", errors.ServerUnavailable),
        (504, "Timeout", errors.ServerTimeout),
    ],
)
def test_each_failure_has_its_class(code: int, reason: str, expected: type[APIError]) -> None:
    error = error_from_response(code, status(code, reason), request="GET /x")
    assert type(error) is expected
    assert (error.status, error.reason, error.message) == (code, reason, "words")
    assert str(error) == f"GET /x: {f'{code} {reason}'.rstrip()}: words"


def test_409_is_split_by_reason_and_causes() -> None:
    contested = status(409, "Conflict", causes=[{"reason": "FieldManagerConflict", "field": ".spec.a", "message": "m"}])
    error = error_from_response(409, contested)
    assert type(error) is FieldManagerConflict
    assert error.causes[0].field == ".spec.a"
    assert type(error_from_response(409, status(409, "Conflict"))) is Conflict


def test_a_404_in_plain_text_means_that_the_kind_is_not_served() -> None:
    error = error_from_response(404, text="404 page not found", request="GET /apis/x/v1/y")
    assert isinstance(error, NotServed)
    assert isinstance(error, NotFound)
    assert "CustomResourceDefinition" in str(error)
    assert not isinstance(error_from_response(404, status(404, "NotFound")), NotServed)


def test_an_object_over_the_limit_of_etcd_is_too_large_although_it_is_answered_with_500() -> None:
    body = {"kind": "Status", "code": 500, "message": "etcdserver: request is too large"}
    assert type(error_from_response(500, body)) is errors.RequestTooLarge


def test_an_answer_other_than_a_status_object_keeps_its_text() -> None:
    error = error_from_response(502, text="<html>bad gateway", retry_after=3.0)
    assert (error.message, error.reason, error.body, error.retry_after) == ("<html>bad gateway", "", None, 3.0)
    assert error_from_response(500).message == "no message"
    assert error_from_response(500, [1]).body is None  # type: ignore[arg-type]


@pytest.mark.parametrize("details", [None, [], "text", {"causes": None}, {"causes": ["text", None]}])
def test_details_of_another_shape_give_no_causes(details: object) -> None:
    error = error_from_response(422, {"kind": "Status", "reason": "Invalid", "details": details})
    assert error.causes == ()


def test_causes_name_the_fields() -> None:
    body = status(422, "Invalid", causes=[{"reason": "FieldValueInvalid", "message": "too big", "field": "spec.size"}])
    assert error_from_response(422, body).causes == (errors.Cause("FieldValueInvalid", "too big", "spec.size"),)


def test_a_missing_extra_is_one_line_with_the_command() -> None:
    error = errors.MissingExtra("looptime", extra="testing", purpose="virtual time")
    assert str(error) == "virtual time needs looptime: pip install 'kube-reconciler[testing]'"
    assert (error.module, error.extra) == ("looptime", "testing")


def test_the_exported_names_are_the_errors_of_the_module() -> None:
    own = [(name, value) for name, value in vars(errors).items() if not name.startswith("_")]
    classes = {name for name, value in own if isinstance(value, type) and value.__module__ == errors.__name__}
    assert (classes - {"RepeatedFailures"}) | {"error_from_response"} == set(errors.__all__)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    branches: list[type[Exception]] = [errors.ReconcilerError]
    drawn = set()
    for indent, name in re.findall(r"^    ([ │]*)[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4 + 1
        cls = getattr(errors, name)
        assert cls.__bases__ == (branches[depth - 1],), name
        branches[depth:] = [cls]
        drawn.add(cls)
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert drawn | {errors.ReconcilerError} == {cls for cls in classes if issubclass(cls, errors.ReconcilerError)}


def test_an_error_with_an_empty_or_failing_text_is_named_by_its_type() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Strange(Exception):
        def __str__(self) -> str:
            return 3  # type: ignore[return-value]  # noqa: PLE0307

    found = [errors.error_text(error) for error in (ValueError("x"), ValueError(), Rude(), Strange())]
    assert found == ["x", "ValueError", "Rude", "Strange"]


def test_the_text_of_invalid_has_the_causes_that_its_message_has_not() -> None:
    causes = [{"field": "spec.a", "message": "too small"}, {"message": "odd"}, {"field": "spec.b", "message": "words"}]
    error = error_from_response(422, status(422, "Invalid", causes=causes))
    assert str(error) == "422 Invalid: words (spec.a: too small; odd)"
    many = [{"field": f"spec.f{number}", "message": f"bad {number}"} for number in range(30)]
    error = error_from_response(422, status(422, "Invalid", causes=many))
    assert str(error).endswith("spec.f9: bad 9; …)")


def test_a_failed_import_names_the_extra_that_installs_the_module() -> None:
    installs = r"^the pager needs pager: pip install 'kube-reconciler\[pager\]'$"
    with pytest.raises(errors.MissingExtra, match=installs), errors.importing(extra="pager", purpose="the pager"):
        raise ModuleNotFoundError(name="pager.api")
    with pytest.raises(ImportError), errors.importing(extra="pager", purpose="the pager"):
        raise ImportError(name="reconciler.pager")


def test_a_module_that_is_installed_but_broken_is_not_called_missing_alone() -> None:
    says = r"^the pager needs pager: pip install .*\. What is installed cannot be imported: libpager\.so is too old$"
    with pytest.raises(errors.MissingExtra, match=says), errors.importing(extra="pager", purpose="the pager"):
        raise ImportError("libpager.so is too old", name="pager")
