"""Decoding of requests: routing, bodies, selectors, metadata."""
