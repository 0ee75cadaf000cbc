"""Stored objects: wire bytes, indexes, own writes."""
