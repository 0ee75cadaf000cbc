"""The HTML that all pages of the console share, and the page of recorded reconciles: frames, charts, timelines, tables.

Everything that is not a tag here is text: htpy escapes it. Nothing is styled inline, which the Content-Security-Policy
would refuse; sizes in drawings are attributes of SVG.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from urllib.parse import urlencode

import htpy as h
import msgspec
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.controller.reconcile.watchdogs import CodePlace
from reconciler.manager.console.timeline import Mark, Timeline, run_id, timeline_of
from reconciler.meta.documents import human_duration

Navigation = Sequence[tuple[str, str]]
"""Path and title of the pages in the navigation."""

_KEYS_OF_KEYBOARD = (
    ("/", "search"),
    ("j k", "next and previous row"),
    ("Enter", "open"),
    ("p", "pause and continue"),
    ("?", "this help"),
)


def document(state: JSONObject, title: str, path: str, navigation: Navigation, body: Node) -> h.Element:
    """Return a whole page."""
    links = [
        h.a(href=href, aria_current="page" if href == path else None, data_nav=str(number))[name]
        for number, (href, name) in enumerate(navigation, 1)
    ]
    return h.html(lang="en")[
        h.head[
            h.meta(charset="utf-8"),
            h.meta(name="viewport", content="width=device-width, initial-scale=1"),
            h.meta(name="color-scheme", content="light dark"),
            h.title[f"{title} · reconciler"],
            h.link(rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            h.link(rel="stylesheet", href="/static/console.css"),
            h.script(src="/static/console.js", defer=True),
        ],
        h.body[
            h.a(".skip", href="#main")["Skip to the content"],
            h.header[
                h.a(".brand", href="/")[h.img(src="/static/icon.svg", alt="", width="22", height="22"), "reconciler"],
                h.nav(aria_label="Pages")[links],
                h.span(".grow"),
                _role(state),
                h.button("#live", type="button", hidden=True, title="Pause or continue (p)")["live"],
            ],
            h.main("#main", tabindex="-1")[body],
            h.footer[
                h.span[f"kube-reconciler {state['version']}"],
                h.span[f"cluster {state['cluster']}"],
                h.time(datetime=state["now"])[f"{clock(state['now'])} UTC"],
                h.button("#help-button", type="button", hidden=True)[h.kbd["?"], " keyboard"],
            ],
            h.dialog("#help", aria_label="Keyboard")[
                h.h2["Keyboard"],
                h.dl[
                    _help(" ".join(str(number) for number, _ in enumerate(navigation, 1)), "pages"),
                    (_help(keys, text) for keys, text in _KEYS_OF_KEYBOARD),
                ],
                h.form(method="dialog")[h.button["Close"]],
            ],
        ],
    ]


def _help(keys: str, text: str) -> Node:
    return [h.dt[[[h.kbd[each], " "] for each in keys.split()]], h.dd[text]]


def _role(state: JSONObject) -> Node:
    role, shard = state["role"], state["shard"]
    leads = role == "running" and shard is None and state["lease"] is not None
    kind = {"running": "good", "standby": "quiet"}.get(role, "warn")
    name = None if shard is None else "shard " + "/".join(str(value) for value in shard.values())
    return [pill("leader" if leads else role, kind), name and pill(name, "quiet")]


def pill(text: str, kind: str) -> h.Element:
    """Return a short text with a color: ``good``, ``bad``, ``warn``, ``busy`` or ``quiet``."""
    return h.span(class_=f"pill {kind}")[text]


def section(title: str, *content: Node, aside: Node = None) -> h.Element:
    """Return a part of a page with a heading."""
    return h.section[h.div(".head")[h.h2[title], h.span(".grow"), aside], content]


def state_pill(key: JSONObject) -> h.Element:
    """Return the state of a key with its color."""
    kind = {"in progress": "busy", "ready": "warn"}.get(key["state"], "quiet")
    return pill(key["state"], kind)


def next_text(key: JSONObject) -> str:
    """Return when a key is reconciled next."""
    if "in_progress_seconds" in key:
        return f"in progress for {human_duration(key['in_progress_seconds'])}"
    if "ready_seconds" in key:
        return "ready"
    if "due_in_seconds" in key:
        return f"next in {human_duration(key['due_in_seconds'])}"
    return "not retried" if key["runs"] and "error" in key["runs"][0] else "after a change"


def place_text(key: JSONObject) -> str:
    """Return where a key in progress is."""
    return f"at {msgspec.convert(key.get('place', {}), CodePlace)}"


def address(path: str, /, **query: str) -> str:
    """Return the address of a page with a query."""
    return f"{path}?{urlencode(query, errors='replace')}"


def chip(path: str, query: Mapping[str, str], name: str, value: str, text: str) -> Node:
    """Return a link to the same page with another value in the query; no value omits the name."""
    wanted = {each: text for each, text in {**query, name: value}.items() if text}
    return h.a(".chip", href=address(path, **wanted), aria_current="true" if query.get(name, "") == value else None)[
        text
    ]


def facts(pairs: Iterable[tuple[str, Node]]) -> h.Element:
    """Return names with values; those without a value are left out."""
    return h.dl(".facts")[([h.dt[name], h.dd[value]] for name, value in pairs if value is not None)]


def table(columns: Sequence[str], rows: Iterable[Node], *, label: str) -> h.Element:
    """Return a table; a column whose name ends with a space is one of numbers."""
    heads = [h.th(scope="col", class_="number" if name.endswith(" ") else None)[name.strip()] for name in columns]
    return h.div(".scroll", tabindex="0", role="region", aria_label=label)[h.table[h.thead[h.tr[heads]], h.tbody[rows]]]


def error_text(error: JSONObject) -> Node:
    """Return the class and the message of an error."""
    return [h.strong[error["type"]], f": {error['message']}" if error.get("message") else None]


def changes_of(changes: Sequence[JSONObject]) -> Node:
    """Return the changes that woke a key: the object, its fields with their values, and who wrote them."""
    return [h.div(".diff")[_change(change)] for change in changes]


def _change(change: JSONObject) -> Node:
    fields = change["fields"]
    writers = {tuple(field.get("managers", ())) for field in fields} or {tuple(change.get("managers", ()))}
    common = writers.pop() if len(writers) == 1 else ()
    return [h.p[f"{change['kind']} {key_text(change)} was {change['type']}", _by(common)], _fields(change, common)]


def _fields(change: JSONObject, common: Sequence[str] | None) -> Node:
    """Return the fields of a change, with those who wrote them unless that is told already."""
    fields, more = change["fields"], change.get("fields_left_out")
    return [
        h.ul[
            (
                h.li[h.code[field["path"]], " ", _values(field), None if common else _by(field.get("managers", ()))]
                for field in fields
            )
        ],
        (f"and {more} more fields" if fields else "its fields are nested too deeply") if more else None,
    ]


def _by(managers: Sequence[str]) -> Node:
    return [" by ", h.strong[" or ".join(managers)]] if managers else None


def _values(field: JSONObject) -> Node:
    before, after = field.get("before"), field.get("after")
    if before is None and after is None:
        return f"was {field['change']}"
    return [before and h.del_[before], " ", after and h.ins[after]]


def clock(time: str, now: str | None = None) -> str:
    """Return the time of day of a time in the document, after the date if that of now is another one."""
    return time[11:19] if now is None or time[:10] == now[:10] else f"{time[:10]} {time[11:19]}"


def key_text(key: JSONObject) -> str:
    """Return ``namespace/name``, or the name alone."""
    return f"{key['namespace']}/{key['name']}" if "namespace" in key else str(key["name"])


def key_link(controller: JSONObject, key: JSONObject) -> str:
    """Return the address of a key's page."""
    return address("/key", controller=controller["name"], namespace=key.get("namespace", ""), name=key["name"])


