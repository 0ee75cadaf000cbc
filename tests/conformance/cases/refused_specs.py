"""Invalid objects of the other kinds (26)."""

from __future__ import annotations

from tests.conformance.cases._mistakes import GONE, created, updated

created(
    "services",
    [
        {"ports": []},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 70000}]},
        {"ports": [{"port": 80, "targetPort": 0}]},
        {"ports": [{"port": 80, "targetPort": "Bad_Name"}]},
        {"ports": [{"port": 80, "protocol": "HTTP"}]},
        {"ports": [{"port": 80, "name": "A"}]},
        {"ports": [{"port": 80}, {"port": 81}]},
        {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]},
        {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
        {"ports": [{"port": 80, "nodePort": 30080}]},
        {"ports": [{"port": 80, "nodePort": 80}], "type": "NodePort"},
        {"ports": [{"port": 80, "appProtocol": "a b"}]},
        {"type": "Sometimes"},
        {"type": "ExternalName"},
        {"type": "ExternalName", "externalName": "A_B"},
        {"type": "ExternalName", "externalName": "example.com", "clusterIP": "None"},
        {"selector": {"a b": "c"}},
        {"selector": {"a": "b c"}},
        {"clusterIP": "example"},
        {"clusterIP": "None", "type": "NodePort"},
        {"sessionAffinity": "Sometimes"},
        {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
        {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
        {"externalIPs": ["example"]},
        {"externalIPs": ["127.0.0.1"]},
        {"externalTrafficPolicy": "Local"},
        {"type": "NodePort", "externalTrafficPolicy": "Sometimes"},
        {"internalTrafficPolicy": "Sometimes"},
        {"healthCheckNodePort": 30000},
        {"loadBalancerSourceRanges": ["10.0.0.0/8"]},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["example"]},
        {"loadBalancerClass": "example.com/lb"},
        {"allocateLoadBalancerNodePorts": True},
        {"ipFamilyPolicy": "Sometimes"},
        {"ipFamilies": ["IPv5"]},
        {"ipFamilies": ["IPv4", "IPv4"]},
    ],
    "spec.",
)
created("services", [{"metadata.name": "a.b"}, {"metadata.name": "1a_"}])
updated(
    "services",
    [
        ({}, {"spec.clusterIP": "10.96.0.200", "spec.clusterIPs": ["10.96.0.200"]}),
        ({"spec.type": "LoadBalancer"}, {"spec.loadBalancerClass": "example.com/lb"}),
    ],
)
_PATH = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}
created(
    "ingresses",
    [
        {"defaultBackend": GONE},
        {"defaultBackend": {"service": {"name": "s"}}},
        {"defaultBackend": {"service": {"name": "s", "port": {"number": 80, "name": "a"}}}},
        {"defaultBackend": {"service": {"name": "s", "port": {"number": 0, "name": "A_B"}}}},
        {"defaultBackend": {"service": {"name": "s", "port": {"number": 70000}}}},
        {"defaultBackend": {"service": {"name": "", "port": {"number": 80}}}},
        {"defaultBackend": {}},
        {"defaultBackend.resource": {"kind": "A", "name": "a"}},
        {"ingressClassName": "A_B"},
        {"rules": [{"host": "A_B"}]},
        {"rules": [{"host": "1.2.3.4"}]},
        {"rules": [{"host": "*.A"}]},
        {"rules": [{"http": {"paths": []}}]},
        {"rules": [{"http": {"paths": [{**_PATH, "pathType": "Sometimes"}]}}]},
        {"rules": [{"http": {"paths": [{"path": "/", "backend": _PATH["backend"]}]}}]},
        {"rules": [{"http": {"paths": [{**_PATH, "path": "a"}]}}]},
        {"rules": [{"http": {"paths": [{**_PATH, "path": "/a//b"}]}}]},
        {"rules": [{"http": {"paths": [{**_PATH, "backend": {}}]}}]},
        {"tls": [{"hosts": ["A_B"]}]},
        {"tls": [{"hosts": ["a"], "secretName": "A_B"}]},
    ],
    "spec.",
)
created(
    "ingressclasses",
    [
        {"spec.controller": "a"},
        {"spec.controller": ""},
        {"spec.controller": "a" * 251},
        {"spec.parameters": {"kind": "A", "name": "a", "scope": "Sometimes"}},
        {"spec.parameters": {"kind": "A", "name": "a", "scope": "Namespace"}},
    ],
)
updated("ingressclasses", [({}, {"spec.controller": "example.com/other"})])
created(
    "networkpolicies",
    [
        {"podSelector": {"matchLabels": {"a b": "c"}}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
        {"policyTypes": ["Sometimes"]},
        {"policyTypes": ["Ingress", "Egress", "Ingress"]},
        {"ingress": [{"ports": [{"port": 0}]}]},
        {"ingress": [{"ports": [{"port": "Bad_Name"}]}]},
        {"ingress": [{"ports": [{"port": 80, "protocol": "HTTP"}]}]},
        {"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]},
        {"ingress": [{"ports": [{"endPort": 79}]}]},
        {"ingress": [{"from": [{}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "example"}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
        {"egress": [{"to": [{"ipBlock": {"cidr": ""}}]}]},
    ],
    "spec.",
)
created("configmaps", [{"data['a b']": "1"}, {"data.b": "1"}, {"binaryData['a/b']": "MQ=="}])
updated("configmaps", [({"immutable": True}, {"data.a": "2"}), ({"immutable": True}, {"immutable": False})])
created(
    "secrets",
    [
        {"stringData['a b']": "1"},
        {"type": "kubernetes.io/tls"},
        {"type": "kubernetes.io/dockerconfigjson"},
        {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "x"}},
        {"type": "kubernetes.io/dockercfg", "stringData": {".dockercfg": "x"}},
        {"type": "kubernetes.io/basic-auth"},
        {"type": "kubernetes.io/ssh-auth"},
        {"type": "kubernetes.io/service-account-token"},
    ],
)
updated("secrets", [({}, {"type": "example.com/t"}), ({"immutable": True}, {"data.a": "Mg=="})])
created(
    "persistentvolumes",
    [
        {"capacity": GONE},
        {"capacity": {"cpu": "1"}},
        {"capacity": {"storage": "-1"}},
        {"accessModes": []},
        {"accessModes": ["Sometimes"]},
        {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]},
        {"hostPath": GONE},
        {"hostPath": {"path": ""}},
        {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"},
        {"nfs": {"server": "s", "path": "/"}},
        {"persistentVolumeReclaimPolicy": "Sometimes"},
        {"storageClassName": "A_B"},
        {"volumeMode": "Sometimes"},
        {"hostPath": GONE, "csi": {"driver": "d"}},
        {"hostPath": GONE, "local": {"path": "/a"}},
    ],
    "spec.",
)
updated("persistentvolumes", [({}, {"spec.hostPath.path": "/b"}), ({}, {"spec.volumeMode": "Block"})])
created(
    "persistentvolumeclaims",
    [
        {"accessModes": []},
        {"accessModes": ["Sometimes"]},
        {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]},
        {"resources": {}},
        {"resources.requests.storage": "0"},
        {"resources.requests.storage": "-1Gi"},
        {"storageClassName": "A_B"},
        {"volumeMode": "Sometimes"},
        {"selector": {"matchLabels": {"a b": "c"}}},
        {"dataSource": {"kind": "A", "name": ""}},
        {"dataSource": {"kind": "", "name": "a"}},
    ],
    "spec.",
)
updated("persistentvolumeclaims", [({}, {"spec.accessModes": ["ReadOnlyMany"]}), ({}, {"spec.volumeMode": "Block"})])
_CPU = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
created(
    "horizontalpodautoscalers",
    [
        {"maxReplicas": 0},
        {"maxReplicas": GONE},
        {"minReplicas": 0},
        {"minReplicas": -1},
        {"minReplicas": 5},
        {"scaleTargetRef.kind": ""},
        {"scaleTargetRef.name": ""},
        {"scaleTargetRef.name": "a/b"},
        {"metrics": [{"type": "Resource"}]},
        {"metrics": [{"type": "Sometimes"}]},
        {"metrics": [{}]},
        {"metrics": [{"type": "Resource", "resource": {**_CPU, "name": ""}}]},
        {"metrics": [{"type": "Resource", "resource": {**_CPU, "target": {"type": "Utilization"}}}]},
        {
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {**_CPU, "target": {"type": "Utilization", "averageUtilization": 0}},
                }
            ]
        },
        {"metrics": [{"type": "Resource", "resource": {**_CPU, "target": {"type": "", "averageValue": "1"}}}]},
        {"metrics": [{"type": "Pods", "pods": {"metric": {"name": ""}, "target": {"type": "Value", "value": "1"}}}]},
        {"behavior": {"scaleDown": {"stabilizationWindowSeconds": -1}}},
        {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
        {"behavior": {"scaleUp": {"selectPolicy": "Sometimes"}}},
        {"behavior": {"scaleUp": {"policies": [{"type": "Sometimes", "value": 1, "periodSeconds": 1}]}}},
        {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}}},
        {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}},
    ],
    "spec.",
)
created(
    "poddisruptionbudgets",
    [
        {"maxUnavailable": 1},
        {"minAvailable": -1},
        {"minAvailable": "half"},
        {"minAvailable": "101%"},
        {"minAvailable": GONE, "maxUnavailable": -1},
        {"selector": {"matchLabels": {"a b": "c"}}},
        {"unhealthyPodEvictionPolicy": "Sometimes"},
    ],
    "spec.",
)
for _roles in ("roles", "clusterroles"):
    created(
        _roles,
        [
            {"rules[0].verbs": []},
            {"rules[0].resources": []},
            {"rules[0].apiGroups": []},
            {"rules[0].nonResourceURLs": ["/a"]},
            {"rules[0]": {"verbs": ["get"], "nonResourceURLs": ["/a"]}},
            *([{"aggregationRule": {"clusterRoleSelectors": []}}] if _roles == "clusterroles" else []),
        ],
    )
