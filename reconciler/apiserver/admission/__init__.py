"""Admission of writes: webhooks, how they are called and what their responses mean, and policies."""
