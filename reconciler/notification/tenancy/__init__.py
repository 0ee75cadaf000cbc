"""Restrictions of namespaces: policies, their rates and quotas, and credentials from Secrets of a namespace."""
