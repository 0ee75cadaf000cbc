"""The page ``/keys``: the searchable table of keys."""

from __future__ import annotations

from collections.abc import Mapping

import htpy as h
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.manager.console.html import (
    chip,
    clock,
    error_text,
    key_link,
    key_text,
    next_text,
    section,
    state_pill,
    table,
)
from reconciler.manager.console.pages.page import Page

__all__ = ["KEYS"]

_STATES = ("failing", "in progress", "ready", "waiting", "idle")

_COLUMNS = ("Key", "State", "Last reconcile", "Result", "Next", "Failures ", "Per minute ")

_RESULTS = {"requeue": "again", "requeue_after": "success"}


def _keys_query(query: Mapping[str, str]) -> Mapping[str, str]:
    wanted = {name: query[name] for name in ("controller", "state") if query.get(name)}
    return wanted | ({"search": query["q"]} if query.get("q") else {})


def _keys_page(state: JSONObject, query: Mapping[str, str]) -> Node:
    rows = [_row(controller, key, state["now"]) for controller in state["controllers"] for key in controller["keys"]]
    left_out = sum(controller["keys_left_out"] for controller in state["controllers"])
    forgotten = sum(controller["keys_forgotten"] for controller in state["controllers"])
    return section(
        "Keys",
        h.form("#search", method="get", role="search")[
            h.input(
                type="search",
                name="q",
                value=query.get("q", ""),
                placeholder="namespace/name",
                aria_label="Search keys",
                autocomplete="off",
                spellcheck="false",
                maxlength="300",
            ),
            query.get("controller") and h.input(type="hidden", name="controller", value=query["controller"]),
            query.get("state") and h.input(type="hidden", name="state", value=query["state"]),
            h.button["Search"],
        ],
        h.p(".chips")[
            chip("/keys", query, "state", "", "all"),
            [chip("/keys", query, "state", each, each) for each in _STATES],
            query.get("controller") and chip("/keys", query, "controller", "", f"{query['controller']}, clear"),
        ],
        h.div(".keys")[table(_COLUMNS, rows, label="Keys")] if rows else h.p(".calm.quiet")["No key matches."],
        h.p(".note")[
            left_out > 0 and f"{left_out} more keys match: narrow the search. ",
            forgotten > 0 and f"The reconciles of {forgotten} idle keys were forgotten.",
        ],
    )


def _row(controller: JSONObject, key: JSONObject, now: str) -> Node:
    run = key["runs"][0] if key["runs"] else None
    error = run and run.get("error")
    return h.tr(data_key=f"{controller['name']} {key_text(key)}", class_="failing" if error else None)[
        h.th(scope="row")[
            h.a(href=key_link(controller, key), data_row=True)[key_text(key)], h.span(".kind")[controller["kind"]]
        ],
        h.td[state_pill(key)],
        h.td[run and f"{clock(run['started'], now)} UTC"],
        h.td(".cut")[
            h.span(".error", title=error.get("message"))[error_text(error)]
            if error
            else run and _RESULTS.get(run["result"], run["result"])
        ],
        h.td[next_text(key)],
        h.td(".number")[key["failures"] or ""],
        h.td(".number")[f"{key['reconciles_per_minute']:g}"],
    ]


KEYS = Page("/keys", "Keys", _keys_page, _keys_query, limit=100)
