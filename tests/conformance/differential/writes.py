"""Draw requests that create, replace and delete."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.contents import content_of, metadata, rarely, status_of
from tests.conformance.differential.kinds import DEPLOYMENT, LEASE, POD, WIDGET, Kind
from tests.conformance.differential.reads import selection
from tests.conformance.differential.steps import (
    DRY,
    NAME,
    Step,
    add_preconditions,
    path_of,
    sending,
    subresource_of,
    typed,
    version_of,
    write_query,
)


@st.composite
def create(draw: st.DrawFn, kind: Kind, number: int) -> Step:
    """Draw the creation of an object."""
    version = version_of(draw, kind)
    about = draw(metadata())
    if rarely(draw, 10):
        about = {"generateName": f"generated-{number}-"} | about
    elif not rarely(draw, 40):
        about = {"name": draw(NAME)} | about
    if not about.get("name") and about.get("generateName") == "X_":
        about["generateName"] = f"generated-{number}-"
    body = draw(content_of(kind)) | {"metadata": about}
    if kind.subresources and rarely(draw, 6):
        body["status"] = draw(status_of(kind))
    path = kind.collection(version)
    if kind.namespaced and rarely(draw, 40):
        path = path.replace("<ns>", "nowhere")
    return sending("POST", path, typed(kind, version, body), draw(write_query()))


@st.composite
def put(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw an update of an object or a subresource."""
    version, name = version_of(draw, kind), draw(NAME)
    subresource = subresource_of(draw, kind)
    body = draw(edit(kind, subresource))
    about = body.setdefault("metadata", {})
    key = f"{kind.plural}/{name}"
    step = sending("PUT", path_of(kind, name, subresource, version), body, draw(write_query()))
    if subresource == "scale":
        about = body["metadata"] = {"name": name, "namespace": "<ns>"}
        body |= {"apiVersion": "autoscaling/v1", "kind": "Scale"}
    elif not rarely(draw, 8) and kind is not POD:
        step["base"] = key
        body["apiVersion"] = kind.api_version(version)
        if not rarely(draw, 3):
            return step
    else:
        # An edit is a patch; a body of its own holds no nulls by chance.
        body |= {"apiVersion": kind.api_version(version), "kind": kind.name}
        about.setdefault("name", name)
        if kind is DEPLOYMENT or kind is POD:
            body |= draw(content_of(kind))
    add_preconditions(draw, about, key)
    return step


@st.composite
def edit(draw: st.DrawFn, kind: Kind, subresource: str) -> Any:
    """Draw a merge patch that an object of the kind can take."""
    if subresource == "scale":
        return draw(
            st.sampled_from(
                [
                    *({"spec": {"replicas": replicas}} for replicas in (1, 2, 0, -1, "2", None)),
                    {"spec": {"replicas": 1, "bogus": 1}},
                    {},
                ]
            )
        )
    edit: dict[str, Any] = {}
    if subresource == "status" or rarely(draw, 8):
        edit["status"] = draw(status_of(kind)) if kind.custom or kind.subresources else {"phase": "x"}
    if subresource != "status" or rarely(draw, 4):
        edit |= draw(_part_of(kind))
    if not edit or draw(st.booleans()):
        edit["metadata"] = draw(metadata(born=kind is LEASE))
    return edit


def _part_of(kind: Kind) -> st.SearchStrategy[Any]:
    if kind is DEPLOYMENT:
        return st.fixed_dictionaries({"spec": st.fixed_dictionaries({"replicas": st.integers(0, 2)})})
    return st.just({}) if kind is POD else content_of(kind, whole=False)


@st.composite
def delete(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw the deletion of an object."""
    name = draw(NAME)
    step: Step = {"method": "DELETE", "path": path_of(kind, name, "", version_of(draw, kind))}
    key = f"{kind.plural}/{name}"
    if draw(st.booleans()):
        step["body"] = draw(
            st.sampled_from(
                [
                    {"propagationPolicy": "Background"},
                    {"propagationPolicy": "Foreground"},
                    {"propagationPolicy": "Orphan"},
                    {"propagationPolicy": "Sideways"},
                    {"orphanDependents": True},
                    {"orphanDependents": False, "propagationPolicy": "Background"},
                    {"gracePeriodSeconds": 0},
                    {"gracePeriodSeconds": -1},
                    {"preconditions": {"uid": f"<uid {key}>"}},
                    {"preconditions": {"uid": f"<uid {key[:-1]}b>"}},
                    {"preconditions": {"resourceVersion": f"<version {key} -1>"}},
                    {"preconditions": {"resourceVersion": f"<version {key} 0>"}},
                    {"dryRun": ["All"]},
                    {"dryRun": ["Some"]},
                    {"kind": "DeleteOptions", "apiVersion": "v1"},
                    {"kind": "Status", "apiVersion": "v1"},
                    {"bogus": 1},
                ]
            )
        )
    elif rarely(draw, 4):
        step["query"] = draw(
            st.sampled_from(
                [
                    {"propagationPolicy": "Foreground"},
                    {"propagationPolicy": "Sideways"},
                    {"gracePeriodSeconds": "0"},
                    {"gracePeriodSeconds": "soon"},
                    DRY,
                    {"orphanDependents": "true"},
                ]
            )
        )
    return step


@st.composite
def delete_collection(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw the deletion of all objects that selectors find."""
    query = draw(selection(kind))[0]
    if rarely(draw, 6):
        query |= draw(st.sampled_from([DRY, {"resourceVersion": "0"}]))  # rule: paged-deletions
    return {"method": "DELETE", "path": kind.collection(version_of(draw, kind)), "query": query}


@st.composite
def odd(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a request that no server understands."""
    item, collection = path_of(kind, draw(NAME)), kind.collection()
    whole = {"apiVersion": kind.api_version(), "kind": kind.name, "metadata": {"name": "a"}}
    workload = kind in (POD, DEPLOYMENT)
    # rule: whole-workloads, scale-accessors
    accepted = [] if workload else [{"metadata": {"name": "a"}}, whole | {"metadata": "a"}]
    if not workload and kind is not WIDGET:
        accepted.append(whole | {"spec": "x"})
    return draw(
        st.sampled_from(
            [
                *({"method": "POST", "path": collection, "body": body} for body in accepted),
                {"method": "POST", "path": collection, "text": "{"},
                {"method": "POST", "path": collection, "text": "[]"},
                {"method": "POST", "path": collection, "text": "x: y", "type": "application/nonsense"},
                {"method": "POST", "path": collection, "body": whole | {"kind": "Other"}},
                {"method": "POST", "path": collection, "body": whole | {"apiVersion": "other.io/v1"}},
                {"method": "PUT", "path": collection, "body": whole},
                {"method": "PATCH", "path": collection, "body": {}, "type": "merge"},
                {"method": "GET", "path": f"{item}/nonsense"},
                {"method": "GET", "path": f"{item}/scale"},
                {"method": "DELETE", "path": f"{item}/status"},
                {"method": "GET", "path": f"{item}/status"},
                {"method": "PUT", "path": item, "text": "null"},
                {"method": "PUT", "path": item, "body": {}},
                {"method": "POST", "path": item, "body": whole},
                {"method": "DELETE", "path": item, "text": "{"},
            ]
        )
    )
