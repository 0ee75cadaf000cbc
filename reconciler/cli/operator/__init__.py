"""The operator that ``explain`` and ``top`` ask: an endpoint, or a port of its pod that is forwarded."""
