"""Draw patches of all kinds."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.contents import (
    ENVIRONMENT,
    container,
    content_of,
    deployment_spec,
    metadata,
    rarely,
    status_of,
    without_empties,
)
from tests.conformance.differential.kinds import DEPLOYMENT, POD, Kind
from tests.conformance.differential.steps import (
    DRY,
    MANAGER,
    NAME,
    Step,
    add_preconditions,
    path_of,
    sending,
    subresource_of,
    version_of,
    write_query,
)
from tests.conformance.differential.writes import edit


@st.composite
def merge_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a JSON merge patch."""
    version, name = version_of(draw, kind), draw(NAME)
    subresource = subresource_of(draw, kind)
    body = draw(edit(kind, subresource))
    if kind.custom and not subresource and rarely(draw, 6):
        body = draw(st.sampled_from([{"spec": None}, {"spec": {"tags": None}}, {"spec": {"nested": {"depth": None}}}]))
    if rarely(draw, 5):
        add_preconditions(draw, body.setdefault("metadata", {}), f"{kind.plural}/{name}")
    if rarely(draw, 30):
        return _odd_patch(draw, path_of(kind, name, subresource, version))
    return sending("PATCH", path_of(kind, name, subresource, version), body, draw(write_query()), "merge")


def _odd_patch(draw: st.DrawFn, path: str) -> Step:
    text = draw(st.sampled_from(["{", "[]", '"x"', "null", "{}", "1"]))
    media = draw(st.sampled_from(["merge", "json-patch", "strategic", "application/nonsense", "json"]))
    return {"method": "PATCH", "path": path, "type": media, "text": text}


