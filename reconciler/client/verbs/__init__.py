"""The verbs of the client."""
