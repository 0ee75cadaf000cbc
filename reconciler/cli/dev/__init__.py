"""The command ``reconciler dev``: a server, and an operator that restarts when a file changes."""
