"""Invalid statuses (26)."""

from __future__ import annotations

from tests.conformance.cases._mistakes import stated

_TIME = "2026-01-01T00:00:00Z"
_LATER = "2026-01-02T00:00:00Z"
_READY = {"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": _TIME}
_CONTAINER = {"name": "c", "image": "i", "imageID": "i", "ready": True, "restartCount": 0}

stated(
    "deployments",
    [
        {"replicas": -1},
        {"updatedReplicas": -1},
        {"readyReplicas": -1},
        {"availableReplicas": -1},
        {"unavailableReplicas": -1},
        {"observedGeneration": -1},
        {"terminatingReplicas": -1},
        {"replicas": 1, "updatedReplicas": 2},
        {"replicas": 1, "readyReplicas": 2},
        {"replicas": 1, "availableReplicas": 2},
        {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
        {"collisionCount": -1},
        ({"status.collisionCount": 2}, {"collisionCount": 1}),
        {"conditions": [{"type": "Available", "status": "Maybe"}]},
        {"conditions": [{"type": "", "status": "True"}]},
        {"conditions": [{"type": "Available", "status": "True"}, {"type": "Available", "status": "True"}]},
    ],
)
for _sets in ("replicasets", "replicationcontrollers"):
    stated(
        _sets,
        [
            {"replicas": -1},
            {"replicas": 1, "readyReplicas": 2},
            {"replicas": 1, "availableReplicas": 2},
            {"replicas": 1, "fullyLabeledReplicas": 2},
            {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
            {"replicas": 1, "readyReplicas": -1},
            {"replicas": 1, "observedGeneration": -1},
        ],
    )
stated(
    "statefulsets",
    [
        {"replicas": -1},
        {"replicas": 1, "readyReplicas": -1},
        {"replicas": 1, "readyReplicas": 2},
        {"replicas": 1, "currentReplicas": 2},
        {"replicas": 1, "updatedReplicas": 2},
        {"replicas": 1, "availableReplicas": 2},
        {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2},
        {"replicas": 1, "observedGeneration": -1},
        ({"status.collisionCount": 2, "status.replicas": 0}, {"replicas": 0, "collisionCount": 1}),
    ],
)
stated(
    "daemonsets",
    [
        {"currentNumberScheduled": -1},
        {"desiredNumberScheduled": -1},
        {"numberReady": -1},
        {"numberMisscheduled": -1},
        {"numberAvailable": -1},
        {"numberUnavailable": -1},
        {"observedGeneration": -1},
        ({"status.collisionCount": 2}, {"collisionCount": 1}),
    ],
)
_COMPLETE = {"type": "Complete", "status": "True", "lastTransitionTime": _TIME}
_MET = {**_COMPLETE, "type": "SuccessCriteriaMet"}
_FAILED = {**_COMPLETE, "type": "Failed"}
_TARGET = {**_COMPLETE, "type": "FailureTarget"}
_STARTED = {"startTime": _TIME}
_DONE = {**_STARTED, "completionTime": _LATER, "conditions": [_MET, _COMPLETE], "succeeded": 1}
stated(
    "jobs",
    [
        {"active": -1},
        {"succeeded": -1},
        {"failed": -1},
        {"ready": -1},
        {"terminating": -1},
        {"active": 1, "ready": 2, **_STARTED},
        {"completionTime": _LATER, **_STARTED},
        {"conditions": [_COMPLETE, _MET], **_STARTED},
        {"conditions": [_COMPLETE], "completionTime": _LATER, **_STARTED},
        {"conditions": [_FAILED], **_STARTED},
        {"conditions": [_FAILED, _TARGET]},
        {"conditions": [_MET, _COMPLETE], "completionTime": _LATER},
        {"conditions": [_MET, _COMPLETE], "startTime": _LATER, "completionTime": _TIME},
        {**_DONE, "conditions": [_MET, _COMPLETE, _TARGET, _FAILED]},
        {**_DONE, "active": 1},
        {**_DONE, "ready": 1},
        {**_DONE, "terminating": 1},
        {"completedIndexes": "0"},
        {"completedIndexes": "1-0"},
        {"failedIndexes": "0"},
        {"uncountedTerminatedPods": {"succeeded": [""]}},
        {"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}},
        {**_DONE, "uncountedTerminatedPods": {"succeeded": ["a"]}},
        {"conditions": [{**_COMPLETE, "status": "Maybe"}]},
        ({"status.startTime": _TIME}, {"startTime": _LATER}),
        ({"status.startTime": _TIME}, {}),
        ({"status.startTime": _TIME, "status.succeeded": 1}, {"succeeded": 0}),
        ({f"status.{key}": value for key, value in _DONE.items()}, {"conditions": []}),
        ({f"status.{key}": value for key, value in _DONE.items()}, {"completionTime": "2026-01-03T00:00:00Z"}),
        {**_STARTED, "active": 1},
        _DONE,
    ],
)
stated("cronjobs", [{"active": [{"kind": "Job"}]}, {"lastScheduleTime": _TIME}])
stated(
    "pods",
    [
        {"phase": "Sometimes"},
        {"conditions": [{"type": "Ready", "status": "Maybe"}]},
        {"conditions": [{"type": "a b", "status": "True"}]},
        {"podIP": "example"},
        {"podIPs": [{"ip": "example"}]},
        {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
        {"hostIP": "example"},
        {"hostIPs": [{"ip": "example"}]},
        {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]},
        {"qosClass": "Guaranteed"},
        {"nominatedNodeName": "A_B"},
        {"containerStatuses": [_CONTAINER, _CONTAINER]},
        {"containerStatuses": [{**_CONTAINER, "name": "other"}]},
        {"containerStatuses": [{**_CONTAINER, "restartCount": -1}]},
        {"containerStatuses": [{**_CONTAINER, "state": {"running": {}, "waiting": {}}}]},
        (
            {
                "status.containerStatuses": [{**_CONTAINER, "state": {"terminated": {"exitCode": 1}}}],
                "spec.restartPolicy": "Never",
            },
            {"containerStatuses": [{**_CONTAINER, "state": {"running": {"startedAt": _TIME}}}]},
        ),
        ({"status.observedGeneration": 1}, {"observedGeneration": -1}),
        {"resourceClaimStatuses": [{"name": "none"}]},
    ],
)
stated(
    "services",
    [
        {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
        *(
            ({"spec.type": "LoadBalancer"}, {"loadBalancer": {"ingress": [ingress]}})
            for ingress in (
                {"ip": "example"},
                {"hostname": "A_B"},
                {"hostname": "10.0.0.1"},
                {"ip": "10.0.0.1", "ipMode": "Sometimes"},
                {"hostname": "a", "ipMode": "VIP"},
                {"ip": "10.0.0.1", "ports": [{"port": 0, "protocol": "TCP"}]},
            )
        ),
        {"conditions": [{**_READY, "status": "Maybe"}]},
        {"conditions": [{**_READY, "reason": ""}]},
        {"conditions": [{**_READY, "reason": "a b"}]},
        {"conditions": [{**_READY, "type": ""}]},
        {"conditions": [{**_READY, "type": "a b"}]},
        {"conditions": [{**_READY, "observedGeneration": -1}]},
        {"conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "m"}]},
        {"conditions": [_READY, _READY]},
    ],
)
stated(
    "ingresses",
    [
        {"loadBalancer": {"ingress": [{"ip": "example"}]}},
        {"loadBalancer": {"ingress": [{"hostname": "A_B"}]}},
        {"loadBalancer": {"ingress": [{"hostname": "10.0.0.1"}]}},
        {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ports": [{"port": 0, "protocol": "TCP"}]}]}},
        {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ports": [{"port": 80, "protocol": "HTTP"}]}]}},
        {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ports": [{"port": 80, "protocol": "TCP", "error": "a b"}]}]}},
    ],
)
stated(
    "poddisruptionbudgets",
    [
        {"currentHealthy": -1},
        {"desiredHealthy": -1},
        {"disruptionsAllowed": -1},
        {"expectedPods": -1},
        {"conditions": [{**_READY, "status": "Maybe"}]},
    ],
)
stated(
    "horizontalpodautoscalers",
    [
        {"currentReplicas": -1, "desiredReplicas": 1},
        {"desiredReplicas": -1},
        {"conditions": [{"type": "", "status": ""}]},
    ],
)
stated("namespaces", [{"phase": "Sometimes"}, {"phase": "Terminating"}])
stated(
    "nodes",
    [
        {"capacity": {"cpu": "-1"}},
        {"allocatable": {"bad name": "1"}},
        {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "10.0.0.1"}]},
        {"images": [{"names": ["a"], "sizeBytes": -1}]},
        {"conditions": [{"type": "Ready", "status": "Maybe"}]},
        {"config": {"active": {}}},
    ],
)
stated(
    "persistentvolumeclaims", [{"phase": "Sometimes"}, {"capacity": {"storage": "-1"}}, {"capacity": {"bad name": "1"}}]
)
stated("persistentvolumes", [{"phase": "Sometimes"}])
stated("resourcequotas", [{"hard": {"pods": "-1"}}, {"used": {"pods": "1500m"}}, {"used": {"bad name": "1"}}])