_JSON_OPERATIONS: tuple[dict[str, Any], ...] = (
    {"op": "replace", "path": "/spec/size", "value": 2},
    {"op": "replace", "path": "/spec/size", "value": 3},
    {"op": "test", "path": "/spec/size", "value": 1},
    {"op": "test", "path": "/spec/size", "value": 9},
    {"op": "add", "path": "/spec/tags", "value": ["x"]},
    {"op": "add", "path": "/spec/tags/-", "value": "y"},
    {"op": "add", "path": "/spec/tags/0", "value": "z"},
    {"op": "add", "path": "/spec/tags/7", "value": "z"},
    {"op": "remove", "path": "/spec/tags/0"},
    {"op": "remove", "path": "/spec/absent"},
    {"op": "remove", "path": "/spec/mode"},
    {"op": "copy", "from": "/spec/size", "path": "/spec/low"},
    {"op": "move", "from": "/spec/code", "path": "/spec/fixed"},
    {"op": "add", "path": "/metadata/labels", "value": {"team": "red"}},
    {"op": "add", "path": "/metadata/labels/tier", "value": "x"},
    {"op": "remove", "path": "/metadata/labels/team"},
    {"op": "replace", "path": "/metadata/name", "value": "b"},
    {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]},
    {"op": "remove", "path": "/metadata/finalizers"},
    {"op": "remove", "path": "/metadata/finalizers/0"},
    {"op": "add", "path": "/metadata/annotations/example.com~1k", "value": "v"},
    {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
    {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
    {"op": "add", "path": "/status", "value": {"phase": "Ready"}},
    {"op": "add", "path": "/data", "value": {"k": "aGk="}},
    {"op": "add", "path": "/data/k", "value": "aG8="},
    {"op": "remove", "path": "/data/k"},
    {"op": "test", "path": "/data/k", "value": "1"},
    {"op": "replace", "path": "/spec/replicas", "value": 2},
    {"op": "add", "path": "/spec/leaseTransitions", "value": 2},
    {"op": "frobnicate", "path": "/spec/size", "value": 1},
    {"op": "add", "path": "spec", "value": 1},
    {"op": "add", "value": 1},
)


@st.composite
def json_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a JSON patch."""
    operations = draw(st.lists(st.sampled_from(_JSON_OPERATIONS), min_size=1, max_size=3))
    subresource = subresource_of(draw, kind)
    path = path_of(kind, draw(NAME), subresource, version_of(draw, kind))
    return sending("PATCH", path, operations, draw(write_query()), "json-patch")


_CONTAINERS = st.one_of(
    st.sampled_from(["app:1", "app:2"]).map(lambda image: [{"name": "main", "image": image}]),
    ENVIRONMENT.map(lambda variables: [{"name": "main", "env": variables}]),
    st.sampled_from(
        [
            [container("side")],
            [{"name": "side", "$patch": "delete"}],
            [{"name": "main", "env": [{"name": "A", "$patch": "delete"}]}],
            [{"name": "main", "env": None}],
            [container("main", "app:3"), {"$patch": "replace"}],
            [container("side", "app:2"), {"name": "main", "image": "app:2"}],
        ]
    ),
)
_STRATEGIC: tuple[dict[str, Any], ...] = (
    {"metadata": {"finalizers": ["example.com/more"]}},
    {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/hold"]}},
    {"metadata": {"labels": {"team": "red", "tier": None}}},
    {"metadata": {"labels": {"$patch": "replace", "n": "1"}}},
    {"metadata": {"annotations": None}},
)
_STRATEGIC_SPECS: tuple[dict[str, Any], ...] = (
    {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
    {
        "spec": {
            "template": {
                "spec": {
                    "$setElementOrder/containers": [{"name": "side"}, {"name": "main"}],
                    "containers": [{"name": "main", "image": "app:4"}, container("side", "app:4")],
                }
            }
        }
    },
    {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}},
)


@st.composite
def strategic_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a strategic merge patch."""
    subresource = subresource_of(draw, kind)
    if subresource or draw(st.booleans()):
        body = draw(edit(kind, subresource))
    elif kind is DEPLOYMENT:
        specs = _CONTAINERS.map(lambda containers: {"spec": {"template": {"spec": {"containers": containers}}}})
        body = draw(st.one_of(specs, specs, st.sampled_from(_STRATEGIC_SPECS + _STRATEGIC)))
    else:
        body = draw(st.sampled_from(_STRATEGIC))
    path = path_of(kind, draw(NAME), subresource)
    return sending("PATCH", path, body, draw(write_query()), "strategic")


@st.composite
def apply(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a server-side apply."""
    version, name = version_of(draw, kind), draw(NAME)
    subresource = "status" if "status" in kind.subresources and rarely(draw, 4) else ""
    body: dict[str, Any] = {"apiVersion": kind.api_version(version), "kind": kind.name}
    about = draw(metadata(born=True)) if draw(st.booleans()) else {}
    body["metadata"] = {"name": name} | about
    misnamed = body["metadata"]["name"] != name  # rule: misnamed-applies
    if subresource:
        body["status"] = draw(status_of(kind))
    elif kind is DEPLOYMENT and not rarely(draw, 2):
        main = {"name": "main", "env": draw(ENVIRONMENT)}
        body["spec"] = draw(
            st.sampled_from([{"replicas": 2}, {"template": {"spec": {"containers": [main]}}}, {"replicas": 1}])
        )
        # What creates a Deployment has to be whole.
        body["spec"] = deployment_spec(1, [container("main")]) | ({} if rarely(draw, 2) else body["spec"])
        if "containers" in body["spec"]["template"]["spec"] and len(body["spec"]["template"]["spec"]) == 1:
            body["spec"]["template"] = deployment_spec(1, [container("main", env=main["env"])])["template"]
    elif not misnamed and not rarely(draw, 8):
        body |= draw(content_of(kind, whole=draw(st.booleans())))
    if rarely(draw, 12):
        body |= draw(st.sampled_from([{"kind": "Wrong"}, {"apiVersion": "v9"}, {"kind": ""}]))
    query = {"fieldManager": draw(MANAGER)}
    if draw(st.booleans()):
        query["force"] = "true"
    if rarely(draw, 15):
        query = draw(st.sampled_from([{}, query | DRY, {"fieldManager": ""}, query | {"force": "maybe"}]))
    if rarely(draw, 8):
        add_preconditions(draw, body["metadata"], f"{kind.plural}/{name}")
    body = without_empties(body)  # rule: empty-applies
    step = sending("PATCH", path_of(kind, name, subresource, version), body, query, "apply")
    if kind in (POD, DEPLOYMENT):
        step["needs"] = step["path"]  # rule: whole-workloads
    return step
