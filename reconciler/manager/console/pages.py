"""The pages of the console: what needs attention, the keys, one key, and the process.

Each is a `Page`: a path, a title, and a function that makes HTML of the state of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import htpy as h
import msgspec
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.controller.wake.reasons import because
from reconciler.manager.console.html import (
    address,
    changes_of,
    chart,
    chip,
    clock,
    error_text,
    facts,
    key_link,
    key_text,
    next_text,
    number,
    outcome_text,
    pill,
    place_text,
    reconciles,
    section,
    state_pill,
    table,
    timeline,
)
from reconciler.manager.console.state import PERIOD, SECONDS
from reconciler.manager.console.timeline import timeline_of
from reconciler.manager.endpoints.keys import rate_text, reasons_text, since_text
from reconciler.meta.documents import human_duration


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the console.

    Attributes:
        path: its path, such as ``"/receivers"``.
        title: its title, also in the navigation.
        body: returns its content as an htpy node, from the state of the process and the query of the request. It is
            called every second while somebody looks, on the event loop, so it must be quick.
        query: returns which keys the state has, for the query of the request; see `read_document`. Default: those that
            fail or hang.
        limit: the number of keys per controller. Default 20.
        in_navigation: whether the navigation has it. Default True.
    """

    path: str
    title: str
    body: Callable[[JSONObject, Mapping[str, str]], Node]
    query: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {"state": "attention"}
    limit: int = 20
    in_navigation: bool = True


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
    for wait in state["waits"]:
        if not wait.get("normal"):
            yield h.li(".bad")[h.div[h.strong["The process waits"]], h.p[wait["text"]]]

    for controller in state["controllers"]:
        for text in controller.get("attention", []):
            yield h.li(".warn")[h.div[h.strong[controller["name"]]], h.p[f"{text}."]]


def _key_problems(state: JSONObject) -> Iterator[Node]:
    for controller in state["controllers"]:
        for key in controller["keys"]:
            yield _problem(controller, key)
        if controller["keys_left_out"]:
            more = address("/keys", state="failing", controller=controller["name"])
            yield h.li(".more")[h.a(href=more)[f"{controller['keys_left_out']} more of {controller['name']}"]]


def _problem(controller: JSONObject, key: JSONObject) -> Node:
    error = key["runs"][0].get("error") if key["runs"] else None
    kind = "busy" if "in_progress_seconds" in key else "quiet" if "due_in_seconds" in key else "warn"
    return h.li(class_="bad" if error else "warn", data_key=f"{controller['name']} {key_text(key)}")[
        h.div[
            h.a(href=key_link(controller, key), data_row=True)[key_text(key)],
            h.span(".kind")[controller["kind"]],
            h.span(".grow"),
            key["failures"] > 1 and h.span[f"{key['failures']} failures in a row"],
            pill(next_text(key), kind),
        ],
        error and h.p(".error")[error_text(error)],
        [h.p[each] for each in key.get("attention", [])],
        key.get("stuck") and h.p(".note")["timeout= of the controller ends such reconciles."],
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
            pill(f"{each['unhealthy']} not healthy", "warn") if each["unhealthy"] else None,
        ],
        h.div(".charts")[
            chart("queue", f"{each['ready']:,}", charts["ready"], _CHART + 1, SECONDS, least=5.0),
            chart("workers", workers, charts["active"], _CHART + 1, SECONDS, least=each["workers"]),
            chart("reconciles / min", _rate(rate), rate, _CHART, SECONDS, kind="good", least=10.0),
            chart("errors / min", _rate(errors), errors, _CHART, SECONDS, kind="bad", least=10.0),
        ],
        h.p(".numbers")[
            f"reconciles: {each['reconciles']:,}, errors: {each['errors']:,}, ",
            f"keys waiting for a timer: {each['waiting']:,}, ",
            f"objects: {each['objects']:,}, tight loops so far: {each['storms']:,}",
        ],
    ]


def _rate(values: list[float]) -> str:
    """Return the mean of the last ten seconds."""
    latest = values[-5:]
    return number(sum(latest) / len(latest)) if latest else "0"


NOW = Page("/", "Now", _now_page)


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
        h.td(".number")[number(key["reconciles_per_minute"])],
    ]


KEYS = Page("/keys", "Keys", _keys_page, _keys_query, limit=100)


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
        section("Timeline", timeline(drawn), _legend(), _beyond(drawn.beyond), aside=h.span(".chips")[chips]),
        key.get("status") and section("Status", _status(key["status"], now)),
        section("Reconciles", reconciles(key["runs"], state["now"]), aside="the latest ten"),
        section("Details", _key_facts(controller, key)),
    ]


