"""Redaction of secrets, and of characters that could forge or hide text."""
