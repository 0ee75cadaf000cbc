"""RBAC rules that a reconciler declares and needs."""
