# Invalid manifests and unknown kinds.
kubectl apply -f - <<EOF
apiVersion: example.com/v1
kind: Widget
metadata: {name: a}
EOF

kubectl create -f - <<EOF
apiVersion: v1
kind: Nonsense
metadata: {name: a}
EOF

kubectl apply -f - <<EOF
apiVersion: apps/v1beta1
kind: Deployment
metadata: {name: a}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: good}}
- {apiVersion: example.com/v1, kind: Widget, metadata: {name: a}}
EOF

kubectl apply -f - <<EOF
kind: ConfigMap
metadata: {name: a}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
metadata: {name: a}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: other}
EOF

kubectl apply -n mistakes -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: other}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a
EOF

kubectl apply -f - <<EOF
just text
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
dta: {a: b}
EOF

kubectl apply --validate=warn -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
dta: {a: b}
EOF

kubectl apply --validate=false -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
dta: {a: b}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {a: 1}
EOF

kubectl apply --server-side -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {a: 1}
EOF

kubectl apply --server-side -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
dta: {}
EOF

kubectl apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: many
  selector: {matchLabels: {app: web}}
EOF

kubectl apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web}]}
EOF

kubectl apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: Bad_Name}
spec: {containers: [{name: a, image: a}]}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec: {restartPolicy: Sometimes, containers: [{name: A, image: ""}]}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: Service
metadata: {name: bad}
spec: {type: Nothing, ports: [{port: 99999}]}
EOF

kubectl apply -f - <<EOF
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bad}
spec: {rules: [{host: "*", http: {paths: [{path: x}]}}]}
EOF

kubectl create -f - <<EOF
apiVersion: v1
kind: Namespace
metadata: {name: default}
EOF

kubectl apply -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: labeled, labels: {"not a key": "x"}, annotations: {"also/not/a": b}}
EOF

kubectl apply -n absent -f - <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
EOF

kubectl create configmap nowhere -n absent

kubectl frobnicate

kubectl get pods --nonsense

kubectl get

kubectl patch pod
