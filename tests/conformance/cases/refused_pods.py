"""Invalid pods and pod templates (26)."""

from __future__ import annotations

from tests.conformance.cases._mistakes import GONE, created

_HTTP = {"httpGet": {"port": 80}}
_VOLUME = "spec.volumes[0]"

created(
    "pods",
    [
        {"name": "a_b"},
        {"image": " i"},
        {"imagePullPolicy": "Sometimes"},
        {"terminationMessagePolicy": "Both"},
        {"ports[0]": {"containerPort": 0}},
        {"ports[0]": {"containerPort": 80, "name": "too-long-for-a-port-name"}},
        {"ports[0]": {"containerPort": 80, "name": "Upper"}},
        {"ports[0]": {"containerPort": 80, "name": "80"}},
        {"ports[0]": {"containerPort": 80, "hostPort": 70000}},
        {"ports[0]": {"containerPort": 80, "protocol": "HTTP"}},
        {"ports[0]": {"containerPort": 80, "hostPort": 80, "hostIP": "example"}},
        {"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]},
        {"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080}]},
        {"env[0]": {"name": "A=B"}},
        {"env[0]": {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}},
        {"env[0]": {"name": "A", "valueFrom": {}}},
        {"env[0]": {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.containers"}}}},
        {"env[0]": {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": ""}}}},
        {"env[0]": {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}},
        {"env[0]": {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a b"}}}},
        {"env[0]": {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "A_B", "key": "k"}}}},
        {"env[0]": {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "", "key": "k"}}}},
        {"env[0]": {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}},
        {"env[0]": {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": ""}}}},
        {"envFrom[0]": {}},
        {"envFrom[0]": {"secretRef": {"name": ""}}},
        {"envFrom[0]": {"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}},
        {"envFrom[0]": {"configMapRef": {"name": "A"}}},
        {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        {"resources": {"requests": {"cpu": "-1"}}},
        {"resources": {"limits": {"memory": "-1Mi"}}},
        {"resources": {"requests": {"gpu": "1"}}},
        {"resources": {"limits": {"example.com/gpu": "1500m"}}},
        {"resources": {"requests": {"example.com/gpu": "1"}}},
        {"resources": {"limits": {"bad name": "1"}}},
        {"resources": {"requests": {"hugepages-2Mi": "2Mi"}}},
        {"resources": {"claims": [{"name": "none"}]}},
        {"livenessProbe": {}},
        {"livenessProbe": {**_HTTP, "exec": {"command": ["a"]}}},
        {"livenessProbe": {**_HTTP, "periodSeconds": -1}},
        {"livenessProbe": {**_HTTP, "initialDelaySeconds": -1}},
        {"livenessProbe": {**_HTTP, "timeoutSeconds": -1}},
        {"livenessProbe": {**_HTTP, "failureThreshold": -1}},
        {"livenessProbe": {**_HTTP, "successThreshold": 2}},
        {"startupProbe": {**_HTTP, "successThreshold": 2}},
        {"livenessProbe": {**_HTTP, "terminationGracePeriodSeconds": 0}},
        {"readinessProbe": {**_HTTP, "terminationGracePeriodSeconds": 10}},
        {"readinessProbe": {"httpGet": {"port": 0}}},
        {"readinessProbe": {"httpGet": {"port": "-"}}},
        {"readinessProbe": {"httpGet": {"port": 80, "scheme": "FTP"}}},
        {"readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "c"}]}}},
        {"readinessProbe": {"tcpSocket": {"port": 70000}}},
        {"readinessProbe": {"exec": {}}},
        {"readinessProbe": {"grpc": {"port": 0}}},
        {"lifecycle": {"preStop": {}}},
        {"lifecycle": {"postStart": {"exec": {"command": []}}}},
        {"lifecycle": {"preStop": {"sleep": {"seconds": -1}}}},
        {"volumeMounts[0]": {"name": "v", "mountPath": "/v"}},
        {"securityContext": {"runAsUser": -1}},
        {"securityContext": {"runAsGroup": -1}},
        {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
        {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}, "allowPrivilegeEscalation": False}},
        {"securityContext": {"procMount": "Some"}},
        {"securityContext": {"seccompProfile": {"type": "Some"}}},
        {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
        {"securityContext": {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a"}}},
        {"securityContext": {"appArmorProfile": {"type": "Some"}}},
        {"restartPolicy": "Sometimes"},
        {"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]},
        {"workingDir": "a", "volumeDevices": [{"name": "v", "devicePath": "/dev/a"}]},
    ],
    "spec.containers[0].",
)
created(
    "pods",
    [
        {_VOLUME: {"name": "V"}},
        {_VOLUME: {"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}},
        {_VOLUME: {"name": "v", "emptyDir": {"sizeLimit": "-1"}}},
        {_VOLUME: {"name": "v", "hostPath": {"path": ""}}},
        {_VOLUME: {"name": "v", "hostPath": {"path": "/a/../b"}}},
        {_VOLUME: {"name": "v", "hostPath": {"path": "/a", "type": "Folder"}}},
        {_VOLUME: {"name": "v", "secret": {}}},
        {_VOLUME: {"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}},
        {_VOLUME: {"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/p"}]}}},
        {_VOLUME: {"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "../p"}]}}},
        {_VOLUME: {"name": "v", "secret": {"secretName": "s", "items": [{"key": "", "path": ""}]}}},
        {_VOLUME: {"name": "v", "configMap": {}}},
        {_VOLUME: {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 512}]}}},
        {_VOLUME: {"name": "v", "persistentVolumeClaim": {"claimName": ""}}},
        {_VOLUME: {"name": "v", "downwardAPI": {"items": [{"path": "p"}]}}},
        {_VOLUME: {"name": "v", "projected": {"sources": [{"secret": {"name": ""}}]}}},
        {
            _VOLUME: {
                "name": "v",
                "projected": {"sources": [{"serviceAccountToken": {"path": "p", "expirationSeconds": 1}}]},
            }
        },
        {_VOLUME: {"name": "v", "nfs": {"server": "", "path": "a"}}},
        {_VOLUME: {"name": "v", "csi": {"driver": ""}}},
        {_VOLUME: {"name": "v", "ephemeral": {}}},
        {
            f"{_VOLUME}": {"name": "v", "emptyDir": {}},
            "spec.containers[0].volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}],
        },
        *(
            {_VOLUME: {"name": "v", "emptyDir": {}}, "spec.containers[0].volumeMounts[0]": {"name": "v", **mount}}
            for mount in (
                {"mountPath": ""},
                {"mountPath": "/a", "subPath": "/b"},
                {"mountPath": "/a", "subPath": "../b"},
                {"mountPath": "/a", "subPath": "b", "subPathExpr": "c"},
                {"mountPath": "/a", "mountPropagation": "Sideways"},
                {"mountPath": "/a", "mountPropagation": "Bidirectional"},
                {"mountPath": "/a", "recursiveReadOnly": "Enabled"},
            )
        ),
    ],
)
created(
    "pods",
    [
        {"containers": []},
        {"containers": GONE},
        {"initContainers": [{"name": "c", "image": "i"}]},
        {"initContainers": [{"name": "i", "image": "i", "readinessProbe": _HTTP}]},
        {"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Never", "livenessProbe": _HTTP}]},
        {"ephemeralContainers": [{"name": "e", "image": "i"}]},
        {"restartPolicy": "Sometimes"},
        {"dnsPolicy": "Sometimes"},
        {"dnsPolicy": "None"},
        {"dnsConfig": {"nameservers": ["example"]}},
        {"dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}},
        {"dnsConfig": {"searches": ["a_b c"]}},
        {"dnsConfig": {"options": [{"value": "a"}]}},
        {"activeDeadlineSeconds": 0},
        {"terminationGracePeriodSeconds": -1},
        {"hostname": "Host"},
        {"subdomain": "a.b"},
        {"nodeName": "A_B"},
        {"nodeSelector": {"a b": "c"}},
        {"nodeSelector": {"a": "b c"}},
        {"serviceAccountName": "A_B"},
        {"schedulingGates": [{"name": "a b"}]},
        {"schedulingGates": [{"name": "a"}, {"name": "a"}]},
        {"readinessGates": [{"conditionType": "a b"}]},
        {"overhead": {"cpu": "-1"}},
        {"os": {"name": "dos"}},
        {"os": {"name": "windows"}, "securityContext": {"runAsUser": 1}},
        {"hostAliases": [{"ip": "example", "hostnames": ["a"]}]},
        {"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["A_B"]}]},
        {"securityContext": {"runAsUser": -1}},
        {"securityContext": {"fsGroup": -1}},
        {"securityContext": {"supplementalGroups": [-1]}},
        {"securityContext": {"fsGroupChangePolicy": "Sometimes"}},
        {"securityContext": {"sysctls": [{"name": "A B", "value": "1"}]}},
        {"securityContext": {"sysctls": [{"name": "a", "value": "1"}, {"name": "a", "value": "1"}]}},
        {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
        {"securityContext": {"windowsOptions": {"hostProcess": True}}},
        {"hostPID": True, "shareProcessNamespace": True},
        {"hostUsers": False, "hostNetwork": True},
        {"hostNetwork": True, "containers[0].ports": [{"containerPort": 80, "hostPort": 81}]},
        {"tolerations[0]": {"operator": "Sometimes", "key": "a"}},
        {"tolerations[0]": {"operator": "Exists", "key": "a", "value": "b"}},
        {"tolerations[0]": {"operator": "Equal"}},
        {"tolerations[0]": {"key": "a b", "operator": "Exists"}},
        {"tolerations[0]": {"key": "a", "value": "b c"}},
        {"tolerations[0]": {"key": "a", "effect": "Sometimes"}},
        {"tolerations[0]": {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}},
        {"topologySpreadConstraints[0]": {"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}},
        {"topologySpreadConstraints[0]": {"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "DoNotSchedule"}},
        {"topologySpreadConstraints[0]": {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "Sometimes"}},
        {
            "topologySpreadConstraints[0]": {
                "maxSkew": 1,
                "topologyKey": "a",
                "whenUnsatisfiable": "ScheduleAnyway",
                "minDomains": 2,
            }
        },
        {
            "topologySpreadConstraints[0]": {
                "maxSkew": 1,
                "topologyKey": "a",
                "whenUnsatisfiable": "DoNotSchedule",
                "nodeTaintsPolicy": "Sometimes",
            }
        },
    ],
    "spec.",
)
created(
    "pods",
    [
        {"nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms": []},
        *(
            {
                "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]": {
                    "matchExpressions": [term]
                }
            }
            for term in (
                {"key": "a", "operator": "Is"},
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["b"]},
                {"key": "a", "operator": "Gt", "values": ["1", "2"]},
                {"key": "a b", "operator": "Exists"},
            )
        ),
        {
            "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]": {
                "weight": 0,
                "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            }
        },
        {"podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]": {"topologyKey": ""}},
        {"podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]": {"topologyKey": "a b"}},
        {
            "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]": {
                "weight": 101,
                "podAffinityTerm": {"topologyKey": "a"},
            }
        },
        {
            "podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]": {
                "topologyKey": "a",
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]},
            }
        },
    ],
    "spec.affinity.",
)
