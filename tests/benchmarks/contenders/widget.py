"""The kind that every contender works on; ../go/widget.go says the same in Go."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from reconciler import ConditionedStatus, Model, Resource

WORDS = "the quick brown fox jumps over the lazy dog and finds a place to rest near the river "


class Part(Model):
    """A list item."""

    name: str
    value: str | None = None


class WidgetSpec(Model):
    """The desired state."""

    size: int = Field(default=1, ge=0)
    image: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    parts: list[Part] = Field(default_factory=list)


class WidgetStatus(ConditionedStatus):
    """The status that a reconcile writes."""

    run: str | None = None


class Widget(Resource[WidgetSpec, WidgetStatus], group="bench.example.com", version="v1"):
    """The primary object of all contenders."""


def text_widget(number: int, namespace: str) -> dict[str, Any]:
    """Return a widget of 2 KB that is mostly one text, as where a template or a certificate is kept."""
    document = widget(number, namespace)
    document["spec"] = {"size": number % 100, "image": f"line {number}: {WORDS}" * 16}
    return document


def widget(number: int, namespace: str, *, run: str = "") -> dict[str, Any]:
    """Return a widget of 2 KB, as the server stores it with the fields that it adds itself.

    Args:
        number: makes its name.
        namespace: where.
        run: a label, to tell those of one run.
    """
    labels = {"app": "widget", "team": f"team-{number % 20}", "zone": f"zone-{number % 3}"}
    return {
        "apiVersion": "bench.example.com/v1",
        "kind": "Widget",
        "metadata": {
            "name": f"widget-{run}{number:06d}",
            "namespace": namespace,
            "labels": labels,
            "annotations": {"example.com/note": WORDS * 2},
        },
        "spec": {
            "size": number % 100,
            "image": f"registry.example.com/widgets/image:{number}",
            "parameters": {f"parameter-{i:02d}": f"value {number} of {i}" for i in range(16)},
            "parts": [{"name": f"part-{i}", "value": WORDS[:40]} for i in range(6)],
        },
    }
