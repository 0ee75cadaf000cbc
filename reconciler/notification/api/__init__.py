"""The NotificationRequest kind: spec, status, summary."""
