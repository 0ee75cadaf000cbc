"""Medians, ratios and Markdown tables of samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

Sample = dict[str, Any]

OURS = "kube-reconciler"
OURS_UVLOOP = f"{OURS}, uvloop"
OURS_PATCH = f"{OURS}, patch"
OURS_NOT_ADAPTIVE = f"{OURS}, not adaptive"
OURS_ONE_WORKER = f"{OURS}, one worker"
_LOOPS = {"asyncio": OURS, "uvloop": OURS_UVLOOP}
RUST = "kube-rs"
GO = "controller-runtime, typed"
CEILING = "bare aiohttp"
KOPF = "kopf"
CEILING_PATCH = f"{CEILING}, patch"
CEILING_WATCH = f"{CEILING}, list and watch"

MEMORY = {
    "widgets": "2 KB widgets, cached",
    "widgets_reconciled": "2 KB widgets, reconciled",
    "pods": "3.5 KB pods, cached",
    "pods_reconciled": "3.5 KB pods, reconciled",
}
"""What the memory of is measured: the field of a sample, and how it is called."""

_START = [
    ("wall", "s until synced", ".2f"),
    ("cpu", "CPU s", ".2f"),
    ("server_cpu", "server CPU s", ".2f"),
    ("rss", "RSS MB", ".0f"),
    ("peak", "peak RSS MB", ".0f"),
]

COLUMNS: dict[str, Sequence[tuple[str, str, str]]] = {
    "converge": [
        ("rate", "objects/s", ".0f"),
        ("cpu_per_object", "CPU ms/object", "ms"),
        ("cpu_process", "CPU s, whole process", ".2f"),
        ("peak", "peak RSS MB", ".0f"),
        ("reconciles", "reconciles/object", ".3f"),
        ("status_writes", "status writes/object", ".3f"),
        ("other_writes", "other writes/object", ".3f"),
        ("server_cpu", "server CPU s", ".1f"),
    ],
    "start": _START,
    "start-text": _START,
    "memory": [
        (name + end, title + unit, ".0f")
        for name, title in MEMORY.items()
        for end, unit in (("", ", MB"), ("_peak", ", peak"))
    ],
    "latency": [("p50", "p50 ms", "ms"), ("p99", "p99 ms", "ms"), ("worst", "worst ms", "ms"), ("cpu", "CPU s", ".2f")],
    "backlog": [
        ("p50", "p50 ms", "ms"),
        ("worst", "worst ms", "ms"),
        ("idle_p50", "p50 ms without a backlog", "ms"),
        ("idle_worst", "worst ms without a backlog", "ms"),
        ("ratio_p50", "p50, ratio", ".2f"),
        ("left", "left of the backlog", ".0f"),
    ],
    "neighbors": [
        ("p99", "p99 ms of other clients", "ms"),
        ("idle_p99", "p99 ms without the work", "ms"),
        ("ratio_p99", "p99, ratio", ".2f"),
        ("left", "left of the work", ".0f"),
    ],
    "steady": [
        ("cpu_per_minute", "CPU s/min", ".2f"),
        ("reconciles_per_minute", "reconciles/min", ".0f"),
        ("burst_cpu", "burst: CPU s", ".2f"),
        ("burst_reconciles", "burst: reconciles", ".0f"),
        ("burst_status_writes", "burst: status writes/object", ".3f"),
        ("rss", "RSS MB", ".0f"),
    ],
    "notify": [
        ("rate", "deliveries/s", ".0f"),
        ("deliveries", "deliveries", ".0f"),
        ("status_writes", "status writes/request", ".3f"),
        ("cpu_per_object", "CPU ms/request", "ms"),
    ],
    "heartbeat": [
        ("longest", "longest gap ms", "ms"),
        ("p999", "p99.9 ms", "ms"),
        ("longest_cpu", "longest gap, CPU ms", "ms"),
        ("longest_gc", "longest collection ms", "ms"),
    ],
}

RATIOS: Sequence[tuple[str, str, str, str]] = [
    ("converge", "rate", RUST, "objects per second"),
    ("converge", "rate", GO, "objects per second"),
    ("converge", "rate", CEILING, "objects per second"),
    ("converge", "rate", CEILING_WATCH, "objects per second"),
    ("converge", "rate", KOPF, "objects per second"),
    ("converge", "cpu_per_object", RUST, "CPU per object"),
    ("converge", "cpu_per_object", GO, "CPU per object"),
    ("converge", "cpu_per_object", KOPF, "CPU per object"),
    ("converge", "cpu_per_object", CEILING, "CPU per object"),
    ("converge", "cpu_per_object", CEILING_WATCH, "CPU per object"),
    ("start", "wall", RUST, "time until synced"),
    ("start", "cpu", RUST, "CPU until synced"),
    ("start", "rss", RUST, "RSS of the process"),
    ("start", "wall", GO, "time until synced"),
    ("start", "cpu", GO, "CPU until synced"),
    ("start", "rss", GO, "RSS of the process"),
    ("start", "wall", CEILING, "time until synced"),
    *(("memory", name, peer, f"RSS at rest: {title}") for peer in (RUST, GO) for name, title in MEMORY.items()),
    ("start-text", "wall", GO, "time until synced"),
    ("start-text", "cpu", GO, "CPU until synced"),
    ("start-text", "wall", CEILING, "time until synced"),
    ("latency", "p50", RUST, "p50 latency"),
    ("latency", "p99", RUST, "p99 latency"),
    ("latency", "p50", GO, "p50 latency"),
    ("latency", "p99", GO, "p99 latency"),
    ("backlog", "p50", RUST, "p50 latency of a new object"),
    ("backlog", "p50", GO, "p50 latency of a new object"),
    ("converge", "rate", OURS_NOT_ADAPTIVE, "objects per second"),
    ("backlog", "p50", OURS_NOT_ADAPTIVE, "p50 latency of a new object"),
    ("neighbors", "p99", OURS_NOT_ADAPTIVE, "p99 latency of other clients"),
    ("neighbors", "p99", OURS_ONE_WORKER, "p99 latency of other clients"),
    ("neighbors", "p99", GO, "p99 latency of other clients"),
    ("steady", "cpu_per_minute", RUST, "CPU per minute at rest"),
    ("steady", "cpu_per_minute", GO, "CPU per minute at rest"),
    ("steady", "burst_cpu", GO, "CPU of the burst"),
    ("notify", "rate", CEILING, "deliveries per second"),
]


def median(samples: Iterable[Sample], field: str) -> float:
    """Return the median of a field."""
    return statistics.median(sample[field] for sample in samples)


def pick(samples: Iterable[Sample], **wanted: Any) -> list[Sample]:
    """Return the samples with the wanted values."""
    return [sample for sample in samples if all(sample.get(key) == value for key, value in wanted.items())]


def ratios(samples: Sequence[Sample], work: str, size: int, field: str, other: str, *, ours: str = OURS) -> list[float]:
    """Return ours over the other's, one ratio a repetition."""
    found = []
    for mine in pick(samples, work=work, size=size, contender=ours):
        for theirs in pick(samples, work=work, size=size, contender=other, repetition=mine["repetition"]):
            if theirs[field]:
                found.append(mine[field] / theirs[field])
    return found


