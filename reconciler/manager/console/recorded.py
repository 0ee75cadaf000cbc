"""Pages in one file, which need no server: timelines as the console draws them, of recorded reconciles and reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import resources

import htpy as h

from reconciler._core.wire import JSONObject
from reconciler.manager.console.html import changes_of, clock, error_text, section, table, timeline
from reconciler.manager.console.timeline import run_id, timeline_of
from reconciler.meta.documents import human_duration

_STYLE = "the style"
"""Stands for the style, which htpy would escape."""


def whole_page(title: str, body: h.Node) -> str:
    """Return a page with the console's style, as HTML."""
    style = resources.files("reconciler.manager.console").joinpath("static/console.css").read_text(encoding="utf-8")
    page = str(
        h.html(lang="en")[
            h.head[
                h.meta(charset="utf-8"),
                h.meta(name="viewport", content="width=device-width, initial-scale=1"),
                h.meta(name="color-scheme", content="light dark"),
                h.title[title],
                h.style[_STYLE],
            ],
            h.body[h.main[body]],
        ]
    )
    return "<!doctype html>" + page.replace(_STYLE, style, 1)


def recorded_page(keys: Sequence[tuple[str, JSONObject, datetime]]) -> str:
    """Return the page of recorded reconciles.

    Args:
        keys: for each object a title, the key as in ``/debug/keys`` with its recorded reconciles, and the last time.
    """
    return whole_page("Recorded reconciles", [_key(*each) for each in keys])


def _key(title: str, key: JSONObject, latest: datetime) -> list[h.Node]:
    drawn = timeline_of(key, latest, "reconciles")
    rows = [_run(run) for run in key["runs"]]
    columns = ("Started", "Because", "Took ", "Result", "Writes")
    return [
        h.div(".title")[h.h1[title]],
        section("Timeline", timeline(drawn)),
        section("Reconciles", h.div(".runs")[table(columns, rows, label="Reconciles")]),
    ]


def _run(run: JSONObject) -> h.Node:
    error = run.get("error")
    return h.tr(id=run_id(run), class_="failing" if error else None)[
        h.th(scope="row")[clock(run["started"]), h.p(".note")[h.code[run["reconcile_id"]]]],
        h.td(".why")[[[each, h.br] for each in run["reasons"]], changes_of(run.get("changes", []))],
        h.td(".number")[human_duration(run["seconds"])],
        h.td(".wide")[h.p(".error")[error_text(error)] if error else run["result"]],
        h.td(".wide")[[_write(each) for each in run["written"]]],
    ]


def _write(write: JSONObject) -> h.Node:
    fields = [f"{each['path']}: {each.get('before', '')} → {each.get('after', '')}" for each in write.get("fields", ())]
    return [h.p[f"{write['method']} {write['path']}"], [[h.code[each], h.br] for each in fields]]
