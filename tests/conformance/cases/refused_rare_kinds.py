"""Invalid objects of the kinds that few controllers work with (26)."""

from __future__ import annotations

from tests.conformance.cases._mistakes import GONE, created, updated

created(
    "runtimeclasses",
    [
        {"handler": ""},
        {"handler": "A_B"},
        {"overhead": {"podFixed": {"cpu": "-1"}}},
        {"scheduling": {"nodeSelector": {"a b": "c"}}},
        {"scheduling": {"tolerations": [{"key": "a", "operator": "Sometimes"}]}},
    ],
)
updated("runtimeclasses", [({}, {"handler": "other"})])
created(
    "csidrivers",
    [
        {"metadata.name": "a_b"},
        {"spec.fsGroupPolicy": "Sometimes"},
        {"spec.volumeLifecycleModes": ["Sometimes"]},
        {"spec.tokenRequests": [{"audience": "a"}, {"audience": "a"}]},
        {"spec.tokenRequests": [{"audience": "a", "expirationSeconds": 1}]},
    ],
)
created(
    "csinodes",
    [
        {"spec.drivers": [{"name": "", "nodeID": "n", "topologyKeys": None}]},
        {"spec.drivers": [{"name": "a_b", "nodeID": "n", "topologyKeys": None}]},
        {"spec.drivers": [{"name": "a", "nodeID": "", "topologyKeys": None}]},
        {"spec.drivers": [{"name": "a", "nodeID": "n", "topologyKeys": ["a b"]}]},
        {"spec.drivers": [{"name": "a", "nodeID": "n", "topologyKeys": [], "allocatable": {"count": -1}}]},
    ],
)
created(
    "csistoragecapacities",
    [
        {"storageClassName": ""},
        {"storageClassName": "A_B"},
        {"capacity": "-1"},
        {"maximumVolumeSize": "-1"},
        {"nodeTopology": {"matchLabels": {"a b": "c"}}},
    ],
)
created(
    "volumeattachments",
    [
        {"spec.attacher": ""},
        {"spec.attacher": "a_b"},
        {"spec.nodeName": ""},
        {"spec.nodeName": "A_B"},
        {"spec.source": {}},
    ],
)
created("volumeattributesclasses", [{"driverName": ""}, {"driverName": "a_b"}, {"parameters": GONE}])
updated("volumeattributesclasses", [({}, {"driverName": "other"}), ({}, {"parameters": {"a": "c"}})])
created(
    "prioritylevelconfigurations",
    [
        {"spec.type": ""},
        {"spec.type": "Sometimes"},
        {"spec.limited": GONE},
        {"spec.limited.nominalConcurrencyShares": -1},
        {"spec.limited.limitResponse": {"type": "Sometimes"}},
    ],
)
created(
    "flowschemas",
    [
        {"spec.priorityLevelConfiguration.name": ""},
        {"spec.matchingPrecedence": 0},
        {"spec.matchingPrecedence": 10001},
        {"spec.distinguisherMethod": {"type": "Sometimes"}},
    ],
)
created("deviceclasses", [{"spec.selectors": [{}]}])
created(
    "resourceclaims",
    [
        {"spec.devices.requests": [{"name": "", "exactly": {"deviceClassName": "a"}}]},
        {"spec.devices.requests": [{"name": "A", "exactly": {"deviceClassName": "a"}}]},
        {"spec.devices.requests": [{"name": "a", "exactly": {"deviceClassName": ""}}]},
        {"spec.devices.requests": [{"name": "a"}]},
    ],
)
created("controllerrevisions", [{"revision": -1}, {"data": GONE}])
