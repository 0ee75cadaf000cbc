"""The NotificationRequest kind."""
