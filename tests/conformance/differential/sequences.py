"""Draw sequences of steps: few kinds, few names and few managers, so that the steps meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.contents import (
    ENVIRONMENT,
    NAMES,
    container,
    content_of,
    deployment_spec,
    metadata,
    rarely,
    status_of,
    without_empties,
)
from tests.conformance.differential.kinds import (
    DEPLOYMENT,
    KINDS,
    LEASE,
    POD,
    WIDGET,
    Kind,
)

Step = dict[str, Any]
_NAME = st.sampled_from((NAMES[0], *NAMES))
_MANAGER = st.sampled_from(["one", "two", "three"])
_LABEL_SELECTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("team=red", {"team": "red"}),
    ("team!=red", {}),
    ("team in (red,blue)", {"team": "blue"}),
    ("team notin (red),tier", {"tier": "x"}),
    ("tier", {"tier": "y"}),
    ("!tier", {}),
    ("n>1", {"n": "2"}),
    ("n<2, team==red", {"n": "1", "team": "red"}),
)
_BROKEN_LABELS = ("n in 1", "team=red,", "=", "bad key", "team=bad!", "n>x", "team in ()", "(", "!", "a=b=c", ",,")
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
_DRY = {"dryRun": "All"}
_WRITE_QUERIES = ({"dryRun": "Some"}, {"fieldValidation": "Maybe"}, {"fieldManager": "m" * 129}, {"force": "true"})


RULES = {
    "empty-maps": "maps of ConfigMaps and Secrets that are empty: Go tells an empty map from none while it validates",
    "whole-workloads": "Pods and Deployments that lack what a server would add or demand",
    "empty-applies": "empty maps and lists in what is applied: the real server writes such objects anew each time",
    "scale-owners": "writes to a scale, by which the real server loses owners now and then",
    "repeated-findings": "how often and in which order findings are listed, which changes by kind and by chance",
    "paged-deletions": "a limit for the deletion of a collection",
    "null-defaults": "null for a member with a default in what is applied",
    "born-dying": "a deletionTimestamp in an apply or PUT that creates: the real server keeps it",
    "scale-accessors": "an object whose replicas cannot be found since what should hold them is no object",
    "schemas-that-drop": "versions of a kind whose schemas do not have the same fields",
    "numbers-beyond-int64": "integers that do not fit into 64 bits",
    "owned-objects": "owner references: no garbage collector runs beside the real server of the tests",
    "periodic-bookmarks": "bookmarks that come when a server likes",
    "zero-values": "zero in numbers of built-in kinds that a server leaves out when they are zero",
    "undeclared-fields": "what is wrong in an applied document beside an unknown field: Go's maps have no order",
    "table-descriptions": "the descriptions of a table's columns",
    "echoed-documents": "the order of members in a document that a complaint quotes",
}
"""What is never drawn, or left out of comparisons, since the servers are knowingly different in it."""


@st.composite
def sequences(draw: st.DrawFn) -> list[Step]:
    """Draw a sequence."""
    kinds = draw(st.lists(st.sampled_from((WIDGET, WIDGET, *KINDS)), min_size=1, max_size=2))
    steps = [draw(_create(kinds[0], 0))]
    for number in range(1, draw(st.integers(3, 14)) + 1):
        kind = draw(st.sampled_from(kinds))
        steps.append(draw(draw(st.sampled_from(_STEPS))(kind, number)))
    return steps


@st.composite
def _create(draw: st.DrawFn, kind: Kind, number: int) -> Step:
    version = _version_of(draw, kind)
    about = draw(metadata())
    if rarely(draw, 10):
        about = {"generateName": f"generated-{number}-"} | about
    elif not rarely(draw, 40):
        about = {"name": draw(_NAME)} | about
    body = draw(content_of(kind)) | {"metadata": about}
    if kind.subresources and rarely(draw, 6):
        body["status"] = draw(status_of(kind))
    path = kind.collection(version)
    if kind.namespaced and rarely(draw, 40):
        path = path.replace("<ns>", "nowhere")
    return _sending("POST", path, _typed(draw, kind, version, body), draw(_write_query()))


@st.composite
def _put(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    version, name = _version_of(draw, kind), draw(_NAME)
    subresource = _subresource(draw, kind)
    body = draw(_edit(kind, subresource))
    about = body.setdefault("metadata", {})
    key = f"{kind.plural}/{name}"
    step = _sending("PUT", _path(kind, name, subresource, version), body, draw(_write_query()))
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
    _add_preconditions(draw, about, key)
    return step


@st.composite
def _edit(draw: st.DrawFn, kind: Kind, subresource: str) -> Any:
    """Draw a merge patch that an object of the kind can take."""
    if subresource == "scale":
        return draw(
            st.sampled_from(
                [
                    # rule: scale-owners
                    {"spec": {"replicas": -1}},
                    {"spec": {"replicas": "2"}},
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
def _merge_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    version, name = _version_of(draw, kind), draw(_NAME)
    subresource = _subresource(draw, kind)
    body = draw(_edit(kind, subresource))
    if kind.custom and not subresource and rarely(draw, 6):
        body = draw(st.sampled_from([{"spec": None}, {"spec": {"tags": None}}, {"spec": {"nested": {"depth": None}}}]))
    if rarely(draw, 5):
        _add_preconditions(draw, body.setdefault("metadata", {}), f"{kind.plural}/{name}")
    if rarely(draw, 30):
        return _odd_patch(draw, _path(kind, name, subresource, version))
    return _sending("PATCH", _path(kind, name, subresource, version), body, draw(_write_query()), "merge")


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
def _json_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    operations = draw(st.lists(st.sampled_from(_JSON_OPERATIONS), min_size=1, max_size=3))
    subresource = _subresource(draw, kind)
    path = _path(kind, draw(_NAME), subresource, _version_of(draw, kind))
    return _sending("PATCH", path, operations, draw(_write_query()), "json-patch")


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
def _strategic_patch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    subresource = _subresource(draw, kind)
    if subresource or draw(st.booleans()):
        body = draw(_edit(kind, subresource))
    elif kind is DEPLOYMENT:
        specs = _CONTAINERS.map(lambda containers: {"spec": {"template": {"spec": {"containers": containers}}}})
        body = draw(st.one_of(specs, specs, st.sampled_from(_STRATEGIC_SPECS + _STRATEGIC)))
    else:
        body = draw(st.sampled_from(_STRATEGIC))
    path = _path(kind, draw(_NAME), subresource)
    return _sending("PATCH", path, body, draw(_write_query()), "strategic")


@st.composite
def _apply(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    version, name = _version_of(draw, kind), draw(_NAME)
    subresource = "status" if "status" in kind.subresources and rarely(draw, 4) else ""
    body: dict[str, Any] = {"apiVersion": kind.api_version(version), "kind": kind.name}
    about = draw(metadata(born=True)) if draw(st.booleans()) else {}
    body["metadata"] = {"name": name} | about
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
    elif not rarely(draw, 8):
        body |= draw(content_of(kind, whole=draw(st.booleans())))
    if rarely(draw, 12):
        body |= draw(st.sampled_from([{"kind": "Wrong"}, {"apiVersion": "v9"}, {"kind": ""}]))
    query = {"fieldManager": draw(_MANAGER)}
    if draw(st.booleans()):
        query["force"] = "true"
    if rarely(draw, 15):
        query = draw(st.sampled_from([{}, query | _DRY, {"fieldManager": ""}, query | {"force": "maybe"}]))
    if rarely(draw, 8):
        _add_preconditions(draw, body["metadata"], f"{kind.plural}/{name}")
    body = without_empties(body)  # rule: empty-applies
    step = _sending("PATCH", _path(kind, name, subresource, version), body, query, "apply")
    if kind in (POD, DEPLOYMENT):
        step["needs"] = step["path"]  # rule: whole-workloads
    return step


@st.composite
def _delete(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    name = draw(_NAME)
    step: Step = {"method": "DELETE", "path": _path(kind, name, "", _version_of(draw, kind))}
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
                    _DRY,
                    {"orphanDependents": "true"},
                ]
            )
        )
    return step


@st.composite
def _delete_collection(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    query = draw(_selection(kind))[0]
    if rarely(draw, 6):
        query |= draw(st.sampled_from([_DRY, {"resourceVersion": "0"}]))  # rule: paged-deletions
    return {"method": "DELETE", "path": kind.collection(_version_of(draw, kind)), "query": query}


@st.composite
def _selection(draw: st.DrawFn, kind: Kind) -> tuple[dict[str, str], dict[str, Any]]:
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
def _list(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    query = draw(_selection(kind))[0]
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
        "path": kind.collection(_version_of(draw, kind), everywhere=everywhere),
        "query": query,
    }
    if rarely(draw, 6):
        step["accept"] = draw(st.sampled_from([_PARTIAL_LIST, *([_TABLE] if kind is WIDGET else [])]))
    return step


@st.composite
def _get(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    name = draw(st.sampled_from([*NAMES, "<generated 0>"]))
    subresource = "scale" if kind is DEPLOYMENT and rarely(draw, 4) else _subresource(draw, kind)
    path = _path(kind, name, subresource, _version_of(draw, kind))
    step: Step = {"method": "GET", "path": path}
    if rarely(draw, 4):
        step["query"] = draw(
            st.sampled_from([{"resourceVersion": "0"}, {"resourceVersion": "soon"}, {"resourceVersion": "99999999"}])
        )
    if rarely(draw, 8):
        step["accept"] = draw(st.sampled_from([_PARTIAL, "text/html", "application/json;q=0.5"]))
    return step


@st.composite
def _watch(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    query, marker = draw(_selection(kind))
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
    step: Step = {"watch": kind.collection(_version_of(draw, kind)), "query": query, "marker": marker}
    if rarely(draw, 8):
        step["accept"] = _PARTIAL
    return step


@st.composite
def _odd(draw: st.DrawFn, kind: Kind, _number: int) -> Step:
    """Draw a request that no server understands."""
    item, collection = _path(kind, draw(_NAME)), kind.collection()
    typed = {"apiVersion": kind.api_version(), "kind": kind.name, "metadata": {"name": "a"}}
    workload = kind in (POD, DEPLOYMENT)
    # rule: whole-workloads, scale-accessors
    accepted = [] if workload else [{"metadata": {"name": "a"}}, typed | {"metadata": "a"}]
    if not workload and kind is not WIDGET:
        accepted.append(typed | {"spec": "x"})
    return draw(
        st.sampled_from(
            [
                *({"method": "POST", "path": collection, "body": body} for body in accepted),
                {"method": "POST", "path": collection, "text": "{"},
                {"method": "POST", "path": collection, "text": "[]"},
                {"method": "POST", "path": collection, "text": "x: y", "type": "application/nonsense"},
                {"method": "POST", "path": collection, "body": typed | {"kind": "Other"}},
                {"method": "POST", "path": collection, "body": typed | {"apiVersion": "other.io/v1"}},
                {"method": "PUT", "path": collection, "body": typed},
                {"method": "PATCH", "path": collection, "body": {}, "type": "merge"},
                {"method": "GET", "path": f"{item}/nonsense"},
                {"method": "GET", "path": f"{item}/scale"},
                {"method": "DELETE", "path": f"{item}/status"},
                {"method": "GET", "path": f"{item}/status"},
                {"method": "PUT", "path": item, "text": "null"},
                {"method": "PUT", "path": item, "body": {}},
                {"method": "DELETE", "path": item, "text": "{"},
            ]
        )
    )


_STEPS = (
    _create,
    _create,
    _put,
    _put,
    _merge_patch,
    _merge_patch,
    _merge_patch,
    _json_patch,
    _strategic_patch,
    _apply,
    _apply,
    _apply,
    _delete,
    _delete,
    _delete_collection,
    _list,
    _list,
    _get,
    _watch,
    _watch,
    _odd,
)


# parts


def _version_of(draw: st.DrawFn, kind: Kind) -> str:
    return kind.versions[-1] if len(kind.versions) > 1 and rarely(draw, 5) else kind.versions[0]


def _subresource(draw: st.DrawFn, kind: Kind) -> str:
    # rule: scale-owners
    if kind.subresources and rarely(draw, 3):
        return draw(st.sampled_from([name for name in kind.subresources if kind is WIDGET or name != "scale"]))
    return "status" if rarely(draw, 40) else ""


def _path(kind: Kind, name: str, subresource: str = "", version: str = "") -> str:
    return "/".join(part for part in (kind.collection(version), name, subresource) if part)


def _typed(draw: st.DrawFn, kind: Kind, version: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": kind.api_version(version), "kind": kind.name, **body}


def _add_preconditions(draw: st.DrawFn, about: dict[str, Any], key: str) -> None:
    about["resourceVersion"] = draw(st.sampled_from([f"<version {key} -1>", f"<version {key} 0>", "99999999"]))
    if rarely(draw, 6):
        about["uid"] = f"<uid {key}>"


@st.composite
def _write_query(draw: st.DrawFn) -> dict[str, str]:
    query: dict[str, str] = {}
    if draw(st.booleans()):
        query["fieldManager"] = draw(_MANAGER)
    if rarely(draw, 6):
        query["fieldValidation"] = draw(st.sampled_from(["Strict", "Warn", "Ignore"]))
    if rarely(draw, 15):
        query |= _DRY
    if rarely(draw, 40):
        query |= draw(st.sampled_from(_WRITE_QUERIES))
    return query


def _sending(method: str, path: str, body: Any, query: dict[str, str], media: str = "") -> Step:
    step: Step = {"method": method, "path": path, "body": body}
    if query:
        step["query"] = query
    if media:
        step["type"] = media
    return step
