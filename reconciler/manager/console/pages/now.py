"""The page ``/``: what needs attention, and how the controllers are doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import htpy as h
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.manager.console.html import address, chart, error_text, key_link, key_text, next_text, pill, section
from reconciler.manager.console.pages.page import Page
from reconciler.manager.console.samples import PERIOD, SECONDS

__all__ = ["NOW"]

_CHART = int(SECONDS / PERIOD)


def _now_page(state: JSONObject, _: Mapping[str, str]) -> Node:
    return [
        section("Needs attention", _attention(state)),
        section(
            "Controllers", h.div(".cards")[(_controller(each) for each in state["controllers"])], aside="last 5 minutes"
        ),
    ]


def _attention(state: JSONObject) -> Node:
    items = [*_process_problems(state), *_key_problems(state)]
    if items:
        return h.ul(".attention")[items]
    normal = [wait["text"] for wait in state["waits"]]
    if normal:
        return h.p(".calm.quiet")[f"Waiting: {'; '.join(normal)}."]
    return h.p(".calm")["Nothing fails, and nothing hangs."]


def _process_problems(state: JSONObject) -> Iterator[Node]:
    waiting = [wait["text"] for wait in state["waits"] if not wait["normal"]]
    for text in waiting:
        yield h.li(".bad")[h.div[h.strong["The process waits"]], h.p[text]]
    for each in state["informers"]:
        if each["synced"] and each["error"]:
            yield h.li(".bad")[h.div[h.strong[f"The watch of {each['scope']} fails"]], h.p(".error")[each["error"]]]


def _key_problems(state: JSONObject) -> Iterator[Node]:
    for controller in state["controllers"]:
        for key in controller["keys"]:
            yield _problem(controller, key)
        if controller["keys_left_out"]:
            more = address("/keys", state="failing", controller=controller["name"])
            yield h.li(".more")[h.a(href=more)[f"{controller['keys_left_out']} more of {controller['name']}"]]


def _problem(controller: JSONObject, key: JSONObject) -> Node:
    error = key["runs"][0].get("error") if key["runs"] else None
    hangs = "in_progress_seconds" in key
    kind = "busy" if hangs else "quiet" if "due_in_seconds" in key else "warn"
    return h.li(class_="warn" if hangs else "bad", data_key=f"{controller['name']} {key_text(key)}")[
        h.div[
            h.a(href=key_link(controller, key), data_row=True)[key_text(key)],
            h.span(".kind")[controller["kind"]],
            h.span(".grow"),
            key["failures"] > 1 and h.span[f"{key['failures']} failures in a row"],
            pill(next_text(key), kind),
        ],
        h.p(".error")[error_text(error)]
        if error
        else h.p["It may hang. timeout= of the controller ends such reconciles."],
    ]


def _controller(each: JSONObject) -> Node:
    charts, failing = each["charts"], each["keys_failing"]
    rate, errors, workers = charts["reconciles"], charts["errors"], f"{each['active']} of {each['workers']}"
    return h.article(".card", data_key=each["name"])[
        h.div(".head")[
            h.a(href=address("/keys", controller=each["name"]), data_row=True)[each["name"]],
            h.span(".kind")[f"{each['kind']} {each['api_version']}"],
            h.span(".grow"),
            pill(f"{failing} failing", "bad") if failing else None,
            pill(f"storms: {each['storms']}", "warn") if each["storms"] else None,
        ],
        h.div(".charts")[
            chart("queue", f"{each['ready']}", charts["ready"], _CHART + 1, least=5.0),
            chart("workers", workers, charts["active"], _CHART + 1, least=each["workers"]),
            chart("reconciles / min", _rate(rate), rate, _CHART, kind="good", least=10.0),
            chart("errors / min", _rate(errors), errors, _CHART, kind="bad", least=10.0),
        ],
        h.p(".numbers")[
            f"reconciles: {each['reconciles']}, errors: {each['errors']}, keys waiting for a timer: {each['waiting']}",
        ],
    ]


def _rate(values: list[float]) -> str:
    """Return the mean of the last ten seconds."""
    latest = values[-5:]
    return f"{sum(latest) / len(latest):.3g}" if latest else "0"


NOW = Page("/", "Now", _now_page)
