# The generators of create.
kubectl create namespace created

kubectl create namespace created

kubectl create namespace Bad_Name

kubectl create configmap settings --from-literal=color=red --from-literal=size=3

kubectl create configmap settings --from-literal=color=red

kubectl create configmap dry --from-literal=color=red --dry-run=client -o yaml

kubectl create configmap dry --from-literal=color=red --dry-run=server -o yaml

kubectl create secret generic password --from-literal=password=secret

kubectl create secret docker-registry registry --docker-server=example.com --docker-username=me --docker-password=secret

kubectl create secret tls nothing --cert=absent.crt --key=absent.key

kubectl create deployment web --image=nginx:1.27 --replicas=2 --port=80

kubectl create deployment dry --image=nginx:1.27 --dry-run=server -o yaml

kubectl create deployment dry --image=nginx:1.27 --dry-run=client -o yaml

kubectl create job once --image=busybox:1.36 -- echo hello

kubectl create cronjob nightly --image=busybox:1.36 --schedule='0 3 * * *'

kubectl create cronjob bad --image=busybox:1.36 --schedule='whenever'

kubectl create job again --from=cronjob/nightly

kubectl get job again -o jsonpath='{.metadata.annotations}{.metadata.ownerReferences[0].kind}{"\n"}'

kubectl create service clusterip web --tcp=80:8080 --clusterip=10.0.0.78

kubectl create service nodeport node --tcp=80 --node-port=30123

kubectl create service loadbalancer balanced --tcp=80

kubectl create service externalname outside --external-name=example.com

kubectl get service node,outside -o wide

kubectl create service nodeport taken --tcp=80 --node-port=30123

kubectl create service clusterip taken --tcp=80 --clusterip=10.0.0.78

kubectl create ingress web --rule='example.com/*=web:80'

kubectl create poddisruptionbudget web --selector=app=web --min-available=1

kubectl create quota limited --hard=pods=10,services=5

kubectl create priorityclass created-high --value=1000 --description='quite high'

kubectl create serviceaccount robot

kubectl create role reader --verb=get,list --resource=pods

kubectl create role reader2 --verb=get --resource=nonsense

kubectl create rolebinding reader --role=reader --serviceaccount=create:robot

kubectl create clusterrole created-reader --verb=get --resource=nodes --non-resource-url=/metrics

kubectl create clusterrole created-url --verb=get --non-resource-url=/metrics

kubectl create clusterrolebinding created-reader --clusterrole=created-url --user=someone

kubectl create token robot >/dev/null

kubectl create token absent

kubectl create -f - --edit=false -o name <<EOF
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-json"}}
EOF

kubectl create -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {generateName: drawn-}
EOF

kubectl create -f absent.yaml

kubectl create -f - <<EOF
EOF

kubectl create --raw /api/v1/namespaces/create/configmaps -f - <<EOF | python3 -m json.tool --sort-keys
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "raw"}}
EOF

kubectl create --save-config -o yaml -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: saved}
data: {a: b}
EOF

kubectl expose deployment web --port=80 --target-port=8080 --name=exposed --cluster-ip=10.0.0.79

kubectl expose deployment web --name=second --type=NodePort --dry-run=server

kubectl expose deployment absent --port=80

kubectl run once --image=busybox:1.36 --restart=Never -- sleep 1

kubectl run again --image=busybox:1.36 --env=A=b --labels=app=again --port=80

kubectl run Bad_Name --image=busybox:1.36

kubectl run dry --image=busybox:1.36 --dry-run=client -o yaml

kubectl run dry --image=busybox:1.36 --dry-run=server -o yaml

kubectl autoscale deployment web --min=2 --max=5 --cpu=80%

kubectl get hpa

kubectl autoscale deployment absent --max=5
