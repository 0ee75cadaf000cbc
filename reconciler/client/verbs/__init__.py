"""The verbs of `Client`, as functions over its session."""
