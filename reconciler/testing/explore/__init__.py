"""Exploration of an operator's states: drawn objects of a kind."""

from reconciler.testing.explore.strategies import objects

__all__ = ["objects"]