def per_further_object(samples: Sequence[Sample], contender: str) -> float | None:
    """Return the bytes of RSS for each object more, from the smallest to the largest cache that was filled."""
    sizes = sorted({sample["size"] for sample in pick(samples, work="start", contender=contender)})
    if len(sizes) < 2:
        return None
    low, high = (
        median(pick(samples, work="start", contender=contender, size=size), "rss") for size in (sizes[0], sizes[-1])
    )
    return (high - low) * 1e6 / (sizes[-1] - sizes[0])


_SUMMARY: dict[str, Sequence[tuple[str, str, str]]] = {
    "converge": [
        ("rate", "objects per second", ".0f"),
        ("cpu_per_object", "CPU ms per object", "ms"),
        ("server_cpu", "API server and etcd, CPU s", ".1f"),
        ("peak", "peak RSS, MB", ".0f"),
    ],
    "start": [
        ("wall", "seconds until synced", ".2f"),
        ("cpu", "CPU s until synced", ".2f"),
        ("rss", "RSS, MB", ".0f"),
    ],
    "memory": [(name, f"RSS, MB: {title}", ".0f") for name, title in MEMORY.items()],
    "latency": [
        ("p50", "ms until a new object has its status, p50", "ms"),
        ("p99", "the same, p99", "ms"),
    ],
    "backlog": [
        ("p50", "ms until a new object has its status, p50", "ms"),
        ("ratio_p50", "the same, compared with no backlog", ".2f"),
    ],
    "steady": [("cpu_per_minute", "CPU s a minute", ".2f")],
}

_TITLES = {
    "converge": "the status of {:,} objects is written",
    "start": "a cache of {:,} objects is filled",
    "memory": "memory: {:,} objects at rest in the cache",
    "latency": "{:,} objects are created, 50 a second",
    "backlog": "{:,} older objects wait for their status",
    "steady": "{:,} keys at rest, 10,000 reconciles a minute without a change",
}


