"""Quantities of built-in kinds, which are written in one form whatever they were sent in (30)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import STRATEGIC, Api
from tests.conformance.cases._case import case, table
from tests.conformance.cases.built_in import SELECTOR, TEMPLATE


def _template(**resources: Any) -> dict[str, Any]:
    """Return the template of a pod that asks for resources."""
    [container] = TEMPLATE["spec"]["containers"]
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]
    return {**TEMPLATE, "spec": {"containers": [{**container, "resources": resources}], "volumes": volumes}}


_LIMITS = {"cpu": "1000m", "memory": "1024Mi", "a.b/c": "1e3", "a.b/d": "5000000000", "a.b/e": "0"}
_REQUESTS = {"cpu": "0.0001", "memory": "0.5Ki", "a.b/c": "1e3", "a.b/d": "5G", "a.b/e": "0"}


async def _shown(api: Api, plural: str, body: dict[str, Any], path: str) -> None:
    await api.create(plural, {"metadata": {"name": "a"}, **body}, keep=[path])


table(
    [
        (
            "quantities of a pod",
            "pods",
            {"spec": _template(limits=_LIMITS, requests=_REQUESTS)["spec"]},
            "spec",
        ),
        (
            "quantities of a template",
            "deployments",
            {"spec": {"selector": SELECTOR, "template": _template(requests={"cpu": "1500m", "memory": "1000Ki"})}},
            "spec.template.spec",
        ),
        (
            "quantities that are numbers",
            "pods",
            {"spec": _template(requests={"cpu": 1.5, "memory": 2048})["spec"]},
            "spec",
        ),
        ("an invalid quantity", "pods", {"spec": _template(requests={"cpu": "much"})["spec"]}, "spec"),
        ("a quantity with a wrong suffix", "pods", {"spec": _template(requests={"cpu": "1K"})["spec"]}, "spec"),
        (
            "quantities of a claim",
            "persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}},
            "spec.resources",
        ),
        ("quantities of a quota", "resourcequotas", {"spec": {"hard": {"pods": "10000m", "cpu": "2000m"}}}, "spec"),
        (
            "quantities that are no whole number of bytes, or large",
            "resourcequotas",
            {
                "spec": {
                    "hard": {
                        "memory": "1.0001Ki",
                        "requests.memory": "0.000001Gi",
                        "limits.memory": "16Ei",
                        "cpu": "1e20",
                        "requests.storage": "1.5Ki",
                    }
                }
            },
            "spec",
        ),
        (
            "quantities of limits",
            "limitranges",
            {"spec": {"limits": [{"type": "Container", "default": {"cpu": "1000m"}, "max": {"cpu": "2000m"}}]}},
            "spec",
        ),
    ],
)(_shown)


@case("a quantity in other words changes nothing")
async def _(api: Api) -> None:
    await api.create("pods", {"metadata": {"name": "a"}, "spec": _template(limits={"cpu": "1"})["spec"]}, quiet=True)
    change = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1000m"}}}]}}
    keep = ["metadata.generation", "metadata.resourceVersion", "spec.containers"]
    await api.patch("pods", "a", change, content=STRATEGIC, keep=keep)
    await api.get("pods", "a", keep=keep)
