"""What a write of a built-in object does: preparing the document, and checking what no rule expresses."""