def number(value: float) -> str:
    """Return a number for people: ``"12,300"``, ``"4.5"``, ``"0"``."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def chart(
    title: str, now: str, values: Sequence[float], size: int, seconds: float, *, kind: str = "", least: float = 1.0
) -> h.Element:
    """Return a small chart with its axes: from 0 to the highest value, and from some seconds ago to now.

    Args:
        title: what it shows.
        now: the present value, as text.
        values: oldest first; the last one is drawn at the right edge.
        size: how many values fill the width.
        seconds: the time that fills the width.
        kind: its color; see `pill`.
        least: the value that the height shows at least.
    """
    top = max([least, *values])
    values = values[-size:]
    points = [(size - len(values) + at, round(30 - 28 * value / top, 1)) for at, value in enumerate(values)]
    line = " ".join(f"{x},{y}" for x, y in points)
    return h.figure(class_=f"chart {kind}")[
        h.figcaption[h.span[title], h.strong[now]],
        h.svg(viewBox=f"0 0 {size - 1} 31", preserveAspectRatio="none", role="img", aria_label=f"{title}: {now}")[
            h.line(".base", x1="0", x2=str(size - 1), y1="2", y2="2"),
            h.line(".base", x1="0", x2=str(size - 1), y1="30.5", y2="30.5"),
            [h.polygon(points=f"{points[0][0]},31 {line} {points[-1][0]},31"), h.polyline(points=line)]
            if points
            else None,
        ],
        h.span(".top")[number(top)],
        h.div(".axis")[h.span[f"{human_duration(seconds)} ago"], h.span["now"]],
    ]


_LANES = ("woken by", "reconciles", "writes", "waits")
_LANE_HEIGHT = 46
_BAR = (22, 12)  # of a lane: the upper end of its bars, and their height


def timeline(drawn: Timeline) -> h.Element:
    """Return a drawing of a timeline. A mark of a reconcile links to its row, whose id is its `run_id`."""
    bottom = len(_LANES) * _LANE_HEIGHT + 6

    def x(at: float) -> str:
        return f"{100 * drawn.place(at):.3f}%"

    def shape(mark: Mark) -> h.Element:
        upper = _LANES.index(mark.lane) * _LANE_HEIGHT + _BAR[0]
        kind = f"mark {mark.kind}"
        if mark.lane in ("woken by", "writes") or mark.kind == "next":
            drawing = h.circle(class_=kind, cx=x(mark.start), cy=str(upper + 6), r="5")[h.title[mark.text]]
        else:
            gap = 0.1 if mark.lane == "waits" else 0.0
            # A width of 0 would not be drawn; the border of a reconcile makes it visible.
            width = max(0.01, 100 * (drawn.place(mark.end) - drawn.place(mark.start)) - 2 * gap)
            left = f"{100 * drawn.place(mark.start) + gap:.3f}%"
            drawing = h.rect(class_=kind, x=left, y=str(upper), width=f"{width:.3f}%", height=str(_BAR[1]))[
                h.title[mark.text]
            ]
        return drawing if mark.run is None else h.a(href=f"#{mark.run}", aria_label=mark.text)[drawing]

    lanes = [
        [
            h.text(".lane", x="0", y=str(at * _LANE_HEIGHT + 14))[name],
            h.line(".lane", x1="0", x2="100%", y1=str(at * _LANE_HEIGHT + 28), y2=str(at * _LANE_HEIGHT + 28)),
        ]
        for at, name in enumerate(_LANES)
    ]
    ticks = [
        [
            h.line(".tick", x1=x(tick.at), x2=x(tick.at), y1="0", y2=str(bottom)),
            h.text(class_="tick" if at % 2 else "tick odd", x=x(tick.at), y=str(bottom + 16))[tick.label],
        ]
        for at, tick in enumerate(drawn.ticks)
        if 0.04 < drawn.place(tick.at) < 0.97
    ]
    drawing = h.svg(width="100%", height=str(bottom + 22), role="group", aria_label="Timeline")[
        h.defs[
            h.pattern("#hatch", width="6", height="6", patternUnits="userSpaceOnUse", patternTransform="rotate(45)")[
                h.rect(width="6", height="6", class_="hatch-ground"), h.line(x1="0", y1="0", x2="0", y2="6")
            ]
        ],
        drawn.end > 0
        and h.rect(".future", x=x(0.0), y="0", width=f"{100 * (1 - drawn.place(0.0)):.3f}%", height=str(bottom)),
        ticks,
        lanes,
        [shape(mark) for mark in sorted(drawn.marks, key=lambda mark: mark.lane != "waits")],
        drawn.end > 0
        and [h.line(".now", x1=x(0.0), x2=x(0.0), y1="0", y2=str(bottom)), h.text(".now", x=x(0.0), y="12")["now"]],
    ]
    return h.div(".timeline")[drawing]


def outcome_text(run: JSONObject) -> str:
    """Return how a reconcile ended."""
    if "error" in run:
        return "timed out" if run["error"]["timed_out"] else "failed"
    return "was cancelled by the shutdown" if run["result"] == "cancelled" else "succeeded"


def reconciles(runs: Sequence[JSONObject], now: str | None = None) -> Node:
    """Return a table of reconciles, the latest first; with what they wrote if that was recorded."""
    if not runs:
        return h.p(".calm.quiet")["No reconcile of it is remembered."]
    rows = [_reconcile(run, now, runs[index - 1] if index else None) for index, run in enumerate(runs)]
    columns = ("Started", "Because", "Took ", "Result", "Writes" if "written" in runs[0] else "Writes ")
    return h.div(".runs")[table(columns, rows, label="Reconciles")]


def _reconcile(run: JSONObject, now: str | None, above: JSONObject | None) -> Node:
    error = run.get("error")
    same = above is not None and error == above.get("error")
    result: Node = pill(outcome_text(run), "bad" if error else "good")
    fraction = f"{datetime.fromisoformat(run['started']):.%f}"[:4]
    if "requeue_after_seconds" in run:
        result = [result, f" again after {human_duration(run['requeue_after_seconds'])}"]
    return h.tr(id=run_id(run), class_="failing" if error else None)[
        h.th(scope="row")[clock(run["started"], now), h.span(".fraction")[fraction]],
        h.td(".why")[[[each, h.br] for each in run["reasons"]], changes_of(run.get("changes", []))],
        h.td(".number")[human_duration(run["seconds"])],
        h.td(".wide")[
            result,
            error and (h.span(".note")[" with the same error"] if same else h.p(".error")[error_text(error)]),
            run["changed_meanwhile"] and h.p(".note")["The object changed meanwhile."],
            "reconcile_id" in run and h.p(".note")["reconcile_id ", h.code[run["reconcile_id"]]],
        ],
        h.td(".wide")[map(_write, run["written"])] if "written" in run else h.td(".number.writes")[run["writes"] or ""],
    ]


def _write(write: JSONObject) -> Node:
    change = {"fields": [], **write}
    return h.div(".diff")[h.p[f"{write['method']} {write['path']}"], _fields(change, None)]


_STYLE = "the style"
"""Stands for the style, which htpy would escape."""


def whole_page(title: str, body: h.Node) -> str:
    """Return a page with the console's style, as HTML in one file that needs no server."""
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
    return str(page).replace(_STYLE, style, 1)  # a plain string: that of htpy would escape the style


def recorded_page(keys: Sequence[tuple[str, JSONObject, datetime]]) -> str:
    """Return the page of recorded reconciles.

    Args:
        keys: for each object a title, the key as in ``/debug/keys`` with its recorded reconciles, and the last time.
    """
    return whole_page("Recorded reconciles", [_key(*each) for each in keys])


def _key(title: str, key: JSONObject, latest: datetime) -> list[h.Node]:
    return [
        h.div(".title")[h.h1[title]],
        section("Timeline", timeline(timeline_of(key, latest, "reconciles"))),
        section("Reconciles", reconciles(key["runs"])),
    ]
