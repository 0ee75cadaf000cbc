# The columns of all built-in kinds.
# differs: the embedded server does not warn about the contents of Services and CSIDrivers
kubectl create -f $SCRIPTS/tables.yaml

kubectl get pods -o wide

kubectl get podtemplates -o wide

kubectl get replicationcontrollers -o wide

kubectl get replicasets -o wide

kubectl get statefulsets -o wide

kubectl get daemonsets -o wide

kubectl get controllerrevisions -o wide

kubectl get jobs -o wide

kubectl get cronjobs -o wide

kubectl get endpoints -o wide

kubectl get endpointslices -o wide

kubectl get ingresses -o wide

kubectl get ingressclass/table -o wide

kubectl get networkpolicies -o wide

kubectl get ipaddress/10.0.0.201 -o wide

kubectl get servicecidr/table -o wide

kubectl get poddisruptionbudgets -o wide

kubectl get hpa -o wide

kubectl get serviceaccounts -o wide

kubectl get secrets -o wide

kubectl get configmaps -o wide

kubectl get limitranges -o wide

kubectl get resourcequotas -o wide

kubectl get pv/table -o wide

kubectl get pvc -o wide

kubectl get services -o wide

kubectl get roles -o wide

kubectl get rolebindings -o wide

kubectl get clusterrole/table -o wide

kubectl get clusterrolebinding/table -o wide

kubectl get sc/table -o wide

kubectl get csidriver/table -o wide

kubectl get csinode/table -o wide

kubectl get csistoragecapacities -o wide

kubectl get volumeattachment/table -o wide

kubectl get vac/table -o wide

kubectl get priorityclass/table -o wide

kubectl get runtimeclass/table -o wide

kubectl get leases -o wide

kubectl get validatingadmissionpolicy/table -o wide

kubectl get validatingadmissionpolicybinding/table -o wide

kubectl get mutatingadmissionpolicy/table -o wide

kubectl get mutatingadmissionpolicybinding/table -o wide

kubectl get validatingwebhookconfiguration/table -o wide

kubectl get mutatingwebhookconfiguration/table -o wide

kubectl get deviceclass/table -o wide

kubectl get resourceclaims -o wide

kubectl get resourceclaimtemplates -o wide

kubectl get resourceslice/table -o wide

# differs: a controller in the real server sets this status
kubectl get flowschema/table -o wide

kubectl get prioritylevelconfiguration/table -o wide

# differs: a controller in the real server sets this status
kubectl get apiservice/v1.table.example.com -o wide

kubectl get events -o wide
