# Objects in all output forms.
kubectl create -f - <<EOF
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: settings, labels: {app: web}}
  data: {color: red, file.txt: "one\ntwo\n"}
- apiVersion: v1
  kind: Secret
  metadata: {name: password, labels: {app: web}}
  stringData: {password: secret}
- apiVersion: v1
  kind: Service
  metadata: {name: web, labels: {app: web}}
  spec:
    clusterIP: 10.0.0.77
    selector: {app: web}
    ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443}]
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, labels: {app: web}}
  spec:
    replicas: 2
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec:
        containers:
        - name: web
          image: nginx:1.27
          ports: [{containerPort: 8080}]
          env: [{name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}]
          resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: "1"}}
          readinessProbe: {httpGet: {path: /ready, port: 8080}}
EOF

kubectl create -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: lonely, labels: {app: alone}}
spec:
  containers: [{name: main, image: "busybox:1.36", command: [sleep, "3600"]}]
  initContainers: [{name: prepare, image: "busybox:1.36"}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: fast}
EOF

kubectl get configmaps

kubectl get cm settings -o yaml

kubectl get cm settings -o json

kubectl get secret password -o yaml

kubectl get deployment web -o yaml

kubectl get pod lonely -o yaml

kubectl get pod lonely -o json

kubectl get service web -o yaml

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl get pvc disk -o yaml

kubectl get sa robot -o yaml

kubectl get deployments,services -o wide

kubectl get all

kubectl get all -A

kubectl get deployments,services,configmaps -l app=web -o name

kubectl get pods --field-selector metadata.name=lonely

kubectl get pods --field-selector spec.restartPolicy=Never

kubectl get pods --field-selector spec.containers=x

kubectl get pods -l 'app in (alone, web)' --show-labels

kubectl get pods -L app --no-headers

kubectl get pods --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image

kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}{"\n"}'

kubectl get deployment web -o go-template='{{.spec.replicas}}{{"\n"}}'

kubectl get pods,services -o jsonpath='{range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}'

kubectl get pods nothing

kubectl get pods nothing --ignore-not-found

kubectl get pods -n absent

kubectl get nonsense

kubectl get nonsense.example.com

kubectl get deployments.v1.apps web

kubectl get deployments.v1beta1.apps web

kubectl get pods lonely --output-watch-events --watch --request-timeout=3s -o name

kubectl get --raw /api/v1/namespaces/read/configmaps/settings | python3 -m json.tool --sort-keys

kubectl get --raw /healthz

kubectl get --raw /readyz/ping

kubectl get --raw '/livez?verbose'

# differs: the version is that of the embedded server
kubectl get --raw /version

# differs: the embedded server lists fewer paths
kubectl get --raw /

kubectl get --raw /api

kubectl get --raw /apis

kubectl get --raw /absent

kubectl get pods lonely -o yaml --show-managed-fields

kubectl get pods --chunk-size=1

kubectl get namespaces default read

kubectl get events

kubectl get -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
EOF

kubectl get pods lonely --subresource=status

kubectl get deployment web --subresource=scale

kubectl get deployment web --subresource=scale -o yaml

kubectl get configmaps -o yaml

kubectl get services kubernetes -n default

kubectl get endpoints,endpointslices -n default

kubectl get pods --server-print=false

kubectl get pods lonely -o kyaml
