"""The HTTP endpoints of a manager: health, readiness, metrics and the debug view of the queues."""
