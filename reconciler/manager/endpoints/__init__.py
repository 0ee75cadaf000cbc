"""HTTP endpoints: health, readiness, metrics."""
