"""The language check: ``python -m tests.prose [PATH ...]`` reports wording that docs and code should not use."""
