"""Structural schemas: pruning, defaults, validation, formats."""
