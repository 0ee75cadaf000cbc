# apply on both sides, and its relatives.
cat > web.yaml <<EOF
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports: [{containerPort: 80}]
EOF
kubectl apply -f web.yaml

kubectl apply -f web.yaml

kubectl diff -f web.yaml

sed 's/replicas: 2/replicas: 3/; s/nginx:1.27/nginx:1.28/' web.yaml > changed.yaml; kubectl diff -f changed.yaml | grep -v '^\(diff\|---\|+++\)'

kubectl apply -f changed.yaml --dry-run=server

kubectl apply -f changed.yaml --dry-run=client

kubectl apply -f changed.yaml

kubectl apply view-last-applied deployment/web

kubectl get deployment web -o yaml --show-managed-fields

kubectl apply set-last-applied -f web.yaml

kubectl apply set-last-applied -f web.yaml -o yaml --dry-run=server

EDITOR="sed -i s/replicas:.2/replicas:\ 5/" kubectl apply edit-last-applied deployment/web

kubectl scale deployment web --replicas=7; kubectl apply -f web.yaml; kubectl get deployment web -o jsonpath='{.spec.replicas}'

kubectl apply --server-side -f web.yaml

kubectl apply --server-side -f web.yaml --force-conflicts

kubectl get deployment web -o yaml --show-managed-fields

kubectl apply --server-side --field-manager=other -f changed.yaml

kubectl apply --server-side --field-manager=other --force-conflicts -f changed.yaml

kubectl apply -f web.yaml

kubectl get deployment web -o yaml --show-managed-fields

kubectl apply --server-side --dry-run=server --force-conflicts -f web.yaml

kubectl diff --server-side --force-conflicts -f web.yaml | grep -v '^\(diff\|---\|+++\)'

kubectl apply --server-side -f web.yaml --dry-run=client

cat > all.yaml <<EOF
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: one, labels: {set: x}}
  data: {a: "1"}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: two, labels: {set: x}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, labels: {set: x}}
  spec: {ports: [{port: 80}], clusterIP: 10.0.0.80}
EOF
kubectl apply -f all.yaml

kubectl apply -f all.yaml

kubectl apply -f all.yaml --server-side

kubectl apply -f all.yaml -o name

kubectl apply --prune -l set=x -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: one, labels: {set: x}}
data: {a: "2"}
EOF

kubectl get cm,svc -l set=x -o name

kubectl apply --prune --all --prune-allowlist=core/v1/ConfigMap -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: three}
EOF

KUBECTL_APPLYSET=true kubectl apply --prune --applyset=group -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: four}
EOF

kubectl get secret group -o yaml

KUBECTL_APPLYSET=true kubectl apply --prune --applyset=group -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: five}
EOF

kubectl create configmap unsaved --from-literal=a=b; kubectl get cm unsaved -o yaml | kubectl apply -f -

kubectl apply -f - <<EOF
apiVersion: v1
kind: Service
metadata: {name: ports}
spec:
  clusterIP: 10.0.0.81
  ports: [{name: a, port: 80}, {name: b, port: 81}]
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: Service
metadata: {name: ports}
spec:
  clusterIP: 10.0.0.81
  ports: [{name: b, port: 82}]
EOF

kubectl get service ports -o yaml

kubectl apply -f - <<EOF
apiVersion: v1
kind: Service
metadata: {name: ports}
spec: {clusterIP: 10.0.0.99, ports: [{name: b, port: 82}]}
EOF

kubectl apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: "nginx:1.27"}]}
EOF

mkdir directory; cp all.yaml directory/b.yaml; cp web.yaml directory/a.yaml; kubectl apply -f directory

cat > kustomization.yaml <<EOF
resources: [web.yaml]
namePrefix: my-
images: [{name: nginx, newTag: "1.29"}]
EOF
kubectl apply -k .

kubectl replace -f web.yaml

kubectl replace --force -f web.yaml

kubectl replace -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: absent}
EOF

kubectl delete -f directory

kubectl delete -f all.yaml --ignore-not-found
