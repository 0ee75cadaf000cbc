# The columns of all built-in kinds.
# differs: the embedded server does not warn about the contents of Services and CSIDrivers
kubectl create -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: table}
spec: {containers: [{name: main, image: "busybox:1.36"}], nodeName: somewhere, readinessGates: [{conditionType: example.com/ready}]}
---
apiVersion: v1
kind: PodTemplate
metadata: {name: table}
template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "busybox:1.36"}]}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: table}
spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "busybox:1.36"}]}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: table}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "busybox:1.36"}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: table}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "busybox:1.36"}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: table}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {nodeSelector: {disk: ssd}, containers: [{name: main, image: "busybox:1.36"}]}}}
---
apiVersion: apps/v1
kind: ControllerRevision
metadata: {name: table}
data: {a: b}
revision: 3
---
apiVersion: batch/v1
kind: Job
metadata: {name: table}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "busybox:1.36"}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: table}
spec: {schedule: "* * * * *", timeZone: Etc/UTC, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "busybox:1.36"}]}}}}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: table}
subsets: [{addresses: [{ip: 10.1.1.1}, {ip: 10.1.1.2}], ports: [{port: 80}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: table}
addressType: IPv4
endpoints: [{addresses: [10.1.1.1]}, {addresses: [10.1.1.2]}]
ports: [{name: http, port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: table}
spec:
  ingressClassName: table
  tls: [{hosts: [example.com]}]
  rules: [{host: example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: table}
spec: {controller: example.com/controller, parameters: {apiGroup: example.com, kind: Thing, name: x}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: table}
spec: {podSelector: {matchLabels: {a: b}}}
---
apiVersion: networking.k8s.io/v1
kind: IPAddress
metadata: {name: 10.0.0.201}
spec: {parentRef: {resource: services, namespace: tables, name: x}}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: table}
spec: {cidrs: [10.9.0.0/24]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: table}
spec: {maxUnavailable: 50%, selector: {matchLabels: {a: b}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: table}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: table}
  maxReplicas: 4
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 1Gi}}}
  - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: "5"}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: table}
secrets: [{name: a}]
---
apiVersion: v1
kind: Secret
metadata: {name: table}
type: example.com/x
stringData: {a: b, c: d}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: table}
data: {a: b}
binaryData: {c: AAAA}
---
apiVersion: v1
kind: LimitRange
metadata: {name: table}
spec: {limits: [{type: Pod, max: {cpu: "1"}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: table}
spec: {hard: {pods: "10", requests.cpu: "4", limits.memory: 1Gi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: table}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany], hostPath: {path: /data}, storageClassName: fast, claimRef: {namespace: tables, name: table}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: table}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: fast, volumeName: table}
---
apiVersion: v1
kind: Service
metadata: {name: table}
spec: {type: NodePort, clusterIP: 10.0.0.90, externalIPs: [192.0.2.7], selector: {a: b}, ports: [{port: 80, nodePort: 30990}]}
---
apiVersion: v1
kind: Service
metadata: {name: table-balanced}
spec: {type: LoadBalancer, clusterIP: 10.0.0.91, ports: [{port: 80, nodePort: 30991, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: table-headless}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: table}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: table}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: table}
subjects: [{kind: User, name: u}, {kind: Group, name: g}, {kind: ServiceAccount, name: s, namespace: other}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: table}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: table}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: table}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: table, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: example.com/disks
allowVolumeExpansion: true
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: table}
spec: {tokenRequests: [{audience: a}], volumeLifecycleModes: [Persistent]}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: table}
spec: {drivers: [{name: x, nodeID: z}]}
---
apiVersion: storage.k8s.io/v1
kind: CSIStorageCapacity
metadata: {name: table}
storageClassName: table
capacity: 1Gi
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: table}
spec: {attacher: x, nodeName: z, source: {persistentVolumeName: table}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: table}
driverName: x
parameters: {a: b}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: table}
value: 10
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: table}
handler: x
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: table}
spec: {holderIdentity: me}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: table}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [absent]}]}
  validations: [{expression: "true"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: table}
spec: {policyName: table, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: table}
spec:
  reinvocationPolicy: Never
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [absent]}]}
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{}"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: table}
spec: {policyName: table}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: table}
webhooks: []
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: table}
---
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: table}
spec: {selectors: [{cel: {expression: "true"}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: table}
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: table}}]}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: table}
spec: {spec: {devices: {requests: [{name: a, exactly: {deviceClassName: table}}]}}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: table}
spec: {driver: x.example.com, nodeName: z, pool: {name: p, generation: 1, resourceSliceCount: 1}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: table}
spec: {priorityLevelConfiguration: {name: table}, matchingPrecedence: 9000}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: table}
spec: {type: Limited, limited: {nominalConcurrencyShares: 5, limitResponse: {type: Reject}}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.table.example.com}
spec: {group: table.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 10}
---
apiVersion: v1
kind: Event
metadata: {name: table}
involvedObject: {kind: Pod, name: table, namespace: tables}
message: something happened
reason: Happened
type: Normal
EOF

kubectl get pods -o wide

kubectl get podtemplates -o wide

kubectl get replicationcontrollers -o wide

kubectl get replicasets -o wide

kubectl get statefulsets -o wide

kubectl get daemonsets -o wide

kubectl get controllerrevisions -o wide

kubectl get jobs -o wide

kubectl get cronjobs -o wide

kubectl get endpoints -o wide

kubectl get endpointslices -o wide

kubectl get ingresses -o wide

kubectl get ingressclass/table -o wide

kubectl get networkpolicies -o wide

kubectl get ipaddress/10.0.0.201 -o wide

kubectl get servicecidr/table -o wide

kubectl get poddisruptionbudgets -o wide

kubectl get hpa -o wide

kubectl get serviceaccounts -o wide

kubectl get secrets -o wide

kubectl get configmaps -o wide

kubectl get limitranges -o wide

kubectl get resourcequotas -o wide

kubectl get pv/table -o wide

kubectl get pvc -o wide

kubectl get services -o wide

kubectl get roles -o wide

kubectl get rolebindings -o wide

kubectl get clusterrole/table -o wide

kubectl get clusterrolebinding/table -o wide

kubectl get sc/table -o wide

kubectl get csidriver/table -o wide

kubectl get csinode/table -o wide

kubectl get csistoragecapacities -o wide

kubectl get volumeattachment/table -o wide

kubectl get vac/table -o wide

kubectl get priorityclass/table -o wide

kubectl get runtimeclass/table -o wide

kubectl get leases -o wide

kubectl get validatingadmissionpolicy/table -o wide

kubectl get validatingadmissionpolicybinding/table -o wide

kubectl get mutatingadmissionpolicy/table -o wide

kubectl get mutatingadmissionpolicybinding/table -o wide

kubectl get validatingwebhookconfiguration/table -o wide

kubectl get mutatingwebhookconfiguration/table -o wide

kubectl get deviceclass/table -o wide

kubectl get resourceclaims -o wide

kubectl get resourceclaimtemplates -o wide

kubectl get resourceslice/table -o wide

# differs: a controller in the real server sets this status
kubectl get flowschema/table -o wide

kubectl get prioritylevelconfiguration/table -o wide

# differs: a controller in the real server sets this status
kubectl get apiservice/v1.table.example.com -o wide

kubectl get events -o wide
