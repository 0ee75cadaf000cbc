"""Subresources with documents of their own (scale, eviction, binding), and reviews."""
