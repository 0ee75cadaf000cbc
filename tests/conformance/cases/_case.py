"""Hold the cases: a number, a title, and what to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.conformance.api import Api

Body = Callable[[Api], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """Be one case.

    Attributes:
        number: the theme and a running number.
        title: the rule.
        body: what to ask.
        definitions: kinds that the case needs beside those of the suite.
    """

    number: str
    title: str
    body: Body
    definitions: tuple[dict[str, Any], ...] = ()

    @property
    def slug(self) -> str:
        """Return the name of its golden file and of its namespace."""
        return f"case-{self.number.replace('.', '-')}"


CASES: list[Case] = []


def case(number: str, title: str, *definitions: dict[str, Any]) -> Callable[[Body], Body]:
    """Add a case."""

    def register(body: Body) -> Body:
        CASES.append(Case(number, title, body, definitions))
        return body

    return register


Row = tuple[Any, ...]


def table(number: str, rows: Sequence[Row]) -> Callable[..., None]:
    """Add a case for each row: its title first, then what the body gets beside the API.

    Args:
        number: the number of the first case, such as ``"5.20"``; the others count on.
    """
    theme, _, first = number.partition(".")

    def register(body: Callable[..., Awaitable[Any]], *definitions: dict[str, Any]) -> None:
        for index, (title, *values) in enumerate(rows):

            async def run(api: Api, values: Sequence[Any] = values) -> None:
                await body(api, *values)

            case(f"{theme}.{int(first) + index:0{len(first)}}", str(title), *definitions)(run)

    return register


def widget(name: str, **spec: Any) -> dict[str, Any]:
    """Return a widget with the least spec, and more."""
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


def version(obj: dict[str, Any]) -> str:
    """Return an object's resourceVersion."""
    return str(obj["metadata"]["resourceVersion"])


def names(answer: dict[str, Any]) -> list[str]:
    """Return the names of a list's items."""
    return [item["metadata"]["name"] for item in answer.get("items") or []]


def in_any_order(api: Api) -> None:
    """Sort the causes of the last answer: the real server goes through the members of an object in a random order."""
    body = api.transcript[-1]["body"]
    causes = (body.get("details") or {}).get("causes") if isinstance(body, dict) else None
    if causes and len(causes) > 1:
        causes.sort(key=lambda cause: (cause.get("field", ""), cause["message"]))
        body["message"] = body["message"].partition(" is invalid: ")[0]


def each_once(api: Api) -> None:
    """Leave out of the last answer what the real server finds more than once, and sort the causes."""
    body = api.transcript[-1]["body"]
    causes = (body.get("details") or {}).get("causes")
    if causes:
        body["details"]["causes"] = [cause for at, cause in enumerate(causes) if cause not in causes[:at]]
        in_any_order(api)
