"""The rules of the built-in kinds: a table, ``rules.txt``, and its interpreter."""
