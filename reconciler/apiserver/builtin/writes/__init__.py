"""The writes of built-in objects: how a document is completed, and the checks that no rule expresses."""
