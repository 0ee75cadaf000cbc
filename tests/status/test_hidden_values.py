# ruff: noqa: PT012 - the block under test is what raises, at its end
"""The values of a status are not in the text of what could not be saved: it ends in logs and Events."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.pretty import pretty_repr

from reconciler.status import StatusBatcher, StatusRejected
from tests.status.scripted import ScriptedServer, api_error, refused

pytestmark = pytest.mark.virtual_time

SECRET = "p4ssw0rd"


def close_over(secret: str) -> Callable[[dict], None]:
    class Function:
        def __call__(self, status: dict) -> None:
            status["made"] = secret

        def __repr__(self) -> str:
            return f"Function({secret!r})"

    return Function()


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (lambda status: status.set(phase=SECRET), "Set(path=('phase',)"),
        (lambda status: status.merge({"phase": SECRET}), "Merge(path=()"),
        (lambda status: status.append("log", SECRET), "Append(path=('log',)"),
        (lambda status: status.upsert("log", {"id": SECRET}, key="id"), "Upsert(path=('log',)"),
        (lambda status: status.remove("old", item={"id": SECRET}), "RemoveItem(path=('old',)"),
        (
            lambda status: status.set_condition("Ready", False, reason="Failed", message=f"login with {SECRET} failed"),
            "type='Ready', status=False, reason='Failed'",
        ),
        (lambda status: status.mutate(close_over(SECRET)), "Mutate("),
    ],
)
@pytest.mark.parametrize("code", [403, 422])
async def test_an_error_and_its_unsaved_mutations_show_fields_but_no_values(
    server: ScriptedServer, record: Callable[[StatusBatcher], None], shown: str, code: int
) -> None:
    server.status = {"old": [{"id": SECRET}]}
    server.on_write.append(refused(api_error(code)))
    with pytest.raises(StatusRejected) as caught:
        async with StatusBatcher(server.writer(), server.document()) as status:
            record(status)
    text = repr(caught.value.unsaved)
    assert shown in text
    assert SECRET not in text + str(caught.value) + repr(caught.value) + pretty_repr(caught.value.unsaved)


async def test_messages_are_bounded_whatever_was_recorded_and_refused() -> None:
    server = ScriptedServer()
    server.on_write.append(refused(api_error(403, "Forbidden", "no " * 100_000)))
    with pytest.raises(StatusRejected) as caught:
        async with StatusBatcher(server.writer(), server.document()) as status:
            for number in range(500):
                status.increment("total")
                status.set(("tenants", f"{number}-" + "x" * 10_000), 1)
            status.merge("tenants", {f"merged-{number}": number for number in range(5_000)})
    assert len(str(caught.value)) < 4_000
    assert "increment total (500 times); set tenants.0-xxx" in str(caught.value)
    assert str(caught.value).endswith("and 490 more.")
