"""Structural schemas: pruning, defaulting, validation, formats and names."""
