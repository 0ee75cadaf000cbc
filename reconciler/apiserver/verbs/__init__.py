"""The verbs: read, write, delete, apply, watch."""
