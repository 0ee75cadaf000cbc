# Nodes, and what needs a kubelet.
kubectl apply -f - <<EOF
apiVersion: v1
kind: Node
metadata: {name: worker, labels: {node-role.kubernetes.io/worker: ""}}
spec: {podCIDR: 10.1.0.0/24}
EOF

kubectl get node worker

kubectl get node worker -o wide

kubectl get node worker -o yaml

kubectl taint node worker key=value:NoSchedule

kubectl taint node worker key=value:NoSchedule

kubectl taint node worker key:NoSchedule-

kubectl taint node worker bad

kubectl cordon worker

kubectl cordon worker

kubectl uncordon worker

kubectl label node worker disk=ssd

kubectl run main --image=busybox:1.36 --overrides='{"spec": {"nodeName": "worker"}}'

kubectl get pods -o wide

kubectl drain worker

kubectl drain worker --force --dry-run=server

kubectl drain worker --force --timeout=3s 2>&1 | sed 's/drain did not complete within 3s\|global timeout reached: 3s/TIMEOUT/'

# differs: needs a kubelet, which neither has: the embedded server says so in its own words
kubectl logs main

kubectl logs absent

# differs: needs a kubelet, which neither has: the embedded server says so in its own words
kubectl exec main -- ls

# differs: needs a kubelet, which neither has: the embedded server says so in its own words
kubectl attach main

# differs: needs a kubelet, which neither has: the embedded server says so in its own words
kubectl cp main:/etc/hosts hosts

kubectl port-forward pod/main 18080:80

kubectl debug main --image=busybox:1.36 -c debugger --attach=false -it=false

kubectl get pod main -o jsonpath='{.spec.ephemeralContainers}'

kubectl debug main --image=busybox:1.36 --copy-to=copy --attach=false

kubectl debug node/worker --image=busybox:1.36 --attach=false -it=false 2>&1 | sed 's/worker-[a-z0-9]*/worker-X/'

kubectl debug main --image=busybox:1.36 --profile=netadmin -c admin --attach=false

kubectl top nodes

kubectl top pods

kubectl proxy --port=bad