for _bindings in ("rolebindings", "clusterrolebindings"):
    created(
        _bindings,
        [
            {"roleRef.kind": "Group"},
            {"roleRef.kind": "Role"},
            {"roleRef.name": ""},
            {"roleRef.apiGroup": "apps"},
            {"subjects[0].kind": "Robot"},
            {"subjects[0].name": ""},
            {"subjects[0]": {"kind": "ServiceAccount", "name": "a"}},
            {"subjects[0]": {"kind": "ServiceAccount", "name": "A_B", "namespace": "n"}},
            {"subjects[0]": {"kind": "User", "name": "a", "apiGroup": "apps"}},
            {"subjects[0]": {"kind": "ServiceAccount", "name": "a", "namespace": "n", "apiGroup": "apps"}},
        ],
    )
updated("rolebindings", [({}, {"roleRef.name": "other"})])
created(
    "leases",
    [
        {"leaseDurationSeconds": 0},
        {"leaseTransitions": -1},
        {"holderIdentity": ""},
        {"strategy": "Sometimes"},
        {"preferredHolder": "a"},
    ],
    "spec.",
)
created(
    "priorityclasses",
    [
        {"value": 1000000001},
        {"metadata.name": "system-a"},
        {"preemptionPolicy": "Sometimes"},
    ],
)
updated("priorityclasses", [({}, {"value": 6}), ({}, {"preemptionPolicy": "Never"})])
created(
    "storageclasses",
    [
        {"provisioner": ""},
        {"provisioner": "a b"},
        {"reclaimPolicy": "Sometimes"},
        {"volumeBindingMode": "Sometimes"},
        {"parameters": {"": "a"}},
        {"allowedTopologies": [{"matchLabelExpressions": [{"key": "", "values": ["a"]}]}]},
        {"allowedTopologies": [{"matchLabelExpressions": [{"key": "a", "values": []}]}]},
    ],
)
updated("storageclasses", [({}, {"provisioner": "other"}), ({}, {"reclaimPolicy": "Retain"})])
created(
    "resourcequotas",
    [
        {"hard": {"pods": "-1"}},
        {"hard": {"pods": "1500m"}},
        {"hard": {"gpu": "1"}},
        {"hard": {"bad name": "1"}},
        {"scopes": ["Sometimes"]},
        {"scopes": ["BestEffort", "NotBestEffort"]},
        {"scopes": ["BestEffort"], "hard": {"cpu": "1"}},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Is"}]}},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In", "values": ["a"]}]}},
    ],
    "spec.",
)
updated("resourcequotas", [({}, {"spec.scopes": ["BestEffort"]})])
created(
    "limitranges",
    [
        {"limits[0]": {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}},
        {"limits[0]": {"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}}},
        {"limits[0]": {"type": "Container", "default": {"cpu": "1"}, "min": {"cpu": "2"}}},
        {"limits[0]": {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}},
        {"limits[0]": {"type": "Pod", "default": {"cpu": "1"}}},
        {"limits[0]": {"type": "Pod", "defaultRequest": {"cpu": "1"}}},
        {"limits[0]": {"type": "Container", "max": {"gpu": "1"}}},
        {"limits[0]": {"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}},
        {"limits[0]": {"type": "PersistentVolumeClaim"}},
        {"limits[0]": {"type": "a b"}},
        {"limits": [{"type": "Pod"}, {"type": "Pod"}]},
    ],
    "spec.",
)
created("serviceaccounts", [{"metadata.name": "A_B"}, {"metadata.labels": {"a b": "c"}}])
created(
    "endpointslices",
    [
        {"addressType": GONE},
        {"addressType": "IPv5"},
        {"endpoints[0].addresses": []},
        {"endpoints[0].addresses": ["example"]},
        {"endpoints[0].addresses": ["127.0.0.1"]},
        {"endpoints[0].addresses": ["fd00::1"]},
        {"endpoints[0].addresses": ["10.0.0.1", "10.0.0.1"]},
        {"endpoints[0].hostname": "A_B"},
        {"endpoints[0].nodeName": "A_B"},
        {"endpoints[0].hints": {"forZones": [{"name": "a b"}]}},
        {"ports[0].port": 0},
        {"ports[0].protocol": "HTTP"},
        {"ports[0].name": "A_B"},
        {"ports[1]": {"port": 81}},
        {"ports[0].appProtocol": "a b"},
    ],
)
updated("endpointslices", [({}, {"addressType": "IPv6"})])
created(
    "endpoints",
    [
        {"subsets[0].addresses[0].ip": "example"},
        {"subsets[0].addresses[0].ip": "127.0.0.1"},
        {"subsets[0].addresses": []},
        {"subsets[0].addresses[0].hostname": "A_B"},
        {"subsets[0].ports[0].port": 0},
        {"subsets[0].ports[0].protocol": "HTTP"},
        {"subsets[0].ports[1]": {"port": 81}},
    ],
)
created("namespaces", [{"metadata.name": "a.b"}])
created(
    "nodes",
    [
        {"spec.podCIDR": "example"},
        {"spec.taints": [{"key": "", "effect": "NoSchedule"}]},
        {"spec.taints": [{"key": "a", "effect": "Sometimes"}]},
        {"spec.taints": [{"key": "a", "effect": ""}]},
        {"spec.taints": [{"key": "a", "value": "b c", "effect": "NoSchedule"}]},
        {"spec.taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]},
    ],
)
updated("nodes", [({"spec.podCIDR": "10.0.0.0/24"}, {"spec.podCIDR": "10.0.1.0/24", "spec.podCIDRs": ["10.0.1.0/24"]})])
created("events", [{"involvedObject.namespace": "other"}, {"involvedObject": {}}])
created(
    "events.events.k8s.io",
    [{"type": "Sometimes"}, {"reason": ""}, {"action": ""}, {"reportingController": "a b"}, {"note": "n" * 1025}],
)
created(
    "customresourcedefinitions",
    [
        {"scope": "Sometimes"},
        {"group": ""},
        {"names.kind": ""},
        {"names.plural": "Gizmos"},
        {"versions": []},
        {"versions[0].storage": False},
        {"versions[0].schema": GONE},
        {"versions[0].name": "V_1"},
        {"versions[0].schema.openAPIV3Schema": {"properties": {"spec": {"type": "object"}}}},
        {"versions[0].schema.openAPIV3Schema.properties.spec": {"type": "sometimes"}},
        {"preserveUnknownFields": True},
        {"conversion": {"strategy": "Sometimes"}},
    ],
    "spec.",
)
created("customresourcedefinitions", [{"metadata.name": "other.mistakes.example"}])
