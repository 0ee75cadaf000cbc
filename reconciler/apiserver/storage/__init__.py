"""Stored objects, their versions and history, and the registry of served kinds."""
