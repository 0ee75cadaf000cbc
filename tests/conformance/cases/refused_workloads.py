"""Invalid workloads: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs (26)."""

from __future__ import annotations

from tests.conformance.cases._mistakes import GONE, created, updated

created(
    "deployments",
    [
        {"replicas": -1},
        {"minReadySeconds": -1},
        {"revisionHistoryLimit": -1},
        {"progressDeadlineSeconds": -1},
        {"progressDeadlineSeconds": 0},
        {"minReadySeconds": 700},
        {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
        {"strategy": {"rollingUpdate": {"maxSurge": -1}}},
        {"strategy": {"rollingUpdate": {"maxSurge": "many"}}},
        {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"type": "Canary"}},
        {"selector": GONE},
        {"selector": {}},
        {"selector": {"matchLabels": {"a": "b"}}},
        {"selector": {"matchLabels": {"a b": "c"}}},
        {"selector": {"matchLabels": {"k": "c d"}}},
        {"selector": {"matchExpressions": [{"key": "k", "operator": "Is"}]}},
        {"selector": {"matchExpressions": [{"key": "k", "operator": "In"}]}},
        {"selector": {"matchExpressions": [{"key": "k", "operator": "Exists", "values": ["v"]}]}},
        {"selector": {"matchExpressions": [{"key": "", "operator": "Exists"}]}},
        {"template.metadata.labels": {"k": "v", "a": "b c"}},
        {"template.metadata.annotations": {"a b": "c"}},
        {"template.spec.restartPolicy": "Never"},
        {"template.spec.activeDeadlineSeconds": 5},
        {"template.spec.containers": []},
        {"template.spec.containers[0].image": ""},
        {"template.spec.containers[0].livenessProbe": {"httpGet": {"port": 0}}},
    ],
    "spec.",
)
created(
    "replicasets",
    [
        {"replicas": -1},
        {"minReadySeconds": -1},
        {"selector": {}},
        {"template.spec.restartPolicy": "OnFailure"},
        {"template.spec.activeDeadlineSeconds": 5},
    ],
    "spec.",
)
created(
    "replicationcontrollers",
    [
        {"replicas": -1},
        {"minReadySeconds": -1},
        {"selector": {"a": "b"}},
        {"template": GONE, "selector": {"a": "b"}},
        {"template.spec.restartPolicy": "Never"},
    ],
    "spec.",
)
created("podtemplates", [{"template.spec.containers": []}, {"template.spec.containers[0].name": "A"}])
created(
    "daemonsets",
    [
        {"minReadySeconds": -1},
        {"revisionHistoryLimit": -1},
        {"updateStrategy": {"type": "Canary"}},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "200%"}}},
        {"selector": {}},
        {"template.spec.restartPolicy": "Never"},
        {"template.spec.activeDeadlineSeconds": 5},
    ],
    "spec.",
)
created(
    "statefulsets",
    [
        {"replicas": -1},
        {"minReadySeconds": -1},
        {"podManagementPolicy": "Sometimes"},
        {"updateStrategy": {"type": "Canary"}},
        {"updateStrategy": {"rollingUpdate": {"partition": -1}}},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}},
        {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
        {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Sometimes"}},
        {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Sometimes"}},
        {"ordinals": {"start": -1}},
        {"serviceName": "A_B"},
        {"selector": {}},
        {"selector": {"matchLabels": {"a": "b"}}},
        {"template.spec.restartPolicy": "Never"},
        {"template.spec.activeDeadlineSeconds": 5},
    ],
    "spec.",
)
_RULE = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
created(
    "jobs",
    [
        {"parallelism": -1},
        {"completions": -1},
        {"backoffLimit": -1},
        {"activeDeadlineSeconds": -1},
        {"ttlSecondsAfterFinished": -1},
        {"completionMode": "Sometimes"},
        {"completionMode": "Indexed", "completions": GONE, "parallelism": 1},
        {"completionMode": "Indexed", "completions": 3, "parallelism": 100001},
        {"backoffLimitPerIndex": 1},
        {"backoffLimitPerIndex": -1, "completionMode": "Indexed", "completions": 1},
        {"maxFailedIndexes": 1},
        {"maxFailedIndexes": 2, "backoffLimitPerIndex": 1, "completionMode": "Indexed", "completions": 1},
        {"managedBy": "a b"},
        {"podReplacementPolicy": "Sometimes"},
        {"podReplacementPolicy": "TerminatingOrFailed", "podFailurePolicy": {"rules": [_RULE]}},
        {"podFailurePolicy": {"rules": [_RULE]}, "template.spec.restartPolicy": "OnFailure"},
        {"podFailurePolicy": {"rules": [{**_RULE, "action": "Wait"}]}},
        {"podFailurePolicy": {"rules": [{"action": "Count"}]}},
        {"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}}]}},
        {"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "Is", "values": [1]}}]}},
        {"podFailurePolicy": {"rules": [{"action": "Count", "onPodConditions": [{"type": "a b", "status": "True"}]}]}},
        {"successPolicy": {"rules": [{"succeededCount": 1}]}},
        {"selector": {"matchLabels": {"a": "b"}}},
        {"manualSelector": True},
        {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}},
        {"template.spec.restartPolicy": "Always"},
        {"template.spec.restartPolicy": GONE},
        {"template.spec.containers": []},
    ],
    "spec.",
)
created(
    "cronjobs",
    [
        {"schedule": ""},
        {"schedule": "* * *"},
        {"schedule": "61 * * * *"},
        {"schedule": "@soon"},
        {"schedule": "TZ=UTC * * * * *"},
        {"timeZone": "Mars/Olympus"},
        {"timeZone": ""},
        {"timeZone": "Local"},
        {"startingDeadlineSeconds": -1},
        {"concurrencyPolicy": "Sometimes"},
        {"successfulJobsHistoryLimit": -1},
        {"failedJobsHistoryLimit": -1},
        {"jobTemplate.spec.parallelism": -1},
        {"jobTemplate.spec.manualSelector": True},
        {"jobTemplate.spec.template.spec.restartPolicy": "Always"},
        {"jobTemplate.spec.template.spec.containers": []},
    ],
    "spec.",
)
created("cronjobs", [{"metadata.name": "a" * 53}])

updated(
    "deployments",
    [({}, {"spec.selector": {"matchLabels": {"k": "v", "a": "b"}}, "spec.template.metadata.labels.a": "b"})],
)
updated("statefulsets", [({}, {"spec.podManagementPolicy": "Parallel"}), ({}, {"spec.minReadySeconds": -1})])
updated(
    "jobs",
    [
        ({}, {"spec.completions": 2}),
        ({}, {"spec.backoffLimit": -1}),
        ({}, {"spec.completionMode": "Indexed"}),
        ({}, {"spec.template.spec.containers[0].image": "other"}),
        ({}, {"spec.managedBy": "example.com/other"}),
        ({"spec.completionMode": "Indexed", "spec.completions": 2}, {"spec.completions": 3}),
    ],
)
updated(
    "cronjobs",
    [
        ({}, {"spec.jobTemplate.spec.template.spec.containers[0].image": "other"}),
        ({}, {"spec.jobTemplate.spec.completions": 3}),
        ({}, {"spec.jobTemplate.spec.backoffLimit": -1}),
    ],
)
