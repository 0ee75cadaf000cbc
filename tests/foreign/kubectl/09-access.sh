# Users, rights, tokens, certificates.
kubectl auth can-i create pods

kubectl auth can-i --list

kubectl auth can-i get nonsense

kubectl auth can-i delete nodes --as=someone

kubectl auth can-i get pods --as=system:serviceaccount:access:robot

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

kubectl get clusterroles -o name

kubectl get clusterrolebindings -o wide

kubectl create serviceaccount robot; kubectl create token robot --duration=1h | grep -c '\..*\.'

kubectl create token robot --duration=1s

kubectl create token robot --audience=me -o jsonpath='{.spec.audiences}'

kubectl apply -f - <<EOF
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: someone}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIS01ISUNBUUF3RURFT01Bd0dBMVVFQXd3RmRYTmxjakV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQgpCd05DQUFTRmd5YzFtY2FNRXpQZVBOOW5Ga1dhUFNqL3I0T3FpVU82S2hMT2JjT1U5ZFlZajVJbUJBbG5zZFQ3ClNKbEY5ZjRnTlZ0M3pMb0ZqOTBkM1hxUW9BQXdDZ1lJS29aSXpqMEVBd0lEU0FBd1JRSWhBTT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
EOF

kubectl get csr

kubectl certificate approve someone

kubectl certificate deny absent

kubectl get csr someone -o wide
