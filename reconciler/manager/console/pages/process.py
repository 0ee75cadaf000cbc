"""The page ``/process``: leadership, the shard, and the informers."""

from __future__ import annotations

from collections.abc import Mapping

import htpy as h
from htpy import Node

from reconciler._core.wire import JSONObject
from reconciler.manager.console.html import clock, facts, pill, section, table
from reconciler.manager.console.pages.page import Page
from reconciler.meta.scalars import human_duration

__all__ = ["PROCESS"]


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
        h.td(".number")[_bytes(each["bytes"])],
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
