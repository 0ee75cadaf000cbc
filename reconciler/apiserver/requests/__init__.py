"""Reading requests: routing, bodies, selectors, metadata."""
