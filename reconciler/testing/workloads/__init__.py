"""Stand-ins for the cluster's own controllers: Deployments, StatefulSets, DaemonSets, Jobs and their pods.

They are controllers of this library, and clients of a server like any other. Their status is that of
kube-controller-manager 1.36; their pods run without nodes.
"""
