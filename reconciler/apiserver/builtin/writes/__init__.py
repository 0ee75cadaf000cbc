"""Writes of built-in objects: preparing the document, and checking what no rule expresses."""
