"""Panels as Grafana arranges them, drawn with matplotlib."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from PIL import Image

UNITS = {
    "s": FuncFormatter(lambda value, _: f"{value:g} s" if abs(value) >= 1 or not value else f"{value * 1000:g} ms"),
    "ops": FuncFormatter(lambda value, _: f"{value:g}/s"),
    "reqps": FuncFormatter(lambda value, _: f"{value:g}/s"),
    "percentunit": PercentFormatter(1),
    "bytes": FuncFormatter(lambda value, _: f"{value / 2**20:.0f} MiB"),
    "short": FuncFormatter(lambda value, _: f"{value:g}"),
}


def draw(panels: list[dict[str, Any]], file: Path) -> None:
    """Draw panels, with the series of each query, into a file."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(12, rows * 0.34), dpi=90)
    for panel in panels:
        x, y, width, height = (panel["gridPos"][key] for key in ("x", "y", "w", "h"))
        if panel["type"] == "row":
            figure.text(0.01, 1 - (y + 0.7) / rows, panel["title"], fontsize=12, weight="bold")
            continue
        place = (x / 24 + 0.045, 1 - (y + height - 2.6) / rows, width / 24 - 0.06, (height - 3.6) / rows)
        axes = figure.add_axes(place)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        (_stat if panel["type"] == "stat" else _lines)(axes, panel)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    # A palette makes the file a third as large.
    Image.open(picture).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)


def _name(target: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the entry of the legend, as Grafana writes it."""
    if not target.get("legendFormat"):
        return ", ".join(labels.values())
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), target["legendFormat"])


def _mapped(value: float, defaults: dict[str, Any]) -> str | None:
    """Return the text that a panel shows instead of a value."""
    options = {key: text for mapping in defaults.get("mappings", ()) for key, text in mapping["options"].items()}
    return options.get(f"{value:g}", {}).get("text")


def _lines(axes: Axes, panel: dict[str, Any]) -> None:
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    for target in panel["targets"]:
        for series in target["series"]:
            name = _name(target, series["labels"])
            axes.plot(*zip(*series["points"], strict=True), label=name, linewidth=1, clip_on=False, zorder=3)
    if (threshold := panel.get("threshold")) is not None:
        axes.axhline(threshold, color="red", linestyle="dashed", linewidth=1)
    axes.set_xlim(0, 180)
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    axes.yaxis.set_major_formatter(UNITS[defaults.get("unit", "short")])
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if "mappings" in defaults:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _mapped(value, defaults) or ""))
    if names := axes.get_legend_handles_labels()[1]:
        columns = max(1, panel["gridPos"]["w"] * 8 // (max(map(len, names)) + 6))
        axes.legend(
            fontsize=7,
            ncols=columns,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.12),
            frameon=False,
            borderpad=0,
        )
    else:
        axes.text(90, 0.5, "no data", ha="center", color="gray")


def _stat(axes: Axes, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit = UNITS[defaults["unit"]]
    shown = [
        f"{_name(target, series['labels'])}: {_mapped(value, defaults) or unit(value, 0)}"
        for target in panel["targets"]
        for series in target["series"]
        for value in (series["points"][-1][1],)
    ]
    axes.set_axis_off()
    axes.text(0.5, 0.5, "\n".join(shown) or "no data", ha="center", va="center", fontsize=9)
