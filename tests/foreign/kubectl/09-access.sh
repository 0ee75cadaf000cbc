# Users, rights, tokens.
kubectl auth can-i create pods

kubectl auth can-i --list

kubectl auth can-i get nonsense

kubectl auth can-i delete nodes --as=someone

kubectl auth can-i get pods --as=system:serviceaccount:access:robot

# differs: the administrators of the servers have other names
kubectl auth whoami

kubectl auth whoami --as=someone --as-group=people

kubectl get pods --as=someone

kubectl auth reconcile -f - <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
EOF

kubectl auth reconcile -f - <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
EOF

kubectl get role reader -o yaml

kubectl get clusterroles -l kubernetes.io/bootstrapping=rbac-defaults -o name

kubectl get clusterrolebindings -l kubernetes.io/bootstrapping=rbac-defaults -o wide

kubectl create serviceaccount robot; kubectl create token robot --duration=1h | grep -c '\..*\.'

kubectl create token robot --duration=1s

kubectl create token robot --audience=me -o jsonpath='{.spec.audiences}'
