"""Sharding: the share of the objects that a replica reconciles."""
