# delete and wait.
for each in a b c d e f; do kubectl create configmap $each; done; kubectl label configmap a b set=x

kubectl delete configmap a

kubectl delete configmap a

kubectl delete configmap a --ignore-not-found

kubectl delete configmap/c -o name

kubectl delete configmaps -l set=x

kubectl delete configmap d --dry-run=server

kubectl delete configmap d --dry-run=client

# differs: the embedded server does the work of the garbage collector and the namespace controller at once
kubectl delete configmap d --cascade=foreground --wait=false; kubectl get configmap d -o jsonpath='{.metadata.finalizers}'

# differs: the embedded server does the work of the garbage collector and the namespace controller at once
kubectl delete configmap d --cascade=orphan --wait=false

kubectl delete configmap e --now

kubectl delete --raw /api/v1/namespaces/delete/configmaps/f

# differs: the embedded server does the work of the garbage collector and the namespace controller at once
kubectl delete configmaps --all

kubectl create deployment web --image=nginx:1.27 && kubectl delete deployment web --cascade=orphan --wait=false

kubectl run pod --image=busybox:1.36 && kubectl delete pod pod

kubectl run pod --image=busybox:1.36 && kubectl delete pod pod --force

kubectl run pod --image=busybox:1.36 && kubectl delete pod pod --grace-period=0

kubectl delete pods,services --all

kubectl delete nonsense x

kubectl delete pod

kubectl delete namespace kube-system

# differs: the embedded server does the work of the garbage collector and the namespace controller at once
kubectl create namespace deleted; kubectl delete namespace deleted --wait=false; kubectl create configmap late -n deleted

kubectl create configmap kept && kubectl patch configmap kept -p '{"metadata": {"finalizers": ["example.com/kept"]}}' && kubectl delete configmap kept --timeout=3s

kubectl get configmap kept -o jsonpath='{.metadata.deletionGracePeriodSeconds}{.metadata.finalizers}'

kubectl patch configmap kept -p '{"metadata": {"finalizers": null}}'

kubectl create deployment lasting --image=nginx:1.27

kubectl wait deployment/lasting --for=condition=Available --timeout=3s

kubectl patch deployment lasting --subresource=status --type=merge -p '{"status": {"conditions": [{"type": "Available", "status": "True"}]}}'

kubectl wait deployment/lasting --for=condition=Available --timeout=30s

kubectl wait deployment/lasting --for=jsonpath='{.spec.replicas}'=1 --timeout=30s

kubectl wait deployment/absent --for=condition=Available --timeout=3s

kubectl wait deployment/absent --for=delete --timeout=3s

kubectl wait deployment/lasting --for=delete --timeout=3s

kubectl wait deployment/lasting --for=create --timeout=30s

kubectl wait pods --all --for=condition=Ready --timeout=3s
