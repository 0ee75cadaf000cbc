"""Redaction of secrets in texts, and of characters that a text must not bring along."""
