"""Draw the contents of objects: mostly good ones, from small pools so that steps meet, and some bad in one place.

Every choice shrinks towards the plain and good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.conformance.differential.kinds import Kind

Values = st.SearchStrategy[Any]
NAMES = ("a", "b")
TEAMS = ("red", "blue")
HOLDS = ("example.com/hold", "example.com/more")


def rarely(draw: st.DrawFn, one_in: int) -> bool:
    """Tell, once in so many times, to do the unusual."""
    return draw(st.integers(0, one_in - 1)) == one_in - 1


def some(members: Mapping[str, Values], *, most: int = 4, least: int = 0) -> Values:
    """Draw an object with a few of the members."""
    keys = st.lists(st.sampled_from(sorted(members)), unique=True, min_size=least, max_size=most)
    return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: members[key] for key in chosen}))


_PORT = st.fixed_dictionaries(
    {"name": st.sampled_from(["p", "q"])},
    optional={
        "protocol": st.sampled_from(["TCP", "UDP"]),
        "number": st.integers(1, 2),
        "notes": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"]), max_size=2),
    },
)
_PLAIN = st.lists(st.fixed_dictionaries({}, optional={"a": st.sampled_from(["x", "y"])}), max_size=2)
_GOOD: dict[str, Values] = {
    "replicas": st.integers(0, 2),
    "mode": st.sampled_from(["Fast", "Safe"]),
    "code": st.sampled_from(["ab", "abcde"]),
    "ratio": st.sampled_from([0.5, 1, 2.0, 1e0]),
    "even": st.sampled_from([2, 4]),
    "on": st.booleans(),
    "maybe": st.sampled_from(["x", None, ""]),
    "since": st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"]),
    "host": st.just("10.0.0.1"),
    "raw": st.just("aGk="),
    "tags": st.lists(st.sampled_from(["x", "y", "z"]), unique=True, max_size=3),
    "ports": st.lists(_PORT, max_size=2, unique_by=lambda port: (port["name"], port.get("protocol", "TCP"))),
    "plain": _PLAIN,
    "labels": st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"]), max_size=2),
    "whole": st.fixed_dictionaries({}, optional={"x": st.integers(0, 2), "y": st.integers(0, 2)}),
    "nested": st.fixed_dictionaries(
        {}, optional={"depth": st.integers(1, 4), "deeper": st.sampled_from([{}, {"n": 2}])}
    ),
    "free": st.sampled_from([{}, {"any": {"thing": [1, None, "x"]}}, {"any": 1.5}]),
    "either": st.sampled_from([50, "50%"]),
    "fixed": st.sampled_from(["x", "y"]),
    "low": st.integers(1, 3),
    "high": st.integers(2, 4),
}
_BAD: tuple[tuple[str, Any], ...] = (
    ("bogus", 1),
    ("size", 0),
    ("size", 101),
    ("size", "1"),
    ("size", 1.5),
    ("size", None),
    ("size", True),
    ("mode", "Slow"),
    ("mode", 3),
    ("code", "ABC"),
    ("code", "x"),
    ("code", "toolong"),
    ("code", "1"),
    ("even", 3),
    ("ratio", 3),
    ("on", "yes"),
    ("since", "yesterday"),
    ("host", "10.0.0.300"),
    ("raw", "%"),
    ("tags", ["x", "x"]),
    ("tags", ["1", "2", "3", "4"]),
    ("tags", "x"),
    ("tags", ["x", 1]),
    ("tags", [None]),
    ("ports", [{"name": "p"}, {"name": "p", "protocol": "TCP"}]),
    ("ports", [{"number": 1}]),
    ("ports", [{"name": "p", "protocol": "SCTP"}]),
    ("ports", [{"name": "p", "number": 0, "bogus": 1}]),
    ("ports", {"name": "p"}),
    ("ports", [None]),
    ("plain", [{"a": "x", "z": 1}]),
    ("plain", [{"a": None}]),
    ("labels", {"k": 1}),
    ("labels", {"k": "1", "l": "2", "m": "3"}),
    ("labels", {"k": None}),
    ("whole", {"z": 1}),
    ("nested", []),
    ("nested", None),
    ("free", "text"),
    ("either", True),
    ("either", 1.5),
    ("fixed", 1),
    ("low", 9),
    ("extra", "x"),
)


@st.composite
def widget_spec(draw: st.DrawFn, *, whole: bool) -> Any:
    """Draw the spec of a custom object, or a part of one."""
    spec = draw(some(_GOOD))
    if whole or draw(st.booleans()):
        spec["size"] = draw(st.integers(1, 3))
    if rarely(draw, 7):
        key, value = draw(st.sampled_from(_BAD))
        spec[key] = value
    if rarely(draw, 30):
        spec.pop("size", None)
    return spec


_CONDITION = st.fixed_dictionaries(
    {"type": st.sampled_from(["Ready", "Seen"]), "status": st.sampled_from(["True", "False"])},
    optional={"reason": st.sampled_from(["Why", "Not"])},
)
_CONDITIONS = st.lists(_CONDITION, max_size=2, unique_by=lambda condition: condition["type"])
_WIDGET_STATUS = some(
    {
        "phase": st.sampled_from(["Born", "Ready", 1, None]),
        "replicas": st.integers(0, 2),
        "selector": st.just("team=red"),
        "count": st.sampled_from([0, 1, "many"]),
        "conditions": st.one_of(
            _CONDITIONS,
            st.sampled_from(
                [
                    [{"type": "Ready"}],
                    [{"type": "Ready", "status": "Maybe"}],
                    [{"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}],
                ]
            ),
        ),
        "bogus": st.just(1),
    },
    least=1,
    most=2,
)
# rule: empty-maps
_TEXTS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2", ""]), min_size=1, max_size=2)
_BYTES = st.dictionaries(st.sampled_from(["k", "m"]), st.sampled_from(["aGk=", "aG8="]), min_size=1, max_size=2)
_CONFIG_MAP = some(
    {
        "data": st.one_of(_TEXTS, st.sampled_from([{"bad key": "1"}, {"k": 1}, {"k": None}, "text", {"": "x"}])),
        "binaryData": st.one_of(_BYTES, st.sampled_from([{"k": "%"}, {"k": "aGk"}])),
        "immutable": st.sampled_from([False, True]),
        "bogus": st.just(1),
    },
    least=1,
    most=2,
)
_SECRET = some(
    {
        "data": st.one_of(_BYTES, st.sampled_from([{"k": "%"}, {"k": 1}, {"bad key": "aGk="}])),
        "stringData": _TEXTS,
        "type": st.sampled_from(["Opaque", "example.com/kind", "Opaque"]),
        "immutable": st.sampled_from([False, True]),
    },
    least=1,
    most=2,
)
_LEASE = st.fixed_dictionaries(
    {
        "spec": some(
            {
                "holderIdentity": st.sampled_from(["one", "two"]),
                "leaseDurationSeconds": st.sampled_from([15, 30, 0, "15", 1.5]),
                "renewTime": st.sampled_from(["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:01.500000Z"]),
                "acquireTime": st.just("2026-01-01T00:00:00.000000Z"),
                "leaseTransitions": st.sampled_from([1, 2, -1]),
            },
            least=1,
        )
    }
)


def container(name: str, image: str = "app:1", **more: Any) -> dict[str, Any]:
    """Return a container with everything that a server would add."""
    return {
        "name": name,
        "image": image,
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        **more,
    }


def _pod_spec(containers: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "containers": containers,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        **more,
    }


_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
]
_SETTLED = {
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "tolerations": _TOLERATIONS,
}
ENVIRONMENT = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["A", "B"]), "value": st.sampled_from(["1", "2"])}),
    min_size=1,
    max_size=2,
    unique_by=lambda variable: variable["name"],
)


def deployment_spec(replicas: int, containers: list[Any]) -> dict[str, Any]:
    """Return the spec of a Deployment with everything that a server would add."""
    return {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": _pod_spec(containers)},
    }


@st.composite
def _deployment(draw: st.DrawFn) -> Any:
    more = {"env": draw(ENVIRONMENT)} if draw(st.booleans()) else {}
    containers = [container("main", draw(st.sampled_from(["app:1", "app:2"])), **more)]
    if draw(st.booleans()):
        containers.append(container("side"))
    return {"spec": deployment_spec(draw(st.integers(0, 2)), containers)}


_POD = st.sampled_from(["app:1", "app:2"]).map(
    lambda image: {"spec": _pod_spec([container("main", image)], **_SETTLED)}
)
_REPLICAS = st.integers(1, 2)  # rule: zero-values
_DEPLOYMENT_STATUS = some(
    {
        "observedGeneration": _REPLICAS,
        "replicas": _REPLICAS,
        "conditions": _CONDITIONS,
    },
    least=1,
    most=2,
)
_POD_STATUS = some(
    {"phase": st.sampled_from(["Pending", "Running"]), "conditions": _CONDITIONS, "message": st.just("hi")},
    least=1,
    most=2,
)


def status_of(kind: Kind) -> Values:
    """Draw a status."""
    return {"deployments": _DEPLOYMENT_STATUS, "pods": _POD_STATUS}.get(kind.plural, _WIDGET_STATUS)


def content_of(kind: Kind, *, whole: bool = True) -> Values:
    """Draw what an object holds beside metadata, or a part of it."""
    if kind.custom:
        specs = st.fixed_dictionaries({"spec": widget_spec(whole=whole)})
        return specs if whole else st.one_of(specs, specs, st.fixed_dictionaries({"status": status_of(kind)}))
    return {
        "configmaps": _CONFIG_MAP,
        "secrets": _SECRET,
        "leases": _LEASE,
        "pods": _POD,
        "deployments": _deployment(),
    }[kind.plural]


_LABELS = st.fixed_dictionaries(
    {}, optional={"team": st.sampled_from(TEAMS), "tier": st.sampled_from(["x", "y"]), "n": st.sampled_from(["1", "2"])}
)
_GOOD_METADATA: dict[str, Values] = {
    "labels": _LABELS,
    "annotations": _TEXTS,
    "finalizers": st.lists(st.sampled_from(HOLDS), max_size=2, unique=True),
}
_BAD_METADATA: tuple[dict[str, Any], ...] = (
    {"labels": {"bad key": "x"}},
    {"labels": {"team": "bad value!"}},
    {"labels": {"team": 1}},
    {"labels": "x"},
    {"labels": {"team": None}},
    {"labels": None},
    {"annotations": {"bad key": "x"}},
    {"annotations": {"k": 1}},
    {"finalizers": ["hold"]},
    {"finalizers": "x"},
    {"finalizers": ["example.com/hold", "example.com/hold"]},
    {"finalizers": None},
    {"uid": "11111111-2222-3333-4444-555555555555"},
    {"creationTimestamp": "2001-01-01T00:00:00Z"},
    {"creationTimestamp": "soon"},
    {"creationTimestamp": 1},
    {"deletionTimestamp": "2001-01-01T00:00:00Z"},
    {"deletionGracePeriodSeconds": 5},
    {"generation": 9},
    {"selfLink": "/x"},
    {"bogus": "x"},
    {"managedFields": []},
    {"managedFields": [{}]},
    {"namespace": "other"},
    {"resourceVersion": "7"},
    {"resourceVersion": "soon"},
    {"resourceVersion": "99999999"},
    {"resourceVersion": ""},
    {"generateName": "generated-9-"},
    {"generateName": "X_"},
    {"name": "b"},
    {"name": "Not_A_Name"},
    {"name": ""},
    {"name": 1},
)


def without_empties(value: Any) -> Any:
    """Return a document without empty maps and lists."""
    if isinstance(value, dict):
        kept = {key: without_empties(member) for key, member in value.items()}
        return {key: member for key, member in kept.items() if member not in ({}, [])}
    if isinstance(value, list):
        return [item for item in map(without_empties, value) if item not in ({}, [])]
    return value


_DOOMED = frozenset({"deletionTimestamp", "deletionGracePeriodSeconds"})


@st.composite
def metadata(draw: st.DrawFn, *, born: bool = False) -> Any:
    """Draw metadata without a name.

    Args:
        draw: draws.
        born: the request may create an object though it is no POST.
    """
    found = draw(some(_GOOD_METADATA, most=2))
    if rarely(draw, 10):
        found |= draw(st.sampled_from(_BAD_METADATA))
    # rule: born-dying
    return {key: value for key, value in found.items() if not born or key not in _DOOMED}
