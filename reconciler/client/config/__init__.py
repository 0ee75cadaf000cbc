"""Client configuration: kubeconfig, in-cluster, credentials."""
