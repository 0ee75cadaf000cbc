"""Misspelled and wrong methods of reconcilers are errors where the class is defined."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest

from reconciler.controller import Outcome, Reconciler, ResourceReconciler
from reconciler.meta import Request
from reconciler.status import StatusBatcher
from reconciler.webhook import AdmissionRequest, Defaulter, Validator
from tests.controller.conftest import Widget


async def _with_object(self: Any, obj: Any, status: Any) -> Outcome:
    return None


async def _with_request(self: Any, request: Request) -> Outcome:
    return None


def _define(name: str, bases: tuple[Any, ...], members: dict[str, Any]) -> None:
    types.new_class(name, bases, exec_body=lambda namespace: namespace.update(members))


def _resource_reconciler(**members: Any) -> None:
    _define("Widgets", (ResourceReconciler[Widget],), {"reconcile_object": _with_object, **members})


@pytest.mark.parametrize(
    "name", ["finalise", "finalize_", "finalized", "Finalize", "finalizer", "finlize", "finalize_object"]
)
def test_misspelled_finalize_would_never_be_called(name: str) -> None:
    with pytest.raises(TypeError) as raised:
        _resource_reconciler(**{name: _with_object})
    assert str(raised.value) == (
        f"Widgets.{name} would never be called: did you mean 'finalize'? If it is a helper, call it '_{name}'"
    )


@pytest.mark.parametrize("name", ["reconcile_objects", "reconcileObject", "reconcil", "reconcile_obj"])
def test_misspelled_reconcile_object(name: str) -> None:
    with pytest.raises(TypeError, match=f"Widgets.{name} would never be called: did you mean 'reconcile_object'"):
        _define("Widgets", (ResourceReconciler[Widget],), {name: _with_object})


@pytest.mark.parametrize(
    ("name", "meant"), [("reconcil", "reconcile"), ("fairby", "fair_by"), ("pool_sizes", "pool_size")]
)
def test_misspelled_hook_of_a_reconciler_by_key(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"Keys.{name} would never be called: did you mean '{meant}'"):
        _define("Keys", (Reconciler,), {name: _with_request})


def test_reconcile_with_the_arguments_of_reconcile_object() -> None:
    with pytest.raises(TypeError) as raised:

        class Widgets(ResourceReconciler[Widget]):
            async def reconcile(self, obj: Widget, status: StatusBatcher[Any]) -> Outcome:  # type: ignore[override]
                return None

    assert str(raised.value) == (
        "Widgets.reconcile cannot be called with its arguments (request); did you mean 'reconcile_object'?"
    )


def test_reconcile_that_cannot_be_called_beside_reconcile_object() -> None:
    with pytest.raises(TypeError, match=r"Widgets.reconcile cannot be called with its arguments \(request\)$"):
        _resource_reconciler(reconcile=_with_object)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda self, obj: None, "Widgets.finalize cannot be called with its arguments (obj, status)"),
        (lambda self, *, obj, status: None, "Widgets.finalize cannot be called with its arguments (obj, status)"),
        (None, "Widgets.finalize must be a method, not None"),
    ],
)
def test_finalize_that_cannot_be_called(wrong: Any, text: str) -> None:
    with pytest.raises(TypeError) as raised:
        _resource_reconciler(finalize=wrong)
    assert str(raised.value) == text


def test_misspelled_hook_in_a_mixin_is_found() -> None:
    mixin = type("Mixin", (), {"finalise": _with_object})
    with pytest.raises(TypeError, match="would never be called: did you mean 'finalize'"):
        _define("Widgets", (mixin, ResourceReconciler[Widget]), {"reconcile_object": _with_object})


def _timed(function: Any) -> Any:
    @functools.wraps(function)
    def timed(*args: Any) -> Any:
        return function(*args, timeout=5)

    return timed


@pytest.mark.parametrize(
    "members",
    [
        {"finalize": _with_object, "finalize_object": _with_object},  # a helper beside the hook
        {"_finalise": _with_object},
        {"finalizer": "example.com/widget", "finalizers": ("a", "b")},
        {"finalized": lambda self: False},  # cannot be called as the hook
        {"finalized": property(lambda self: False)},
        {"finalize_all": _with_object},
        {"reconcile_job": _with_object, "reconcile_status": _with_object, "reconcile_owned": _with_object},
        {"finalize": staticmethod(lambda obj, status: None)},
        {"finalize": lambda self, *args: None},
        {"finalize": lambda self, obj, status, timeout=5: None},
        {"finalize": _timed(lambda self, obj, status, timeout: None)},
        {"finalize": functools.partialmethod(lambda self, timeout, obj, status: None, 5)},
        {"reconcile": _with_request},
    ],
)
def test_methods_of_the_user_are_left_alone(members: dict[str, Any]) -> None:
    _resource_reconciler(**members)


def test_misspelled_webhook_methods() -> None:
    with pytest.raises(TypeError, match="did you mean 'validate_create'"):

        class Rules(Validator[Widget]):
            def validate_craete(self, obj: Widget, request: AdmissionRequest) -> None: ...

    with pytest.raises(TypeError, match="did you mean 'default'"):

        class Defaults(Defaulter[Widget]):
            def defaults(self, obj: Widget, request: AdmissionRequest) -> None: ...

    with pytest.raises(TypeError, match=r"validate_update cannot be called with its arguments \(old, new, request\)"):

        class Updates(Validator[Widget]):
            def validate_update(self, obj: Widget, request: AdmissionRequest) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("status_on_eror", "status_on_error"),
        ("statusOnError", "status_on_error"),
        ("finaliser", "finalizer"),
        ("permission", "permissions"),
        ("kstatus_condition", "kstatus_conditions"),
    ],
)
def test_misspelled_attribute_would_never_be_read(name: str, meant: str) -> None:
    with pytest.raises(TypeError) as raised:
        _resource_reconciler(**{name: "discard"})
    assert str(raised.value) == (
        f"Widgets.{name} would never be read: did you mean {meant!r}? If it is your own, call it '_{name}'"
    )


@pytest.mark.parametrize(
    "members",
    [
        {"permissions": (), "permission": "admin"},  # an attribute of the user beside the library's
        {"_finaliser": "example.com/widget"},
        {"permission": property(lambda self: "admin")},
        {"resources": {"cpu": "1"}},  # the type argument has set `resource`
        {"status_fields": ("phase",), "final": True, "limit": 3},
    ],
)
def test_attributes_of_the_user_are_left_alone(members: dict[str, Any]) -> None:
    _resource_reconciler(**members)


def test_misspelled_attribute_of_a_webhook() -> None:
    with pytest.raises(TypeError, match=r"Rules\.operation would never be read: did you mean 'operations'"):
        _define("Rules", (Validator[Widget],), {"operation": ("CREATE",)})
    with pytest.raises(TypeError, match=r"Defaults\.subresource would never be read: did you mean 'subresources'"):
        _define("Defaults", (Defaulter[Widget],), {"subresource": "scale"})


def _allow(self: Any, obj: Any, request: Any) -> None: ...


def test_a_validation_whose_operation_is_not_sent() -> None:
    with pytest.raises(TypeError) as raised:
        _define("Rules", (Validator[Widget],), {"validate_delete": _allow})
    assert str(raised.value) == (
        "Rules.validate_delete would never be called: 'DELETE' is not in operations, which is ('CREATE', 'UPDATE')"
    )
    base = type("Rules", (Validator,), {"resource": Widget, "validate_create": _allow})
    with pytest.raises(TypeError, match=r"Narrow\.validate_create would never be called: 'CREATE' is not in"):
        _define("Narrow", (base,), {"operations": ("UPDATE",)})


@pytest.mark.parametrize("operations", [("DELETED",), "CREATE", ["create"], None, 5, ("CREATE", None)])
def test_operations_that_do_not_exist(operations: Any) -> None:
    with pytest.raises(TypeError) as raised:
        _define("Defaults", (Defaulter[Widget],), {"default": _allow, "operations": operations})
    assert str(raised.value) == (
        f"Defaults.operations must be a sequence of 'CREATE', 'UPDATE', 'DELETE' and 'CONNECT', not {operations!r}"
    )
