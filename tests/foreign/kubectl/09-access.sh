# Users, rights, tokens, certificates.
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

kubectl apply -f - <<EOF
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: someone}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITE1IUUNBUUF3RWpFUU1BNEdBMVVFQXd3SGMyOXRaVzl1WlRCWk1CTUdCeXFHU000OUFnRUdDQ3FHU000OQpBd0VIQTBJQUJHd3BrdVRtMWw0T3cxTmFwSUxscExxV1MxWGJRMDF3WkMrZWxRcVV1OGExdnJTY1dFUlYva2F0ClNRZjZsa0V5RTJBUVNNNzg1eDVXdlBSdWIrTzI4bGlnQURBS0JnZ3Foa2pPUFFRREFnTkhBREJFQWlCYjFrL1IKQWM5UlZBUGl0bjkvalFKVDYyMUF4NHl3d0JsbjVncmN5ZklJMGdJZ01MalcvWXRveWtaL2J5QkVsaURkZnVqWQpxYm5pWVRFSnVHYUxmalBZK1FzPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
EOF

kubectl get csr

kubectl certificate approve someone

kubectl certificate deny absent

kubectl get csr someone -o wide

kubectl certificate approve someone

kubectl certificate deny someone

kubectl get csr someone -o yaml | grep -v ' uid:'

kubectl describe csr someone
