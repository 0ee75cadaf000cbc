# Custom kinds.
kubectl apply -f - <<EOF
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shirts.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: shirts, singular: shirt, kind: Shirt, shortNames: [sh], categories: [all, clothes]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.count, statusReplicasPath: .status.count}}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color, description: The color.}
    - {name: Count, type: integer, jsonPath: .spec.count}
    - {name: Detail, type: string, jsonPath: .spec.detail, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A Shirt is worn.
        required: [spec]
        properties:
          spec:
            type: object
            description: What it is like.
            required: [color]
            x-kubernetes-validations: [{rule: "self.count < 100", message: too many}]
            properties:
              color: {type: string, enum: [red, blue], description: Its color.}
              count: {type: integer, minimum: 0, default: 1}
              detail: {type: string}
              sizes: {type: array, items: {type: object, required: [name], properties: {name: {type: string}}}, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name]}
          status: {type: object, properties: {count: {type: integer}, ready: {type: boolean}}}
EOF

kubectl wait crd/shirts.example.com --for=condition=Established --timeout=30s; until kubectl explain shirt.spec && kubectl explain shirt.spec --output=plaintext-openapiv2; do sleep 0.1; done >/dev/null 2>&1

kubectl get crd shirts.example.com

kubectl apply -f - <<EOF
apiVersion: example.com/v1
kind: Shirt
metadata: {name: a}
spec: {color: red, detail: striped}
EOF

kubectl apply -f - <<EOF
apiVersion: example.com/v1
kind: Shirt
metadata: {name: b}
spec: {color: red, count: -1}
EOF

kubectl apply -f - <<EOF
apiVersion: example.com/v1
kind: Shirt
metadata: {name: b}
spec: {colour: red}
EOF

kubectl get shirts

kubectl get sh -o wide

kubectl get clothes

kubectl get shirt a -o yaml

kubectl describe shirt a

kubectl scale shirt a --replicas=3

kubectl patch shirt a --type=merge -p '{"spec": {"color": "blue"}}'

kubectl patch shirt a -p '{"spec": {"color": "blue"}}'

kubectl patch shirt a --subresource=status --type=merge -p '{"status": {"ready": true}}'

kubectl get shirt a -o yaml --show-managed-fields

kubectl label shirt a team=x

kubectl explain shirt

kubectl explain shirt.spec

kubectl explain shirt --recursive

kubectl explain shirt.spec --output=plaintext-openapiv2

kubectl api-resources --api-group=example.com -o wide

kubectl apply --server-side -f - <<EOF
apiVersion: example.com/v1
kind: Shirt
metadata: {name: a}
spec: {color: red, sizes: [{name: s}, {name: m}]}
EOF

kubectl apply --server-side --field-manager=third -f - <<EOF
apiVersion: example.com/v1
kind: Shirt
metadata: {name: a}
spec: {color: blue, sizes: [{name: l}]}
EOF

kubectl diff -f - <<EOF | grep -v '^\(diff\|---\|+++\)'
apiVersion: example.com/v1
kind: Shirt
metadata: {name: a}
spec: {color: blue}
EOF

kubectl get shirt absent

kubectl delete shirts --all

kubectl get --raw /openapi/v3/apis/example.com/v1 | python3 -m json.tool --sort-keys

kubectl describe crd shirts.example.com

kubectl delete crd shirts.example.com; while kubectl get --raw /apis/example.com/v1; do sleep 0.1; done >/dev/null 2>&1

kubectl get shirts
