"""The page ``/key``: why a key is in its state, its timeline, and its latest reconciles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

import htpy as h
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.controller.wake.reasons import because
from reconciler.manager.console.html import (
    changes_of,
    chip,
    clock,
    error_text,
    facts,
    key_text,
    pill,
    section,
    state_pill,
    table,
    timeline,
)
from reconciler.manager.console.pages.page import Page
from reconciler.manager.console.timeline import run_id, timeline_of
from reconciler.meta.scalars import human_duration

__all__ = ["KEY"]

_SPANS: Mapping[str, float | Literal["all", "reconciles"]] = {
    "all": "all",
    "reconciles": "reconciles",
    "1 h": 3600.0,
    "5 min": 300.0,
    "30 s": 30.0,
}


def _key_query(query: Mapping[str, str]) -> Mapping[str, str]:
    return {name: query.get(name, "") for name in ("controller", "namespace", "name")}


def _key_page(state: JSONObject, query: Mapping[str, str]) -> Node:
    found = [(controller, key) for controller in state["controllers"] for key in controller["keys"]]
    if not found:
        return section("Key", h.p(".calm.quiet")["No controller of this name: ", h.a(href="/keys")["all keys"], "."])
    controller, key = found[0]
    now = datetime.fromisoformat(state["now"])
    drawn = timeline_of(key, now, _SPANS.get(query.get("span", ""), "all"))
    chips = [chip("/key", query, "span", "" if text == "all" else text, text) for text in _SPANS]
    return [
        h.div(".title")[
            h.h1[key_text(key)], h.span(".kind")[f"{controller['kind']} {controller['api_version']}"], state_pill(key)
        ],
        h.ul(".answer")[(h.li(class_=kind)[sentence] for kind, sentence in _answer(state, key, now))],
        section(
            "Timeline",
            timeline(drawn),
            _legend(),
            _beyond(drawn.beyond),
            aside=h.span(".chips")[chips],
        ),
        section("Reconciles", _runs(key, state["now"]), aside="the latest ten"),
        section("Details", _key_facts(controller, key)),
    ]


def _answer(state: JSONObject, key: JSONObject, now: datetime) -> Iterator[tuple[str, Node]]:
    """Yield what a person wants to know first, each with its color."""
    runs = key["runs"]
    if state["role"] != "running":
        yield "warn", f"This process is {state['role']}, so it does not reconcile. Look at the leader."
    if not key["cached"]:
        yield "warn", "The object is not in the cache: it was deleted, or is not watched."
    if "in_progress_seconds" in key:
        seconds = human_duration(key["in_progress_seconds"])
        text = f"A reconcile is in progress for {seconds}, because {because(key.get('current_reasons', []))}."
        yield "busy", [text, changes_of(key.get("current_changes", []))]
    if runs:
        yield from _last(runs[0], now)
    else:
        yield "quiet", "No reconcile of it is remembered."
    yield "quiet", [_next_sentence(key, state["now"]), changes_of(key.get("next_changes", []))]
    if key.get("unsaved_status"):
        yield "warn", "Part of its status could not be written; the next reconcile writes it."


def _last(run: JSONObject, now: datetime) -> Iterator[tuple[str, Node]]:
    ago = human_duration(max(0.0, (now - datetime.fromisoformat(run["started"])).total_seconds()))
    error = run.get("error")
    text = f"It ran last {ago} ago, because {because(run['reasons'])}, and {_outcome(run)}."
    changes = changes_of(run.get("changes", []))
    if error is None:
        yield "good", [text, changes]
    else:
        yield "bad", [text, changes, h.p(".error")[error_text(error)], h.pre["\n".join(error["traceback"])]]


def _outcome(run: JSONObject) -> str:
    if "error" in run:
        return "timed out" if run["error"]["timed_out"] else "failed"
    return "was cancelled by the shutdown" if run["result"] == "cancelled" else "succeeded"


def _next_sentence(key: JSONObject, now: str) -> str:
    waits = f"It waits for {key['waits_for']}."
    if "due_in_seconds" in key:
        at = f", at {clock(key['due'], now)} UTC" if "due" in key else ""
        return f"It runs next in {human_duration(key['due_in_seconds'])}{at}, or when it changes. {waits}"
    return waits


_LEGEND = (
    ("change", "change"),
    ("success", "success"),
    ("error", "error"),
    ("active", "in progress"),
    ("write", "write"),
    ("echo", "own event, dropped"),
    ("retry", "backoff"),
    ("delay", "delay"),
)


def _beyond(seconds: float | None) -> Node:
    if seconds is None:
        return None
    return h.p(".note")[f"The next reconcile, in {human_duration(seconds)}, is beyond the right edge."]


def _legend() -> Node:
    return h.ul(".legend", aria_hidden="true")[(h.li[h.i(class_=kind), text] for kind, text in _LEGEND)]


def _runs(key: JSONObject, now: str) -> Node:
    runs = key["runs"]
    if not runs:
        return h.p(".calm.quiet")["No reconcile of it is remembered."]
    rows = [_run(run, now, runs[index - 1] if index else None) for index, run in enumerate(runs)]
    return h.div(".runs")[table(("Started", "Because", "Took ", "Result", "Writes "), rows, label="Reconciles")]


def _run(run: JSONObject, now: str, above: JSONObject | None) -> Node:
    error = run.get("error")
    same = above is not None and error == above.get("error")
    result: Node = pill(_outcome(run), "bad" if error else "good")
    if "requeue_after_seconds" in run:
        result = [result, f" again after {human_duration(run['requeue_after_seconds'])}"]
    return h.tr(id=run_id(run), class_="failing" if error else None)[
        h.th(scope="row")[clock(run["started"], now), h.span(".fraction")[run["started"][19:23]]],
        h.td(".why")[[[each, h.br] for each in run["reasons"]], changes_of(run.get("changes", []))],
        h.td(".number")[human_duration(run["seconds"])],
        h.td(".wide")[
            result,
            error and (h.span(".note")[" with the same error"] if same else h.p(".error")[error_text(error)]),
            run["changed_meanwhile"] and h.p(".note")["The object changed meanwhile."],
            "reconcile_id" in run and h.p(".note")["reconcile_id ", h.code[run["reconcile_id"]]],
        ],
        h.td(".number.writes")[run["writes"] or ""],
    ]


def _key_facts(controller: JSONObject, key: JSONObject) -> Node:
    return facts(
        (
            ("controller", controller["name"]),
            ("observed version", key.get("observed_version", "none")),
            ("version in the cache", key.get("cached_version", "none")),
            ("reconciles per minute", f"{key['reconciles_per_minute']:g}"),
        )
    )


KEY = Page("/key", "Key", _key_page, _key_query, limit=1, in_navigation=False)
