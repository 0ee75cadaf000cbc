"""Observers of status changes: Events, metrics and the audit log."""
