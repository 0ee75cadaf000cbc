# What tables and descriptions show of objects in use: the commands act as the controllers and the kubelet.
kubectl create -f - <<EOF
apiVersion: v1
kind: Node
metadata: {name: used, labels: {node-role.kubernetes.io/control-plane: "", kubernetes.io/hostname: used}}
---
apiVersion: v1
kind: Pod
metadata: {name: running}
spec: {nodeName: used, containers: [{name: main, image: "busybox:1.36"}, {name: side, image: "busybox:1.36"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: starting}
spec:
  initContainers: [{name: one, image: "busybox:1.36"}, {name: two, image: "busybox:1.36"}]
  containers: [{name: main, image: "busybox:1.36"}]
---
apiVersion: v1
kind: Pod
metadata: {name: sidecar}
spec:
  initContainers: [{name: proxy, image: "busybox:1.36", restartPolicy: Always}]
  containers: [{name: main, image: "busybox:1.36"}]
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec: {restartPolicy: Never, containers: [{name: main, image: "busybox:1.36"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gated}
spec: {schedulingGates: [{name: example.com/wait}], containers: [{name: main, image: "busybox:1.36"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "nginx:1.27"}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {parallelism: 2, template: {spec: {restartPolicy: Never, containers: [{name: once, image: "busybox:1.36"}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 2, maxReplicas: 4}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, clusterIP: 10.0.0.93, ports: [{port: 80, nodePort: 30013}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: used}
spec: {hard: {pods: "10", limits.cpu: "4"}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
EOF

kubectl get pods -o wide

kubectl patch node used --subresource=status -p '{"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}], "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "192.0.2.2"}], "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Linux", "kernelVersion": "6.1", "architecture": "amd64", "containerRuntimeVersion": "containerd://2"}}}'

kubectl patch pod running --subresource=status -p '{"status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}], "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{"name": "main", "image": "busybox:1.36", "imageID": "", "ready": true, "restartCount": 2, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}}, {"name": "side", "image": "busybox:1.36", "imageID": "", "ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}'

kubectl patch pod starting --subresource=status -p '{"status": {"phase": "Pending", "initContainerStatuses": [{"name": "one", "image": "busybox:1.36", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, {"name": "two", "image": "busybox:1.36", "imageID": "", "ready": false, "restartCount": 3, "state": {"terminated": {"exitCode": 2}}}]}}'

kubectl patch pod sidecar --subresource=status -p '{"status": {"phase": "Running", "initContainerStatuses": [{"name": "proxy", "image": "busybox:1.36", "imageID": "", "ready": true, "started": true, "restartCount": 4, "state": {"running": {}}}], "containerStatuses": [{"name": "main", "image": "busybox:1.36", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}}'

kubectl patch pod done --subresource=status -p '{"status": {"phase": "Succeeded", "containerStatuses": [{"name": "main", "image": "busybox:1.36", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}'

kubectl patch pod gated --subresource=status -p '{"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}'

kubectl patch deployment web --subresource=status -p '{"status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2, "availableReplicas": 2, "unavailableReplicas": 1, "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}]}}'

kubectl patch job once --subresource=status -p '{"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1, "succeeded": 1, "ready": 1}}'

kubectl patch hpa web --subresource=status -p '{"status": {"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "100m"}}}]}}'

kubectl patch service web --subresource=status -p '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "example.com"}]}}}'

kubectl patch ingress web --subresource=status -p '{"status": {"loadBalancer": {"ingress": [{"hostname": "example.com"}]}}}'

kubectl patch quota used --subresource=status -p '{"status": {"hard": {"pods": "10", "limits.cpu": "4"}, "used": {"pods": "2", "limits.cpu": "500m"}}}'

kubectl patch pdb web --subresource=status -p '{"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 3, "observedGeneration": 1}}'

kubectl get node used -o wide

kubectl get pods -o wide

kubectl get deployment,job,hpa,service,ingress,quota,pdb -o wide

kubectl get pods --field-selector status.phase=Running,spec.nodeName=used

kubectl describe node used

kubectl describe pod running

kubectl describe pod starting

kubectl describe deployment web

kubectl describe job once

kubectl describe hpa web

kubectl describe service web

kubectl describe ingress web

kubectl describe quota used

kubectl describe pdb web

kubectl rollout status deployment/web --timeout=3s

kubectl patch deployment web --subresource=status -p '{"status": {"readyReplicas": 3, "availableReplicas": 3, "unavailableReplicas": 0}}' && kubectl rollout status deployment/web

kubectl get pod running -o yaml --show-managed-fields

kubectl drain used --ignore-daemonsets --force --dry-run=client

kubectl delete pod running --timeout=3s

kubectl delete pod running --grace-period=5 --wait=false

kubectl get pod running -o wide

kubectl delete pod running --now --wait=false

kubectl delete pod running --force

kubectl get -w pods --request-timeout=3s

kubectl get pods --watch-only --request-timeout=3s

kubectl replace --raw /api/v1/namespaces/states/pods/done/status -f - <<EOF
{}
EOF

kubectl get pod done -o yaml | sed 's/Completed/Finished/' | kubectl replace --subresource=status -f -

kubectl get pod done

kubectl exec done -- true

kubectl autoscale deployment web --max=9 --name=web

kubectl expose pod done --port=80

kubectl set image pod/done main=busybox:1.37

kubectl annotate pods --all --overwrite noted=yes

kubectl delete all --all --wait=false
