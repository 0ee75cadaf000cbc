"""Stored objects, their versions, and the kinds that are served."""