def summary(result: dict[str, Any]) -> str:
    """Return the table that a reader understands in a minute, and what the library costs."""
    samples: list[Sample] = result["samples"]
    peers = (RUST, GO, CEILING_WATCH)
    lines = [
        f"Measured {result['when']} on {result['machine']}.",
        *result.get("notes", ()),
        "",
        f"| | {OURS} | {RUST} | {GO} | bare aiohttp client that lists and watches |",
        "|---|---|---|---|---|",
    ]
    for work, heading in _TITLES.items():
        for size in sorted({sample["size"] for sample in pick(samples, work=work, contender=OURS)}):
            lines.append(f"| **{heading.format(size)}** | | | | |")
            mine = pick(samples, work=work, size=size, contender=OURS)
            for field, title, form in _SUMMARY[work]:
                theirs = [_peer_cell(samples, work, size, field, form, peer) for peer in peers]
                lines.append(f"| {title} | {_cell(mine, field, form)} | {' | '.join(theirs)} |")
    lines += ["", "The lowest and highest values are in parentheses.", "", *_costs(result)]
    return "\n".join(lines)


def _peer_cell(samples: Sequence[Sample], work: str, size: int, field: str, form: str, peer: str) -> str:
    theirs = pick(samples, work=work, size=size, contender=peer)
    if not theirs and peer == CEILING_WATCH:
        theirs = pick(samples, work=work, size=size, contender=CEILING)
        peer = CEILING
    if not theirs:
        return ""
    return f"{_cell(theirs, field, form)}; ratio {_spread(ratios(samples, work, size, field, peer))}"


def _costs(result: dict[str, Any]) -> list[str]:
    """Return what the library costs, per thing that a user counts."""
    samples: list[Sample] = result["samples"]
    parts = result.get("parts", {})
    lines = ["| what it costs you | |", "|---|---|"]
    converged, filled = pick(samples, work="converge", contender=OURS), pick(samples, work="start", contender=OURS)
    resting = pick(samples, work="steady", contender=OURS)
    if converged:
        seconds = median(converged, "cpu_per_object")
        lines.append(f"| 1,000 objects that are reconciled and get a new status | {seconds * 1000:.2f} s of CPU |")
        lines.append(f"| so half of one core carries | {0.5 / seconds:,.0f} such changes a second |")
    if filled and "imports" in parts:
        size = max(sample["size"] for sample in filled)
        empty = _both(parts["imports"], "rss: an operator, configured")
        each = (median(pick(filled, size=size), "rss") - empty) / size * 1000
        lines.append(f"| 1,000 objects of 2 KB in the cache | {each:.1f} MB, beside {empty:.0f} MB for the process |")
    if "decoding" in parts:
        lines.append(f"| a watch event of 2 KB, decoded | {_both(parts['decoding'], 'event: ours'):.1f} µs of CPU |")
    for row in parts.get("queue", ()):
        cost, compared = _queue_cost(row)
        lines.append(
            f"| add, get and done in a queue of {row['count']:,} keys | {cost:.1f} µs of CPU, {compared:.2f} times put "
            "and get of `asyncio.PriorityQueue` |"
        )
    if resting:
        each = median(resting, "cpu_per_minute") / median(resting, "reconciles_per_minute")
        lines.append(f"| a reconcile that changes nothing | {each * 1000:.2f} ms of CPU |")
        lines.append(f"| so half of one core carries | {30 / each:,.0f} of them a minute |")
    if notified := pick(samples, work="notify", contender=OURS):
        rate, writes = median(notified, "rate"), median(notified, "status_writes")
        ratio = _spread(ratios(samples, "notify", notified[0]["size"], "rate", CEILING))
        compared = f"; {ratio} of a bare loop that sends the same two requests" if ratio else ""
        lines.append(
            f"| 1,000 notifications, three channels each | {rate:,.0f} deliveries a second, {writes:.2f} status writes "
            f"each{compared} |"
        )
    if beats := pick(samples, work="heartbeat"):
        longest, size = max(sample["longest_cpu"] for sample in beats), beats[0]["size"]
        lines.append(
            f"| {size:,} objects that are listed, written, resynced or fail | the event loop is held up for "
            f"{longest * 1000:.1f} ms of CPU at most |"
        )
    return lines