def _answer(state: JSONObject, key: JSONObject, now: datetime) -> Iterator[tuple[str, Node]]:
    """Yield what a person wants to know first, each with its color."""
    runs = key["runs"]
    if state["role"] != "running":
        yield "warn", f"This process is {state['role']}, so it does not reconcile."
    for wait in state["waits"]:
        yield "quiet" if wait.get("normal") else "bad", f"The process waits: {wait['text'].rstrip('.')}."
    if not key["cached"]:
        yield "warn", "The object is not in the cache: it was deleted, or is not watched."
    if "in_progress_seconds" in key:
        seconds = human_duration(key["in_progress_seconds"])
        text = f"A reconcile is in progress for {seconds}, because {because(key.get('current_reasons', []))}."
        frames = key.get("place", {}).get("frames", [])
        yield (
            "bad" if key.get("stuck") else "busy",
            [
                text,
                h.p[f"It is {place_text(key)}."],
                len(frames) > 1 and h.pre["\n".join(frames)],
                changes_of(key.get("current_changes", [])),
            ],
        )
    if runs:
        yield from _last(runs[0], now)
    else:
        yield "quiet", "No reconcile of it is remembered."
    yield "quiet", [_next_sentence(key, state["now"]), changes_of(key.get("next_changes", []))]
    for each in key.get("attention", []):
        yield "warn", f"Needs attention: {each}"
    if key.get("own_writes"):
        yield "warn", f"Its own write of {', '.join(key['own_writes'])} enqueues it again."
    if key.get("unsaved_status"):
        yield "warn", "Part of its status could not be written; the next reconcile writes it."


def _last(run: JSONObject, now: datetime) -> Iterator[tuple[str, Node]]:
    ago = human_duration(max(0.0, (now - datetime.fromisoformat(run["started"])).total_seconds()))
    error = run.get("error")
    text = f"It ran last {ago} ago, because {because(run['reasons'])}, and {outcome_text(run)}."
    changes = changes_of(run.get("changes", []))
    if error is None:
        yield "good", [text, changes]
    else:
        yield "bad", [text, changes, h.p(".error")[error_text(error)], h.pre["\n".join(error["traceback"])]]


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


def _status(status: JSONObject, now: datetime) -> Node:
    """Return the conditions of an object as a table, and the rest of its status as JSON."""
    found = status.get("conditions")
    conditions = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    rest = {name: value for name, value in status.items() if name != "conditions" or not conditions}
    rows = [
        h.tr[
            h.th(scope="row")[str(each.get("type"))],
            h.td[str(each.get("status"))],
            h.td[since_text(each.get("lastTransitionTime"), now)],
            h.td[str(each.get("reason", ""))],
            h.td(".wide")[str(each.get("message", ""))],
        ]
        for each in conditions
    ]
    return [
        rows and table(("Condition", "Status", "Since", "Reason", "Message"), rows, label="Conditions"),
        rest and h.pre[msgspec.json.format(msgspec.json.encode(rest), indent=2).decode()],
    ]


def _key_facts(controller: JSONObject, key: JSONObject) -> Node:
    return facts(
        (
            ("controller", controller["name"]),
            ("observed version", key.get("observed_version", "none")),
            ("version in the cache", key.get("cached_version", "none")),
            ("reconciles", rate_text(key["reconciles_per_minute"])),
            ("reasons", reasons_text(key.get("reasons", {})) or "none"),
        )
    )


KEY = Page("/key", "Key", _key_page, _key_query, limit=1, in_navigation=False)


def _process_page(state: JSONObject, _: Mapping[str, str]) -> Node:
    lease, shard = state["lease"], state["shard"]
    return [
        section(
            "Process",
            facts(
                (
                    ("state", state["role"]),
                    ("version", state["version"]),
                    ("cluster", state["cluster"]),
                    ("namespaces", "all" if state["namespaces"] is None else ", ".join(state["namespaces"])),
                    ("shard", None if shard is None else ", ".join(f"{name} {value}" for name, value in shard.items())),
                )
            ),
        ),
        section("Leader election", _lease(lease) if lease else h.p(".calm.quiet")["None: every replica reconciles."]),
        section("Informers", _informers(state["informers"])),
    ]


def _lease(lease: JSONObject) -> Node:
    return facts(
        (
            ("lease", lease["name"]),
            (
                "this process",
                [
                    lease["identity"],
                    " ",
                    pill("leads" if lease["leading"] else "standby", "good" if lease["leading"] else "quiet"),
                ],
            ),
            ("holder", lease["holder"] or "nobody"),
            ("held until", lease["held_until"] and f"{clock(lease['held_until'])} UTC"),
        )
    )


def _informers(informers: list[JSONObject]) -> Node:
    if not informers:
        return h.p(".calm.quiet")["No kind is watched."]
    columns = ("Kind", "State", "Lag", "Objects ", "Size ", "Events ", "Lists ", "Failures ", "Version ")
    return table(columns, map(_informer, informers), label="Informers")


def _informer(each: JSONObject) -> Node:
    state = pill("synced", "good") if each["synced"] else pill("listing", "warn")
    return h.tr[
        h.th(scope="row")[each["scope"], each["error"] and h.p(".error")[each["error"]]],
        h.td[pill("failing", "bad") if each["error"] else state],
        h.td[_lag(each)],
        h.td(".number")[f"{each['objects']:,}", f" ({each['unreadable']} unreadable)" if each["unreadable"] else None],
        h.td(".number")[
            _bytes(each["bytes"]), each["held_bytes"] < each["bytes"] and f", {_bytes(each['held_bytes'])} held"
        ],
        h.td(".number")[f"{each['events']:,}"],
        h.td(".number")[each["lists"]],
        h.td(".number")[each["failures"] or ""],
        h.td(".number")[each["version"] or ""],
    ]


def _lag(each: JSONObject) -> str:
    if not each["synced"]:
        return "not listed"
    silent = each["silent_seconds"]
    heard = "" if silent is None else f"heard {human_duration(silent)} ago"
    writes = each["unconfirmed_writes"]
    return f"{writes} own writes behind; {heard}" if writes else heard


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


PROCESS = Page("/process", "Process", _process_page, lambda _: {}, limit=0)
