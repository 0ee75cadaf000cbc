"""Alerts in: the webhooks of Alertmanager and Grafana become NotificationRequests."""
