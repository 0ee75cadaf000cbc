# The columns of all built-in kinds, and the contents of an object of each with its defaults and owners.
# differs: the embedded server does not warn about the contents of Services and CSIDrivers
kubectl create -f $SCRIPTS/tables.yaml

kubectl create -f $SCRIPTS/tables-of-controllers.yaml

kubectl get -f $SCRIPTS/tables.yaml -o wide

kubectl get -f $SCRIPTS/tables.yaml -o yaml --show-managed-fields

kubectl get -f $SCRIPTS/tables.yaml --show-kind

kubectl get pv/table -o wide

kubectl get pvc -o wide

kubectl get vac table

# differs: a controller in the real server sets this status
kubectl get flowschema/table -o wide

kubectl get apiservice/v1.table.example.com -o wide

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl get pv/table pvc/table vac/table -o yaml --show-managed-fields

kubectl get flowschemas,apiservices -o name | grep table

kubectl delete -f $SCRIPTS/tables.yaml --wait=false
