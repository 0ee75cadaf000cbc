"""Plots of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.report import MEMORY, OURS, Sample, pick

_FIELDS = {
    "converge": [
        ("rate", "objects per second", 1.0),
        ("cpu_per_object", "CPU ms per object", 1e3),
        ("peak", "peak RSS, MB", 1.0),
    ],
    "start": [("wall", "seconds until synced", 1.0), ("cpu", "CPU seconds", 1.0), ("rss", "RSS, MB", 1.0)],
    "memory": [(name, f"{title}: RSS, MB", 1.0) for name, title in MEMORY.items()],
    "latency": [("p50", "p50, ms", 1e3), ("p99", "p99, ms", 1e3)],
    "steady": [("cpu_per_minute", "CPU seconds per minute", 1.0), ("burst_cpu", "CPU seconds of the burst", 1.0)],
}


def draw(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write one SVG a work into a directory, and the queue's; return their paths."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
    samples: list[Sample] = result["samples"]
    paths = [_bars(samples, work, directory) for work in _FIELDS if pick(samples, work=work)]
    if "queue" in result.get("parts", {}):
        paths.append(_queue(result["parts"]["queue"], directory))
    return paths


def _bars(samples: Sequence[Sample], work: str, directory: Path) -> Path:
    from matplotlib.figure import Figure

    size = max(sample["size"] for sample in pick(samples, work=work))
    chosen = pick(samples, work=work, size=size)
    names = sorted({sample["contender"] for sample in chosen}, key=lambda name: (name != OURS, name), reverse=True)
    fields = _FIELDS[work]
    figure = Figure(figsize=(4 * len(fields), 0.45 * len(names) + 1.3), layout="constrained")
    for axes, (field, title, factor) in zip(figure.subplots(1, len(fields), sharey=True), fields, strict=True):
        for place, name in enumerate(names):
            values = sorted(sample[field] * factor for sample in pick(chosen, contender=name))
            middle = values[len(values) // 2]
            axes.barh(place, middle, color="tab:blue" if name == OURS else "tab:gray")
            axes.plot([values[0], values[-1]], [place, place], color="black", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(names)), names)
    figure.suptitle(f"{work}, {size:,} objects: median, and the span of all repetitions", fontsize=10)
    return _save(figure, directory / f"{work}.svg")


def _queue(rows: Sequence[dict[str, Any]], directory: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for source, name, title in (
        ("python", "ours", OURS),
        ("python", "asyncio.PriorityQueue", "asyncio.PriorityQueue, put and get"),
        ("go", "client-go", "client-go"),
        ("go", "controller-runtime", "controller-runtime, priority queue"),
    ):
        points = [(row["count"], sorted(run[name] for run in row[source])) for row in rows if row[source]]
        if points:
            axes.plot([x for x, _ in points], [ys[len(ys) // 2] for _, ys in points], marker="o", label=title)
    axes.set(xscale="log", xlabel="keys in the queue", ylabel="µs for one key", ylim=(0, None))
    axes.legend(fontsize=8)
    return _save(figure, directory / "queue.svg")


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path
