"""Admission webhooks: which of them a write calls, how they are called, and what their responses mean."""
