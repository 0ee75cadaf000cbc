"""Routing of requests that name no channels, by Alertmanager's routing tree from a file or a ConfigMap."""
