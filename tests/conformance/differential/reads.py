"""Draw reads and watches, and what they select."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.contents import NAMES, container, deployment_spec, rarely
from tests.conformance.differential.kinds import DEPLOYMENT, WIDGET, Kind
from tests.conformance.differential.steps import Step, path_of, subresource_of, version_of

_LABEL_SELECTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("team=red", {"team": "red"}),
    ("team!=red", {}),
    ("team in (red,blue)", {"team": "blue"}),
    ("team notin (red),tier", {"tier": "x"}),
    ("tier", {"tier": "y"}),
    ("!tier", {}),
    ("n>1", {"n": "2"}),
    ("n<2, team==red", {"n": "1", "team": "red"}),
    ("team in ()", {"team": ""}),
)
_BROKEN_LABELS = ("n in 1", "team=red,", "=", "bad key", "team=bad!", "n>x", "(", "!", "a=b=c", ",,")
_FIELD_SELECTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("metadata.name=a", {"metadata": {"name": "a"}}),
    ("metadata.name!=a", {}),
    ("metadata.namespace=<ns>,metadata.name=a", {"metadata": {"name": "a"}}),
)
_WIDGET_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("spec.mode=Fast", {"spec": {"size": 1, "mode": "Fast"}}),
    ("spec.mode!=Fast", {}),
    ("spec.size=2", {"spec": {"size": 2}}),
    ("spec.on=true", {"spec": {"size": 1, "on": True}}),
    ("spec.on=", {}),
)
_BROKEN_FIELDS = ("spec.code=ab", "metadata.name", "metadata.labels=x", "=x", "spec.size>1", "metadata.name=a,,x=1")


@st.composite
def selection(draw: st.DrawFn, kind: Kind) -> tuple[dict[str, str], dict[str, Any]]:
    """Draw the selectors of a request, and an object that they select."""
    marker: dict[str, Any] = {"metadata": {}, **_MARKERS.get(kind.plural, {})}
    query: dict[str, str] = {}
    if draw(st.booleans()):
        query["labelSelector"], labels = draw(st.sampled_from(_LABEL_SELECTORS))
        marker["metadata"] = {"labels": labels}
        if rarely(draw, 10):
            query["labelSelector"] = draw(st.sampled_from(_BROKEN_LABELS))
    if rarely(draw, 3) and not query:
        pool = _FIELD_SELECTORS + (_WIDGET_FIELDS if kind is WIDGET else ())
        pool = tuple(entry for entry in pool if kind.namespaced or "namespace" not in entry[0])
        query["fieldSelector"], content = draw(st.sampled_from(pool))
        marker = marker | content
        if rarely(draw, 5):
            query["fieldSelector"] = draw(st.sampled_from(_BROKEN_FIELDS))
    return query, marker


_MARKERS: dict[str, dict[str, Any]] = {
    "widgets": {"spec": {"size": 1}},
    "depots": {"spec": {"size": 1}},
    "pods": {"spec": {"containers": [{"name": "main", "image": "app:1"}]}},
    "deployments": {"spec": deployment_spec(0, [container("main")])},
}
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@st.composite
def list_(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a list."""
    query = draw(selection(kind))[0]
    if rarely(draw, 2):
        query |= draw(
            st.sampled_from(
                [
                    {"limit": "1"},
                    {"limit": "2"},
                    {"limit": "1", "continue": "<continue>"},
                    {"continue": "<continue>"},
                    {"continue": "nonsense"},
                    {"limit": "-1"},
                    {"limit": "many"},
                    {"resourceVersion": "0"},
                    {"resourceVersion": "0", "limit": "1"},
                    {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"},
                    {"resourceVersion": "0", "resourceVersionMatch": "Exact"},
                    {"resourceVersion": f"<version {kind.plural}/a 0>", "resourceVersionMatch": "Exact"},
                    {"resourceVersion": f"<version {kind.plural}/a -1>", "resourceVersionMatch": "NotOlderThan"},
                    {"resourceVersion": f"<version {kind.plural}/a 0>"},
                    {"resourceVersion": f"<version {kind.plural}/a 0>", "limit": "1"},
                    {"resourceVersion": f"<version {kind.plural}/a 0>", "continue": "<continue>"},
                    {"resourceVersionMatch": "Exact"},
                    {"resourceVersion": "1", "resourceVersionMatch": "Nearly"},
                    {"resourceVersion": "soon"},
                    {"sendInitialEvents": "true"},
                ]
            )
        )
    everywhere = kind.namespaced and query.get("fieldSelector", "").startswith("metadata.namespace=<ns>")
    step: Step = {
        "method": "GET",
        "path": kind.collection(version_of(draw, kind), everywhere=everywhere),
        "query": query,
    }
    if rarely(draw, 6):
        step["accept"] = draw(st.sampled_from([_PARTIAL_LIST, *([_TABLE] if kind is WIDGET else [])]))
    return step


@st.composite
def get(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a read of one object."""
    name = draw(st.sampled_from([*NAMES, "<generated 0>"]))
    subresource = "scale" if kind is DEPLOYMENT and rarely(draw, 4) else subresource_of(draw, kind)
    path = path_of(kind, name, subresource, version_of(draw, kind))
    step: Step = {"method": "GET", "path": path}
    if rarely(draw, 4):
        step["query"] = draw(
            st.sampled_from([{"resourceVersion": "0"}, {"resourceVersion": "soon"}, {"resourceVersion": "99999999"}])
        )
    if rarely(draw, 8):
        step["accept"] = draw(st.sampled_from([_PARTIAL, "text/html", "application/json;q=0.5"]))
    return step


@st.composite
def watch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a watch."""
    query, marker = draw(selection(kind))
    query |= draw(
        st.sampled_from(
            [
                {},
                {"resourceVersion": "0"},
                {"resourceVersion": f"<version {kind.plural}/a 0>"},
                {"resourceVersion": f"<version {kind.plural}/a -1>"},
                {"resourceVersion": f"<version {kind.plural}/b 0>", "allowWatchBookmarks": "true"},
                {"resourceVersion": "0", "allowWatchBookmarks": "true"},
                {
                    "sendInitialEvents": "true",
                    "resourceVersionMatch": "NotOlderThan",
                    "allowWatchBookmarks": "true",
                },
                {
                    "sendInitialEvents": "true",
                    "resourceVersionMatch": "NotOlderThan",
                    "allowWatchBookmarks": "true",
                    "resourceVersion": f"<version {kind.plural}/a 0>",
                },
                {
                    "sendInitialEvents": "false",
                    "resourceVersionMatch": "NotOlderThan",
                    "resourceVersion": f"<version {kind.plural}/a 0>",
                },
                {"sendInitialEvents": "true"},
                {"resourceVersionMatch": "NotOlderThan", "resourceVersion": "0"},
                {"resourceVersion": "soon"},
            ]
        )
    )
    step: Step = {"watch": kind.collection(version_of(draw, kind)), "query": query, "marker": marker}
    if rarely(draw, 8):
        step["accept"] = _PARTIAL
    return step
