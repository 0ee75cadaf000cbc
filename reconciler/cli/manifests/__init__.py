"""The commands ``reconciler crd`` and ``reconciler manifests``: definitions, roles, and a kustomize base of both."""