def _queue_cost(row: dict[str, Any]) -> tuple[float, float]:
    """Return the CPU µs of a key, and the ratio to asyncio's queue."""
    runs = row["python"]
    return _both(runs, "ours"), statistics.median(run["ours"] / run["asyncio.PriorityQueue"] for run in runs)


def markdown(result: dict[str, Any]) -> str:
    """Return all tables."""
    samples: list[Sample] = result["samples"]
    lines = [f"Measured {result['when']} on {result['machine']}. Medians, and the lowest and the highest value.", ""]
    for work, columns in COLUMNS.items():
        for size in sorted({sample["size"] for sample in pick(samples, work=work)}):
            lines += [*_table(pick(samples, work=work, size=size), work, size, columns), ""]
    lines += [*_ratio_table(samples), ""]
    lines += [*_parts(result.get("parts", {})), ""]
    return "\n".join(lines)


def _table(samples: Sequence[Sample], work: str, size: int, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    rows = {name: [each for each in samples if _row(each) == name] for name in sorted({_row(each) for each in samples})}
    counts = sorted({len(mine) for mine in rows.values()})
    repeats = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    loads = [sample["load"] for sample in samples]
    lines = [
        f"### {work}, {size:,}",
        "",
        f"Repetitions: {repeats}; load average {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "| contender | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, mine in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(mine, field, form) for field, _, form in columns) + " |")
    return lines


def _row(sample: Sample) -> str:
    return f"{sample['contender']}, {sample['phase']}" if "phase" in sample else str(sample["contender"])


def _cell(samples: Sequence[Sample], field: str, form: str) -> str:
    factor, form = (1000.0, ".2f") if form == "ms" else (1.0, form)
    values = sorted(sample[field] * factor for sample in samples)
    middle, low, high = (format(value, form) for value in (statistics.median(values), values[0], values[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def _ratio_table(samples: Sequence[Sample]) -> list[str]:
    loops = {f"on {loop}": name for loop, name in _LOOPS.items() if pick(samples, contender=name)}
    lines = [
        "### Ratios: this library to another, within one repetition",
        "",
        f"| work | of | to | {' | '.join(loops)} |",
        "|---" * (len(loops) + 3) + "|",
    ]
    end = " |" * len(loops)
    for work, field, other, title in RATIOS:
        for size in sorted({sample["size"] for sample in pick(samples, work=work)}):
            cells = [_spread(ratios(samples, work, size, field, other, ours=ours)) for ours in loops.values()]
            if any(cells):
                lines.append(f"| {work}, {size:,} | {title} | {other} | {' | '.join(cells)} |")
    for size in sorted({sample["size"] for sample in pick(samples, work="converge", contender=CEILING_PATCH)}):
        cell = _spread(ratios(samples, "converge", size, "rate", CEILING_PATCH, ours=OURS_PATCH))
        if cell:
            lines.append(
                f"| converge, {size:,}, both with a patch | objects per second | {CEILING_PATCH} | {cell}{end}"
            )
    ours, theirs = per_further_object(samples, OURS), per_further_object(samples, GO)
    if ours and theirs:
        lines.append(
            f"| start | RSS per further object ({ours:.0f} and {theirs:.0f} bytes) | {GO} | {ours / theirs:.2f}{end}"
        )
    return lines


def _spread(found: Sequence[float]) -> str:
    if len(found) < 2:
        return "".join(format(ratio, ".2f") for ratio in found)
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _parts(parts: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if "queue" in parts:
        lines += ["### Queue: add, get and done of one key, µs", ""]
        lines += [
            "| keys | ours (CPU) | asyncio.PriorityQueue, put and get (CPU) | ratio | client-go | controller-runtime |"
        ]
        lines.append("|---|---|---|---|---|---|")
        for row in parts["queue"]:
            (ours, ratio), other = _queue_cost(row), _both(row["python"], "asyncio.PriorityQueue")
            go = [_both(row["go"], name) for name in ("client-go", "controller-runtime")]
            lines.append(f"| {row['count']:,} | {ours:.2f} | {other:.2f} | {ratio:.2f} | {go[0]:.2f} | {go[1]:.2f} |")
    for name, title in (
        ("decoding", "Decoding, CPU: µs per watch event or get, ms per list of 1,000"),
        ("imports", "Imports: CPU s, RSS MB"),
    ):
        if name in parts:
            lines += ["", f"### {title}", "", "| what | median |", "|---|---|"]
            lines += [f"| {key} | {_both(parts[name], key):.3g} |" for key in parts[name][0] if key != "at"]
    return lines


def _both(runs: Sequence[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs) if runs else float("nan")
