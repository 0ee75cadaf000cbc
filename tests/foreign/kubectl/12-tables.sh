# The columns of all built-in kinds, and the contents of an object of each with its defaults and owners.
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

kubectl get pod table -o yaml --show-managed-fields

kubectl get podtemplate table -o yaml --show-managed-fields

kubectl get replicationcontroller table -o yaml --show-managed-fields

kubectl get replicaset.v1.apps table -o yaml --show-managed-fields

kubectl get statefulset.v1.apps table -o yaml --show-managed-fields

kubectl get daemonset.v1.apps table -o yaml --show-managed-fields

kubectl get controllerrevision.v1.apps table -o yaml --show-managed-fields

kubectl get job.v1.batch table -o yaml --show-managed-fields

kubectl get cronjob.v1.batch table -o yaml --show-managed-fields

kubectl get endpoints table -o yaml --show-managed-fields

kubectl get endpointslice.v1.discovery.k8s.io table -o yaml --show-managed-fields

kubectl get ingress.v1.networking.k8s.io table -o yaml --show-managed-fields

kubectl get ingressclass.v1.networking.k8s.io table -o yaml --show-managed-fields

kubectl get networkpolicy.v1.networking.k8s.io table -o yaml --show-managed-fields

kubectl get ipaddress.v1.networking.k8s.io 10.0.0.201 -o yaml --show-managed-fields

kubectl get servicecidr.v1.networking.k8s.io table -o yaml --show-managed-fields

kubectl get poddisruptionbudget.v1.policy table -o yaml --show-managed-fields

kubectl get horizontalpodautoscaler.v2.autoscaling table -o yaml --show-managed-fields

kubectl get serviceaccount table -o yaml --show-managed-fields

kubectl get secret table -o yaml --show-managed-fields

kubectl get configmap table -o yaml --show-managed-fields

kubectl get limitrange table -o yaml --show-managed-fields

kubectl get resourcequota table -o yaml --show-managed-fields

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl get persistentvolume table -o yaml --show-managed-fields

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl get persistentvolumeclaim table -o yaml --show-managed-fields

kubectl get service table -o yaml --show-managed-fields

kubectl get service table-balanced -o yaml --show-managed-fields

kubectl get service table-headless -o yaml --show-managed-fields

kubectl get role.v1.rbac.authorization.k8s.io table -o yaml --show-managed-fields

kubectl get rolebinding.v1.rbac.authorization.k8s.io table -o yaml --show-managed-fields

kubectl get clusterrole.v1.rbac.authorization.k8s.io table -o yaml --show-managed-fields

kubectl get clusterrolebinding.v1.rbac.authorization.k8s.io table -o yaml --show-managed-fields

kubectl get storageclass.v1.storage.k8s.io table -o yaml --show-managed-fields

kubectl get csidriver.v1.storage.k8s.io table -o yaml --show-managed-fields

kubectl get csinode.v1.storage.k8s.io table -o yaml --show-managed-fields

kubectl get csistoragecapacity.v1.storage.k8s.io table -o yaml --show-managed-fields

kubectl get volumeattachment.v1.storage.k8s.io table -o yaml --show-managed-fields

# differs: the embedded server does not protect volumes in use, because no controller would end the protection
kubectl get volumeattributesclass.v1.storage.k8s.io table -o yaml --show-managed-fields

kubectl get priorityclass.v1.scheduling.k8s.io table -o yaml --show-managed-fields

kubectl get runtimeclass.v1.node.k8s.io table -o yaml --show-managed-fields

kubectl get lease.v1.coordination.k8s.io table -o yaml --show-managed-fields

kubectl get validatingadmissionpolicy.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get validatingadmissionpolicybinding.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get mutatingadmissionpolicy.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get mutatingadmissionpolicybinding.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get validatingwebhookconfiguration.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get mutatingwebhookconfiguration.v1.admissionregistration.k8s.io table -o yaml --show-managed-fields

kubectl get deviceclass.v1.resource.k8s.io table -o yaml --show-managed-fields

kubectl get resourceclaim.v1.resource.k8s.io table -o yaml --show-managed-fields

kubectl get resourceclaimtemplate.v1.resource.k8s.io table -o yaml --show-managed-fields

kubectl get resourceslice.v1.resource.k8s.io table -o yaml --show-managed-fields

# differs: a controller in the real server sets this status
kubectl get flowschema.v1.flowcontrol.apiserver.k8s.io table -o yaml --show-managed-fields

kubectl get prioritylevelconfiguration.v1.flowcontrol.apiserver.k8s.io table -o yaml --show-managed-fields

# differs: a controller in the real server sets this status
kubectl get apiservice.v1.apiregistration.k8s.io v1.table.example.com -o yaml --show-managed-fields

kubectl get event table -o yaml --show-managed-fields
