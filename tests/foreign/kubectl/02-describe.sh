# What describe shows of each kind.
kubectl create -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {note: "a note"}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1.27"}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "postgres:17"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: once, image: "busybox:1.36"}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: OnFailure, containers: [{name: nightly, image: "busybox:1.36"}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules: [{host: example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 4}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: limited}
spec: {hard: {pods: "10"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}}]}
---
apiVersion: v1
kind: Node
metadata: {name: described}
status: {capacity: {cpu: "4", memory: 8Gi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: described}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /data}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: described}
provisioner: example.com/disks
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot}]
---
apiVersion: v1
kind: Event
metadata: {name: web.1}
involvedObject: {apiVersion: apps/v1, kind: Deployment, name: web, namespace: describe}
type: Warning
reason: Slow
message: it takes long
source: {component: tests}
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:00Z"
count: 1
EOF

kubectl describe deployment web

kubectl describe statefulset/db

kubectl describe ds agent

kubectl describe job once

kubectl describe cronjob nightly

kubectl describe ingress web

kubectl describe networkpolicy closed

kubectl describe pdb web

kubectl describe hpa web

kubectl describe quota limited

kubectl describe limits limits

kubectl describe node described

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl describe pv described

kubectl describe sc described

kubectl describe role reader

kubectl describe rolebinding reader

kubectl describe namespace describe

kubectl describe event web.1

kubectl describe pods nothing

kubectl describe -f - <<EOF
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
EOF

kubectl events

kubectl events --for deployment/web --types=Warning

kubectl get events -o wide

kubectl get events --sort-by=.lastTimestamp --field-selector reason=Slow
