# Users, rights, tokens, certificates.
kubectl auth can-i create pods

# differs: the embedded server has one user, who may do everything
kubectl auth can-i --list

kubectl auth can-i get nonsense

# differs: the embedded server has one user, who may do everything
kubectl auth can-i delete nodes --as=someone

# differs: the embedded server has one user, who may do everything
kubectl auth can-i get pods --as=system:serviceaccount:access:robot

# differs: the embedded server has one user, who may do everything
kubectl auth whoami

# differs: the embedded server has one user, who may do everything
kubectl auth whoami --as=someone --as-group=people

# differs: the embedded server has one user, who may do everything
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

# differs: the objects that the real server creates for itself
kubectl get clusterroles -o name

# differs: the objects that the real server creates for itself
kubectl get clusterrolebindings -o wide

# differs: the embedded server issues no tokens
kubectl create serviceaccount robot; kubectl create token robot --duration=1h | grep -c '\..*\.'

# differs: the embedded server issues no tokens
kubectl create token robot --duration=1s

# differs: the embedded server issues no tokens
kubectl create token robot --audience=me -o jsonpath='{.spec.audiences}'

# differs: the embedded server does not check or sign certificate requests
kubectl apply -f - <<EOF
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: someone}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIS01ISUNBUUF3RURFT01Bd0dBMVVFQXd3RmRYTmxjakV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQgpCd05DQUFTRmd5YzFtY2FNRXpQZVBOOW5Ga1dhUFNqL3I0T3FpVU82S2hMT2JjT1U5ZFlZajVJbUJBbG5zZFQ3ClNKbEY5ZjRnTlZ0M3pMb0ZqOTBkM1hxUW9BQXdDZ1lJS29aSXpqMEVBd0lEU0FBd1JRSWhBTT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
EOF

# differs: the embedded server does not check or sign certificate requests
kubectl get csr

# differs: the embedded server does not check or sign certificate requests
kubectl certificate approve someone

kubectl certificate deny absent

# differs: the embedded server does not check or sign certificate requests
kubectl get csr someone -o wide
