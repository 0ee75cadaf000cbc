# What the server offers.
kubectl api-resources

kubectl api-resources --namespaced=false -o name

kubectl api-resources --api-group=apps -o wide

kubectl api-resources --verbs=list,create --categories=all

kubectl api-versions

# differs: the version is that of the embedded server
kubectl version

# differs: the version is that of the embedded server
kubectl version -o yaml

kubectl cluster-info

kubectl explain pod

kubectl explain pods.spec.containers

kubectl explain deployment.spec.strategy.rollingUpdate.maxSurge

kubectl explain deployment --recursive

kubectl explain hpa --api-version=autoscaling/v1

kubectl explain pod.spec.nonsense

kubectl explain nonsense

kubectl explain ingress.spec.rules.http --output=plaintext-openapiv2

kubectl explain crd.spec.versions.schema.openAPIV3Schema

kubectl explain secret.data

kubectl explain service.spec.ports.targetPort

kubectl get --raw /apis/apps

kubectl get --raw /apis/apps/v1

kubectl get --raw /api/v1

kubectl get --raw /apis/absent.example.com

kubectl get --raw /openapi/v3 | sed 's/hash=[0-9A-F]*/hash=HASH/g' | tr ',' '\n'

kubectl get --raw /openapi/v3/apis/batch/v1

kubectl get --raw /openapi/v3/apis/absent/v1

kubectl get --raw /openapi/v2 | cut -c -300

# differs: the embedded server has no metrics
kubectl get --raw /metrics | grep -c 'apiserver_request_total{' | sed 's/[1-9][0-9]*/N/'

# differs: the embedded server has no table for them
kubectl get componentstatuses 2>&1 | sed 's/  */ /g; s/:[0-9]*:/PORT/g; s/\(Healthy\|Unhealthy\).*/H/'

kubectl completion bash | head -1

kubectl config view --minify -o jsonpath='{.contexts[0].name}' | wc -l

kubectl config current-context | wc -l

kubectl config set-context other --namespace=kube-system --cluster=x --user=y

kubectl config use-context absent

kubectl plugin list

kubectl options | head -2

kubectl kustomize absent
