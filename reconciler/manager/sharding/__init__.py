"""Sharding: several active replicas, each of which reconciles a part of the objects."""
