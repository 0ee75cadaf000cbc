"""The cases: a title, and what to ask."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.conformance.api import Api

Body = Callable[[Api], Awaitable[None]]


def digest(title: str) -> str:
    """Return a short name that depends on the title alone, so that a new case renames nothing."""
    return hashlib.sha256(title.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        theme: the name of the module that has it, and of its golden file.
        title: the rule; unique within the theme.
        body: what to ask.
        definitions: kinds that the case needs beside those of the suite.
    """

    theme: str
    title: str
    body: Body
    definitions: tuple[dict[str, Any], ...] = ()

    @property
    def namespace(self) -> str:
        """The namespace in which the case works."""
        return f"case-{digest(f'{self.theme}: {self.title}')}"


CASES: list[Case] = []


def case(title: str, *definitions: dict[str, Any]) -> Callable[[Body], Body]:
    """Add a case to the theme of the module that is being imported."""
    theme = _theme()

    def register(body: Body) -> Body:
        CASES.append(Case(theme, title, body, definitions))
        return body

    return register


def _theme() -> str:
    frame = sys._getframe(1)
    while frame.f_code.co_name != "<module>":
        assert frame.f_back
        frame = frame.f_back
    return str(frame.f_globals["__name__"]).rpartition(".")[2]


Row = tuple[Any, ...]


def table(rows: Sequence[Row]) -> Callable[..., None]:
    """Add a case for each row: its title first, then what the body gets beside the API."""

    def register(body: Callable[..., Awaitable[Any]], *definitions: dict[str, Any]) -> None:
        for title, *values in rows:

            async def run(api: Api, values: Sequence[Any] = values) -> None:
                await body(api, *values)

            case(str(title), *definitions)(run)

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
    """Sort the causes of the last response: the real server goes through the members of an object in a random order."""
    body = api.transcript[-1]["body"]
    causes = (body.get("details") or {}).get("causes") if isinstance(body, dict) else None
    if causes and len(causes) > 1:
        causes.sort(key=lambda cause: (cause.get("field", ""), cause["message"]))
        body["message"] = body["message"].partition(" is invalid: ")[0]


def each_once(api: Api) -> None:
    """Leave out of the last response what the real server finds more than once, and sort the causes."""
    body = api.transcript[-1]["body"]
    causes = (body.get("details") or {}).get("causes")
    if causes:
        body["details"]["causes"] = [cause for at, cause in enumerate(causes) if cause not in causes[:at]]
        in_any_order(api)
